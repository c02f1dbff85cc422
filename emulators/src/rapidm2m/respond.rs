//! Turns an answer into an HTTP response, faults included.

use std::{io, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{task::yield_now, time::sleep};

use super::{faults::Effect, journal::InFlight, table::Table};

/// Size of the pieces of a trickling body, in bytes.
const TRICKLE: usize = 64;
/// Size of the pieces of a big body, in bytes.
const BIG_PIECE: usize = 64 * 1024;
const LOGIN_PAGE: &str = "<!DOCTYPE html><html><head><title>Login</title></head><body>Please log in.</body></html>";

/// The API's answer when no fault applies.
pub struct Answer {
    pub status: StatusCode,
    pub content: Content,
}

pub enum Content {
    Json(Value),
    Rows(Table),
}

impl Answer {
    pub fn ok(value: Value) -> Self {
        Self { status: StatusCode::OK, content: Content::Json(value) }
    }

    pub fn error(status: StatusCode, message: &str) -> Self {
        Self { status, content: Content::Json(json!({ "err": message })) }
    }

    pub fn rows(&self) -> u64 {
        match &self.content {
            Content::Json(_) => 0,
            Content::Rows(table) => table.len(),
        }
    }

    fn pieces(self) -> Pieces {
        match self.content {
            Content::Json(value) => one_piece(value.to_string()),
            Content::Rows(table) => Box::new(table.pieces()),
        }
    }
}

type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

fn one_piece(text: impl Into<Bytes>) -> Pieces {
    Box::new(std::iter::once(text.into()))
}

/// The status and the number of rows that [`respond`] will send. No status means no answer.
pub fn outcome(answer: &Answer, effect: Option<&Effect>) -> (Option<u16>, u64) {
    match effect {
        None | Some(Effect::DelayMs(_) | Effect::CutBody | Effect::TrickleMs(_)) => {
            (Some(answer.status.as_u16()), answer.rows())
        }
        Some(Effect::Hang) => (None, 0),
        Some(Effect::Status { status, .. }) => (Some(status.as_u16()), 0),
        Some(_) => (Some(200), 0),
    }
}

/// Sends `answer`, changed by `effect`. `in_flight` lives until the body has been handed over.
pub async fn respond(
    answer: Answer,
    effect: Option<Effect>,
    content_type: HeaderValue,
    in_flight: InFlight,
) -> Response<Body> {
    match effect {
        Some(Effect::Hang) => std::future::pending().await,
        Some(Effect::DelayMs(ms)) => sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
    let (mut headers, mut status) = (HeaderMap::new(), StatusCode::OK);
    let mut named = |content_type| drop(headers.insert(header::CONTENT_TYPE, content_type));
    let json = HeaderValue::from_static("application/json");
    let mut sending = Sending::Normal;
    let pieces = match effect {
        Some(Effect::Garbage) => {
            named(json);
            one_piece(&b"\x00\xff\xfe[[\x80garbage"[..])
        }
        Some(Effect::Html) => {
            named(HeaderValue::from_static("text/html; charset=utf-8"));
            one_piece(LOGIN_PAGE)
        }
        Some(Effect::EmptyBody) => {
            named(json);
            one_piece("")
        }
        Some(Effect::RawBody(text)) => {
            named(json);
            one_piece(text)
        }
        Some(Effect::BigBody(bytes)) => {
            named(json);
            big(bytes)
        }
        Some(Effect::Status { status: wanted, retry_after, body, content_type }) => {
            status = wanted;
            named(content_type);
            if let Some(retry_after) = retry_after {
                headers.insert(header::RETRY_AFTER, retry_after);
            }
            one_piece(body.unwrap_or_else(|| json!({ "err": status.to_string() }).to_string()))
        }
        normal => {
            sending = match normal {
                Some(Effect::CutBody) => Sending::Cut,
                Some(Effect::TrickleMs(ms)) => Sending::Slowly(Duration::from_millis(ms)),
                _ => Sending::Normal,
            };
            status = answer.status;
            named(content_type);
            answer.pieces()
        }
    };
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"rapidM2M\""));
    }
    let (body, length) = body(pieces, sending, in_flight);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

enum Sending {
    Normal,
    Slowly(Duration),
    Cut,
}

/// The body, and the length to announce if the body is a single piece. Longer bodies are sent chunked.
fn body(pieces: Pieces, sending: Sending, in_flight: InFlight) -> (Body, Option<usize>) {
    let mut pieces = pieces.peekable();
    let first = pieces.next().unwrap_or_default();
    let length = pieces.peek().is_none().then_some(first.len());
    let pieces = std::iter::once(first.clone()).chain(pieces);
    match sending {
        Sending::Normal => (Body::from_stream(stream::iter(pieces.map(move |piece| kept(&in_flight, piece)))), length),
        Sending::Slowly(pause) => {
            let small = pieces.flat_map(|piece| {
                (0..piece.len()).step_by(TRICKLE).map(move |at| piece.slice(at..piece.len().min(at + TRICKLE)))
            });
            let slow = stream::iter(small.map(move |piece| kept(&in_flight, piece)));
            let slow = slow.then(move |piece| async move {
                sleep(pause).await;
                piece
            });
            (Body::from_stream(slow), length)
        }
        Sending::Cut => {
            let half = first.slice(..first.len() / 2);
            let cut = stream::once(async move { kept(&in_flight, half) }).chain(stream::once(async {
                // Gives the connection time to send the first half.
                yield_now().await;
                Err(io::Error::other("cut as demanded"))
            }));
            (Body::from_stream(cut), Some(first.len() + 1))
        }
    }
}

/// The piece as an item of the stream. The reference to `in_flight` keeps it alive as long as the stream.
fn kept(_in_flight: &InFlight, piece: Bytes) -> io::Result<Bytes> {
    Ok(piece)
}

/// An array of rows that is never closed.
fn big(bytes: u64) -> Pieces {
    let row = br#"["20170126133",51000,21.37],"#;
    let mut piece = row.repeat(BIG_PIECE / row.len());
    let pieces = bytes.div_ceil(piece.len() as u64);
    let others = Bytes::from(piece.clone());
    piece.insert(0, b'[');
    Box::new((0..pieces.max(1)).map(move |number| if number == 0 { piece.clone().into() } else { others.clone() }))
}
