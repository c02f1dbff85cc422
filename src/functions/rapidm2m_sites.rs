//! `rapidM2MSites`: polls a batch of sites out of the queue of `PollQueueName`.
//!
//! It succeeds whatever becomes of the sites: the next run has them again, and a batch that comes back is too old. Its summary
//! line says how they fared.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::json;
use tracing::Instrument as _;

use crate::{
    app::App,
    host::{self, envelope, queue::QueueMessage},
    rapidm2m::polling::run::Outcome,
    support::kind::Kind,
};

/// The bindings' names in function.json.
const SITES: &str = "sites";
const REJECTED: &str = "rejected";

pub async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let message = match envelope::read(&headers, body).await {
        Ok(body) => QueueMessage::read(&body, SITES),
        Err(unread) => return unread.response(),
    };
    let message = match message {
        Ok(message) => message,
        Err(error) => return envelope::malformed("a queue's call", &error),
    };
    let Some(polling) = &app.polling else {
        if app.reminder.is_due() {
            let off = || "rapidM2M is off: M2MBackendURL and Customer_ID are not set".to_owned();
            let text = app.faults.of_rapidm2m().unwrap_or_else(off);
            tracing::error!("batches of sites are dropped, and the next run has these sites again: {text}");
        }
        return host::succeeded(&json!({}), &[]);
    };
    async {
        // Boxed: the future has room for the turns.
        match Box::pin(polling.run_batch(&message.text)).await {
            Outcome::Worked(_) | Outcome::Dropped => host::succeeded(&json!({}), &[]),
            Outcome::Foreign(why) => {
                tracing::error!(
                    failure.kind = Kind::Malformed.as_str(),
                    "a message of the queue of PollQueueName goes into its queue of rejected messages: {why}"
                );
                host::succeeded(&json!({ REJECTED: [message.text] }), &[])
            }
        }
    }
    .instrument(envelope::span(host::invocation_id(&headers)))
    .await
}
