//! Finds the device that sends an owner's messages. Each owner (a rapidM2M site, a LoRaWAN device) has its own device,
//! which the Device Provisioning Service registers or which is in the registry of a hub. The hub's policy may then
//! connect as its devices.
//!
//! | Part | |
//! |---|---|
//! | `naming` | makes a registration id from any name |
//! | `owner`, `tenant` | the site or LoRaWAN device that a device belongs to |
//! | `documents`, `store` | container `devices` in Cosmos DB, so that nothing is registered twice |
//! | `source` | the service, or the hub |
//! | `dps` | the service: register, wait, and when not to call it |
//! | `entry` | the state of one device in this process |
//! | `finding` | finds an owner's device: look up, register, record |
//! | `per_application` | the devices of LoRaWAN applications, which may have different origins |
//!
//! Nothing is sent as a device before its document is written. This prevents two owners from sharing one device.

pub mod activity;
pub mod confirmations;
pub mod documents;
mod dps;
pub mod enrollment;
mod entry;
mod error;
mod finding;
pub mod naming;
mod owner;
mod per_application;
mod source;
pub mod store;
mod tenant;
#[cfg(all(test, feature = "local"))]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

pub use dps::{DpsError, probe};
pub use error::DeviceError;
pub use owner::{Owner, StoredOwner};
pub use per_application::PerApplication;
pub use store::{Store, StoreError};
pub use tenant::Tenant;

use self::{
    dps::{Limits, Provisioner},
    enrollment::Enrollment,
    entry::{Entry, State},
    finding::Inner,
    source::Source,
};
use crate::{
    iot_hub::Device,
    support::{backoff::Policy, clock::Clock, http_client::HttpClient, meter::Meters},
};

/// Concurrent registrations of one enrollment. The limit is per enrollment, so that a service that throttles does not
/// delay the others. A service accepts 1,000 a minute; a registration takes 3 to 7 s.
const CONCURRENCY: usize = 64;
/// A device whose registration failed is not tried again for this long. The same applies to a device that the hub
/// refuses and the connector cannot register. A device that the connector can register is registered again no sooner
/// than this after its last registration.
const REST: Duration = Duration::from_secs(60);
/// If the hub refuses a device repeatedly, the waits before its next registration grow up to this one. Registrations
/// are billed, and a registration that did not help ten times will hardly help the next time.
const REGISTER_AGAIN: Policy = Policy::exact(REST, Duration::from_secs(60 * 60));
/// The least time-out of a look-up in the store. Its requests end sooner by themselves.
const LOOKUP_WAIT: Duration = Duration::from_secs(30);
/// The devices of all owners that come from one enrollment. Cheap to clone.
#[derive(Clone)]
pub struct Devices(Arc<Inner>);

/// The parts that several enrollments share.
#[derive(Clone)]
struct Shared {
    store: Arc<Store>,
    http: HttpClient,
    meters: Arc<Meters>,
}

impl Shared {
    fn new(store: impl Into<Arc<Store>>, http: impl Into<HttpClient>, meters: Arc<Meters>) -> Self {
        Self { store: store.into(), http: http.into(), meters }
    }
}

impl Devices {
    /// Does not connect. Look-ups are
    /// counted in `ledger` of `meters`, registrations in `dps`.
    #[must_use]
    pub fn new(
        enrollment: impl Into<Enrollment>,
        store: impl Into<Arc<Store>>,
        http: impl Into<HttpClient>,
        meters: Arc<Meters>,
    ) -> Self {
        Self::of(enrollment.into(), Shared::new(store, http, meters))
    }

    fn of(enrollment: Enrollment, shared: Shared) -> Self {
        let source = match enrollment {
            Enrollment::Dps(config) => {
                Source::Dps(Box::new(Provisioner::new(config, shared.http.clone(), Limits::default())))
            }
            Enrollment::Hub(policy) => Source::Hub(policy),
        };
        Self::with(source, shared, Clock::system())
    }

    fn with(source: Source, shared: Shared, clock: Clock) -> Self {
        let registering = Semaphore::new(CONCURRENCY);
        Self(Arc::new(Inner { source, shared, clock, registering, entries: Mutex::default() }))
    }

