//! Remembers failures of hubs and devices, so that all callers that a failure concerns back off together.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Endpoint, SendError, device::Device};
use crate::support::backoff::{Backoff, Policy};

/// After this many failed attempts between two calls of [`Failures::forget`], all callers get the error at once.
pub const ATTEMPTS: u32 = 3;
const POLICY: Policy = Policy::jittered(Duration::from_secs(1), Duration::from_secs(100));
/// Two clients of one device cut each other's connections. These back-offs leave time for several tries before a
/// client counts as stalled. They are random, so that each client gets its turn.
const CONTEST: Policy = Policy::jittered(Duration::from_secs(1), Duration::from_secs(4));
/// If a hub has cut the connections of several devices for this long and has acknowledged nothing to any of them, its
/// quota is used up. If clients take over each other's devices, each of them has an acknowledgement now and then.
const ALL_CUT_AFTER: Duration = Duration::from_secs(5);
/// A caller waits at most this long when the hub requests a wait. A longer wait ends the attempt.
const LONGEST_REQUESTED_WAIT: Duration = Duration::from_secs(5);

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

/// Whether a caller may try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Not before this time.
    Wait(Instant),
    /// No: there were too many failures, or waiting cannot help.
    Closed(SendError),
}

/// Failures of hubs, and of single devices.
pub struct Failures {
    hubs: Backoff<Endpoint, SendError>,
    devices: Backoff<DeviceKey, SendError>,
    /// Devices whose connections the hub accepted, then cut before it acknowledged anything.
    contests: Backoff<DeviceKey, SendError>,
    signs: Mutex<Signs>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            hubs: Backoff::new(POLICY),
            devices: Backoff::new(POLICY),
            contests: Backoff::new(CONTEST),
            signs: Mutex::default(),
        }
    }
}

/// Signs that a hub fails for all devices, since its last acknowledgement.
#[derive(Default)]
struct Signs {
    cut: HashMap<Endpoint, Cuts>,
    /// Hubs that have refused a message for good. [`Failures::forget`] keeps them.
    rejecting: HashSet<Endpoint>,
    /// Devices that had no acknowledgement for too long.
    silent: HashMap<Endpoint, HashSet<String>>,
}

/// Connections that were accepted and cut.
struct Cuts {
    since: Instant,
    /// Number of cuts by device.
    devices: HashMap<String, u32>,
}

impl Failures {
    pub fn gate(&self, device: &DeviceKey) -> Gate {
        let failures = [
            (self.hubs.holding(&device.endpoint), ATTEMPTS),
            (self.devices.holding(device), ATTEMPTS),
            (self.contests.holding(device), u32::MAX),
        ];
        let mut gate = Gate::Open;
        for (failed, attempts) in failures {
            let Some(failed) = failed else { continue };
            let is_too_long = failed.is_requested && failed.left() > LONGEST_REQUESTED_WAIT;
            if failed.failures >= attempts || !failed.error.is_passing() || is_too_long {
                return Gate::Closed(failed.error);
            }
            gate = match gate {
                Gate::Wait(until) => Gate::Wait(until.max(failed.until)),
                _ => Gate::Wait(failed.until),
            };
        }
        gate
    }

    /// Records that an attempt failed that began at `began`.
    pub fn failed(&self, device: &DeviceKey, error: &SendError, began: Instant) {
        tracing::debug!(device.id = device.id, failure.kind = error.kind().as_str(), "{error}");
        let requested = if let SendError::Throttled { wait } = error { *wait } else { None };
        if error.concerns_hub() {
            self.hubs.failed(device.endpoint.clone(), error.clone(), requested, began);
        } else if let SendError::AcceptedThenCut { .. } = error {
            let counts = self.contests.failed(device.clone(), error.clone(), requested, began);
            if counts && self.signs().is_cut_everywhere(device) {
                self.hubs.hold(device.endpoint.clone(), SendError::AllCut, POLICY.longest);
            }
        } else {
            self.devices.failed(device.clone(), error.clone(), requested, began);
        }
    }

    /// If the device's messages are pending because its connections are cut before anything is acknowledged: that
    /// error.
    pub fn contest(&self, device: &DeviceKey) -> Option<SendError> {
        self.contests.last(device).map(|failed| failed.error)
    }

    /// Decides on a message that the hub refuses. Of two refused messages in a row, of any devices, only the first can
    /// be at fault. The second stays pending until the hub has acknowledged anything.
    pub fn judge(&self, device: &DeviceKey, error: SendError) -> SendError {
        match error {
            SendError::Rejected { status, text } if !self.signs().rejecting.insert(device.endpoint.clone()) => {
                SendError::RejectsAll { status, text }
            }
            error => error,
        }
    }

