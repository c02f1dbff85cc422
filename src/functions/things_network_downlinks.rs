//! `thingsNetworkDownlinks`: asks the hub for commands of devices that do not wait for their next uplink.

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
    host::{self, envelope, timer},
};

pub async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let body = match envelope::read(&headers, body).await {
        Ok(body) => body,
        Err(unread) => return unread.response(),
    };
    if let Err(error) = timer::read(&body) {
        return envelope::malformed("a timer's call", &error);
    }
    if let Some(text) = app.faults.of_things_network() {
        if app.reminder.is_due() {
            tracing::error!("no commands are fetched: {text}");
        }
        return host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([]));
    }
    if let Some(forwarding) = &app.forwarding {
        forwarding.poll_downlinks().instrument(envelope::span(host::invocation_id(&headers))).await;
    }
    host::succeeded(&json!({}), &[])
}
