//! Who sends: each owner (a rapidM2M site, a LoRaWAN device) is a device of its own, made by the Device Provisioning Service,
//! or in the registry of a hub whose policy may connect as its devices.
//!
//! | Part | |
//! |---|---|
//! | `naming` | a registration id from any name |
//! | `owner` | whom a device stands for |
//! | `documents`, `store` | container `devices` in Cosmos DB: nothing is registered twice |
//! | `source` | the service, or the hub |
//! | `dps` | the service: register, wait, and when not to ask it |
//! | `entry` | what the process knows of one device |
//! | `finding` | from an owner to a device: look up, register, write down |
//! | `per_application` | the devices of LoRaWAN applications, which may each come from elsewhere |
//!
//! Nothing is sent as a device before its document is written: that is what keeps two owners from being one device.

pub mod activity;
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
#[cfg(all(test, feature = "local"))]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use rustls::pki_types::CertificateDer;
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

use self::{
    dps::{Limits, Pool, Provisioner},
    enrollment::Enrollment,
    entry::{Entry, State},
    finding::Inner,
    source::Source,
};
use crate::{
    iot_hub::Device,
    support::{clock::Clock, meter::Meters, retry},
};

/// Registrations under way at once, of an enrollment: one whose service is throttling must not hold up the others. A service
/// takes 1,000 a minute; a registration takes 3 to 7 s.
const CONCURRENCY: usize = 64;
/// A device that could not be registered is left alone for so long, and so is one that the hub refuses and that we cannot
/// register; one that we can is registered again so long after the last time at the earliest.
const REST: Duration = Duration::from_secs(60);
/// A device that the hub refuses again and again is registered after longer and longer rests, up to this: registrations are
/// billed, and what did not help ten times will hardly help the next.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);
/// A lookup in the store is waited for at least so long. Its requests end sooner by themselves.
const LOOKUP_WAIT: Duration = Duration::from_secs(30);
/// The devices of all owners that come from one enrollment. Cheap to clone.
#[derive(Clone)]
pub struct Devices(Arc<Inner>);

/// What several enrollments have together.
#[derive(Clone)]
struct Shared {
    store: Arc<Store>,
    pool: Arc<Pool>,
    meters: Arc<Meters>,
}

impl Shared {
    fn new(store: impl Into<Arc<Store>>, trusted_ca: Vec<CertificateDer<'static>>, meters: Arc<Meters>) -> Self {
        Self { store: store.into(), pool: Arc::new(Pool::new(trusted_ca)), meters }
    }
}

impl Devices {
    /// Does not connect. `trusted_ca` are certificates that are trusted in addition to the platform's. Lookups are counted in
    /// `ledger` of `meters`, registrations in `dps`.
    #[must_use]
    pub fn new(
        enrollment: impl Into<Enrollment>,
        store: impl Into<Arc<Store>>,
        trusted_ca: Vec<CertificateDer<'static>>,
        meters: Arc<Meters>,
    ) -> Self {
        Self::of(enrollment.into(), Shared::new(store, trusted_ca, meters))
    }

    fn of(enrollment: Enrollment, shared: Shared) -> Self {
        let source = match enrollment {
            Enrollment::Dps(config) => Source::Dps(Provisioner::new(config, shared.pool.clone(), Limits::default())),
            Enrollment::Hub(policy) => Source::Hub(policy),
        };
        Self::with(source, shared, Clock::system())
    }

    fn with(source: Source, shared: Shared, clock: Clock) -> Self {
        let registering = Semaphore::new(CONCURRENCY);
        Self(Arc::new(Inner { source, shared, clock, registering, entries: Mutex::default() }))
    }

    /// The owner's device: from memory, else from the store, else registered now. A registration is waited for until
    /// `wait_until` at most, and goes on in the background; there is one per device however many ask. A lookup in the store
    /// is waited for although `wait_until` is over, up to half a minute.
    ///
    /// # Errors
    /// [`DeviceError::Underway`] if the registration takes longer; else why there is no device.
    pub async fn device(&self, owner: &Owner, wait_until: Instant) -> Result<Arc<Device>, DeviceError> {
        let entry = self.entry(owner);
        // Before it begins, so that no change is missed.
        let mut state = entry.state.subscribe();
        if entry.begin() {
            tokio::spawn(self.0.clone().establish(entry.clone()).in_current_span());
        }
        // The sender is in the entry: it does not go away.
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

    /// The hub refused this device (401, 403, 404, or its CONNACK 5). Returns whether it is worth to call
    /// [`device`](Self::device) once more: what it says then is not what it said before.
    ///
    /// A device that we can register is registered again with that call, after a minute at the earliest, counted from
    /// `RegisteredAt` in the store, and after twice as long each time that it did not help, up to an hour. For one that we cannot, the call ends with [`DeviceError::RefusedByHub`], which says what to do, and so
    /// does every other for a minute.
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

    /// Passing failures of the service are forgotten, though it would be asked again by itself after a while: for the start of
    /// an invocation. What it asked for (`Retry-After`) is not.
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

/// Whether a device that was registered so long ago, and was refused so often before, is to be registered again now that
/// the hub refuses it: if so, how often it was refused with this time. A clock that was wrong when it was registered must
/// not block it: the future is as far as the past.
fn refusals(before: u32, since_registered: TimeDelta) -> Option<u32> {
    let since = since_registered.abs().to_std().unwrap_or(Duration::MAX);
    // It has worked in between.
    let before = if since > 2 * LONGEST_REST { 0 } else { before };
    let refusals = before.saturating_add(1);
    (since >= retry::exponential(refusals, REST, LONGEST_REST)).then_some(refusals)
}
