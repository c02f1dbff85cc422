//! A handler inside the test. It records its calls and answers as the test says.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use emulators::functions_host::{Emulator, Options, start};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};

use crate::{PATIENCE, app::App, client};

/// A request that the handler received.
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

/// The handler's answer: status, content type, body.
pub type Reply = (StatusCode, &'static str, String);

type Behaviour = Box<dyn Fn(&Received) -> Reply + Send>;

/// A handler inside the test.
pub struct Handler {
    url: String,
    reply: Arc<Mutex<Behaviour>>,
    /// One permit for each call that may be answered.
    gate: Arc<Semaphore>,
    received: mpsc::UnboundedReceiver<Received>,
    pub server: JoinHandle<()>,
}

impl Handler {
    /// Answers every call at once.
    pub async fn start() -> Self {
        let handler = Self::start_closed().await;
        handler.let_through(Semaphore::MAX_PERMITS);
        handler
    }

    /// Answers only as many calls as the test lets through.
    pub async fn start_closed() -> Self {
        let reply: Behaviour = Box::new(|_| (StatusCode::OK, "application/json", "{}".to_owned()));
        let (reply, gate) = (Arc::new(Mutex::new(reply)), Arc::new(Semaphore::new(0)));
        let (sender, received) = mpsc::unbounded_channel();
        let (answered, opened) = (reply.clone(), gate.clone());
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            if parts.uri.path() == "/" {
                return (StatusCode::NOT_FOUND, [("content-type", "text/plain")], "any answer will do".to_owned());
            }
            let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
            let call = Received { method: parts.method, uri: parts.uri, headers: parts.headers, body };
            let (status, content_type, body) = (answered.lock().unwrap())(&call);
            let _ = sender.send(call);
            opened.acquire().await.unwrap().forget();
            (status, [("content-type", content_type)], body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, reply, gate, received, server }
    }

    pub fn replies(&self, status: u16, content_type: &'static str, body: &'static str) {
        let status = StatusCode::from_u16(status).unwrap();
        *self.reply.lock().unwrap() = Box::new(move |_| (status, content_type, body.to_owned()));
    }

    /// The status and the body of its answer depend on the call.
    pub fn replies_with(&self, reply: impl Fn(&Received) -> (u16, Value) + Send + 'static) {
        *self.reply.lock().unwrap() = Box::new(move |call| {
            let (status, body) = reply(call);
            (StatusCode::from_u16(status).unwrap(), "application/json", body.to_string())
        });
    }

    pub fn let_through(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// Whether there is a call that the test has not read yet.
    pub fn has_next(&self) -> bool {
        !self.received.is_empty()
    }

    pub async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("the host must call the handler").unwrap()
    }

    /// Stops and closes its connections.
    pub async fn stop(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.unwrap_err().is_cancelled());
        let gone = async { while client().get(&self.url).send().await.is_ok() {} };
        timeout(PATIENCE, gone).await.expect("it must be gone");
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
