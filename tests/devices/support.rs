//! Starts an emulated hub with its provisioning service and a Cosmos DB, and makes the connector's parts that use them.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use emulators::{cosmos, iot_hub};
use iothub_connector::{
    config::{self, Problems, Settings},
    cosmos::Account,
    iot_hub::{
        Message, Options, Sender, Transport,
        delivery::{Delivery, Identities},
        devices::{Devices, Owner, PerApplication, Store, store::Written},
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::Ledger;

pub struct World {
    hub: iot_hub::Emulator,
    cosmos: cosmos::Emulator,
    http: reqwest::Client,
    /// Settings that differ from the emulators' values.
    pub changed: Vec<(&'static str, String)>,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(iot_hub::Options::default()).await
    }

    /// The service lets devices fetch their result at once.
    pub async fn start_with(options: iot_hub::Options) -> Self {
        let dps_options = iot_hub::DpsOptions { dps_retry_after: 0, ..iot_hub::DpsOptions::default() };
        let hub = iot_hub::start(iot_hub::Options { dps_options, ..options }).await.unwrap();
        let cosmos = cosmos::start(cosmos::Options::default()).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { hub, cosmos, http, changed: Vec::new() }
    }

    fn settings(&self) -> Settings {
        let (hub, cosmos) = (self.hub.ready(), self.cosmos.ready());
        let settings = [
            ("DPSGlobalDeviceEndpoint", &hub.dps),
            ("DPSIDScope", &hub.id_scope),
            ("DPSEnrollmentGroupSymmetricKey", &hub.group_key),
            ("M2MDocumentsDBUri", &cosmos.endpoint),
            ("M2MDocumentsDBPrimaryKey", &cosmos.key),
        ];
        let changed = self.changed.iter().map(|(name, value)| (*name, value));
        settings.into_iter().chain(changed).map(|(name, value)| (name, value.as_str())).collect()
    }

    pub fn trusted_ca(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(&self.hub.ready().ca).unwrap()]
    }

    /// The devices, as in a process that has just started.
    pub fn devices(&self) -> Devices {
        let mut problems = Problems::default();
        let config = config::dps::read(&self.settings(), &mut problems);
        let config = config.unwrap_or_else(|| panic!("{problems}"));
        Devices::new(config, self.store(), self.trusted_ca(), Arc::default())
    }

    pub fn connection_string(&self) -> String {
        let ready = self.hub.ready();
        format!("HostName={};SharedAccessKeyName={};SharedAccessKey={}", ready.mqtt, ready.policy, ready.policy_key)
    }

    /// The devices of LoRaWAN applications, as in a process that has just started. `settings` are those without DPS's
    /// address.
    pub fn per_application(&self, settings: &[(&str, &str)]) -> PerApplication {
        let endpoint = [("DPSGlobalDeviceEndpoint", self.hub.ready().dps.as_str())];
        let mut problems = Problems::default();
        let enrollments = config::enrollment::read(&endpoint.iter().chain(settings).copied().collect(), &mut problems);
        PerApplication::new(
            enrollments.unwrap_or_else(|| panic!("{problems}")),
            self.store(),
            self.trusted_ca(),
            Arc::default(),
        )
    }

    pub fn store(&self) -> Store {
        let config = config::ledger::read(&self.settings(), &mut Problems::default()).unwrap();
        Store::new(Arc::new(Account::new(config.account)))
    }

    /// Adds a document to container `devices`, as another program writes it.
    pub async fn create(&self, document: &Value) {
        let cosmos = self.cosmos.ready();
        let devices = Ledger::open(&cosmos.endpoint, &cosmos.key, "M2MBackendForwarderData", "devices").await;
        devices.create(document["id"].as_str().unwrap().to_owned(), document).await;
    }

    /// The delivery to the hub, as in a process that has just started.
    pub fn delivery(&self, transport: Transport) -> Delivery {
        self.delivery_of(self.devices(), transport)
    }

    pub fn delivery_of(&self, devices: Devices, transport: Transport) -> Delivery {
        let options = Options::new(transport, NonZeroUsize::new(1_000).unwrap(), self.trusted_ca());
        Delivery {
            identities: Identities::Provisioned(devices),
            sender: Arc::new(Sender::new(options)),
            meters: Arc::default(),
        }
    }

    pub fn ready(&self) -> &iot_hub::Ready {
        self.hub.ready()
    }

    /// Changes a device's document as if the device had been registered two minutes ago.
    pub async fn make_older(&self, id: &str) {
        let store = self.store();
        let mut stored = store.read(id).await.unwrap().unwrap();
        stored.document.registered_at -= TimeDelta::minutes(2);
        assert_eq!(store.write(&stored.document, stored.etag.as_deref()).await.unwrap(), Written::Yes);
    }

    pub async fn put(&self, path: &str, body: Value) {
        self.call("PUT", path, body.to_string()).await;
    }

    pub async fn post(&self, path: &str, body: Value) {
        self.call("POST", path, body.to_string()).await;
    }

    pub async fn delete(&self, path: &str) {
        self.call("DELETE", path, String::new()).await;
    }

    pub async fn get(&self, path: &str) -> Vec<Value> {
        serde_json::from_str(&self.call("GET", path, String::new()).await).unwrap()
    }

    pub async fn counts(&self) -> Value {
        serde_json::from_str(&self.call("GET", "counts", String::new()).await).unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: String) -> String {
        let url = format!("{}{path}", self.hub.ready().control);
        let response = self.http.request(method.parse().unwrap(), url).body(body).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        text
    }

    /// How often each id was registered.
    pub async fn register_calls(&self) -> Vec<(String, u64)> {
        let registrations = self.get("dps/registrations").await;
        let calls = |registration: &Value| {
            let id = registration["registrationId"].as_str().unwrap().to_owned();
            (id, registration["registerCalls"].as_u64().unwrap())
        };
        registrations.iter().map(calls).collect()
    }

    /// The ids of the messages that the hub has received from a device.
    pub async fn received(&self, device: &str) -> Vec<String> {
        let received = self.get(&format!("received?device={device}")).await;
        received.iter().map(|message| message["messageId"].as_str().unwrap().to_owned()).collect()
    }
}

pub fn site(name: &str) -> Owner {
    Owner::rapidm2m_site("Demo Water Utility", name)
}

pub fn message(id: &str) -> Message {
    let created = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
    let body = Bytes::from(json!({ "site_id": id }).to_string());
    Message { id: id.into(), created, properties: vec![("Site_Id", id.into())], body }
}

/// A deadline that is long enough for everything that must succeed.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Sends all messages, or panics.
pub async fn send(delivery: &Delivery, owner: &Owner, messages: &[Message]) {
    let (sent, outcome) = delivery.send_in_order(owner, messages, soon(), soon()).await;
    outcome.unwrap_or_else(|error| panic!("{owner}: {sent} messages, then {error}"));
    assert_eq!(sent, messages.len());
}
