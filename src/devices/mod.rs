//! Who sends: each owner (a rapidM2M site) is a device of its own, made by the Device Provisioning Service.
//!
//! | Part | |
//! |---|---|
//! | `naming` | a registration id from any name |
//! | `owner` | whom a device stands for |
//! | `documents`, `store` | container `devices` in Cosmos DB: nothing is registered twice |
//! | `dps` | the service: register, wait, and when not to ask it |
//! | `entry` | what the process knows of one device |
//!
//! Nothing is sent as a device before its document is written: that is what keeps two owners from being one device.

pub mod documents;
mod dps;
mod entry;
mod error;
pub mod naming;
mod owner;
pub mod store;
#[cfg(all(test, feature = "local"))]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use dps::DpsError;
pub use error::DeviceError;
pub use owner::{Owner, StoredOwner};
pub use store::{Store, StoreError};

use self::{
    documents::Document,
    dps::{Limits, Provisioner},
    entry::{Entry, Known, State},
    store::Written,
};
use crate::{clock::Clock, config::dps::Config, hub::Device};

/// Registrations under way at once. The service takes 1,000 a minute; one takes 3 to 7 s.
const CONCURRENCY: usize = 64;
/// A device that could not be registered is left alone for so long; one that the hub refuses is registered again so long
/// after the last time at the earliest.
const REST: Duration = Duration::from_secs(60);
/// A lookup in the store is waited for at least so long. Its requests end sooner by themselves.
const LOOKUP_WAIT: Duration = Duration::from_secs(30);
/// How often a device is looked up again because somebody else wrote its document meanwhile.
const ROUNDS: usize = 3;

/// The devices of all owners. Cheap to clone.
#[derive(Clone)]
pub struct Devices(Arc<Inner>);

struct Inner {
    provisioner: Provisioner,
    store: Store,
    clock: Clock,
    registering: Semaphore,
    entries: Mutex<HashMap<Owner, Arc<Entry>>>,
}

impl Devices {
    /// Does not connect. `trusted_ca` are certificates that are trusted in addition to the platform's.
    #[must_use]
    pub fn new(config: Config, store: Store, trusted_ca: Vec<CertificateDer<'static>>) -> Self {
        Self::with(Provisioner::new(config, trusted_ca, Limits::default()), store, Clock::system())
    }

    fn with(provisioner: Provisioner, store: Store, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            provisioner,
            store,
            clock,
            registering: Semaphore::new(CONCURRENCY),
            entries: Mutex::default(),
        }))
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
            tokio::spawn(self.0.clone().establish(entry.clone()));
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

    /// The hub refused this device (401, 403, 404, or its CONNACK 5). It is registered again with the next call of
    /// [`device`](Self::device), at most once a minute, counted from `RegisteredAt` in the store. Returns whether it is
    /// worth calling: a new registration will be tried, or there is another device already.
    pub async fn refused(&self, owner: &Owner, device: &Arc<Device>) -> bool {
        let entry = self.entry(owner);
        let now = self.0.clock.now();
        let mut is_worth = true;
        entry.state.send_if_modified(|state| {
            let State::Known(known) = state else { return false };
            if !Arc::ptr_eq(&known.device, device) {
                return false;
            }
            is_worth = !is_recent(known.registered_at, now);
            if is_worth {
                tracing::warn!(device = entry.id, %owner, "the hub refused the device: it is registered again");
                entry.note(|notes| notes.refused = Some(known.registered_at));
                *state = State::Unknown;
            }
            is_worth
        });
        is_worth
    }

    /// Start of an invocation: passing failures of the service are forgotten. What it asked for (`Retry-After`) is not.
    pub fn try_again(&self) {
        self.0.provisioner.try_again();
    }

    fn entry(&self, owner: &Owner) -> Arc<Entry> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(owner) {
            return entry.clone();
        }
        entries.entry(owner.clone()).or_insert_with(|| Arc::new(Entry::new(owner.clone()))).clone()
    }
}

/// Within a minute before or after: a clock that was wrong by more when the device was registered must not block it.
fn is_recent(registered_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    TimeDelta::from_std(REST).is_ok_and(|rest| (now - registered_at).abs() < rest)
}

