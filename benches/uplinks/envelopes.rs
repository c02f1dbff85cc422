//! What the host posts for a webhook, byte by byte: the emulated Things Stack sends webhooks to the emulated host, and this
//! is its handler.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Uri},
};
use reqwest::header::HOST;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::emulator;

/// An uplink's webhook, as the host posts it.
struct Envelope {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

type Captured = Arc<Mutex<Vec<Envelope>>>;

/// The requests for `count` different webhooks, for a handler at whatever address.
pub async fn capture(count: usize) -> Vec<Vec<u8>> {
    let captured = Captured::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}/", listener.local_addr().expect("bound"));
    let server =
        tokio::spawn(axum::serve(listener, Router::new().fallback(accept).with_state(captured.clone())).into_future());
    let settings = ["--env", "UplinkQueueName=uplinks"];
    let host = emulator(&[&["functions_host", "--attach", &endpoint], &settings[..]].concat());
    let target = format!("{}api/uplink", host.ready["endpoint"].as_str().expect("text"));
    let stack = emulator(&["things_stack", "--seed", "1"]);
    let control = stack.ready["control"].as_str().expect("text");
    let http = reqwest::Client::new();
    let run =
        json!({"target": target, "count": count, "rate": 0, "repeatShare": 0, "malformedShare": 0, "eventShare": 0});
    let request = http.post(format!("{control}send")).header("content-type", "application/json").body(run.to_string());
    request.send().await.and_then(reqwest::Response::error_for_status).expect("the run begins");
    let sent = http.get(format!("{control}sent?wait=done&timeout_ms=60000")).send().await.expect("an answer");
    let sent: Value = serde_json::from_slice(&sent.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(sent["statuses"]["202"], count, "{sent}");
    server.abort();
    let captured = std::mem::take(&mut *captured.lock().expect("no panic while locked"));
    captured.iter().map(Envelope::request).collect()
}

/// Takes everything, as the handler would.
async fn accept(State(captured): State<Captured>, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    if uri.path() == "/thingsNetworkUplink" {
        let envelope = Envelope { path: uri.path().to_owned(), headers, body };
        captured.lock().expect("no panic while locked").push(envelope);
    }
    Json(json!({"Outputs": {"res": {"statusCode": 202}}, "Logs": [], "ReturnValue": null}))
}

impl Envelope {
    /// In one chunk: the host announces no length.
    fn request(&self) -> Vec<u8> {
        let mut request = format!("POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\n", self.path).into_bytes();
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != HOST) {
            request.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        request.extend_from_slice(format!("\r\n{:x}\r\n", self.body.len()).as_bytes());
        request.extend_from_slice(&self.body);
        request.extend_from_slice(b"\r\n0\r\n\r\n");
        request
    }
}
