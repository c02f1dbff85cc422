//! `rapidM2MForwarding`: polls all sites each time the timer fires, or puts them into the queue of `PollQueueName`.

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
    let interval = match timer::read(&body) {
        Ok(interval) => interval,
        Err(error) => return envelope::malformed("a timer's call", &error),
    };
    // The timer runs in every app. A half that is not configured is no failure.
    if let Some(text) = app.faults.of_rapidm2m() {
        // The timer has at most one call a minute in most apps.
        tracing::error!("{text}");
        return host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([]));
    }
    let Some(polling) = &app.polling else {
        return host::succeeded(&json!({}), &["rapidM2M is off: M2MBackendURL and Customer_ID are not set".to_owned()]);
    };
    let summary = polling.run(interval).instrument(envelope::span(host::invocation_id(&headers))).await;
    if summary.is_success() {
        host::succeeded(&json!({}), &[])
    } else {
        host::failed(StatusCode::INTERNAL_SERVER_ERROR, &summary.to_string(), &summary.failed())
    }
}
