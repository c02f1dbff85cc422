//! Registers devices with the Device Provisioning Service: gets the hub and the device that belong to a registration
//! id.

mod client;
mod error;
mod gate;
pub mod probe;
mod wire;

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

pub use error::DpsError;
pub use wire::Assignment;

use self::{
    client::{Answer, Client},
    gate::Gate,
    wire::Progress,
};
use super::enrollment::EnrollmentGroup;
use crate::support::{backoff::Policy, http_client::HttpClient};

/// Time limits of a registration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time-out of a registration.
    pub registration: Duration,
    /// The wait after a transient failure.
    pub retry: Policy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            registration: Duration::from_secs(5 * 60),
            retry: Policy::jittered(Duration::from_secs(1), Duration::from_secs(100)),
        }
    }
}

/// After this many transient failures in a row, a registration ends and all others count the service as unavailable.
const ATTEMPTS: u32 = 3;
/// The interval for polling the result if the service requests none.
const POLL_INTERVAL: Duration = Duration::from_secs(3);
/// The shortest interval for polling, if the service sends `Retry-After: 0`.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(10);
const LONGEST_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// The service allows this many polls per device in this time.
/// <https://learn.microsoft.com/azure/iot-dps/about-iot-dps#quotas-and-limits>
const POLLS: usize = 5;
const POLLS_PER: Duration = Duration::from_secs(10);

/// A registration that did not succeed.
pub struct Failed {
    pub error: DpsError,
    /// Other registrations may succeed all the same.
    pub is_of_device: bool,
}

pub struct Provisioner {
    client: Client,
    gate: Gate,
    limits: Limits,
}

impl Provisioner {
    /// Does not connect.
    pub fn new(config: EnrollmentGroup, http: HttpClient, limits: Limits) -> Self {
        Self { client: Client::new(config, http), gate: Gate::default(), limits }
    }

    pub fn config(&self) -> &EnrollmentGroup {
        self.client.config()
    }

    /// Forgets transient failures, but not a wait that the service requested.
    pub fn try_again(&self) {
        self.gate.forget_failure();
    }

    /// The wait that the service requests, if any.
    pub fn throttled(&self) -> Option<DpsError> {
        self.gate.throttled()
    }

    /// Registers a device and waits for the result.
    pub async fn provision(&self, registration_id: &str) -> Result<Assignment, Failed> {
        let deadline = Instant::now() + self.limits.registration;
        match timeout_at(deadline, self.provision_until(registration_id, deadline)).await {
            Ok(result) => result,
            Err(_) => Err(self.failed(DpsError::NotAssigned(self.limits.registration))),
        }
    }

    async fn provision_until(&self, registration_id: &str, deadline: Instant) -> Result<Assignment, Failed> {
        let mut operation = None;
        let mut polls = Polls::default();
        let mut failures = 0;
        loop {
            self.gate.pass(deadline).await.map_err(|error| Failed { error, is_of_device: false })?;
            if operation.is_some() {
                polls.count(Instant::now());
            }
            let Answer { result, retry_after } = self.client.ask(registration_id, operation.as_deref()).await;
            // A `Retry-After` that is zero or in the past would cause a loop without a pause.
            let pause = retry_after.filter(|wait| !wait.is_zero());
            match result {
                Ok(Progress::Assigned(assignment)) => {
                    self.gate.succeeded();
                    return Ok(assignment);
                }
                Ok(Progress::Assigning { operation: id }) => {
                    operation = Some(id);
                    failures = 0;
                    self.gate.heard();
                    sleep(polls.wait(retry_after, Instant::now())).await;
                }
                Err(DpsError::Throttled { .. }) => self.gate.slow_down(pause),
                Err(error) if error.is_passing() => {
                    failures += 1;
                    if failures == ATTEMPTS {
                        return Err(self.failed(error));
                    }
                    match pause {
                        Some(_) => self.gate.slow_down(pause),
                        None => sleep(self.limits.retry.wait(failures)).await,
                    }
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, error: DpsError) -> Failed {
        Failed { is_of_device: !self.gate.failed(&error), error }
    }
}

/// The times of a device's last polls.
#[derive(Default)]
struct Polls(VecDeque<Instant>);

impl Polls {
    fn count(&mut self, now: Instant) {
        if self.0.len() == POLLS {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// The wait before the next poll.
    fn wait(&self, retry_after: Option<Duration>, now: Instant) -> Duration {
        let asked = retry_after.unwrap_or(POLL_INTERVAL).clamp(SHORTEST_POLL_INTERVAL, LONGEST_POLL_INTERVAL);
        let allowed = self.0.front().filter(|_| self.0.len() == POLLS).map(|first| *first + POLLS_PER);
        asked.max(allowed.map(|at| at.saturating_duration_since(now)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_for_as_often_as_allowed_and_no_more() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut polls = Polls::default();
        assert_eq!(polls.wait(None, start), POLL_INTERVAL);
        assert_eq!(polls.wait(Some(Duration::MAX), start), LONGEST_POLL_INTERVAL);
        for _ in 0..POLLS {
            assert_eq!(polls.wait(Some(Duration::ZERO), start), SHORTEST_POLL_INTERVAL);
            polls.count(start);
        }
        assert_eq!(polls.wait(Some(Duration::ZERO), start + second), POLLS_PER - second);
        assert_eq!(polls.wait(Some(60 * second), start + second), 60 * second);
        polls.count(start + POLLS_PER);
        assert_eq!(polls.wait(Some(Duration::ZERO), start + POLLS_PER), SHORTEST_POLL_INTERVAL);
    }
}
