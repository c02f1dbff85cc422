//! The end of the process in an orderly way: no new work, and a few seconds for the work in flight.

use std::time::Duration;

use tokio::sync::watch;

/// How long messages in flight are waited for. What is not acknowledged by then is sent again later, under the same id.
pub const SENDING: Duration = Duration::from_secs(3);
/// How long all work in flight may take, which includes marking what was acknowledged.
pub const WORKING: Duration = Duration::from_secs(6);
/// How long it may then take to mark what was forwarded before.
pub const MARKING: Duration = Duration::from_secs(2);

/// Whether the process is to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ending(watch::Sender<bool>);

impl Default for Ending {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Ending {
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves `grace` after the end has begun.
    pub async fn after(&self, grace: Duration) {
        // This value holds a sender, so the channel stays open.
        let mut begun = self.0.subscribe();
        drop(begun.wait_for(|has_begun| *has_begun).await);
        tokio::time::sleep(grace).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_in_flight_has_its_grace() {
        let ending = Ending::default();
        assert!(timeout(10 * SENDING, ending.after(SENDING)).await.is_err() && !ending.has_begun());
        ending.clone().begin();
        assert!(ending.has_begun());
        assert!(timeout(SENDING / 2, ending.after(SENDING)).await.is_err());
        assert!(timeout(SENDING * 2, ending.after(SENDING)).await.is_ok());
    }
}
