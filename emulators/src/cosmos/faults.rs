//! The fault switches of the Cosmos DB emulator.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::Method;
use serde::{Deserialize, Serialize};

/// The faults that apply to requests for items. Metadata (account, database, container) is answered as ever.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// How many requests are at fault; absent: all, until the switches are cleared.
    pub times: Option<u32>,
    /// Only requests that write (batches, creates, replaces).
    pub writes_only: bool,
    /// Waits this long before anything else.
    pub delay_ms: u64,
    /// Answers with this status and does nothing.
    pub status: Option<u16>,
    /// `x-ms-retry-after-ms` of that answer.
    pub retry_after_ms: Option<u64>,
    /// Answers 429 to more requests in a second than this.
    pub per_second: Option<u32>,
    /// Does the work, then cuts every connection instead of answering.
    pub swallow_answer: bool,
}

/// What happens to one request.
#[derive(Default)]
pub struct Fault {
    pub delay: Duration,
    pub status: Option<u16>,
    pub retry_after_ms: Option<u64>,
    pub swallow_answer: bool,
}

#[derive(Default)]
pub struct Switch(Mutex<Faults>, Mutex<Second>);

/// The requests of the present second.
#[derive(Default)]
struct Second {
    began: Option<Instant>,
    requests: u32,
}

impl Second {
    /// Whether one more request is too many.
    fn is_full(&mut self, most: u32) -> bool {
        let now = Instant::now();
        if self.began.is_none_or(|began| now - began >= Duration::from_secs(1)) {
            *self = Self { began: Some(now), requests: 0 };
        }
        self.requests += 1;
        self.requests > most
    }
}

impl Switch {
    pub fn get(&self) -> Faults {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, faults: Faults) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// The fault for one request, counted.
    pub fn take(&self, method: &Method, path: &str) -> Fault {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = path.contains("/docs") && (!faults.writes_only || *method != Method::GET);
        if !concerned {
            return Fault::default();
        }
        match &mut faults.times {
            Some(0) => return Fault::default(),
            Some(times) => *times -= 1,
            None => {}
        }
        let mut second = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let is_throttled = faults.per_second.is_some_and(|most| second.is_full(most));
        Fault {
            delay: Duration::from_millis(faults.delay_ms),
            status: faults.status.or(is_throttled.then_some(429)),
            retry_after_ms: faults.retry_after_ms,
            swallow_answer: faults.swallow_answer,
        }
    }
}
