//! `thingsNetworkForwarding`: forwards a message of the queue to the hub.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::json;
use tracing::Instrument as _;

use crate::{
    app::App,
    host::{self, envelope, queue::QueueMessage},
    things_network::forwarding::Outcome,
};

/// The bindings' names in function.json.
const UPLINK: &str = "uplink";
const REJECTED: &str = "rejected";

pub async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let Some(forwarding) = &app.forwarding else {
        let _ = envelope::read(&headers, body).await;
        let text = "The Things Network is off, the message stays in the queue: set UplinkQueueName";
        return host::failed(StatusCode::INTERNAL_SERVER_ERROR, text, &json!([]));
    };
    let message = match envelope::read(&headers, body).await {
        Ok(body) => QueueMessage::read(&body, UPLINK),
        Err(unread) => return unread.response(),
    };
    let message = match message {
        Ok(message) => message,
        Err(error) => return envelope::malformed("a queue's call", &error),
    };
    let span = envelope::span(host::invocation_id(&headers));
    match forwarding.message(&message).instrument(span).await {
        // Deleting a message that was put back fails, which the host expects: its receipt is no longer valid.
        Outcome::Forwarded | Outcome::PutBack => host::succeeded(&json!({}), &[]),
        Outcome::Rejected(text) => host::succeeded(&json!({ REJECTED: [text] }), &[]),
        Outcome::Failed(text) => host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([])),
    }
}