/// An error, and whether the device is left alone for a while.
struct Ended {
    error: DeviceError,
    rests: bool,
}

impl Inner {
    async fn establish(self: Arc<Self>, entry: Arc<Entry>) {
        let settles = entry.settles();
        let state = match self.find_or_register(&entry).await {
            Ok(known) => State::Known(known),
            Err(Ended { error, rests }) => {
                let rest = if rests { REST } else { Duration::ZERO };
                State::Failed { error, retry_at: Instant::now() + rest }
            }
        };
        settles.with(state);
    }

    async fn find_or_register(&self, entry: &Entry) -> Result<Known, Ended> {
        for _ in 0..ROUNDS {
            let stored = self.store.read(&entry.id).await.map_err(|error| self.of_store(entry, error))?;
            let (mut etag, mut registrations) = (None, 0);
            if let Some(stored) = stored {
                let document = stored.document;
                if document.owner != StoredOwner::from(&*entry.owner) {
                    return Err(taken(entry, document.owner));
                }
                let is_refused = entry.notes().refused == Some(document.registered_at);
                if document.id_scope == self.provisioner.config().id_scope && !is_refused {
                    return self.known(entry, &document);
                }
                (etag, registrations) = (stored.etag, document.registrations);
            }
            let document = self.register(entry, registrations).await?;
            let written = self.store.write(&document, etag.as_deref()).await;
            if written.map_err(|error| self.of_store(entry, error))? == Written::Yes {
                tracing::info!(
                    device = document.device_id,
                    hub = document.assigned_hub,
                    registrations = document.registrations,
                    "registered a device for {}",
                    entry.owner
                );
                return self.known(entry, &document);
            }
        }
        let error = StoreError::Cosmos(crate::cosmos::Failure::Other("the document keeps changing".into()));
        Err(self.of_store(entry, error))
    }

    /// The document of a device that is assigned now, or was in an earlier round.
    async fn register(&self, entry: &Entry, registrations: u32) -> Result<Document, Ended> {
        let assignment = match entry.notes().unrecorded {
            Some(assignment) => assignment,
            None => {
                entry.state.send_replace(State::Registering);
                // The semaphore is never closed.
                let _permit = self.registering.acquire().await;
                let assignment = self.provisioner.provision(&entry.id).await.map_err(|failed| {
                    let (owner, id) = (entry.owner.clone(), entry.id.clone());
                    Ended { error: DeviceError::Dps { owner, id, error: failed.error }, rests: failed.is_of_device }
                })?;
                entry.note(|notes| notes.unrecorded = Some(assignment.clone()));
                assignment
            }
        };
        Ok(Document {
            id: entry.id.clone(),
            owner: (&*entry.owner).into(),
            assigned_hub: assignment.hub,
            device_id: assignment.device_id,
            registered_at: self.clock.now(),
            id_scope: self.provisioner.config().id_scope.clone(),
            registrations: registrations.saturating_add(1),
        })
    }

    /// What stands in the store.
    fn known(&self, entry: &Entry, document: &Document) -> Result<Known, Ended> {
        let device = document
            .device(self.provisioner.config().group_key.expose_secret())
            .map_err(|text| self.of_store(entry, StoreError::Foreign { id: entry.id.clone(), text }))?;
        entry.note(|notes| notes.unrecorded = None);
        Ok(Known { device: Arc::new(device), registered_at: document.registered_at })
    }

    fn of_store(&self, entry: &Entry, error: StoreError) -> Ended {
        let (owner, id) = (entry.owner.clone(), entry.id.clone());
        Ended { error: DeviceError::Store { owner, id, error }, rests: false }
    }

    /// Why a registration takes longer.
    fn underway(&self, entry: &Entry) -> DeviceError {
        let (owner, id) = (entry.owner.clone(), entry.id.clone());
        match self.provisioner.throttled() {
            Some(error) => DeviceError::Dps { owner, id, error },
            None => DeviceError::Underway { owner, id },
        }
    }
}

fn taken(entry: &Entry, other: StoredOwner) -> Ended {
    let (owner, id) = (entry.owner.clone(), entry.id.clone());
    Ended { error: DeviceError::Taken { owner, id, other }, rests: false }
}
