//! The Azure Functions host's side of a custom handler: the requests that it posts and the responses that it expects.
//! <https://learn.microsoft.com/azure/azure-functions/functions-custom-handlers>
//!
//! | Part | |
//! |---|---|
//! | `envelope` | the parts that all calls share |
//! | `input` | reads one input out of an envelope |
//! | `timer` | a timer's call |
//! | `http` | a call over HTTP, and the response to its caller |
//! | `queue` | a storage queue's message |

pub mod envelope;
pub mod http;
pub(crate) mod input;
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

/// The response that the host expects.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Succeeded<'a, Outputs> {
    outputs: &'a Outputs,
    logs: &'a [String],
    return_value: Option<()>,
}

/// The call succeeded. `outputs` go to the bindings of these names; the host logs `logs` with the call's context.
#[must_use]
pub fn succeeded(outputs: &impl Serialize, logs: &[String]) -> Response {
    Json(Succeeded { outputs, logs, return_value: None }).into_response()
}

/// The call failed: the host treats every status except 2xx as a failure and discards outputs and logs. `details` is
/// for a user who calls the function by hand.
#[must_use]
pub fn failed(status: StatusCode, error: &str, details: &Value) -> Response {
    (status, Json(json!({ "Outputs": {}, "Logs": [], "ReturnValue": null, "Error": error, "Failed": details })))
        .into_response()
}
