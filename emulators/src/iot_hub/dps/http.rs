//! The Device Provisioning Service over HTTPS.
//!
//! | Request | Answer |
//! |---|---|
//! | `PUT /{scope}/registrations/{id}/register` with `{"registrationId":"…"}` | 202 `{"operationId":"…","status":"assigning"}`, `Retry-After` |
//! | `GET /{scope}/registrations/{id}/operations/{operation}` | 202 as above, or 200 `{"operationId","status","registrationState":{…}}` |
//! | `POST /{scope}/registrations/{id}` | 200 with the registration's state, once it has one |
//!
//! Source: <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Extension, FromRequestParts, Path, Query},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use chrono::Utc;
use tokio::time::timeout;

use super::{
    MAX_BODY,
    answer::{Answer, Reply},
    reply,
    state::{Request, Step},
};
use crate::{
    iot_hub::{http::Connection, hub::Hub},
    steps,
};

/// Time a client has for its body.
const BODY: Duration = Duration::from_secs(30);

/// The versions of the device API there are, as in `?api-version=`.
const API_VERSIONS: [&str; 7] =
    ["2018-04-01", "2018-09-01-preview", "2018-11-01", "2019-03-31", "2021-06-01", "2021-10-01", "2021-11-01-preview"];

/// Who asks, and on which connection.
struct Caller {
    hub: Arc<Hub>,
    connection: Connection,
    /// What the path names: `scope`, `id`, `operation`.
    path: HashMap<String, String>,
    token: Option<String>,
}

/// The routes, to be merged with those of the hub.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/{scope}/registrations/{id}/register", put(register))
        .route("/{scope}/registrations/{id}/operations/{operation}", get(poll))
        .route("/{scope}/registrations/{id}", post(look))
        .with_state(hub)
}

async fn register(caller: Caller, body: Body) -> Response {
    let Ok(Ok(body)) = timeout(BODY, to_bytes(body, MAX_BODY)).await else {
        let reason = format!("the body is cut short, has more than {MAX_BODY} bytes or did not come within {BODY:?}");
        return bad_request(&reason).into_response();
    };
    let steps = &caller.hub.steps;
    if steps.loses(steps::Step::RegisterCame) {
        return std::future::pending().await;
    }
    let response = caller.ask(Step::Register { body: &body }).await;
    steps.when_written(steps::Step::RegisterAnswered, &caller.connection.written, response)
}

async fn poll(caller: Caller) -> Response {
    let steps = &caller.hub.steps;
    steps.reached(steps::Step::AssignmentAsked);
    let response = caller.ask(Step::Poll { operation_id: caller.named("operation") }).await;
    steps.when_written(steps::Step::AssignmentAnswered, &caller.connection.written, response)
}

async fn look(caller: Caller) -> Response {
    caller.ask(Step::Look).await
}

impl Caller {
    async fn ask(&self, step: Step<'_>) -> Response {
        let (scope, registration_id) = (self.named("scope"), self.named("id"));
        let request = Request { scope, registration_id, token: self.token.as_deref(), step };
        match reply(&self.hub, &request).await {
            Reply::Answer(answer) => answer.into_response(),
            Reply::HangUp => self.connection.hang_up().await,
        }
    }

    fn named(&self, part: &str) -> &str {
        self.path.get(part).map_or("", String::as_str)
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Response> {
        let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri).map_err(IntoResponse::into_response)?;
        if !query.get("api-version").is_some_and(|version| API_VERSIONS.contains(&version.as_str())) {
            let reason = format!("the query must have one of these as its api-version: {}", API_VERSIONS.join(", "));
            return Err(bad_request(&reason).into_response());
        }
        let Path(path) = Path::from_request_parts(parts, hub).await.map_err(IntoResponse::into_response)?;
        let Extension(connection) =
            Extension::from_request_parts(parts, hub).await.map_err(IntoResponse::into_response)?;
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self { hub: Arc::clone(hub), connection, path, token })
    }
}

fn bad_request(reason: &str) -> Answer {
    Answer::error(400, reason, Utc::now())
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        let mut response = (status, json, self.body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
