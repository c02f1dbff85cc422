//! What the service knows, and what it decides. No I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use super::registrations::Step;
use super::{
    answer::Answer,
    faults::Faults,
    registrations::{Outcome, Registrations},
};
use crate::iot_hub::registry::Registry;

pub struct Dps {
    pub scope: String,
    settings: Mutex<Settings>,
    faults: Mutex<Faults>,
    registrations: Mutex<Registrations>,
    /// Told of every change to the registrations.
    pub(super) changed: watch::Sender<()>,
}

/// What can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Host, or host and port, that devices are sent to.
    pub(super) assigned_hub: String,
    /// How long a device is to wait before it asks for an operation's status, in seconds.
    pub(super) retry_after_seconds: u32,
}

/// A request, over whatever protocol.
pub struct Request<'a> {
    pub scope: &'a str,
    pub registration_id: &'a str,
    pub token: Option<&'a str>,
    pub step: Step<'a>,
}

/// The body of a registration. What else may be in it (`payload`, `tpm`) is for allocation policies that do not exist
/// here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registering {
    registration_id: String,
}

impl Dps {
    pub fn new(scope: String, assigned_hub: String, retry_after_seconds: u32) -> Self {
        Self {
            scope,
            settings: Mutex::new(Settings { assigned_hub, retry_after_seconds }),
            faults: Mutex::default(),
            registrations: Mutex::default(),
            changed: watch::Sender::default(),
        }
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self::new("0ne00111111".into(), "myhub.azure-devices.net".into(), 3)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on a request whose token was found to be good.
    pub(super) fn decide(&self, registry: &Registry, request: &Request<'_>, now: DateTime<Utc>) -> Answer {
        let id = request.registration_id;
        let settings = self.settings().clone();
        let mut registrations = self.registrations();
        match request.step {
            Step::Register { body } => match serde_json::from_slice::<Registering>(body) {
                Ok(registering) if registering.registration_id.eq_ignore_ascii_case(id) => {
                    let operation_id = registrations.start(id, now);
                    Answer::assigning(&operation_id, settings.retry_after_seconds)
                }
                Ok(_) => Answer::error(400, "the registrationId of the body is not that of the request", now),
                Err(error) => Answer::error(400, &format!("the body is not a registration: {error}"), now),
            },
            Step::Poll { operation_id } => {
                let outcome = || self.faults().outcome(id);
                let polls = self.faults().assigning_polls(id);
                match registrations.poll(id, operation_id, polls, outcome, &settings.assigned_hub, now) {
                    None => Answer::error(404, "there is no such operation", now),
                    Some(None) => Answer::assigning(operation_id, settings.retry_after_seconds),
                    Some(Some(registration)) => {
                        if registration.outcome == Some(Outcome::Assigned) {
                            let key = registry.derived_key(id);
                            registry.set(&registration.registration_id, None, Some(key));
                        }
                        Answer::finished(operation_id, registration)
                    }
                }
            }
            Step::Look => match registrations.get(id).filter(|registration| registration.outcome.is_some()) {
                Some(registration) => Answer::state(registration),
                None => Answer::error(404, "there is no such registration", now),
            },
        }
    }
}
