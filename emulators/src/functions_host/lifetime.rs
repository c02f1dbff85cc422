//! How the host ends, and how a job host within it ends.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Lifetime {
    /// Nothing new begins.
    pub stopping: CancellationToken,
    /// Calls in flight are given up.
    pub cut: CancellationToken,
    /// The handler is asked to end.
    pub stop: CancellationToken,
    /// The handler is killed at once.
    pub kill: CancellationToken,
    failure: Arc<OnceLock<String>>,
    /// That of the whole host, if this is a job host's.
    whole: Option<Arc<Lifetime>>,
}

impl Lifetime {
    /// The lifetime of a job host: it may end before the whole host, and ends with it.
    pub fn of_job(self: &Arc<Self>) -> Self {
        Self {
            stopping: self.stopping.child_token(),
            cut: self.cut.child_token(),
            stop: self.stop.child_token(),
            kill: self.kill.child_token(),
            failure: self.failure.clone(),
            whole: Some(self.clone()),
        }
    }

    /// The whole host cannot go on: it ends, and the handler with it.
    pub fn fail(&self, reason: String) {
        let whole = self.whole.as_deref().unwrap_or(self);
        tracing::error!(reason, "the host ends");
        // The first reason counts.
        let _ = whole.failure.set(reason);
        whole.stopping.cancel();
        whole.stop.cancel();
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

    /// Whether the handler ends because the whole host ends.
    pub fn is_over(&self) -> bool {
        let whole = self.whole.as_deref().unwrap_or(self);
        whole.stop.is_cancelled() || whole.kill.is_cancelled()
    }

    /// Why the host has ended.
    pub fn reason(&self) -> String {
        self.failure.get().map_or_else(|| "stopped".to_owned(), String::clone)
    }
}