    /// Records that the device had no acknowledgement for too long: callers do not wait for it until
    /// [`forget`](Self::forget). If several devices had none and no other device had one, callers do not wait for any
    /// device of the hub. Returns the cause: the hub may be unreachable.
    pub fn stalled(&self, device: &DeviceKey) -> SendError {
        if let Some(error) = self.contest(device) {
            // A hub that cuts is not silent: another client may use the device.
            self.contests.hold(device.clone(), error.clone(), POLICY.longest);
            return error;
        }
        let known = self.hubs.last(&device.endpoint).or_else(|| self.devices.last(device));
        let error = known.map_or(SendError::Stalled, |failed| failed.error);
        let mut signs = self.signs();
        let silent = signs.silent.entry(device.endpoint.clone()).or_default();
        silent.insert(device.id.clone());
        if silent.len() >= ATTEMPTS as usize || error.concerns_hub() {
            self.hubs.hold(device.endpoint.clone(), error.clone(), POLICY.longest);
        } else {
            self.devices.hold(device.clone(), error.clone(), POLICY.longest);
        }
        error
    }

    /// Records that the hub has accepted a connection. It is not known yet whether the hub also takes messages.
    pub fn connected(&self, device: &DeviceKey) {
        if self.hubs.last(&device.endpoint).is_some_and(|failed| failed.error.concerns_hub()) {
            self.hubs.forget_key(&device.endpoint);
        }
    }

    /// Records that the hub has acknowledged a message.
    pub fn acknowledged(&self, device: &DeviceKey) {
        self.hubs.forget_key(&device.endpoint);
        self.devices.forget_key(device);
        self.contests.forget_key(device);
        let mut signs = self.signs();
        signs.cut.remove(&device.endpoint);
        signs.silent.remove(&device.endpoint);
        signs.rejecting.remove(&device.endpoint);
    }

    /// Forgets the failures of a device that has a new identity.
    pub fn forget_device(&self, device: &DeviceKey) {
        self.devices.forget_key(device);
        self.contests.forget_key(device);
    }

    /// Forgets everything except requested waits and which hubs refuse messages.
    pub fn forget(&self) {
        self.hubs.forget();
        self.devices.forget();
        self.contests.forget();
        let mut signs = self.signs();
        signs.cut.clear();
        signs.silent.clear();
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signs {
    /// Whether the connections of several devices were cut again and again while nothing was acknowledged. The cause
    /// is then the quota, not a second client.
    fn is_cut_everywhere(&mut self, device: &DeviceKey) -> bool {
        let now = Instant::now();
        let cuts = self.cut.entry(device.endpoint.clone());
        let cuts = cuts.or_insert_with(|| Cuts { since: now, devices: HashMap::new() });
        *cuts.devices.entry(device.id.clone()).or_default() += 1;
        let often = cuts.devices.values().filter(|times| **times >= ATTEMPTS).count();
        often >= ATTEMPTS as usize && now >= cuts.since + ALL_CUT_AFTER
    }
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

    /// Fails three times. Each attempt begins after the one before.
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
            // Now and then a message is acknowledged.
            failures.acknowledged(&device("a"));
        }
        for id in ["b", "c", "d"] {
            assert!(!matches!(failures.gate(&device(id)), Gate::Closed(_)), "{id} is to try again");
            // The contest does not end.
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
            assert!(until <= Instant::now() + CONTEST.longest);
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

    #[tokio::test]
    async fn of_two_messages_that_a_hub_refuses_in_a_row_the_second_is_not_to_blame() {
        let failures = Failures::default();
        let rejected = || SendError::Rejected { status: 400, text: "no".into() };
        let rejects_all = SendError::RejectsAll { status: 400, text: "no".into() };
        assert_eq!(failures.judge(&device("a"), rejected()), rejected());
        failures.forget();
        assert_eq!(failures.judge(&device("b"), rejected()), rejects_all);
        let other = DeviceKey { endpoint: Endpoint::parse("other.hub").unwrap(), id: "a".into() };
        assert_eq!(failures.judge(&other, rejected()), rejected());
        failures.acknowledged(&device("z"));
        assert_eq!(failures.judge(&device("b"), rejected()), rejected());
        let too_large = SendError::too_large(1_000_000);
        assert_eq!(failures.judge(&device("b"), too_large.clone()), too_large, "that is not for the hub to say");
        assert_eq!(failures.gate(&device("b")), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_is_out_of_reach_is_not_called_silent() {
        let failures = Failures::default();
        failures.failed(&device("a"), &unreachable(), Instant::now());
        assert_eq!(failures.stalled(&device("a")), unreachable());
        assert_eq!(failures.gate(&device("b")), Gate::Closed(unreachable()));
    }
}
