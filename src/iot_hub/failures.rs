//! What is remembered of failures, so that one that concerns everybody is waited for together, not by each in turn.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Endpoint, SendError, device::Device};
use crate::support::retry;

/// Attempts that may fail between two calls of [`Failures::forget`] before everyone is told at once.
pub const ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(100);
/// A wait that the hub asks for is kept up to this; what asks for more is not a hub that is throttling.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);
/// Who was asked to wait does not come back at the same moment as everybody else.
const ASKED_JITTER: f64 = 0.1;
/// A wait that the hub asks for and that is no longer than this is kept; a longer one ends the attempt.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(5);
/// Two clients of one device cut each other. Whoever waits no longer than this has several tries before it counts as stalled;
/// the waits differ, so that both get their turn.
const LONGEST_CONTEST_WAIT: Duration = Duration::from_secs(4);
/// A hub that has cut the connections of several devices for so long, and acknowledged nothing to any, has its quota used up:
/// of clients that take each other's devices over, each gets something acknowledged now and then.
const ALL_CUT_AFTER: Duration = Duration::from_secs(5);

/// A device of a hub, as a key of maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    pub endpoint: Endpoint,
    pub id: String,
}

impl DeviceKey {
    pub fn of(device: &Device) -> Self {
        Self { endpoint: device.endpoint.clone(), id: device.id.clone() }
    }
}

/// Whether to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Not before this.
    Wait(Instant),
    /// No: this has gone wrong often enough, or will not pass by itself.
    Closed(SendError),
}

/// Failures of hubs, and of single devices.
#[derive(Default)]
pub struct Failures(Mutex<Known>);

#[derive(Default)]
struct Known {
    hubs: HashMap<Endpoint, Failure>,
    devices: HashMap<DeviceKey, Failure>,
    cut: HashMap<Endpoint, Cuts>,
    /// Devices that had no acknowledgement for too long since a hub last acknowledged anything.
    silent: HashMap<Endpoint, HashSet<String>>,
}

/// Connections of a hub, accepted and cut since it last acknowledged anything.
struct Cuts {
    since: Instant,
    /// How many of each device.
    devices: HashMap<String, u32>,
}

struct Failure {
    error: SendError,
    attempts: u32,
    at: Instant,
    wait_until: Instant,
    /// Nobody tries again before the wait is over; everyone is told at once.
    is_given_up: bool,
    /// The hub itself asked for the wait: it outlives [`Failures::forget`].
    is_asked: bool,
}

impl Failures {
    pub fn gate(&self, device: &DeviceKey) -> Gate {
        let known = self.known();
        let now = Instant::now();
        let failures = [known.hubs.get(&device.endpoint), known.devices.get(device)];
        let mut gate = Gate::Open;
        for failure in failures.into_iter().flatten().filter(|failure| now < failure.wait_until) {
            let too_long = failure.is_asked && failure.wait_until - now > LONGEST_ASKED_WAIT;
            if failure.is_given_up || too_long {
                return Gate::Closed(failure.error.clone());
            }
            gate = match gate {
                Gate::Wait(until) => Gate::Wait(until.max(failure.wait_until)),
                _ => Gate::Wait(failure.wait_until),
            };
        }
        gate
    }

    /// An attempt that began at `began` has failed. What fails together counts once.
    pub fn failed(&self, device: &DeviceKey, error: &SendError, began: Instant) {
        tracing::debug!(device.id = device.id, failure.kind = error.kind(), "{error}");
        let mut known = self.known();
        if error.concerns_hub() {
            fail(known.hubs.entry(device.endpoint.clone()), error, began);
            return;
        }
        let counts = fail(known.devices.entry(device.clone()), error, began);
        if counts && known.is_cut_everywhere(device, error) {
            known.hubs.insert(device.endpoint.clone(), Failure::lasting(SendError::AllCut));
        }
    }

    /// That the device's connections were cut before anything was acknowledged, if that is why its messages wait.
    pub fn contest(&self, device: &DeviceKey) -> Option<SendError> {
        let known = self.known();
        let error = &known.devices.get(device)?.error;
        matches!(error, SendError::AcceptedThenCut { .. }).then(|| error.clone())
    }

    /// The device had no acknowledgement for too long: nobody waits for it any more, until [`forget`](Self::forget); for
    /// none of the hub's devices after several had none, and no other had one. Returns why: the hub may be out of reach.
    pub fn stalled(&self, device: &DeviceKey) -> SendError {
        let mut known = self.known();
        let error = known.hubs.get(&device.endpoint).or_else(|| known.devices.get(device));
        let error = error.map_or(SendError::Stalled, |failure| failure.error.clone());
        if let SendError::AcceptedThenCut { .. } = error {
            // A hub that cuts is not silent: another client may have the device.
            known.devices.insert(device.clone(), Failure::lasting(error.clone()));
            return error;
        }
        let silent = known.silent.entry(device.endpoint.clone()).or_default();
        silent.insert(device.id.clone());
        if silent.len() >= ATTEMPTS as usize || error.concerns_hub() {
            known.hubs.insert(device.endpoint.clone(), Failure::lasting(error.clone()));
        } else {
            known.devices.insert(device.clone(), Failure::lasting(error.clone()));
        }
        error
    }

