//! A handler that runs inside the test: it keeps what it gets and answers what it is told.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use emulators::functions_host::{Emulator, Options, start};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};

use crate::{PATIENCE, app::App};

/// A request as the handler got it.
pub struct Received {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the handler answers: status, content type, body.
pub type Reply = (StatusCode, &'static str, &'static str);
pub const EMPTY: Reply = (StatusCode::OK, "application/json", "{}");

/// A handler inside the test.
pub struct Handler {
    url: String,
    reply: Arc<Mutex<Reply>>,
    received: mpsc::UnboundedReceiver<Received>,
    pub server: JoinHandle<()>,
}

impl Handler {
    pub async fn start() -> Self {
        let reply = Arc::new(Mutex::new(EMPTY));
        let (sender, received) = mpsc::unbounded_channel();
        let answered = reply.clone();
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            if parts.uri.path() == "/" {
                return (StatusCode::NOT_FOUND, [("content-type", "text/plain")], "any answer will do");
            }
            let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
            let _ = sender.send(Received { method: parts.method, uri: parts.uri, headers: parts.headers, body });
            let (status, content_type, body) = *answered.lock().unwrap();
            (status, [("content-type", content_type)], body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, reply, received, server }
    }

    pub fn replies(&self, status: u16, content_type: &'static str, body: &'static str) {
        *self.reply.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), content_type, body);
    }

    pub async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("the host must call the handler").unwrap()
    }

    pub async fn hosted(&self, app: &App, options: Options) -> Emulator {
        let endpoint = Some(self.url.parse().unwrap());
        start(Options { app: app.0.clone(), handler_endpoint: endpoint, ..options }).await.unwrap()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.server.abort();
    }
}
