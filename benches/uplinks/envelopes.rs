//! Captures exactly what the host posts for a webhook: the emulated Things Stack sends webhooks to the emulated host,
//! and this module is the host's handler.

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

use crate::{APP, support::emulator};

/// A webhook of an uplink, as the host posts it.
pub struct Envelope {
    headers: HeaderMap,
    pub body: Bytes,
}

/// The path to which the host posts webhooks.
pub const UPLINK: &str = "/thingsNetworkUplink";

type Captured = Arc<Mutex<Vec<Envelope>>>;

/// The envelopes of `count` different webhooks.
pub async fn capture(count: usize) -> Vec<Envelope> {
    let captured = Captured::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}/", listener.local_addr().expect("bound"));
    let server =
        tokio::spawn(axum::serve(listener, Router::new().fallback(accept).with_state(captured.clone())).into_future());
    let settings = ["--env", "UplinkQueueName=uplinks"];
    let host = emulator(&[&["functions_host", "--app", APP, "--attach", &endpoint], &settings[..]].concat());
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
    std::mem::take(&mut *captured.lock().expect("no panic while locked"))
}

/// Accepts every request, as the handler would.
async fn accept(State(captured): State<Captured>, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    if uri.path() == UPLINK {
        let envelope = Envelope { headers, body };
        captured.lock().expect("no panic while locked").push(envelope);
    }
    Json(json!({"Outputs": {"res": {"statusCode": 202}}, "Logs": [], "ReturnValue": null}))
}

impl Envelope {
    /// A request to this path in one chunk: the host announces no length.
    pub fn request(&self, path: &str) -> Vec<u8> {
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n").into_bytes();
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != HOST) {
            request.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        request.extend_from_slice(format!("\r\n{:x}\r\n", self.body.len()).as_bytes());
        request.extend_from_slice(&self.body);
        request.extend_from_slice(b"\r\n0\r\n\r\n");
        request
    }
}
