//! Tests against a scripted service and the Cosmos DB emulator.

mod applications;
mod faults;
mod registering;
mod service;
mod sharing;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use emulators::cosmos;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use self::service::{Asked, Reply, SCOPE, Service};
use super::{
    DeviceError, Devices, Owner, Shared, Store,
    documents::Document,
    dps::{Limits, Provisioner},
    enrollment::EnrollmentGroup,
    source::Source,
    store::{Listing, Written},
};
use crate::{
    config,
    cosmos::Account,
    iot_hub::Device,
    support::{backoff::Policy, clock::Clock},
};

/// A service, a Cosmos DB, and the parts of the connector that use them.
struct World {
    service: Service,
    cosmos: cosmos::Emulator,
    limits: Limits,
}

impl World {
    async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (service, cosmos) = tokio::join!(Service::start(script), cosmos::start(cosmos::Options::default()));
        let limits = Limits {
            retry: Policy::jittered(Duration::from_millis(20), Duration::from_secs(100)),
            ..Limits::default()
        };
        Self { service, cosmos: cosmos.unwrap(), limits }
    }

    /// The devices of a process that has just started.
    fn devices(&self) -> Devices {
        self.devices_with(self.service.config(), vec![self.service.certificate.clone()])
    }

    fn devices_with(&self, config: EnrollmentGroup, trusted_ca: Vec<CertificateDer<'static>>) -> Devices {
        self.devices_of(config, trusted_ca, Clock::system())
    }

    fn devices_at(&self, clock: Clock) -> Devices {
        self.devices_of(self.service.config(), vec![self.service.certificate.clone()], clock)
    }

    fn devices_of(&self, config: EnrollmentGroup, trusted_ca: Vec<CertificateDer<'static>>, clock: Clock) -> Devices {
        let shared = Shared::new(self.store(), trusted_ca, Arc::default());
        let provisioner = Provisioner::new(config, shared.http.clone(), self.limits);
        Devices::with(Source::Dps(Box::new(provisioner)), shared, clock)
    }

    fn store(&self) -> Store {
        Store::new(self.account())
    }

    fn account(&self) -> Arc<Account> {
        let ready = self.cosmos.ready();
        let settings = [("M2MDocumentsDBUri", &ready.endpoint), ("M2MDocumentsDBPrimaryKey", &ready.key)];
        let settings = settings.into_iter().collect();
        let config = config::ledger::read(&settings, &mut config::Problems::default()).unwrap();
        Arc::new(Account::new(config.account))
    }

    async fn listing(&self) -> Listing {
        self.store().list().await.unwrap().unwrap_or_default()
    }

    async fn document(&self, id: &str) -> Document {
        self.store().read(id).await.unwrap().unwrap_or_else(|| panic!("no document {id}")).document
    }

    /// Stores a document that was registered `seconds` ago and assigned to `old.azure-devices.net`.
    async fn put(&self, owner: &Owner, seconds: i64) -> Document {
        let id = super::naming::registration_id(&owner.name);
        let document = Document {
            id: id.clone(),
            owner: owner.into(),
            tenant: owner.tenant().cloned(),
            assigned_hub: "old.azure-devices.net".into(),
            device_id: id,
            registered_at: Utc::now() - chrono::TimeDelta::seconds(seconds),
            id_scope: Some(SCOPE.into()),
            registrations: 1,
        };
        assert_eq!(self.store().write(&document, None).await.unwrap(), Written::Yes);
        document
    }

    /// Switches faults of Cosmos DB.
    async fn faults(&self, faults: serde_json::Value) {
        let url = format!("{}faults", self.cosmos.ready().control);
        let request = reqwest::Client::builder().no_proxy().build().unwrap().put(url);
        let request = request.header("content-type", "application/json").body(faults.to_string());
        request.send().await.unwrap().error_for_status().unwrap();
    }
}

fn site(name: &str) -> Owner {
    Owner::rapidm2m_site("Demo Water Utility", name)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

async fn device(devices: &Devices, owner: &Owner) -> Arc<Device> {
    devices.device(owner, soon()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The error for an owner. It must name the device and the owner, and contain no secret.
async fn error(devices: &Devices, owner: &Owner) -> DeviceError {
    let error = devices.device(owner, soon()).await.expect_err("there is a device");
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(text.contains(&owner.to_string()), "{text}");
    assert!(text.contains(&super::naming::registration_id(&owner.name)), "{text}");
    for secret in [service::GROUP_KEY, "sig=", "SharedAccessSignature"] {
        assert!(!text.contains(secret) && !debug.contains(secret), "{debug}");
    }
    error
}
