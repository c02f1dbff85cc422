//! MQTT over WebSocket, at `/$iothub/websocket`, subprotocol `mqtt`. Binary frames carry MQTT's bytes; the ends of
//! frames have no meaning. The query is ignored (`?iothub-no-client-cert=true`).

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
use futures::{Sink, SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{Connection, error::Failure};
use crate::iot_hub::{connection, hub::Hub, received::Transport};

/// The most WebSockets served at the same time.
const MAX_WEBSOCKETS: usize = 20_000;

/// Largest WebSocket message, in bytes. Clients put one MQTT packet into a message, or as many as fit their buffers.
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

/// The bytes of a WebSocket's binary messages, in both directions.
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
    tokio::io::join(StreamReader::new(read), writer(sink))
}

/// Writes bytes as binary messages.
fn writer(sink: impl Sink<Message, Error = axum::Error> + Unpin + Send) -> impl AsyncWrite + Unpin + Send {
    // Not `sink_map_err`: it panics at the second error. A client that is gone fails twice, at the last answer and at
    // the end.
    let messages = sink.with(|bytes: Bytes| ready(Ok::<_, Failed>(Message::Binary(bytes))));
    SinkWriter::new(CopyToBytes::new(messages))
}

struct Failed(axum::Error);

impl From<axum::Error> for Failed {
    fn from(error: axum::Error) -> Self {
        Self(error)
    }
}

impl From<Failed> for io::Error {
    fn from(Failed(error): Failed) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// The sink of a client that has disconnected.
    struct Gone;

    impl Sink<Message> for Gone {
        type Error = axum::Error;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
            Poll::Ready(Err(axum::Error::new("gone")))
        }

        fn start_send(self: Pin<&mut Self>, _: Message) -> Result<(), axum::Error> {
            Err(axum::Error::new("gone"))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
            Poll::Ready(Err(axum::Error::new("gone")))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
            Poll::Ready(Err(axum::Error::new("gone")))
        }
    }

    #[tokio::test]
    async fn a_client_that_is_gone_may_be_written_to_and_left() {
        let mut stream = writer(Gone);
        for _ in 0..2 {
            assert_eq!(stream.write_all(b"answer").await.unwrap_err().to_string(), "gone");
            assert_eq!(stream.shutdown().await.unwrap_err().to_string(), "gone");
        }
    }
}
