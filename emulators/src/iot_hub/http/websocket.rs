//! MQTT over WebSocket, at `/$iothub/websocket`, subprotocol `mqtt`. Binary frames carry MQTT's bytes; where a frame ends
//! means nothing. Whatever is in the query is ignored (`?iothub-no-client-cert=true`).

use std::{future::ready, io, sync::Arc};

use axum::{
    Extension, Router,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{Connection, error::Failure};
use crate::iot_hub::{connection, hub::Hub, received::Transport};

/// WebSockets served at a time.
const MAX_WEBSOCKETS: usize = 20_000;

/// Largest WebSocket message, in bytes. Clients put one MQTT packet into each, or as many as fit their buffers.
const MAX_MESSAGE: usize = 1024 * 1024;

#[derive(Clone)]
struct Server {
    hub: Arc<Hub>,
    free: Arc<Semaphore>,
}

pub fn router(hub: Arc<Hub>) -> Router {
    let server = Server { hub, free: Arc::new(Semaphore::new(MAX_WEBSOCKETS)) };
    Router::new().route("/$iothub/websocket", get(upgrade)).with_state(server)
}

async fn upgrade(
    State(server): State<Server>,
    Extension(connection): Extension<Connection>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.protocols(["mqtt"]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    if upgrade.selected_protocol().is_none() {
        return Failure::bad_request("the WebSocket subprotocol is not mqtt").into_response();
    }
    let Ok(place) = server.free.try_acquire_owned() else {
        return Failure::unavailable("too many WebSockets are open").into_response();
    };
    upgrade.on_upgrade(async move |socket| {
        connection::serve(&server.hub, byte_stream(socket), connection.peer, Transport::MqttWs).await;
        drop(place);
    })
}

/// The bytes in a WebSocket's binary messages, both ways.
fn byte_stream(socket: WebSocket) -> impl AsyncRead + AsyncWrite + Unpin + Send {
    let (sink, stream) = socket.split();
    let read = stream.filter_map(|message| {
        ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a text frame"))),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let write = sink.sink_map_err(io::Error::other).with(|bytes: Bytes| ready(io::Result::Ok(Message::Binary(bytes))));
    tokio::io::join(StreamReader::new(read), SinkWriter::new(CopyToBytes::new(write)))
}
