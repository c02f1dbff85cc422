//! `thingsNetworkUplink`: answers a webhook of The Things Stack and puts its uplink into the queue.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tracing::Instrument as _;

use crate::{
    app::App,
    host::{
        self,
        envelope::{self, MAX_WEBHOOK, Unread},
        http::{HttpRequest, problem},
    },
    support::blocking,
    things_network::receiving::Answer,
};

/// The binding's name in function.json.
const REQUEST: &str = "req";

/// The outputs, by their bindings' names in function.json.
#[derive(Serialize)]
struct Outputs<'a> {
    res: &'a Value,
    /// The host passes an array of strings to the queue unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    uplinks: Option<[String; 1]>,
}

pub async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let Some(receiving) = &app.receiving else {
        let _ = envelope::read(&headers, body).await;
        let off = || "The Things Network is off: set UplinkQueueName in the function app's settings".to_owned();
        let text = app.faults.of_webhooks().unwrap_or_else(off);
        if app.reminder.is_due() {
            tracing::error!("a webhook is refused: {text}");
        }
        let response = problem(StatusCode::SERVICE_UNAVAILABLE, &text);
        return host::succeeded(&Outputs { res: &response, uplinks: None }, &[]);
    };
    let answer = match envelope::read_up_to(MAX_WEBHOOK, &headers, body).await {
        Ok(body) => {
            let (receiving, span) = (receiving.clone(), envelope::span(host::invocation_id(&headers)));
            let answer = blocking::run(body.len(), move || {
                let request = HttpRequest::read(&body, REQUEST)?;
                Ok::<_, String>(span.in_scope(|| receiving.webhook(&request)))
            });
            match answer.await {
                Ok(answer) => answer,
                Err(error) => return envelope::malformed("an HTTP call", &error),
            }
        }
        Err(Unread::TooLarge) => receiving.refuse_too_large(MAX_WEBHOOK),
        Err(unread) => return unread.response(),
    };
    let Answer { response, mut queued, is_uplink } = answer;
    if let (Some(text), Some(forwarding)) = (&queued, &app.forwarding)
        && is_uplink
        && forwarding.is_direct()
        && forwarding.send_directly(text).instrument(envelope::span(host::invocation_id(&headers))).await
    {
        queued = None;
    }
    host::succeeded(&Outputs { res: &response, uplinks: queued.map(|text| [text]) }, &[])
}
