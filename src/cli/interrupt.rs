//! Ends a command from outside: Ctrl-C, SIGTERM, or the end of the Functions host.

use std::time::Duration;

/// How long the end waits for log lines of dropped work.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often the handler looks whether its host is still there.
const LOOK: Duration = Duration::from_secs(10);

/// Resolves when the user presses Ctrl-C.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves at the second Ctrl-C: the user does not want to wait for work in flight.
pub async fn interrupted_twice() {
    interrupted().await;
    interrupted().await;
}

/// Resolves when the handler is to end: at Ctrl-C, at SIGTERM, or when the process that started it is gone.
pub async fn told_to_end() {
    tokio::select! {
        () = interrupted() => tracing::info!("the handler was interrupted and ends"),
        () = terminated() => tracing::info!("the connector was told to end (SIGTERM)"),
        () = orphaned() => tracing::warn!("the process that started the handler has ended, so the handler ends"),
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// A host that is killed, or that gives up on a call, leaves its handler behind.
#[cfg(unix)]
async fn orphaned() {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(LOOK).await;
    }
}

/// On Windows, the host ends its handler by killing it.
#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

/// On Windows, the host's job object takes its handler along.
#[cfg(not(unix))]
async fn orphaned() {
    std::future::pending().await
}
