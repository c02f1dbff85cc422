//! The HTTP front end: serves HTTP functions under the route prefix, and timers under `/admin/functions/`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, Query, Request, State},
    http::{Method, Response, StatusCode, request::Parts},
    response::IntoResponse,
    routing::post,
};
use chrono::Utc;
use serde_json::{Value, json};

use super::{
    answer, envelope,
    function::HttpTrigger,
    invoke::{Callee, Invoker},
    job::Job,
    jobs::Jobs,
    route::Parameters,
};

/// The host's default limit for a request's body, in bytes.
const LARGEST_BODY: usize = 104_857_600;

/// An HTTP function.
pub struct HttpFunction {
    pub function: Callee,
    pub trigger: HttpTrigger,
    /// Whether it gets the original request instead of an envelope.
    pub is_forwarded: bool,
}

pub struct Front {
    pub jobs: Arc<Jobs>,
    /// Begins and ends with a slash, such as `/api/`.
    pub prefix: String,
    /// The index of the function that is also served at the root.
    pub home: Option<usize>,
}

pub fn router(front: Arc<Front>) -> Router {
    Router::new().route("/admin/functions/{name}", post(invoke_timer)).fallback(serve).with_state(front)
}

/// Starts a timer function at once, as the real host does. With `?wait` the answer comes after the invocation.
async fn invoke_timer(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response<Body> {
    let job = front.jobs.current();
    let Some(timer) = job.timers.iter().find(|timer| timer.function.name.eq_ignore_ascii_case(&name)).cloned() else {
        return (StatusCode::NOT_FOUND, format!("there is no timer function {name:?}")).into_response();
    };
    let input = serde_json::from_slice::<Value>(&body).ok().and_then(|body| Some(body["input"].as_str()?.to_owned()));
    let input = input.filter(|input| !input.is_empty());
    // In its own task, so that the function runs to its end even if the caller goes away.
    let invocation = tokio::spawn(async move { timer.invoke(input.as_deref()).await });
    if !query.contains_key("wait") {
        return StatusCode::ACCEPTED.into_response();
    }
    match invocation.await {
        Ok(finished) => Json(json!({
            "succeeded": finished.succeeded,
            "status": finished.status,
            "logs": finished.logs,
            "body": *finished.response,
            "error": finished.error,
        }))
        .into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn serve(State(front): State<Arc<Front>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let job = front.jobs.current();
    let Some((index, parameters)) = front.find(&job, &parts) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    // In its own task, so that the invocation finishes and sends its messages even if the caller goes away.
    let invocation = tokio::spawn(async move {
        let function = &job.http[index];
        if function.is_forwarded {
            forward(&job.invoker, function, parts, body).await
        } else {
            call(&job.invoker, function, &parts, &body, &parameters).await
        }
    });
    invocation.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

impl Front {
    /// The function's index and the parameters of its route.
    fn find(&self, job: &Job, request: &Parts) -> Option<(usize, Parameters)> {
        let path = request.uri.path();
        if path == "/" {
            return Some((self.home.filter(|_| request.method == Method::GET)?, Parameters::default()));
        }
        let (start, path) = (path.get(..self.prefix.len())?, path.get(self.prefix.len()..)?);
        if !start.eq_ignore_ascii_case(&self.prefix) {
            return None;
        }
        let allowed =
            |methods: &[String]| methods.is_empty() || methods.iter().any(|method| request.method == **method);
        let functions = job.http.iter().enumerate().filter(|(_, function)| allowed(&function.trigger.methods));
        let mut found = functions.filter_map(|(index, function)| Some((index, function.trigger.route.matches(path)?)));
        // A route without parameters takes precedence.
        let first = found.next()?;
        if first.1.is_empty() { Some(first) } else { found.find(|other| other.1.is_empty()).or(Some(first)) }
    }
}

async fn call(
    invoker: &Invoker,
    HttpFunction { function, trigger, .. }: &HttpFunction,
    request: &Parts,
    body: &[u8],
    parameters: &Parameters,
) -> Response<Body> {
    let envelope = envelope::http(&function.name, trigger, request, body, parameters, Utc::now());
    let (_, answered) = invoker.call(function, envelope.to_string()).await;
    let Some(answered) = answered else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let output = trigger.output.as_deref().map_or(&Value::Null, |binding| answered.output(binding));
    answer::http_response(output).unwrap_or_else(|problem| {
        tracing::warn!(function = function.name, problem, "the http output is not a response");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

async fn forward(
    invoker: &Invoker,
    HttpFunction { function, .. }: &HttpFunction,
    request: Parts,
    body: Bytes,
) -> Response<Body> {
    let Parts { method, uri, headers, .. } = request;
    let (_, answered) = invoker.forward(&function.name, method, &uri, headers, body).await;
    let Some(answered) = answered else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = Response::new(Body::from(answered.body));
    *response.status_mut() = answered.status;
    *response.headers_mut() = answered.headers;
    answer::remove_hop_headers(response.headers_mut());
    response
}
