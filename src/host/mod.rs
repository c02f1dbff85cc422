//! The Azure Functions host's side of a custom handler: what it posts, and what it wants back. Nothing else.
//! <https://learn.microsoft.com/azure/azure-functions/functions-custom-handlers>
//!
//! | Part | |
//! |---|---|
//! | `envelope` | what all calls have in common |
//! | `timer` | a timer's call |
//! | `http` | a call over HTTP, and the answer to whoever made it |
//! | `queue` | a storage queue's message |

pub mod envelope;
pub mod http;
pub mod queue;
pub mod timer;

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The host's id of the call; empty if there is none.
#[must_use]
pub fn invocation_id(headers: &HeaderMap) -> &str {
    headers.get("x-azure-functions-invocationid").and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// What the host wants back.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Succeeded<'a, Outputs> {
    outputs: &'a Outputs,
    logs: &'a [String],
    return_value: Option<()>,
}

/// The call succeeded. `outputs` go to the bindings of these names; `logs` come out with the call's context.
#[must_use]
pub fn succeeded(outputs: &impl Serialize, logs: &[String]) -> Response {
    Json(Succeeded { outputs, logs, return_value: None }).into_response()
}

/// The call failed: the host takes any status but 2xx so, and throws outputs and logs away. `details` is for people who
/// call the function by hand.
#[must_use]
pub fn failed(status: StatusCode, error: &str, details: &Value) -> Response {
    (status, Json(json!({ "Outputs": {}, "Logs": [], "ReturnValue": null, "Error": error, "Failed": details })))
        .into_response()
}
