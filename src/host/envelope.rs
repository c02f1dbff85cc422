//! The parts that all calls share: reading the whole body, and the span of the call's log lines.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde_json::json;
use tracing::field::Empty;

use super::{failed, invocation_id};

/// The largest envelope that is accepted, in bytes. A timer's has less than 1 KB, that of a 64 KiB queue message less
/// than 400 KB.
pub const MAX_ENVELOPE: usize = 1024 * 1024;
/// The largest envelope of a webhook. It has the body twice, and a reception has a kilobyte: this is 10,000 of them.
pub const MAX_WEBHOOK: usize = 64 * MAX_ENVELOPE;
/// A larger body is read to its end, so that the response gets through, up to the host's own limit for requests.
const MAX_DISCARDED: usize = 128 * 1024 * 1024;

/// Why there is no body.
pub enum Unread {
    TooLarge,
    Broken(String),
}

impl Unread {
    #[must_use]
    pub fn response(&self) -> Response {
        match self {
            Self::TooLarge => {
                let text = format!("the envelope is larger than {MAX_ENVELOPE} bytes");
                failed(StatusCode::PAYLOAD_TOO_LARGE, &text, &json!([]))
            }
            Self::Broken(text) => failed(StatusCode::BAD_REQUEST, text, &json!([])),
        }
    }
}

/// Reads a body of at most [`MAX_ENVELOPE`] bytes; see [`read_up_to`].
///
/// # Errors
/// See [`Unread`].
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Unread> {
    read_up_to(MAX_ENVELOPE, headers, body).await
}

/// Reads a body to its end, and keeps it if it is not too large: closing a connection with unread bytes can discard the
/// response.
///
/// # Errors
/// See [`Unread`].
pub async fn read_up_to(limit: usize, headers: &HeaderMap, body: Body) -> Result<Bytes, Unread> {
    let mut pieces = body.into_data_stream();
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let text = format!("the body breaks off: {error}");
            // The caller may have gone, and never read the answer.
            span(invocation_id(headers)).in_scope(|| tracing::warn!("a call was not read: {text}"));
            Unread::Broken(text)
        })?;
        length += piece.len();
        if length > MAX_DISCARDED {
            return Err(Unread::TooLarge);
        }
        if length <= limit {
            bytes.extend_from_slice(&piece);
        }
    }
    if length > limit { Err(Unread::TooLarge) } else { Ok(bytes.freeze()) }
}

/// The response to a body that is not the envelope of, for example, "a timer's call".
#[must_use]
pub fn malformed(of: &str, error: &str) -> Response {
    let text = format!("the body is not the envelope of {of}: {error}");
    failed(StatusCode::BAD_REQUEST, &text, &json!([]))
}

/// The fields that every line of an invocation has. The span has the highest level, so that no filter removes the
/// fields from a line that is logged. Application and device are set later, when they are known.
#[must_use]
pub fn span(id: &str) -> tracing::Span {
    tracing::error_span!("invocation", invocation.id = id, application.id = Empty, end_device.id = Empty)
}
