//! Finds the device of an owner: looks it up in the store, or registers and records it.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    DeviceError, DpsError, Owner, REST, Shared, StoreError, Tenant,
    documents::Document,
    dps::{Assignment, Provisioner},
    entry::{Entry, Known, State},
    error::Tenants,
    owner::Claim,
    source::Source,
    store::{Stored, Written},
};
use crate::support::clock::Clock;

/// How often the device is looked up again because another process wrote its document or registers it too.
const ROUNDS: usize = 5;
/// How many seconds, at least and at most, the device is left to another app that registers it. A registration takes 3
/// to 7 s. The wait is random: otherwise two apps would take the registration from each other again and again.
const OTHERS_TURN: RangeInclusive<f64> = 2.0..=6.0;

/// The devices of one enrollment, and the services for finding them.
pub struct Inner {
    pub source: Source,
    pub shared: Shared,
    pub clock: Clock,
    pub registering: Semaphore,
    pub entries: Mutex<HashMap<Owner, Arc<Entry>>>,
}

/// An error, and whether the device backs off.
pub struct Ended {
    pub error: DeviceError,
    rests: bool,
}

impl Inner {
    pub async fn establish(self: Arc<Self>, entry: Arc<Entry>) {
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
        if entry.owner.port().is_some() {
            self.claim(entry).await?;
        }
        for round in 1..=ROUNDS {
            let (mut etag, mut registrations, mut tenant) = (None, 0, entry.owner.tenant().cloned());
            if let Some(Stored { document, etag: stored }) = self.read(entry, &entry.document_id).await? {
                let is_refused = entry.notes().refused == Some(document.registered_at);
                if self.source.has_made(&document) && !is_refused {
                    return self.known(entry, &document);
                }
                (etag, registrations, tenant) = (stored, document.registrations, document.tenant);
            }
            let document = match self.register(entry, registrations, tenant).await {
                Err(Ended { error: DeviceError::Dps { error: DpsError::OperationGone { .. }, .. }, .. })
                    if round < ROUNDS =>
                {
                    let (least, most) = OTHERS_TURN.into_inner();
                    sleep(Duration::from_secs_f64(least + (most - least) * fastrand::f64())).await;
                    continue;
                }
                registered => registered?,
            };
            if self.write(entry, &document, etag.as_deref()).await? == Written::Yes {
                let did = if document.id_scope.is_some() { "registered" } else { "noted down" };
                tracing::info!(
                    device.id = document.device_id,
                    hub.host = document.assigned_hub,
                    device.registrations = document.registrations,
                    "{did} a device for {}",
                    entry.owner
                );
                return self.known(entry, &document);
            }
        }
        Err(self.keeps_changing(entry))
    }

    /// A device for one port has its own document. The document of the plain registration id must still name the owner
    /// of this id, because other ports may lead to the same hub.
    async fn claim(&self, entry: &Entry) -> Result<(), Ended> {
        for _ in 0..ROUNDS {
            if self.read(entry, &entry.id).await?.is_some() {
                return Ok(());
            }
            let tenant = entry.owner.tenant().cloned();
            let claim = Document::claim(&entry.id, (&*entry.owner).into(), tenant, self.clock.now());
            if self.write(entry, &claim, None).await? == Written::Yes {
                return Ok(());
            }
        }
        Err(self.keeps_changing(entry))
    }

    /// Reads a document, if it exists, and brings its owner and tenant up to date. It is an error if the document belongs
    /// to another owner.
    async fn read(&self, entry: &Entry, id: &str) -> Result<Option<Stored>, Ended> {
        for _ in 0..ROUNDS {
            let stored =
                self.measured(self.shared.store.read(id)).await.map_err(|error| self.of_store(entry, error))?;
            let Some(Stored { document, etag }) = stored else { return Ok(None) };
            match entry.owner.claim_to(&document) {
                Claim::Mine => return Ok(Some(Stored { document, etag })),
                Claim::Taken => return Err(taken(entry, document)),
                Claim::Changed(changed) => {
                    if self.write(entry, &changed, etag.as_deref()).await? == Written::Yes
                        && changed.owner != document.owner
                    {
                        tracing::info!(
                            device.id = entry.id,
                            "{} is now {}: its device goes on",
                            document.owner,
                            entry.owner
                        );
                    }
                }
            }
        }
        Err(self.keeps_changing(entry))
    }

