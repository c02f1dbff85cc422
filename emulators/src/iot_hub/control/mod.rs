//! The control endpoint: what was received, and trouble on demand. JSON in and out; `{"error":"…"}` with status 400 for
//! what it does not understand.

mod c2d;
mod devices;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures::stream;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{counts::Counts, faults::Faults, hub::Hub, received};
use crate::{
    door::Door,
    listing::{self, Route},
    trouble,
};

/// Largest request body, in bytes: the largest message to a device, as Base64 or escaped, fits.
const MAX_BODY: usize = 512 * 1024;

/// Longest wait a request may ask for, and the wait of one that does not say, in milliseconds.
const MAX_WAIT_MS: u64 = 600_000;
const DEFAULT_WAIT_MS: u64 = 10_000;

#[derive(Clone)]
pub struct Control {
    pub hub: Arc<Hub>,
    /// The hub's own doors, for MQTT and HTTPS.
    pub doors: [Door; 2],
    /// The Device Provisioning Service's.
    pub dps_door: Door,
}

/// Status and reason.
pub struct Refused(StatusCode, String);

pub type Answer<T> = Result<T, Refused>;
pub type Parameters<T> = Result<Query<T>, QueryRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceivedParameters {
    after: Option<u64>,
    device: Option<String>,
    wait: Option<u64>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionsParameters {
    wait: Option<u64>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpireParameters {
    #[serde(default)]
    refuse: bool,
}

/// For `GET /`.
const ROUTES: &[Route] = &[
    ("GET, DELETE", "/received", "the messages; ?wait=N waits for N of them"),
    ("GET", "/counts", "how much came"),
    ("GET", "/connections", "who is connected"),
    ("GET, PUT, DELETE", "/faults", "refusals, delays, missing acknowledgements"),
    ("PUT", "/away", "true: refuses connections; false: accepts them again"),
    ("POST", "/cut", "cuts all connections"),
    ("POST", "/expire", "ends connections as if their tokens had expired"),
    ("GET, POST", "/c2d", "sends a message to a device (?device=ID), says what became of it"),
    ("POST", "/c2d/unlock", "gives up the locks of messages to devices"),
    ("GET", "/twin", "the twin of a device (?device=ID)"),
    ("GET, PUT, DELETE", "/devices", "registers, disables or deletes devices (?device=ID)"),
    ("PUT", "/dps/away", "the same for the Device Provisioning Service"),
    ("POST", "/dps/cut", "the same for the Device Provisioning Service"),
    ("GET", "/dps/registrations", "who registered how often"),
    ("GET, PUT", "/dps/settings", "what devices are answered"),
    ("GET, PUT, DELETE", "/dps/faults", "faults of the Device Provisioning Service"),
];

pub fn router(control: Control) -> Router {
    Router::new()
        .route("/received", get(get_received).delete(delete_received))
        .route("/counts", get(get_counts))
        .route("/connections", get(get_connections))
        .route("/faults", get(get_faults).put(put_faults).delete(delete_faults))
        .route("/away", put(put_away))
        .route("/cut", post(post_cut))
        .route("/dps/away", put(put_dps_away))
        .route("/dps/cut", post(post_dps_cut))
        .route("/expire", post(post_expire))
        .route("/c2d", get(c2d::get).post(c2d::post))
        .route("/c2d/unlock", post(c2d::unlock))
        .route("/twin", get(get_twin))
        .route("/devices", get(devices::get).put(devices::put).delete(devices::delete))
        .with_state(control)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .merge(listing::router(&[ROUTES, trouble::ROUTES]))
}

/// `?after=N&device=ID&wait=K&timeout_ms=T`. With `wait`, answers when `K` messages have been received since the start
/// (by this device, if one is named), or when the time is over, whichever comes first.
async fn get_received(State(control): State<Control>, query: Parameters<ReceivedParameters>) -> Answer<Response> {
    let Query(query) = query?;
    let received = |counts: &Counts| match &query.device {
        Some(device) => counts.per_device.get(device).map_or(0, |device| device.messages),
        None => counts.messages,
    };
    wait_until(&control.hub, query.wait, query.timeout_ms, received).await?;
    let messages = control.hub.log.select(query.device.as_deref(), query.after);
    let chunks = stream::iter(received::json_array(messages).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response())
}

async fn delete_received(State(control): State<Control>) -> StatusCode {
    control.hub.log.clear();
    StatusCode::NO_CONTENT
}

async fn get_counts(State(control): State<Control>) -> Json<Counts> {
    Json(control.hub.counts.borrow().clone())
}

/// `?wait=K&timeout_ms=T`: the counts, when `K` CONNECTs have been accepted since the start, or when the time is over.
async fn get_connections(
    State(control): State<Control>,
    query: Parameters<ConnectionsParameters>,
) -> Answer<Json<Counts>> {
    let Query(query) = query?;
    wait_until(&control.hub, query.wait, query.timeout_ms, |counts| counts.connects).await?;
    Ok(Json(control.hub.counts.borrow().clone()))
}

async fn get_faults(State(control): State<Control>) -> Json<Faults> {
    Json(control.hub.faults().clone())
}

async fn put_faults(State(control): State<Control>, body: Bytes) -> Answer<Json<Faults>> {
    let faults: Faults = parse(&body)?;
    tracing::info!("faults set: {}", json!(faults));
    *control.hub.faults() = faults.clone();
    Ok(Json(faults))
}

async fn delete_faults(State(control): State<Control>) -> StatusCode {
    *control.hub.faults() = Faults::default();
    StatusCode::NO_CONTENT
}

async fn put_away(State(control): State<Control>, body: Bytes) -> Answer<StatusCode> {
    let away = parse(&body)?;
    for door in &control.doors {
        set_away(door, away).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn post_cut(State(control): State<Control>) -> StatusCode {
    control.doors.iter().for_each(Door::cut);
    StatusCode::NO_CONTENT
}

async fn put_dps_away(State(control): State<Control>, body: Bytes) -> Answer<StatusCode> {
    set_away(&control.dps_door, parse(&body)?).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn post_dps_cut(State(control): State<Control>) -> StatusCode {
    control.dps_door.cut();
    StatusCode::NO_CONTENT
}

async fn set_away(door: &Door, away: bool) {
    if away { door.close().await } else { door.reopen().await }
}

/// `?refuse=true` also refuses the tokens of the connections ended from now on.
async fn post_expire(State(control): State<Control>, query: Parameters<ExpireParameters>) -> Answer<Response> {
    let Query(query) = query?;
    let ended = control.hub.expire(query.refuse);
    Ok(Json(json!({ "ended": ended })).into_response())
}

/// `?device=ID`: the device's twin.
async fn get_twin(State(control): State<Control>, query: Parameters<c2d::DeviceParameters>) -> Answer<Json<Value>> {
    let Query(query) = query?;
    Ok(Json(control.hub.twins.get(&query.device)))
}

/// Waits until a count has reached a number or the time is over.
async fn wait_until(
    hub: &Hub,
    number: Option<u64>,
    timeout_ms: Option<u64>,
    count: impl Fn(&Counts) -> u64,
) -> Answer<()> {
    let Some(number) = number else { return Ok(()) };
    let time = time_to_wait(timeout_ms)?;
    let mut counts = hub.counts.subscribe();
    // Time over is not an error: the answer says how far things have come.
    let _ = timeout(time, counts.wait_for(|counts| count(counts) >= number)).await;
    Ok(())
}

pub fn time_to_wait(timeout_ms: Option<u64>) -> Answer<Duration> {
    let timeout_ms = timeout_ms.unwrap_or(DEFAULT_WAIT_MS);
    if timeout_ms > MAX_WAIT_MS {
        return Err(Refused::bad_request(format!("timeout_ms is {timeout_ms}, at most {MAX_WAIT_MS} are allowed")));
    }
    Ok(Duration::from_millis(timeout_ms))
}

pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| Refused::bad_request(error.to_string()))
}

impl Refused {
    fn bad_request(reason: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.into())
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
