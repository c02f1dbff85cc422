//! Wrong HTTP answers on demand, the same for every stand-in that speaks HTTP. `/trouble` of a control endpoint
//! switches them.
//!
//! `PUT /trouble` takes an array of rules, `GET` shows them with `met` (the number of requests that each has hit), and
//! `DELETE` removes them. The first rule that matches a request takes effect, before tokens are checked:
//!
//! ```json
//! [{"method":"GET","path":"/histdata","header":"x-ms-cosmos-is-batch-request","skip":1,"times":2,
//!   "effect":{"answer":{"status":429,"headers":{"retry-after":"5"},"body":"{\"err\":\"slow down\"}"}}}]
//! ```
//!
//! Only `effect` is required. `path` is a part of path and query; with a `$` at its end, it must be their end. `header`
//! is a header that the request must have. `skip` requests pass first, then `times` requests are hit.
//!
//! | Effect | |
//! |---|---|
//! | `{"answer":{"status":…,"headers":{…},"body":"…"}}` | this answer; nothing is done |
//! | `"hang"` | no answer; nothing is done |
//! | `"garbage"` | status 200, `application/json`, and bytes that are neither JSON nor text; nothing is done |
//! | `"echo"` | status 500 with a page that shows the request, credentials included, as careless services do |
//! | `{"endless":"[1,2],"}` | status 200 and a body that repeats this text for ever; nothing is done |
//! | `{"delayMs":500}` | the request is carried out at once, the answer comes late |
//! | `"cutBody"` | the request is carried out, and the connection is cut in the middle of the answer |
//! | `{"contentType":"text/html"}` | the request is carried out, and the answer has this content type |

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::listing::Route;

/// Bytes of a request body that are read before the request is answered.
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;
/// Largest answer that can be cut, in bytes.
const LARGEST_CUT: usize = 64 * 1024 * 1024;
/// Approximate size of one piece of an endless body, in bytes.
const PIECE: usize = 64 * 1024;
/// Time between half of a body and the cut, so that this half is sent.
const BEFORE_CUT: Duration = Duration::from_millis(20);
const GARBAGE: &[u8] = b"\x00\xff\xfe[[\x80\x1b[31mgarbage";

/// The rules of one stand-in. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Vec<Rule>>>);

