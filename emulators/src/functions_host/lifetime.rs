//! How the host ends.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Lifetime {
    /// Nothing new begins.
    pub stopping: CancellationToken,
    /// The handler is asked to end.
    pub stop: CancellationToken,
    /// The handler is killed at once.
    pub kill: CancellationToken,
    failure: Arc<OnceLock<String>>,
}

impl Lifetime {
    /// The host cannot go on: it ends, and the handler with it.
    pub fn fail(&self, reason: String) {
        tracing::error!(reason, "the host ends");
        // The first reason counts.
        let _ = self.failure.set(reason);
        self.stopping.cancel();
        self.stop.cancel();
    }

    /// Waits until the host cannot go on. Returns the reason.
    pub async fn failed(&self) -> String {
        self.stopping.cancelled().await;
        match self.failure.get() {
            Some(reason) => reason.clone(),
            None => std::future::pending().await,
        }
    }

    /// Waits until the handler must end.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.kill.cancelled() => {}
        }
    }

    /// Why the host has ended.
    pub fn reason(&self) -> String {
        self.failure.get().map_or_else(|| "stopped".to_owned(), String::clone)
    }
}
