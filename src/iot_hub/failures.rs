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
    /// Devices whose connections were accepted and cut since a hub last acknowledged anything.
    cut: HashMap<Endpoint, HashSet<String>>,
    /// Devices that had no acknowledgement for too long since a hub last acknowledged anything.
    silent: HashMap<Endpoint, HashSet<String>>,
}

struct Failure {
    error: SendError,
    attempts: u32,
    at: Instant,
    wait_until: Instant,
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
            if failure.attempts >= ATTEMPTS || !failure.error.is_passing() || too_long {
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
        fail(known.devices.entry(device.clone()), error, began);
        if known.is_cut_everywhere(device, error) {
            known.hubs.insert(device.endpoint.clone(), Failure::lasting(SendError::AllCut));
        }
    }

    /// The device had no acknowledgement for too long: nobody waits for it any more, until [`forget`](Self::forget); for
    /// none of the hub's devices after several had none, and no other had one. Returns why: the hub may be out of reach.
    pub fn stalled(&self, device: &DeviceKey) -> SendError {
        let mut known = self.known();
        let error = known.hubs.get(&device.endpoint).or_else(|| known.devices.get(device));
        let error = error.map_or(SendError::Stalled, |failure| failure.error.clone());
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
        Self { error, attempts: ATTEMPTS, at, wait_until: at + LONGEST_WAIT, is_asked: false }
    }
}

impl Known {
    fn is_empty(&self) -> bool {
        self.hubs.is_empty() && self.devices.is_empty() && self.cut.is_empty() && self.silent.is_empty()
    }

    /// Connections of several devices, accepted and cut, none of them fruitful: that is no second client, but the quota.
    fn is_cut_everywhere(&mut self, device: &DeviceKey, error: &SendError) -> bool {
        if !matches!(error, SendError::AcceptedThenCut { .. }) {
            return false;
        }
        let cut = self.cut.entry(device.endpoint.clone()).or_default();
        cut.insert(device.id.clone());
        cut.len() >= ATTEMPTS as usize
    }
}

fn fail<K>(entry: std::collections::hash_map::Entry<'_, K, Failure>, error: &SendError, began: Instant) {
    use std::collections::hash_map::Entry;
    let now = Instant::now();
    let before = match &entry {
        Entry::Occupied(known) if known.get().at > began => return,
        Entry::Occupied(known) => known.get().attempts,
        Entry::Vacant(_) => 0,
    };
    let attempts = before + 1;
    let asked = if let SendError::Throttled { wait } = error { *wait } else { None };
    // "Wait no time" is as good as saying nothing.
    let asked = asked.filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_ASKED));
    let asked = asked.map(|wait| wait.mul_f64(1.0 + ASKED_JITTER * fastrand::f64()));
    let wait = asked.unwrap_or_else(|| retry::full_jitter(attempts, FIRST_WAIT, LONGEST_WAIT));
    let failure =
        Failure { error: error.clone(), attempts, at: now, wait_until: now + wait, is_asked: asked.is_some() };
    entry.insert_entry(failure);
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

    #[tokio::test(start_paused = true)]
    async fn connections_of_three_devices_cut_after_connack_are_the_hubs_matter() {
        let failures = Failures::default();
        for id in ["a", "b"] {
            fail_thrice(&failures, &device(id), &SendError::AcceptedThenCut { device: id.into() }).await;
        }
        assert_eq!(failures.gate(&device("z")), Gate::Open);
        fail_thrice(&failures, &device("c"), &SendError::AcceptedThenCut { device: "c".into() }).await;
        assert!(matches!(failures.gate(&device("z")), Gate::Closed(SendError::AllCut)));
        failures.acknowledged(&device("z"));
        assert_eq!(failures.gate(&device("z")), Gate::Open);
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
