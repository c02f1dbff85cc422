//! `/admin/queues` shows and adds the messages of the queues, and `/admin/telemetry` shows what was logged, for tests and
//! tools. `/admin/host/restart` is the real host's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, Response, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::json;

use super::{
    QueueMessage,
    jobs::Jobs,
    queue_set::{Entry, QueueSet},
    telemetry::Telemetry,
};
use crate::queues::Error;

/// Largest body of a request that adds messages, in bytes.
const LARGEST_BODY: usize = 64 * 1024 * 1024;
/// How long `wait` lasts without `timeout_ms`, and its maximum.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

type Parameters = Query<HashMap<String, String>>;
type Answer = Result<Response<Body>, (StatusCode, String)>;

pub fn router(jobs: Arc<Jobs>, telemetry: Arc<Telemetry>) -> Router {
    let queues = jobs.parts.queues.clone();
    let counted = queues.clone();
    Router::new()
        .route("/admin/host/restart", post(async move |query| restart(jobs, query).await))
        .route("/admin/telemetry", get(async move || Json(telemetry.summary(counted.requests()))))
        .route("/admin/queues", get(list))
        .route("/admin/queues/{name}", get(messages).post(add))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(queues)
}

/// Restarts the job host. With `?wait` the answer comes when the new handler has answered.
async fn restart(jobs: Arc<Jobs>, Query(parameters): Parameters) -> Answer {
    let answer = Json(json!({ "scriptPath": jobs.parts.app.root }));
    let restart = tokio::spawn(async move { jobs.restart().await });
    if parameters.contains_key("wait") {
        let result = restart.await.map_err(|error| error.to_string()).flatten();
        result.map_err(|reason| (StatusCode::SERVICE_UNAVAILABLE, reason))?;
    }
    Ok(answer.into_response())
}

async fn list(State(queues): State<Arc<QueueSet>>, Query(parameters): Parameters) -> Answer {
    if let Some(time) = wait(&parameters)? {
        queues.are_empty_within(time).await.map_err(failed)?;
    }
    Ok(Json(queues.summaries().await.map_err(failed)?).into_response())
}

async fn messages(
    State(queues): State<Arc<QueueSet>>,
    Path(name): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let queue = find(&queues, &name)?;
    if let Some(time) = wait(&parameters)? {
        queue.is_empty_within(time).await.map_err(failed)?;
    }
    let messages = queue.messages().await.map_err(failed)?;
    Ok(Json(messages.into_iter().map(QueueMessage::from).collect::<Vec<_>>()).into_response())
}

/// The body is a message. With `x-batch: true` it is a JSON array of strings, each of them a message.
async fn add(State(queues): State<Arc<QueueSet>>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let queue = find(&queues, &name)?;
    let is_batch = headers.get("x-batch").is_some_and(|value| value == "true");
    let messages = if is_batch {
        let texts = serde_json::from_slice::<Vec<String>>(&body);
        let texts =
            texts.map_err(|error| bad(format!("with x-batch, the body must be an array of strings: {error}")))?;
        texts.into_iter().map(Bytes::from).collect()
    } else {
        vec![body]
    };
    let count = messages.len();
    for message in messages {
        queue.queue.put(message).await.map_err(failed)?;
    }
    Ok((StatusCode::CREATED, Json(json!({ "added": count }))).into_response())
}

fn find<'a>(queues: &'a QueueSet, name: &str) -> Result<&'a Entry, (StatusCode, String)> {
    queues.find(name).ok_or_else(|| (StatusCode::NOT_FOUND, format!("no function is bound to a queue {name:?}")))
}

/// How long to wait for an empty queue. `None` without `wait=empty`.
fn wait(parameters: &HashMap<String, String>) -> Result<Option<Duration>, (StatusCode, String)> {
    match parameters.get("wait").map(String::as_str) {
        None => return Ok(None),
        Some("empty") => {}
        Some(other) => return Err(bad(format!("wait={other}: only wait=empty is known"))),
    }
    let Some(text) = parameters.get("timeout_ms") else { return Ok(Some(DEFAULT_WAIT)) };
    let time = text.parse().map(Duration::from_millis).ok().filter(|time| *time <= LONGEST_WAIT);
    let most = LONGEST_WAIT.as_millis();
    time.map(Some).ok_or_else(|| bad(format!("timeout_ms={text}: must be 0 to {most}")))
}

fn bad(problem: String) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, problem)
}

fn failed(error: Error) -> (StatusCode, String) {
    let status = match error {
        Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::NotYours | Error::Away(_) | Error::Refused(_) | Error::Storage(_) => StatusCode::BAD_GATEWAY,
    };
    (status, error.to_string())
}
