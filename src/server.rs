//! The HTTP server that the Functions host talks to: one route for each function, and the host's ping.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    http::{StatusCode, Uri},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    app::App,
    functions::{rapidm2m_forwarding, status, things_network_forwarding, things_network_uplink},
    host::{self, envelope},
};

/// Serves until `shutdown` resolves.
///
/// # Errors
/// The listener fails.
pub async fn run(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(shutdown).await
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(ready))
        .route("/rapidM2MForwarding", post(rapidm2m_forwarding::call))
        .route("/thingsNetworkUplink", post(things_network_uplink::call))
        .route("/thingsNetworkForwarding", post(things_network_forwarding::call))
        .route("/status", post(status::call))
        .fallback(not_found)
        .with_state(app)
}

/// The host takes any answer for a sign that the handler is ready.
async fn ready() -> Json<Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "status": "ready" }))
}

async fn not_found(uri: Uri, body: Body) -> Response {
    let _ = envelope::read(body).await;
    host::failed(StatusCode::NOT_FOUND, &format!("there is no function at {}", uri.path()), &json!([]))
}