    /// The hub has accepted a connection; whether it also takes messages is not known yet.
    pub fn connected(&self, device: &DeviceKey) {
        let mut known = self.known();
        if known.hubs.get(&device.endpoint).is_some_and(|failure| failure.error.concerns_hub()) {
            known.hubs.remove(&device.endpoint);
        }
    }

    /// The hub has acknowledged a message.
    pub fn acknowledged(&self, device: &DeviceKey) {
        let mut known = self.known();
        if known.is_empty() {
            return;
        }
        known.hubs.remove(&device.endpoint);
        known.devices.remove(device);
        known.cut.remove(&device.endpoint);
        known.silent.remove(&device.endpoint);
    }

    /// The device has a new identity: what failed with the old one does not count.
    pub fn forget_device(&self, device: &DeviceKey) {
        self.known().devices.remove(device);
    }

    /// Forgets everything but waits that a hub asked for.
    pub fn forget(&self) {
        let now = Instant::now();
        let mut known = self.known();
        known.hubs.retain(|_, failure| failure.is_asked && now < failure.wait_until);
        known.devices.clear();
        known.cut.clear();
        known.silent.clear();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    /// One that nobody tries again before [`Failures::forget`].
    fn lasting(error: SendError) -> Self {
        let at = Instant::now();
        Self { error, attempts: ATTEMPTS, at, wait_until: at + LONGEST_WAIT, is_given_up: true, is_asked: false }
    }
}

impl Known {
    fn is_empty(&self) -> bool {
        self.hubs.is_empty() && self.devices.is_empty() && self.cut.is_empty() && self.silent.is_empty()
    }

