//! `status`: returns the status page or its JSON.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::json;
use tracing::Instrument as _;

use crate::{
    app::App,
    host::{self, envelope, http::HttpRequest},
    support::progress::Progress,
};

/// The bindings' names in function.json.
const REQUEST: &str = "req";
const RESPONSE: &str = "res";

pub async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let body = match envelope::read(&headers, body).await {
        Ok(body) => body,
        Err(unread) => return unread.response(),
    };
    match HttpRequest::read(&body, REQUEST) {
        Ok(request) => {
            let answer = async {
                let progress = Progress::of("status");
                let response = app.status.respond(&request).await;
                progress.end();
                response
            };
            let span = envelope::span(host::invocation_id(&headers));
            host::succeeded(&json!({ RESPONSE: answer.instrument(span).await }), &[])
        }
        Err(error) => envelope::malformed("an HTTP call", &error),
    }
}
