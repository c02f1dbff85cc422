//! The HTTP server that the Functions host talks to: one route for each function, and the host's ping.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::Instrument as _;

use crate::{
    app::App,
    host::{self, Invocation},
};

/// The largest envelope that is read: a timer's has less than 1 KB.
const MAX_ENVELOPE: usize = 1024 * 1024;

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
        .route("/rapidM2MForwarding", post(rapidm2m_forwarding))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_ENVELOPE))
        .with_state(app)
}

/// The host takes any answer for a sign that the handler is ready.
async fn ready() -> Json<Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "status": "ready" }))
}

/// Reads the body first: a connection that is closed on unread bytes takes the answer with it.
async fn not_found(uri: axum::http::Uri, _body: Result<Bytes, BytesRejection>) -> Response {
    host::failed(StatusCode::NOT_FOUND, &format!("there is no function at {}", uri.path()), &json!([]))
}

async fn rapidm2m_forwarding(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return host::failed(rejection.status(), &rejection.body_text(), &json!([])),
    };
    let invocation = match Invocation::timer(&headers, &body) {
        Ok(invocation) => invocation,
        Err(error) => {
            let text = format!("the body is not the envelope of a timer's call: {error}");
            return host::failed(StatusCode::BAD_REQUEST, &text, &json!([]));
        }
    };
    let span = tracing::info_span!("invocation", invocation = %invocation.id);
    let summary = app.rapidm2m_forwarding.invoke().instrument(span).await;
    if summary.is_success() {
        host::succeeded(&[])
    } else {
        host::failed(StatusCode::INTERNAL_SERVER_ERROR, &summary.to_string(), &summary.failed())
    }
}
