//! Keeps a panic from ending more than the work that it happened in. The log line comes from the panic hook
//! ([`logging`](super::logging)).

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt as _;

use super::redact;

/// The result, or what a panic said. After a panic, the caller must throw away whatever the future may have left half
/// changed.
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

/// What a panic said.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> &str {
    let (text, string) = (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>());
    text.copied().or(string.map(String::as_str)).unwrap_or("no message")
}
