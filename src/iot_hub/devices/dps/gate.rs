//! Decides whether the service may be called. A response to one registration applies to all registrations.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::DpsError;
use crate::support::backoff::{Backoff, Failed, Policy};

/// How long all registrations get the same failure.
const FAILURE: Policy = Policy::exact(Duration::from_secs(1), Duration::from_secs(100));
/// How long the service is not called if it says that it is throttling, but not for how long.
const THROTTLED: Policy = Policy::exact(Duration::from_secs(1), Duration::from_secs(100));
/// After a wait, the pending registrations resume at random moments within this time.
const SPREAD: Duration = Duration::from_secs(5);

pub struct Gate {
    /// The failure that all registrations get until the service may be tried again.
    failures: Backoff<(), DpsError>,
    throttling: Backoff<(), ()>,
    has_registered: AtomicBool,
}

impl Default for Gate {
    fn default() -> Self {
        let (failures, throttling) = (Backoff::new(FAILURE), Backoff::new(THROTTLED));
        Self { failures, throttling, has_registered: AtomicBool::default() }
    }
}

impl Gate {
    /// Waits as long as the service has requested.
    ///
    /// # Errors
    /// A call is of no use now: the service is known to fail, or the wait would end after `deadline`.
    pub async fn pass(&self, deadline: Instant) -> Result<(), DpsError> {
        loop {
            if let Some(failure) = self.failures.holding(&()) {
                return Err(failure.error);
            }
            let Some(wait) = self.throttling.holding(&()) else { return Ok(()) };
            if wait.until > deadline {
                return Err(throttled(&wait));
            }
            sleep_until(wait.until + wait.left().min(SPREAD).mul_f64(fastrand::f64())).await;
        }
    }

    /// The remaining wait as an error, if the service's last response requested to slow down or the wait is not over.
    pub fn throttled(&self) -> Option<DpsError> {
        self.throttling.last(&()).filter(|wait| wait.failures > 0 || !wait.is_over()).map(|wait| throttled(&wait))
    }

    /// The service has responded, perhaps without a device yet.
    pub fn heard(&self) {
        self.throttling.succeeded(&());
    }

    pub fn succeeded(&self) {
        self.failures.succeeded(&());
        self.heard();
        self.has_registered.store(true, Ordering::Relaxed);
    }

    /// A registration failed. If the failure concerns all registrations, all of them get it for a while, which grows
    /// with each failure, or until [`forget_failure`](Self::forget_failure). Returns whether it concerns all.
    /// After any device was registered, a refused token concerns only its own device.
    pub fn failed(&self, error: &DpsError) -> bool {
        let is_of_device =
            self.has_registered.load(Ordering::Relaxed) && matches!(error, DpsError::Unauthorized { .. });
        let is_of_all = error.concerns_service() && !is_of_device;
        // Registrations that were in flight together fail together.
        if is_of_all && self.failures.holding(&()).is_none() {
            self.failures.failed((), error.clone(), None, Instant::now());
        }
        is_of_all
    }

    /// The service requests to slow down, perhaps with a wait.
    pub fn slow_down(&self, requested: Option<Duration>) {
        let is_new = self.throttling.holding(&()).is_none();
        let failures = self.throttling.last(&()).map_or(1, |wait| wait.failures.saturating_add(1));
        let wait = THROTTLED.wait_or(requested, failures);
        self.throttling.failed((), (), Some(wait), Instant::now());
        if is_new {
            tracing::warn!(dps.wait_s = wait.as_secs(), "the Device Provisioning Service asks to slow down");
        }
    }

    pub fn forget_failure(&self) {
        self.failures.forget();
    }
}

fn throttled(wait: &Failed<()>) -> DpsError {
    DpsError::Throttled { wait: wait.left() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::backoff::LONGEST_REQUESTED;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_was_away_is_asked_again_though_nobody_says_so() {
        let gate = Gate::default();
        let pass = || gate.pass(Instant::now() + MINUTE);
        for _ in 0..20 {
            assert!(gate.failed(&DpsError::Timeout));
            assert_eq!(pass().await, Err(DpsError::Timeout));
            tokio::time::advance(FAILURE.longest).await;
            assert_eq!(pass().await, Ok(()));
        }
        // Failures of requests that were in flight together count once.
        for _ in 0..1000 {
            gate.failed(&DpsError::Timeout);
        }
        assert_eq!(gate.failures.last(&()).unwrap().failures, 21);
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
            gate.pass(start + 2 * THROTTLED.longest).await.unwrap();
            assert!(start.elapsed() <= THROTTLED.longest + SPREAD);
        }
        gate.slow_down(Some(Duration::MAX));
        assert_eq!(gate.throttled(), Some(DpsError::Throttled { wait: LONGEST_REQUESTED }));
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
