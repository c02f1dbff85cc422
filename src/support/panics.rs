//! Limits a panic to the work in which it happened. The panic hook ([`logging`](super::logging)) writes the log line.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt as _;

use super::redact;

/// The result, or the panic's message. After a panic, the caller must discard everything that the future may have left
/// half changed.
///
/// # Errors
/// The future panicked.
pub async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let caught = AssertUnwindSafe(future).catch_unwind().await;
    caught.map_err(|payload| {
        let text = redact::without_credentials(message(&*payload));
        format!("a bug in the connector, please report it: {text}")
    })
}

/// The panic's message.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> &str {
    let (text, string) = (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>());
    text.copied().or(string.map(String::as_str)).unwrap_or("no message")
}