    /// The owner's device: from memory, else from the store, else registered now. The call waits for a registration
    /// until `wait_until` at most; the registration continues in the background. There is one registration per device,
    /// however many callers wait. The call waits for a look-up in the store up to half a minute, even after
    /// `wait_until`.
    ///
    /// # Errors
    /// [`DeviceError::Underway`] if the registration takes longer; otherwise why there is no device.
    pub async fn device(&self, owner: &Owner, wait_until: Instant) -> Result<Arc<Device>, DeviceError> {
        let entry = self.entry(owner);
        // Subscribe before the search begins, so that no change is missed.
        let mut state = entry.state.subscribe();
        if entry.begin() {
            tokio::spawn(self.0.clone().establish(entry.clone()).in_current_span());
        }
        // The entry holds the sender, so the channel stays open.
        let is_looked_up = state.wait_for(|state| !matches!(state, State::Unknown | State::LookingUp));
        if timeout_at(wait_until.max(Instant::now() + LOOKUP_WAIT), is_looked_up).await.is_err() {
            return Err(self.0.of_store(&entry, crate::cosmos::Failure::Timeout.into()).error);
        }
        let is_settled = |state: &State| matches!(state, State::Known(_) | State::Failed { .. });
        match timeout_at(wait_until, state.wait_for(is_settled)).await.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(State::Known(known))) => Ok(known.device),
            Ok(Ok(State::Failed { error, .. })) => Err(error),
            _ => Err(self.0.underway(&entry)),
        }
    }

    /// The owner's device, if this process knows it. If not, it is looked up or registered in the background.
    #[must_use]
    pub fn known(&self, owner: &Owner) -> Option<Arc<Device>> {
        let entry = self.entry(owner);
        if let State::Known(known) = &*entry.state.borrow() {
            return Some(known.device.clone());
        }
        if entry.begin() {
            tokio::spawn(self.0.clone().establish(entry).in_current_span());
        }
        None
    }

    /// The hub refused this device (401, 403, 404, or its CONNACK 5). Returns whether calling [`device`](Self::device)
    /// once more is worthwhile, because it then gives another result.
    ///
    /// If the connector can register the device, the next call of [`device`](Self::device) registers it again: after a
    /// minute at the earliest, counted from `RegisteredAt` in the store, and after twice as long each time that it did
    /// not help, up to an hour. If the connector cannot, that call and all others for a minute end with
    /// [`DeviceError::RefusedByHub`], which says what to do.
    pub async fn refused(&self, owner: &Owner, device: &Arc<Device>) -> bool {
        let entry = self.entry(owner);
        let now = self.0.clock.now();
        let mut is_worth = true;
        entry.state.send_if_modified(|state| {
            let State::Known(known) = state else { return false };
            if !Arc::ptr_eq(&known.device, device) {
                return false;
            }
            if let Source::Hub(of) = &self.0.source {
                let (owner, id) = (entry.owner.clone(), device.id.clone());
                let (hub, policy) = (of.hub.to_string(), of.policy.name.clone());
                let error = DeviceError::RefusedByHub { owner, id, hub, policy };
                *state = State::Failed { error, retry_at: Instant::now() + REST };
                return true;
            }
            let refusals = refusals(entry.notes().refusals, now - known.registered_at);
            is_worth = refusals.is_some();
            if let Some(refusals) = refusals {
                tracing::warn!(device.id = entry.id, owner.name = %owner, "the hub refused the device: it is registered again");
                entry.note(|notes| {
                    notes.refused = Some(known.registered_at);
                    notes.refusals = refusals;
                });
                *state = State::Unknown;
            }
            is_worth
        });
        is_worth
    }

    /// Forgets transient failures of the service, although it would be called again after a while anyway: for the start
    /// of an invocation. A wait that the service requested (`Retry-After`) still applies.
    pub fn try_again(&self) {
        self.0.source.try_again();
    }

    fn entry(&self, owner: &Owner) -> Arc<Entry> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(owner) {
            return entry.clone();
        }
        entries.entry(owner.clone()).or_insert_with(|| Arc::new(Entry::new(owner.clone()))).clone()
    }
}

/// Decides whether a device that the hub refuses is registered again. `before` is the number of earlier refusals.
/// Returns the number including this refusal, or `None` if it is too early. If the clock was wrong at the registration,
/// this must not block the device: a time in the future counts like one as far in the past.
fn refusals(before: u32, since_registered: TimeDelta) -> Option<u32> {
    let since = since_registered.abs().to_std().unwrap_or(Duration::MAX);
    // The device has worked in between.
    let before = if since > 2 * REGISTER_AGAIN.longest { 0 } else { before };
    let refusals = before.saturating_add(1);
    (since >= REGISTER_AGAIN.wait(refusals)).then_some(refusals)
}
