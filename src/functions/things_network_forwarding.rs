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
    things_network::forwarding::{Outcome, putting_back::Cause},
};

/// The bindings' names in function.json.
const UPLINK: &str = "uplink";
const REJECTED: &str = "rejected";

pub async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let message = match envelope::read(&headers, body).await {
        Ok(body) => QueueMessage::read(&body, UPLINK),
        Err(unread) => return unread.response(),
    };
    let message = match message {
        Ok(message) => message,
        Err(error) => return envelope::malformed("a queue's call", &error),
    };
    let span = envelope::span(host::invocation_id(&headers));
    let Some(forwarding) = &app.forwarding else { return put_back(&app, &message).instrument(span).await };
    match forwarding.message(&message).instrument(span).await {
        // Deleting a message that was put back fails, which the host expects: its receipt is no longer valid.
        Outcome::Forwarded | Outcome::PutBack => host::succeeded(&json!({}), &[]),
        Outcome::Rejected(text) => host::succeeded(&json!({ REJECTED: [text] }), &[]),
        Outcome::Failed(text) => host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([])),
    }
}

/// Nothing can forward the message before the settings are corrected.
async fn put_back(app: &App, message: &QueueMessage) -> Response {
    let off = || "The Things Network is off: set UplinkQueueName".to_owned();
    let text = app.faults.of_things_network().unwrap_or_else(off);
    if app.reminder.is_due() {
        tracing::error!("the messages stay in the queue: {text}");
    }
    match &app.back {
        Some(back) if back.put(message, Cause::Away(None)).await.is_ok() => host::succeeded(&json!({}), &[]),
        _ => host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([])),
    }
}
