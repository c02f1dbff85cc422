//! The HTTP server that the Functions host talks to: one route for each function, and the host's ping.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post},
};
use bytes::BytesMut;
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{Instrument as _, field::Empty};

use crate::{
    app::App,
    functions::{progress::Progress, things_network_forwarding::Outcome, things_network_uplink},
    host::{self, http::HttpRequest, queue::QueueMessage, timer::Invocation},
};

/// The largest envelope that is taken, in bytes: a timer's has less than 1 KB, a queue message of 64 KiB less than 400 KB.
const MAX_ENVELOPE: usize = 1024 * 1024;
/// What is larger is read to its end, so that the answer gets through, up to the host's own limit for requests.
const MAX_DISCARDED: usize = 128 * 1024 * 1024;

/// The bindings' names in the function.json of status, thingsNetworkUplink and thingsNetworkForwarding.
const REQUEST: &str = "req";
const RESPONSE: &str = "res";
const UPLINK: &str = "uplink";
const REJECTED: &str = "rejected";

/// Serves until `shutdown` resolves.
///
/// # Errors
/// The listener fails.
pub async fn run(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(shutdown).await
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(ready))
        .route("/rapidM2MForwarding", post(rapidm2m_forwarding))
        .route("/thingsNetworkUplink", post(things_network_uplink))
        .route("/thingsNetworkForwarding", post(things_network_forwarding))
        .route("/status", post(status))
        .fallback(not_found)
        .with_state(app)
}

/// The host takes any answer for a sign that the handler is ready.
async fn ready() -> Json<Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "status": "ready" }))
}

async fn not_found(uri: axum::http::Uri, headers: HeaderMap, body: Body) -> Response {
    // A connection that is closed on unread bytes takes the answer with it.
    let _ = read(&headers, body).await;
    host::failed(StatusCode::NOT_FOUND, &format!("there is no function at {}", uri.path()), &json!([]))
}

/// Why there is no body.
enum Unread {
    TooLarge,
    Broken(String),
}

impl Unread {
    fn response(&self) -> Response {
        match self {
            Self::TooLarge => {
                let text = format!("the envelope is larger than {MAX_ENVELOPE} bytes");
                host::failed(StatusCode::PAYLOAD_TOO_LARGE, &text, &json!([]))
            }
            Self::Broken(text) => host::failed(StatusCode::BAD_REQUEST, text, &json!([])),
        }
    }
}

/// Reads a body to its end, and keeps it if it is not too large.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Unread> {
    let mut pieces = body.into_data_stream();
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let text = format!("the body breaks off: {error}");
            // Nobody may be there to read the answer.
            invocation_span(host::invocation_id(headers)).in_scope(|| tracing::warn!("a call was not read: {text}"));
            Unread::Broken(text)
        })?;
        length += piece.len();
        if length > MAX_DISCARDED {
            return Err(Unread::TooLarge);
        }
        if length <= MAX_ENVELOPE {
            bytes.extend_from_slice(&piece);
        }
    }
    if length > MAX_ENVELOPE { Err(Unread::TooLarge) } else { Ok(bytes.freeze()) }
}

fn no_envelope(of: &str, error: &str) -> Response {
    let text = format!("the body is not the envelope of {of}: {error}");
    host::failed(StatusCode::BAD_REQUEST, &text, &json!([]))
}

/// What every line within an invocation has. At the highest level, so that no filter takes it from a line that is written.
/// Whose message it is, is known later.
fn invocation_span(id: &str) -> tracing::Span {
    tracing::error_span!("invocation", invocation.id = id, application.id = Empty, end_device.id = Empty)
}

async fn rapidm2m_forwarding(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let body = match read(&headers, body).await {
        Ok(body) => body,
        Err(unread) => return unread.response(),
    };
    let invocation = match Invocation::read(&headers, &body) {
        Ok(invocation) => invocation,
        Err(error) => return no_envelope("a timer's call", &error),
    };
    // The timer runs in every app; a half that nobody asked for is no failure.
    let Some(function) = &app.rapidm2m_forwarding else {
        return host::succeeded(&json!({}), &["rapidM2M is off: M2MBackendURL and Customer_ID are not set".to_owned()]);
    };
    let span = invocation_span(&invocation.id);
    let summary = function.invoke().instrument(span).await;
    if summary.is_success() {
        host::succeeded(&json!({}), &[])
    } else {
        host::failed(StatusCode::INTERNAL_SERVER_ERROR, &summary.to_string(), &summary.failed())
    }
}

async fn status(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let request = match read(&headers, body).await {
        Ok(body) => HttpRequest::read(&body, REQUEST),
        Err(unread) => return unread.response(),
    };
    match request {
        Ok(request) => {
            let answer = async {
                let progress = Progress::of("status");
                let response = app.status.invoke(&request).await;
                progress.end();
                response
            };
            let span = invocation_span(host::invocation_id(&headers));
            host::succeeded(&json!({ RESPONSE: answer.instrument(span).await }), &[])
        }
        Err(error) => no_envelope("an HTTP call", &error),
    }
}

/// Outputs of thingsNetworkUplink, by their bindings' names.
#[derive(Serialize)]
struct UplinkOutputs<'a> {
    res: &'a Value,
    /// An array of strings is what the host leaves alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    uplinks: Option<[String; 1]>,
}

async fn things_network_uplink(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let Some(function) = &app.things_network_uplink else {
        // A connection that is closed on unread bytes takes the answer with it.
        let _ = read(&headers, body).await;
        let text = "The Things Network is off: set UplinkQueueName in the function app's settings";
        let response = host::http::problem(reqwest::StatusCode::SERVICE_UNAVAILABLE, text);
        return host::succeeded(&UplinkOutputs { res: &response, uplinks: None }, &[]);
    };
    let answer = match read(&headers, body).await {
        Ok(body) => match HttpRequest::read(&body, REQUEST) {
            Ok(request) => invocation_span(host::invocation_id(&headers)).in_scope(|| function.invoke(&request)),
            Err(error) => return no_envelope("an HTTP call", &error),
        },
        Err(Unread::TooLarge) => function.refuse_too_large(MAX_ENVELOPE),
        Err(unread) => return unread.response(),
    };
    let things_network_uplink::Answer { response, queued } = answer;
    host::succeeded(&UplinkOutputs { res: &response, uplinks: queued.map(|text| [text]) }, &[])
}

async fn things_network_forwarding(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let Some(function) = &app.things_network_forwarding else {
        let _ = read(&headers, body).await;
        let text = "The Things Network is off, the message stays in the queue: set UplinkQueueName";
        return host::failed(StatusCode::INTERNAL_SERVER_ERROR, text, &json!([]));
    };
    let message = match read(&headers, body).await {
        Ok(body) => QueueMessage::read(&body, UPLINK),
        Err(unread) => return unread.response(),
    };
    let message = match message {
        Ok(message) => message,
        Err(error) => return no_envelope("a queue's call", &error),
    };
    let span = invocation_span(host::invocation_id(&headers));
    match function.invoke(&message).instrument(span).await {
        Outcome::Forwarded => host::succeeded(&json!({}), &[]),
        Outcome::Rejected(text) => host::succeeded(&json!({ REJECTED: [text] }), &[]),
        Outcome::Failed(text) => host::failed(StatusCode::INTERNAL_SERVER_ERROR, &text, &json!([])),
    }
}
