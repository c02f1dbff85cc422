//! The HTTP front end: HTTP functions under the route prefix, timers under `/admin/functions/`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, Query, Request, State},
    http::{Response, StatusCode, request::Parts},
    response::IntoResponse,
    routing::post,
};
use chrono::Utc;
use serde_json::{Value, json};

use super::{answer, envelope, function::HttpTrigger, invoke::Invoker, route::Parameters, timer::Timer};

/// The host's default limit of a request's body, in bytes.
const LARGEST_BODY: usize = 104_857_600;

pub struct Front {
    pub invoker: Arc<Invoker>,
    /// `/api/`: begins and ends with a slash.
    pub prefix: String,
    pub forwards: bool,
    pub http: Vec<(String, HttpTrigger)>,
    pub timers: Vec<Arc<Timer>>,
}

pub fn router(front: Arc<Front>) -> Router {
    Router::new().route("/admin/functions/{name}", post(invoke_timer)).fallback(serve).with_state(front)
}

/// Starts a timer function at once, as the real host does; with `?wait` the answer comes after the invocation.
async fn invoke_timer(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response<Body> {
    let Some(timer) = front.timers.iter().find(|timer| timer.function.eq_ignore_ascii_case(&name)).cloned() else {
        return (StatusCode::NOT_FOUND, format!("there is no timer function {name:?}")).into_response();
    };
    // A task of its own: the function runs to its end even if the caller goes away.
    let invocation = tokio::spawn(async move { timer.invoke(false).await });
    if !query.contains_key("wait") {
        return StatusCode::ACCEPTED.into_response();
    }
    match invocation.await {
        Ok(finished) => Json(json!({
            "succeeded": finished.succeeded,
            "status": finished.status,
            "logs": finished.logs,
            "body": finished.response,
            "error": finished.error,
        }))
        .into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn serve(State(front): State<Arc<Front>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some((function, trigger, parameters)) = front.find(&parts) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    if front.forwards && trigger.output.is_some() {
        front.forward(function, parts, body).await
    } else {
        front.call(function, trigger, &parts, &body, &parameters).await
    }
}

impl Front {
    fn find(&self, request: &Parts) -> Option<(&str, &HttpTrigger, Parameters)> {
        let path = request.uri.path();
        let (start, path) = (path.get(..self.prefix.len())?, path.get(self.prefix.len()..)?);
        if !start.eq_ignore_ascii_case(&self.prefix) {
            return None;
        }
        let allowed =
            |methods: &[String]| methods.is_empty() || methods.iter().any(|method| request.method == **method);
        let matches = self.http.iter().filter(|(_, trigger)| allowed(&trigger.methods));
        let mut found = matches.filter_map(|(name, trigger)| Some((&**name, trigger, trigger.route.matches(path)?)));
        // A route without parameters goes first.
        let first = found.next()?;
        if first.2.is_empty() { Some(first) } else { found.find(|other| other.2.is_empty()).or(Some(first)) }
    }

    async fn call(
        &self,
        function: &str,
        trigger: &HttpTrigger,
        request: &Parts,
        body: &[u8],
        parameters: &Parameters,
    ) -> Response<Body> {
        let envelope = envelope::http(function, &trigger.binding, request, body, parameters, Utc::now());
        let (_, answered) = self.invoker.call(function, &envelope).await;
        let Some(answered) = answered else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
        let output = match trigger.output.as_deref() {
            Some("$return") => &answered.return_value,
            Some(name) => answered.outputs.get(name).unwrap_or(&Value::Null),
            None => &Value::Null,
        };
        answer::http_response(output).unwrap_or_else(|problem| {
            tracing::warn!(function, problem, "the http output is no response");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }

    async fn forward(&self, function: &str, request: Parts, body: Bytes) -> Response<Body> {
        let Parts { method, uri, headers, .. } = request;
        let (_, answered) = self.invoker.forward(function, method, &uri, headers, body).await;
        let Some(answered) = answered else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
        let mut response = Response::new(Body::from(answered.body));
        *response.status_mut() = answered.status;
        *response.headers_mut() = answered.headers;
        answer::remove_hop_headers(response.headers_mut());
        response
    }
}
