//! Serves the HTTP requests of the Functions host: one route for each function, and the host's ping.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRef, Request},
    http::{HeaderMap, StatusCode, Uri},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    app::App,
    functions::{
        rapidm2m_forwarding, rapidm2m_sites, status, things_network_downlinks, things_network_forwarding,
        things_network_uplink,
    },
    host::{self, envelope},
    support::panics,
};

/// The app that takes the next call. Another one takes its place when its settings have become complete.
#[derive(Clone)]
pub struct Current(watch::Sender<Arc<App>>);

impl Current {
    #[must_use]
    pub fn new(app: App) -> Self {
        Self(watch::Sender::new(Arc::new(app)))
    }

    /// Calls in flight go on in the app that took them.
    pub fn replace(&self, app: App) {
        self.0.send_replace(Arc::new(app));
    }

    #[must_use]
    pub fn app(&self) -> Arc<App> {
        self.0.borrow().clone()
    }
}

impl FromRef<Current> for Arc<App> {
    fn from_ref(current: &Current) -> Self {
        current.app()
    }
}

/// Serves until `shutdown` resolves and all calls in flight are answered.
///
/// # Errors
/// The listener fails.
pub async fn run(
    listener: TcpListener,
    app: Current,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(shutdown).await
}

fn router(app: Current) -> Router {
    Router::new()
        .route("/", get(ready))
        .route("/rapidM2MForwarding", post(rapidm2m_forwarding::call))
        .route("/rapidM2MSites", post(rapidm2m_sites::call))
        .route("/thingsNetworkUplink", post(things_network_uplink::call))
        .route("/thingsNetworkForwarding", post(things_network_forwarding::call))
        .route("/thingsNetworkDownlinks", post(things_network_downlinks::call))
        .route("/status", post(status::call))
        .fallback(not_found)
        .with_state(app)
        .layer(middleware::from_fn(answer_panics))
}

/// If a call panics, answers it with a failure. Without an answer, the host would wait for it until `functionTimeout`.
async fn answer_panics(request: Request, next: Next) -> Response {
    let answered = panics::caught(next.run(request)).await;
    answered.unwrap_or_else(|text| host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([])))
}

/// The host takes any answer as a sign that the handler is ready.
async fn ready() -> Json<Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "status": "ready" }))
}

async fn not_found(uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let _ = envelope::read(&headers, body).await;
    host::failed(StatusCode::NOT_FOUND, &format!("there is no function at {}", uri.path()), &json!([]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered() {
        async fn bug() -> &'static str {
            panic!("index out of bounds, AccountKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")
        }
        let buggy = Router::new().route("/buggy", get(bug)).layer(middleware::from_fn(answer_panics));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/buggy", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, buggy).await });
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 500);
        let text = answer.text().await.unwrap();
        assert!(text.contains("index out of bounds") && !text.contains("c2VjcmV0"), "{text}");
    }
}
