//! The hub's HTTPS side: requests of devices, and MQTT over WebSocket.
//!
//! | Request | Answer |
//! |---|---|
//! | `POST /devices/{id}/messages/events` | 204: one message, or a batch of them |
//! | `GET /devices/{id}/messages/devicebound` | 204, or 200 with a message, locked |
//! | `DELETE /devices/{id}/messages/devicebound/{lock}`, with `?reject` | 204, or 412 without a lock |
//! | `POST /devices/{id}/messages/devicebound/{lock}/abandon` | the same |
//! | `GET /$iothub/websocket` | 101: MQTT follows |
//!
//! Every request but the last needs `api-version` and `Authorization`. `deviceBound`, as the C# SDK writes it, is
//! accepted too.
//!
//! Source: <https://learn.microsoft.com/rest/api/iothub/device>. Names of headers arrive in lower case, however the
//! client wrote them: HTTP ignores their case. The names of application properties are in headers, so they lose their
//! case too. A batch keeps it.

mod batch;
mod body;
mod device;
mod devicebound;
mod error;
mod events;
mod properties;
mod websocket;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::Uri,
    routing::{delete, get, post},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use self::error::Failure;
use super::hub::Hub;
use crate::door::Written;

/// How long a client may take for the head of a request, and how long a connection may be idle between two requests.
const HEAD: Duration = Duration::from_secs(120);

/// The most header lines of a request. Each application property of a message is one.
const MAX_HEADERS: usize = 512;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 128 * 1024;

/// The connection of a request. Every request has it as an extension.
#[derive(Clone)]
pub struct Connection {
    pub peer: SocketAddr,
    pub written: Written,
    cut: CancellationToken,
}

impl Connection {
    /// Ends the connection without an answer.
    pub async fn hang_up(&self) -> ! {
        self.cut.cancel();
        std::future::pending().await
    }
}

/// The hub's routes, with a fallback for all other paths. Other services bring routers without a fallback, to be merged
/// with this one.
pub fn router(hub: &Arc<Hub>) -> Router {
    let devices = Router::new()
        .route("/devices/{id}/messages/events", post(events::send))
        .route("/devices/{id}/messages/devicebound", get(devicebound::receive))
        .route("/devices/{id}/messages/deviceBound", get(devicebound::receive))
        .route("/devices/{id}/messages/devicebound/{lock}", delete(devicebound::delete))
        .route("/devices/{id}/messages/deviceBound/{lock}", delete(devicebound::delete))
        .route("/devices/{id}/messages/devicebound/{lock}/abandon", post(devicebound::abandon))
        .route("/devices/{id}/messages/deviceBound/{lock}/abandon", post(devicebound::abandon))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(hub), device::guard))
        .with_state(Arc::clone(hub));
    devices.merge(websocket::router(Arc::clone(hub))).fallback(async |uri: Uri| Failure::no_such_resource(uri.path()))
}

/// Serves a connection until it ends.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    router: Router,
    stream: S,
    peer: SocketAddr,
    written: Written,
) {
    let connection = Connection { peer, written, cut: CancellationToken::new() };
    let cut = connection.cut.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        hyper::service::Service::call(&router, request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(MAX_HEADERS).max_header_size(MAX_HEAD);
    let served = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        () = cut.cancelled() => tracing::info!(%peer, "hung up without an answer, as asked for"),
        ended = served => if let Err(error) = ended {
            tracing::info!(%peer, %error, "HTTP connection ended");
        }
    }
}
