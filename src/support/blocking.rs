//! Moves long work off the only runtime thread, so that it does not hold up the webhooks.

use std::panic;

/// Bytes of JSON that are read or written in about a millisecond.
const AT_ONCE: usize = 256 * 1024;

/// Does work on this many bytes: at once if they are few, otherwise on another thread while this one continues.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= AT_ONCE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime is shutting down: no caller waits any more.
            Err(_) => std::future::pending().await,
        },
    }
}
