//! Decides whether the service may be called. A response to one registration applies to all registrations.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::DpsError;
use crate::support::retry;

/// First wait if the service requests none. It doubles with every refusal.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(100);
/// Upper limit of the wait that the service requests.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);
/// After a wait, the pending registrations resume at random moments within this time.
const SPREAD: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    failure: Option<Failure>,
    wait: Option<Wait>,
    /// Responses in a row that requested to slow down.
    slowdowns: u32,
    has_registered: bool,
}

/// The failure that all registrations get until the service may be tried again.
struct Failure {
    error: DpsError,
    attempts: u32,
    until: Instant,
}

#[derive(Clone, Copy)]
struct Wait {
    until: Instant,
    asked: Duration,
}

impl Gate {
    /// Waits as long as the service has requested.
    ///
    /// # Errors
    /// A call is of no use now: the service is known to fail, or the wait would end after `deadline`.
    pub async fn pass(&self, deadline: Instant) -> Result<(), DpsError> {
        loop {
            let wait = {
                let state = self.state();
                if let Some(failure) = state.failure.as_ref().filter(|failure| Instant::now() < failure.until) {
                    return Err(failure.error.clone());
                }
                state.wait.filter(|wait| wait.until > Instant::now())
            };
            let Some(wait) = wait else { return Ok(()) };
            if wait.until > deadline {
                return Err(wait.error());
            }
            sleep_until(wait.until + retry::full_jitter(1, wait.asked.min(SPREAD), SPREAD)).await;
        }
    }

    /// The remaining wait as an error, if the service's last response requested to slow down or the wait is not over.
    pub fn throttled(&self) -> Option<DpsError> {
        let state = self.state();
        state.wait.filter(|wait| state.slowdowns > 0 || wait.until > Instant::now()).map(|wait| wait.error())
    }

    /// The service has responded, perhaps without a device yet.
    pub fn heard(&self) {
        self.state().slowdowns = 0;
    }

    pub fn succeeded(&self) {
        let mut state = self.state();
        state.failure = None;
        state.slowdowns = 0;
        state.has_registered = true;
    }

    /// A registration failed. If the failure concerns all registrations, all of them get it for a while, which grows
    /// with each failure, or until [`forget_failure`](Self::forget_failure). Returns whether it concerns all.
    /// Simultaneous failures count once. After any device was registered, a refused token concerns only its own device.
    pub fn failed(&self, error: &DpsError) -> bool {
        let mut state = self.state();
        let is_of_device = state.has_registered && matches!(error, DpsError::Unauthorized { .. });
        let is_of_all = error.concerns_service() && !is_of_device;
        let now = Instant::now();
        let before = state.failure.as_ref().map_or(0, |failure| failure.attempts);
        if is_of_all && state.failure.as_ref().is_none_or(|failure| failure.until <= now) {
            let attempts = before.saturating_add(1);
            let wait = retry::full_jitter(attempts, FIRST_WAIT, LONGEST_WAIT).max(SHORTEST_WAIT);
            state.failure = Some(Failure { error: error.clone(), attempts, until: now + wait });
        }
        is_of_all
    }

    /// The service requests to slow down, perhaps with a wait.
    pub fn slow_down(&self, asked: Option<Duration>) {
        let now = Instant::now();
        let mut state = self.state();
        // Requests that were in flight together get the same response. They count once.
        if state.wait.is_none_or(|wait| wait.until <= now) {
            state.slowdowns = state.slowdowns.saturating_add(1);
        }
        let asked =
            asked.unwrap_or_else(|| retry::full_jitter(state.slowdowns, FIRST_WAIT, LONGEST_WAIT)).min(LONGEST_ASKED);
        let until = now + asked;
        if state.wait.is_none_or(|wait| wait.until < until) {
            if state.wait.is_none_or(|wait| wait.until <= now) {
                tracing::warn!(dps.wait_s = asked.as_secs(), "the Device Provisioning Service asks to slow down");
            }
            state.wait = Some(Wait { until, asked });
        }
    }

    pub fn forget_failure(&self) {
        self.state().failure = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    fn error(&self) -> DpsError {
        DpsError::Throttled { wait: self.until.saturating_duration_since(Instant::now()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_was_away_is_asked_again_though_nobody_says_so() {
        let gate = Gate::default();
        let pass = || gate.pass(Instant::now() + MINUTE);
        for _ in 0..20 {
            assert!(gate.failed(&DpsError::Timeout));
            assert_eq!(pass().await, Err(DpsError::Timeout));
            tokio::time::advance(LONGEST_WAIT).await;
            assert_eq!(pass().await, Ok(()));
        }
        // Failures of requests that were in flight together count once.
        for _ in 0..1000 {
            gate.failed(&DpsError::Timeout);
        }
        assert_eq!(gate.state().failure.as_ref().unwrap().attempts, 21);
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn unauthorized() -> DpsError {
        DpsError::Unauthorized { said: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_waits_as_long_as_the_service_asks_and_not_at_the_same_moment() {
        let gate = Gate::default();
        gate.slow_down(Some(MINUTE));
        gate.slow_down(Some(MINUTE / 2));
        let start = Instant::now();
        let far = start + 10 * MINUTE;
        gate.forget_failure();
        let error = gate.pass(start + MINUTE / 2).await.unwrap_err();
        assert_eq!(error, DpsError::Throttled { wait: MINUTE });
        assert_eq!(gate.throttled(), Some(error));
        let pass = || async {
            gate.pass(far).await.unwrap();
            start.elapsed()
        };
        let (one, two) = tokio::join!(pass(), pass());
        for waited in [one, two] {
            assert!((MINUTE..=MINUTE + SPREAD).contains(&waited), "{waited:?}");
        }
        assert_ne!(one, two);
        assert!(gate.throttled().is_some(), "its last word, until it is heard again");
        gate.heard();
        assert_eq!(gate.throttled(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_does_not_say_how_long_is_given_a_moment() {
        let gate = Gate::default();
        for _ in 0..20 {
            gate.slow_down(None);
            let start = Instant::now();
            gate.pass(start + 2 * LONGEST_WAIT).await.unwrap();
            assert!(start.elapsed() <= LONGEST_WAIT + SPREAD);
        }
        gate.slow_down(Some(Duration::MAX));
        assert_eq!(gate.throttled(), Some(DpsError::Throttled { wait: LONGEST_ASKED }));
    }

    #[tokio::test]
    async fn a_refused_key_is_everybodys_until_a_device_was_registered_with_it() {
        let gate = Gate::default();
        let deadline = Instant::now() + MINUTE;
        assert!(gate.failed(&unauthorized()));
        assert_eq!(gate.pass(deadline).await, Err(unauthorized()));
        gate.forget_failure();
        assert_eq!(gate.pass(deadline).await, Ok(()));
        gate.succeeded();
        assert!(!gate.failed(&unauthorized()));
        assert_eq!(gate.pass(deadline).await, Ok(()));
        assert!(gate.failed(&DpsError::Timeout));
        assert_eq!(gate.pass(deadline).await, Err(DpsError::Timeout));
        gate.succeeded();
        assert!(!gate.failed(&DpsError::Refused { how: "disabled".into(), said: String::new() }));
        assert_eq!(gate.pass(deadline).await, Ok(()));
    }
}