/// Which requests are hit, and the effect on them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(default)]
    skip: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(default)]
    met: u64,
    effect: Effect,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Effect {
    Answer(Answer),
    Hang,
    Garbage,
    Echo,
    Endless(String),
    DelayMs(u64),
    CutBody,
    ContentType(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Answer {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

impl Trouble {
    /// Wraps the service so that the rules apply to its requests.
    ///
    /// Each request is logged with its answer.
    pub fn around(&self, service: Router) -> Router {
        service.layer(from_fn_with_state(self.clone(), meet)).layer(from_fn(log))
    }

    /// The routes for the control endpoint.
    pub fn control(&self) -> Router {
        Router::new().route("/trouble", get(show).put(set).delete(clear)).with_state(self.clone())
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, request: &Request) -> Option<Effect> {
        let mut rules = self.rules();
        let rule = rules.iter_mut().find(|rule| rule.matches(request))?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.met += 1;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(rule.effect.clone())
    }
}

/// For `GET /` of the control endpoint.
pub const ROUTES: &[Route] =
    &[("GET, PUT, DELETE", "/trouble", "rules for wrong answers of any kind to chosen requests")];

/// Without the query, which can have a signature.
async fn log(request: Request, next: Next) -> Response<Body> {
    if !tracing::enabled!(tracing::Level::INFO) {
        return next.run(request).await;
    }
    let (what, began) = (format!("{} {}", request.method(), request.uri().path()), Instant::now());
    let response = next.run(request).await;
    tracing::info!("{what}: {} in {} ms", response.status().as_u16(), began.elapsed().as_millis());
    response
}

impl Effect {
    fn name(&self) -> &'static str {
        match self {
            Self::Answer(_) => "another answer",
            Self::Hang => "no answer",
            Self::Garbage => "garbage",
            Self::Echo => "an echo of the request",
            Self::Endless(_) => "an answer without an end",
            Self::DelayMs(_) => "a late answer",
            Self::CutBody => "half an answer",
            Self::ContentType(_) => "another content type",
        }
    }
}

impl Rule {
    fn matches(&self, request: &Request) -> bool {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        self.times != Some(0)
            && self.method.as_ref().is_none_or(|method| method == request.method().as_str())
            && self.path.as_ref().is_none_or(|path| match path.strip_suffix('$') {
                Some(end) => target.ends_with(end),
                None => target.contains(path),
            })
            && self.header.as_ref().is_none_or(|header| request.headers().contains_key(header))
    }
}

async fn show(State(trouble): State<Trouble>) -> Json<Vec<Rule>> {
    Json(trouble.rules().clone())
}

async fn set(
    State(trouble): State<Trouble>,
    Json(rules): Json<Vec<Rule>>,
) -> Result<StatusCode, (StatusCode, Json<Value>)> {
    for rule in &rules {
        if let Effect::Answer(answer) = &rule.effect {
            answer.parts().map_err(|error| (StatusCode::BAD_REQUEST, Json(json!({ "err": error }))))?;
        }
    }
    *trouble.rules() = rules;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear(State(trouble): State<Trouble>) -> StatusCode {
    trouble.rules().clear();
    StatusCode::NO_CONTENT
}

async fn meet(State(trouble): State<Trouble>, request: Request, next: Next) -> Response<Body> {
    let Some(effect) = trouble.take(&request) else { return next.run(request).await };
    tracing::info!("a rule gives {} {} {}", request.method(), request.uri().path(), effect.name());
    match effect {
        Effect::Answer(answer) => {
            // Read the body to its end first: an answer to a half-read request ends the connection, and the client may
            // never see it.
            drop(axum::body::to_bytes(request.into_body(), LARGEST_REQUEST).await);
            answer.response()
        }
        Effect::Hang => std::future::pending().await,
        Effect::Garbage => json_body(GARBAGE.into()),
        Effect::Echo => echo(&request),
        Effect::Endless(text) => json_body(endless(&text)),
        Effect::DelayMs(ms) => {
            let response = next.run(request).await;
            sleep(Duration::from_millis(ms)).await;
            response
        }
        Effect::CutBody => cut(next.run(request).await).await,
        Effect::ContentType(name) => {
            let mut response = next.run(request).await;
            let name = HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("text/html"));
            response.headers_mut().insert(header::CONTENT_TYPE, name);
            response
        }
    }
}

impl Answer {
    fn parts(&self) -> Result<(StatusCode, HeaderMap), String> {
        let status = StatusCode::from_u16(self.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let status = status.ok_or_else(|| format!("status {} is not in 200..=599", self.status))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
            let (Ok(name), Ok(value)) = parsed else { return Err(format!("{name}: {value} is not a header")) };
            headers.insert(name, value);
        }
        Ok((status, headers))
    }

    fn response(self) -> Response<Body> {
        let (status, headers) = self.parts().unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new()));
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn json_body(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn endless(text: &str) -> Body {
    let piece = Bytes::from(text.repeat((PIECE / text.len().max(1)).max(1)));
    Body::from_stream(stream::repeat(piece).map(Ok::<_, io::Error>))
}

fn echo(request: &Request) -> Response<Body> {
    let mut page = format!("something went wrong with {} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        page += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

async fn cut(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, LARGEST_CUT).await.unwrap_or_default();
    // This status allows no body, so there is nothing to cut.
    if parts.status == StatusCode::NO_CONTENT {
        parts.status = StatusCode::OK;
    }
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len() + 1));
    let half = whole.slice(..whole.len() / 2);
    let pieces = stream::once(async { Ok(half) }).chain(stream::once(async {
        sleep(BEFORE_CUT).await;
        Err(io::Error::other("cut as demanded"))
    }));
    Response::from_parts(parts, Body::from_stream(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: Value) -> Result<Vec<Rule>, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    fn request(method: &str, target: &str) -> Request {
        Request::builder().method(method).uri(target).header("x-batch", "1").body(Body::empty()).unwrap()
    }

    #[test]
    fn a_rule_lets_some_pass_hits_some_and_counts() {
        let trouble = Trouble::default();
        *trouble.rules() = rules(json!([
            {"method": "GET", "path": "/b?", "effect": "garbage"},
            {"path": "/end$", "effect": "hang"},
            {"method": "POST", "path": "/a", "header": "x-batch", "skip": 1, "times": 2, "effect": "hang"},
        ]))
        .unwrap();
        let hits = |target| trouble.take(&request("POST", target)).is_some();
        assert_eq!(
            [hits("/x/a/1"), hits("/b?c/end?"), hits("/b/end"), hits("/a"), hits("/a?b"), hits("/a")],
            [false, false, true, true, true, false]
        );
        assert!(matches!(trouble.take(&request("GET", "/b?c")), Some(Effect::Garbage)));
        assert_eq!(trouble.rules().iter().map(|rule| rule.met).collect::<Vec<_>>(), [1, 1, 2]);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        for (rule, reason) in [
            (json!([{}]), "missing field `effect`"),
            (json!([{"effect": "explode"}]), "unknown variant"),
            (json!([{"effect": "hang", "site": "x"}]), "unknown field"),
            (json!([{"effect": {"answer": {"headers": {}}}}]), "missing field `status`"),
        ] {
            let error = rules(rule).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let answer = |status, value: &str| Answer {
            status,
            headers: BTreeMap::from([("retry-after".to_owned(), value.to_owned())]),
            body: String::new(),
        };
        assert!(answer(99, "1").parts().is_err() && answer(429, "a\nb").parts().is_err());
        assert_eq!(answer(429, "7").parts().unwrap().1["retry-after"], "7");
    }

    #[tokio::test]
    async fn half_an_answer_is_sent() {
        let response = cut(Response::new(Body::from("whole"))).await;
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "6");
        let mut pieces = response.into_body().into_data_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "wh");
        assert!(pieces.next().await.unwrap().is_err());
    }
}