    /// Connections of several devices, accepted and cut again and again, none of them fruitful: that is no second client, but
    /// the quota.
    fn is_cut_everywhere(&mut self, device: &DeviceKey, error: &SendError) -> bool {
        if !matches!(error, SendError::AcceptedThenCut { .. }) {
            return false;
        }
        let now = Instant::now();
        let cuts = self.cut.entry(device.endpoint.clone());
        let cuts = cuts.or_insert_with(|| Cuts { since: now, devices: HashMap::new() });
        *cuts.devices.entry(device.id.clone()).or_default() += 1;
        let often = cuts.devices.values().filter(|times| **times >= ATTEMPTS).count();
        often >= ATTEMPTS as usize && now >= cuts.since + ALL_CUT_AFTER
    }
}

/// Whether it counts: it does not if another attempt has failed since this one began.
fn fail<K>(entry: std::collections::hash_map::Entry<'_, K, Failure>, error: &SendError, began: Instant) -> bool {
    use std::collections::hash_map::Entry;
    let now = Instant::now();
    let before = match &entry {
        Entry::Occupied(known) if known.get().at > began => return false,
        Entry::Occupied(known) => known.get().attempts,
        Entry::Vacant(_) => 0,
    };
    let attempts = before + 1;
    let asked = if let SendError::Throttled { wait } = error { *wait } else { None };
    // "Wait no time" is as good as saying nothing.
    let asked = asked.filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_ASKED));
    let asked = asked.map(|wait| wait.mul_f64(1.0 + ASKED_JITTER * fastrand::f64()));
    let is_contest = matches!(error, SendError::AcceptedThenCut { .. });
    let longest = if is_contest { LONGEST_CONTEST_WAIT } else { LONGEST_WAIT };
    let wait = asked.unwrap_or_else(|| retry::full_jitter(attempts, FIRST_WAIT, longest));
    let failure = Failure {
        error: error.clone(),
        attempts,
        at: now,
        wait_until: now + wait,
        is_given_up: !error.is_passing() || attempts >= ATTEMPTS && !is_contest,
        is_asked: asked.is_some(),
    };
    entry.insert_entry(failure);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceKey {
        DeviceKey { endpoint: Endpoint::parse("hub.example").unwrap(), id: id.into() }
    }

    fn unreachable() -> SendError {
        SendError::Unreachable("refused".into())
    }

    /// Fails three times, each attempt beginning after the one before.
    async fn fail_thrice(failures: &Failures, device: &DeviceKey, error: &SendError) {
        for _ in 0..ATTEMPTS {
            let began = Instant::now();
            tokio::time::advance(Duration::from_millis(1)).await;
            failures.failed(device, error, began);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_is_away_is_away_for_all_devices_until_the_next_invocation() {
        let failures = Failures::default();
        fail_thrice(&failures, &device("a"), &unreachable()).await;
        assert_eq!(failures.gate(&device("b")), Gate::Closed(unreachable()));
        failures.forget();
        assert_eq!(failures.gate(&device("b")), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_together_counts_once() {
        let failures = Failures::default();
        let began = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        for id in ["a", "b", "c", "d", "e"] {
            failures.failed(&device(id), &unreachable(), began);
        }
        assert!(matches!(failures.gate(&device("a")), Gate::Wait(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_device_closes_its_own_gate_only() {
        let failures = Failures::default();
        let error = SendError::Refused { device: "a".into() };
        failures.failed(&device("a"), &error, Instant::now());
        assert_eq!(failures.gate(&device("a")), Gate::Closed(error));
        assert_eq!(failures.gate(&device("b")), Gate::Open);
        failures.forget_device(&device("a"));
        assert_eq!(failures.gate(&device("a")), Gate::Open);
    }

    async fn cut_thrice(failures: &Failures, id: &str) {
        fail_thrice(failures, &device(id), &SendError::AcceptedThenCut { device: id.into() }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_does_nothing_but_cut_has_its_quota_used_up() {
        let failures = Failures::default();
        for id in ["a", "b", "c", "d"] {
            cut_thrice(&failures, id).await;
        }
        assert_eq!(failures.gate(&device("z")), Gate::Open, "too early to tell");
        tokio::time::advance(ALL_CUT_AFTER).await;
        failures.failed(&device("d"), &SendError::AcceptedThenCut { device: "d".into() }, Instant::now());
        assert_eq!(failures.gate(&device("z")), Gate::Closed(SendError::AllCut));
        failures.acknowledged(&device("z"));
        assert_eq!(failures.gate(&device("z")), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn devices_that_another_client_takes_over_are_not_the_hubs_matter() {
        let failures = Failures::default();
        for _ in 0..10 {
            for id in ["a", "b", "c", "d"] {
                cut_thrice(&failures, id).await;
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            // Now and then one gets through.
            failures.acknowledged(&device("a"));
        }
        for id in ["b", "c", "d"] {
            assert!(!matches!(failures.gate(&device(id)), Gate::Closed(_)), "{id} is to try again");
            // It does not end.
            let error = SendError::AcceptedThenCut { device: id.into() };
            assert_eq!(failures.contest(&device(id)), Some(error.clone()));
            assert_eq!(failures.stalled(&device(id)), error);
            assert_eq!(failures.gate(&device(id)), Gate::Closed(error));
        }
        assert_eq!(failures.gate(&device("a")), Gate::Open);
        assert_eq!(failures.contest(&device("a")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_of_a_contest_leave_time_for_several_tries() {
        let failures = Failures::default();
        for _ in 0..20 {
            cut_thrice(&failures, "a").await;
            let Gate::Wait(until) = failures.gate(&device("a")) else { continue };
            assert!(until <= Instant::now() + LONGEST_CONTEST_WAIT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_the_hub_asked_for_is_kept_across_invocations() {
        let failures = Failures::default();
        let error = SendError::Throttled { wait: Some(Duration::from_secs(90)) };
        failures.failed(&device("a"), &error, Instant::now());
        failures.forget();
        assert_eq!(failures.gate(&device("b")), Gate::Closed(error));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_ne!(failures.gate(&device("b")), Gate::Open, "not everybody at the same moment");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(failures.gate(&device("b")), Gate::Open);
        failures.failed(&device("a"), &SendError::Throttled { wait: Some(Duration::from_secs(2)) }, Instant::now());
        assert!(matches!(failures.gate(&device("b")), Gate::Wait(_)), "a short one is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_is_as_long_as_the_hub_likes() {
        let failures = Failures::default();
        let wait = Duration::from_secs(u64::MAX);
        failures.failed(&device("a"), &SendError::Throttled { wait: Some(wait) }, Instant::now());
        tokio::time::advance(Duration::from_secs(67 * 60)).await;
        assert_eq!(failures.gate(&device("a")), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn being_told_to_wait_no_time_counts_as_an_attempt() {
        let failures = Failures::default();
        let error = SendError::Throttled { wait: Some(Duration::ZERO) };
        fail_thrice(&failures, &device("a"), &error).await;
        assert_eq!(failures.gate(&device("a")), Gate::Closed(error));
    }

    #[tokio::test(start_paused = true)]
    async fn three_silent_devices_are_a_silent_hub_unless_another_one_was_heard() {
        let failures = Failures::default();
        for id in ["a", "b"] {
            assert_eq!(failures.stalled(&device(id)), SendError::Stalled);
        }
        assert_eq!(failures.gate(&device("z")), Gate::Open);
        failures.acknowledged(&device("z"));
        failures.stalled(&device("c"));
        assert_eq!(failures.gate(&device("z")), Gate::Open);
        for id in ["d", "e"] {
            failures.stalled(&device(id));
        }
        assert_eq!(failures.gate(&device("z")), Gate::Closed(SendError::Stalled));
        assert_eq!(
            failures.gate(&DeviceKey { endpoint: Endpoint::parse("other.hub").unwrap(), id: "z".into() }),
            Gate::Open
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_is_out_of_reach_is_not_called_silent() {
        let failures = Failures::default();
        failures.failed(&device("a"), &unreachable(), Instant::now());
        assert_eq!(failures.stalled(&device("a")), unreachable());
        assert_eq!(failures.gate(&device("b")), Gate::Closed(unreachable()));
    }
}
