//! The control endpoint.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Stack, Statistics,
    faults::{Fault, Faults},
    send::Answer,
    sending::Overrides,
};
use crate::{
    listing::{self, Route},
    trouble,
};

/// Bytes of a body: an uplink may be made larger than any target takes.
const LARGEST_BODY: usize = 4 * 1024 * 1024;
/// How long a request waits unless it says, and at most, in milliseconds.
const WAIT_MS: u64 = 10_000;
const LONGEST_WAIT_MS: u64 = 3_600_000;

type Shared = State<Arc<Stack>>;
type Answered<T> = Result<T, Refused>;
type Parameters<T> = Result<Query<T>, QueryRejection>;

/// `{"err":"…"}` with a status.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "err": self.1 }))).into_response()
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        bad_request(rejection.body_text())
    }
}

/// For `GET /`.
const ROUTES: &[Route] = &[
    ("POST, DELETE", "/send", "starts or stops sending a fleet's webhooks"),
    ("POST", "/uplink", "sends one webhook"),
    ("GET, DELETE", "/sent", "what was sent and answered"),
    ("GET", "/uplinks", "the last uplinks"),
    ("GET, POST", "/devices", "the fleet; adds a device"),
    ("POST, DELETE", "/keys", "adds or forgets an API key"),
    ("GET, DELETE", "/downlinks", "the downlinks that were requested; ?wait=N waits for N of them"),
    ("GET", "/queue", "a device's downlink queue (?application=A&device=D)"),
    ("GET, POST, DELETE", "/faults", "wrong answers to downlinks"),
    ("PUT, DELETE", "/formatters", "an application's payload formatter"),
    ("PUT", "/away", "true: refuses connections; false: accepts them again"),
];

pub fn router(stack: Arc<Stack>) -> Router {
    Router::new()
        .route("/send", post(start_run).delete(stop_run))
        .route("/uplink", post(uplink))
        .route("/sent", get(sent).delete(clear_sent))
        .route("/uplinks", get(uplinks))
        .route("/devices", get(devices).post(add_device))
        .route("/move", post(move_devices))
        .route("/keys", post(add_key).delete(forget_key))
        .route("/downlinks", get(downlinks).delete(clear_downlinks))
        .route("/queue", get(queue))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/formatters", put(set_formatter).delete(clear_formatters))
        .route("/away", put(away))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(stack)
        .merge(listing::router(&[ROUTES, trouble::ROUTES]))
}

fn bad_request(reason: impl ToString) -> Refused {
    Refused(StatusCode::BAD_REQUEST, reason.to_string())
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Answered<T> {
    serde_json::from_slice(body).map_err(bad_request)
}

fn time_to_wait(timeout_ms: Option<u64>) -> Duration {
    Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS).min(LONGEST_WAIT_MS))
}

async fn start_run(State(stack): Shared, body: Bytes) -> Answered<StatusCode> {
    // No body: one more run with the options of the start.
    let overrides = if body.is_empty() { Overrides::default() } else { parsed(&body)? };
    let sending = stack.sending.with(overrides).map_err(bad_request)?;
    stack.start_run(sending).map_err(|error| Refused(StatusCode::CONFLICT, error.to_string()))?;
    Ok(StatusCode::ACCEPTED)
}

async fn stop_run(State(stack): Shared) -> StatusCode {
    stack.stop_run().await;
    StatusCode::NO_CONTENT
}

async fn uplink(State(stack): Shared, body: Bytes) -> Answered<Json<Answer>> {
    stack.send_uplink(parsed(&body)?).await.map(Json).map_err(bad_request)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentParameters {
    wait: Option<WaitFor>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WaitFor {
    Done,
}

async fn sent(State(stack): Shared, query: Parameters<SentParameters>) -> Answered<Json<Statistics>> {
    let Query(query) = query?;
    if let Some(WaitFor::Done) = query.wait {
        stack.done_within(time_to_wait(query.timeout_ms)).await;
    }
    Ok(Json(stack.statistics()))
}

async fn clear_sent(State(stack): Shared) -> StatusCode {
    stack.journal.clear();
    StatusCode::NO_CONTENT
}

async fn uplinks(State(stack): Shared) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], stack.journal.uplinks()).into_response()
}

async fn devices(State(stack): Shared) -> Json<Value> {
    let generator = stack.generator();
    let device = |device: &Arc<super::devices::Device>| {
        json!({
            "application": device.application,
            "device": device.id,
            "devEui": format!("{:016X}", device.dev_eui),
        })
    };
    Json(generator.fleet().iter().map(device).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDevice {
    application: String,
    device: String,
}

async fn add_device(State(stack): Shared, body: Bytes) -> Answered<StatusCode> {
    let NewDevice { application, device } = parsed(&body)?;
    stack.generator().add_device(application, device);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    from: String,
    to: String,
}

async fn move_devices(State(stack): Shared, body: Bytes) -> Answered<Json<Value>> {
    let Move { from, to } = parsed(&body)?;
    Ok(Json(json!({ "moved": stack.generator().move_devices(&from, &to) })))
}

async fn add_key(State(stack): Shared, body: Bytes) -> Answered<StatusCode> {
    stack.keys.add(parsed(&body)?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyParameters {
    key: String,
}

async fn forget_key(State(stack): Shared, query: Parameters<KeyParameters>) -> Answered<StatusCode> {
    let Query(query) = query?;
    stack.keys.forget(&query.key);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DownlinksParameters {
    #[serde(default)]
    wait: u64,
    timeout_ms: Option<u64>,
}

async fn downlinks(State(stack): Shared, query: Parameters<DownlinksParameters>) -> Answered<Json<Value>> {
    let Query(query) = query?;
    let requests = stack.queues.requests(query.wait, time_to_wait(query.timeout_ms)).await;
    Ok(Json(requests.iter().map(|request| json!(**request)).collect()))
}

async fn clear_downlinks(State(stack): Shared) -> StatusCode {
    stack.queues.clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueParameters {
    application: String,
    device: String,
}

async fn queue(State(stack): Shared, query: Parameters<QueueParameters>) -> Answered<Json<Vec<Value>>> {
    let Query(query) = query?;
    Ok(Json(stack.queues.queue(&query.application, &query.device)))
}

async fn faults(State(stack): Shared) -> Json<Vec<Fault>> {
    Json(stack.queues.with_faults(|faults| faults.list()))
}

async fn add_fault(State(stack): Shared, body: Bytes) -> Answered<StatusCode> {
    let fault = parsed(&body)?;
    stack.queues.with_faults(|faults| faults.add(fault)).map_err(bad_request)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(stack): Shared) -> StatusCode {
    stack.queues.with_faults(|faults| *faults = Faults::default());
    StatusCode::NO_CONTENT
}

async fn set_formatter(State(stack): Shared, body: Bytes) -> Answered<StatusCode> {
    let formatter = parsed(&body)?;
    stack.queues.with_formatters(|formatters| formatters.set(formatter));
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_formatters(State(stack): Shared) -> StatusCode {
    stack.queues.with_formatters(super::formatter::Formatters::clear);
    StatusCode::NO_CONTENT
}

async fn away(State(stack): Shared, body: Bytes) -> Answered<StatusCode> {
    if parsed(&body)? {
        stack.door.close().await;
    } else {
        stack.door.reopen().await;
    }
    Ok(StatusCode::NO_CONTENT)
}
