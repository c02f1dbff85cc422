//! The service's clock.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// The machine's time, moved ahead by some seconds.
#[derive(Default)]
pub struct Clock(AtomicI64);

impl Clock {
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::try_seconds(self.0.load(Ordering::Relaxed)).unwrap_or_default()
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}
