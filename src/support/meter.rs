//! Measures requests to a service: their number, failures and durations. Each summary line reports and resets these
//! values.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;

use super::kind::Kind;

/// Longer durations count as this one. No request is allowed to take so long.
const LONGEST: Duration = Duration::from_secs(600);
/// Precision of a duration, in decimal digits.
const DIGITS: u8 = 2;

/// The services that a function uses.
#[derive(Debug, Default)]
pub struct Meters {
    /// rapidM2M: a request for rows, a blueprint or the list of sites.
    pub backend: Meter,
    /// Cosmos DB: reading or writing documents.
    pub ledger: Meter,
    /// IoT Hub: sending the messages that one device has at a time, from connecting to the last acknowledgement.
    pub hub: Meter,
    /// The Device Provisioning Service: a device's registration, until a hub is assigned.
    pub dps: Meter,
}

/// Counts requests to one service. Cheap: a request allocates nothing.
#[derive(Debug)]
pub struct Meter(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    failures: u64,
    throttled: u64,
    bytes: u64,
    /// Microseconds.
    durations: Histogram<u32>,
}

/// The counts since the previous reading. All are `None` if there were no requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    pub requests: Option<u64>,
    /// Requests that failed, throttled ones included.
    pub failures: Option<u64>,
    pub throttled: Option<u64>,
    /// Size of bodies, from the backend or to the hub.
    pub bytes: Option<u64>,
    /// Milliseconds.
    pub median_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

/// The readings of all services of a function.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readings {
    pub backend: Reading,
    pub ledger: Reading,
    pub hub: Reading,
    pub dps: Reading,
    /// Messages that were in flight to the hub when a connection ended: they are sent again, and the hub may have them
    /// twice. For the whole app.
    pub unconfirmed: Option<u64>,
}

impl Meters {
    /// Returns the counts and resets them.
    #[must_use]
    pub fn take(&self) -> Readings {
        let Self { backend, ledger, hub, dps } = self;
        let (backend, ledger, hub, dps) = (backend.take(), ledger.take(), hub.take(), dps.take());
        Readings { backend, ledger, hub, dps, unconfirmed: None }
    }
}

impl Default for Meter {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let durations = Histogram::new_with_bounds(1, longest, DIGITS).expect("the bounds are in order");
        Self(Mutex::new(Counts { failures: 0, throttled: 0, bytes: 0, durations }))
    }
}

impl Meter {
    /// Counts a request with its duration and the bytes that it moved. `failure` is the kind of its failure as it is
    /// logged.
    pub fn count(&self, took: Duration, bytes: usize, failure: Option<&Kind>) {
        let mut counts = self.counts();
        counts.durations.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        counts.bytes += bytes as u64;
        counts.failures += u64::from(failure.is_some());
        counts.throttled += u64::from(failure.is_some_and(Kind::is_throttling));
    }

    fn take(&self) -> Reading {
        let mut counts = self.counts();
        let durations = &counts.durations;
        if durations.is_empty() {
            return Reading::default();
        }
        let ms = |micros: u64| Some((micros as f64 / 100.0).round() / 10.0);
        let reading = Reading {
            requests: Some(durations.len()),
            failures: Some(counts.failures),
            throttled: Some(counts.throttled),
            bytes: Some(counts.bytes),
            median_ms: ms(durations.value_at_quantile(0.5)),
            p95_ms: ms(durations.value_at_quantile(0.95)),
            max_ms: ms(durations.max()),
        };
        counts.durations.reset();
        (counts.failures, counts.throttled, counts.bytes) = (0, 0, 0);
        reading
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_says_what_requests_came_to_and_the_next_begins_anew() {
        let meters = Meters::default();
        assert_eq!(meters.take().hub, Reading::default());
        for millis in 1..=100 {
            let failure = (millis > 97).then_some(if millis == 100 { Kind::HubThrottled } else { Kind::HubCut });
            meters.hub.count(Duration::from_millis(millis), 10, failure.as_ref());
        }
        let Readings { hub, dps, .. } = meters.take();
        assert_eq!((hub.requests, hub.failures, hub.throttled, hub.bytes), (Some(100), Some(3), Some(1), Some(1000)));
        for (value, expected) in [(hub.median_ms, 50.0), (hub.p95_ms, 95.0), (hub.max_ms, 100.0)] {
            assert!((value.unwrap() - expected).abs() <= expected / 100.0, "{value:?} is not {expected}");
        }
        assert_eq!((dps, meters.take().hub), (Reading::default(), Reading::default()));
        meters.hub.count(Duration::from_secs(10_000), 0, None);
        assert!(meters.take().hub.max_ms >= Some(600_000.0));
    }
}
