//! The time that data carries. Delays and deadlines use tokio's clock instead.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

/// Tells the time in whole milliseconds, which is what the ledger and the backend keep.
#[derive(Clone, Copy, Debug)]
pub struct Clock(fn() -> DateTime<Utc>);

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self(Utc::now)
    }

    /// One that a test makes.
    #[cfg(test)]
    pub(crate) fn of(now: fn() -> DateTime<Utc>) -> Self {
        Self(now)
    }

    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let now = (self.0)();
        now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now)
    }
}