    async fn write(&self, entry: &Entry, document: &Document, etag: Option<&str>) -> Result<Written, Ended> {
        self.measured(self.shared.store.write(document, etag)).await.map_err(|error| self.of_store(entry, error))
    }

    async fn measured<T>(&self, operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let began = std::time::Instant::now();
        let result = operation.await;
        let failure = result.as_ref().err().map(StoreError::kind);
        self.shared.meters.ledger.count(began.elapsed(), 0, failure.as_ref());
        result
    }

    /// The document of a device that is assigned now, or was assigned in an earlier round.
    async fn register(&self, entry: &Entry, registrations: u32, tenant: Option<Tenant>) -> Result<Document, Ended> {
        let assignment = match &self.source {
            Source::Hub(policy) => Assignment { hub: policy.hub.to_string(), device_id: entry.id.clone() },
            Source::Dps(provisioner) => self.assignment(entry, provisioner).await?,
        };
        Ok(Document {
            id: entry.document_id.clone(),
            owner: (&*entry.owner).into(),
            tenant,
            assigned_hub: assignment.hub,
            device_id: assignment.device_id,
            registered_at: self.clock.now(),
            id_scope: self.source.id_scope().map(str::to_owned),
            registrations: registrations.saturating_add(1),
        })
    }

    async fn assignment(&self, entry: &Entry, provisioner: &Provisioner) -> Result<Assignment, Ended> {
        if let Some(assignment) = entry.notes().unrecorded {
            return Ok(assignment);
        }
        entry.state.send_replace(State::Registering);
        // The semaphore is never closed.
        let _permit = self.registering.acquire().await;
        let began = std::time::Instant::now();
        let provisioned = provisioner.provision(&entry.id).await;
        let failure = provisioned.as_ref().err().map(|failed| failed.error.kind());
        self.shared.meters.dps.count(began.elapsed(), 0, failure.as_ref());
        let assignment = provisioned.map_err(|failed| {
            let (owner, id) = (entry.owner.clone(), entry.id.clone());
            Ended { error: DeviceError::Dps { owner, id, error: failed.error }, rests: failed.is_of_device }
        })?;
        entry.note(|notes| notes.unrecorded = Some(assignment.clone()));
        Ok(assignment)
    }

    /// The device that a document in the store describes.
    fn known(&self, entry: &Entry, document: &Document) -> Result<Known, Ended> {
        let device = document
            .device(self.source.credential(document))
            .map_err(|text| self.of_store(entry, StoreError::Foreign { id: document.id.clone(), text }))?;
        entry.note(|notes| notes.unrecorded = None);
        Ok(Known { device: Arc::new(device), registered_at: document.registered_at })
    }

    fn keeps_changing(&self, entry: &Entry) -> Ended {
        let error = StoreError::Cosmos(crate::cosmos::Failure::Other("the document keeps changing".into()));
        self.of_store(entry, error)
    }

    pub fn of_store(&self, entry: &Entry, error: StoreError) -> Ended {
        let (owner, id) = (entry.owner.clone(), entry.id.clone());
        Ended { error: DeviceError::Store { owner, id, error }, rests: false }
    }

    /// Why a registration takes longer.
    pub fn underway(&self, entry: &Entry) -> DeviceError {
        let (owner, id) = (entry.owner.clone(), entry.id.clone());
        match self.source.throttled() {
            Some(error) => DeviceError::Dps { owner, id, error },
            None => DeviceError::Underway { owner, id },
        }
    }
}

fn taken(entry: &Entry, document: Document) -> Ended {
    let of_tenant = |tenant: Option<&Tenant>| tenant.map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
    let tenants = Tenants { own: of_tenant(entry.owner.tenant()), other: of_tenant(document.tenant.as_ref()) };
    let error = DeviceError::Taken {
        owner: entry.owner.clone(),
        id: document.id,
        other: document.owner,
        tenants: Box::new(tenants),
    };
    Ended { error, rests: false }
}
