//! Reads a request's body within limits.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use tokio::time::timeout;

use super::error::Failure;
use crate::iot_hub::telemetry::MAX_MESSAGE;

/// How long a client may take to send its body.
const BODY: Duration = Duration::from_secs(30);

/// Bytes of a body over the limit that are read and dropped. Otherwise a client that is still writing would see a reset
/// connection instead of the answer.
const MAX_DROPPED: usize = 4 * 1024 * 1024;

/// The body, up to the size of the largest message.
pub async fn read(body: Body) -> Result<Vec<u8>, Failure> {
    let late = |_| Failure::bad_request(format!("the body did not come within {BODY:?}"));
    timeout(BODY, read_all(body.into_data_stream())).await.map_err(late)?
}

async fn read_all(mut chunks: BodyDataStream) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failure::bad_request(format!("the body is cut short: {error}")))?;
        length += chunk.len();
        if length <= MAX_MESSAGE {
            body.extend_from_slice(&chunk);
        } else if length > MAX_DROPPED {
            break;
        }
    }
    if length > MAX_MESSAGE {
        return Err(Failure::too_large(format!("a body of more than {MAX_MESSAGE} bytes")));
    }
    Ok(body)
}
