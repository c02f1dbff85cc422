//! Starts a backend, a Cosmos DB and a hub, and makes the settings that a handler needs for them.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{join, sync::OnceCell};

use super::{
    Delivered, Handler, Row, delivered,
    ledger::Ledger,
    process::{Emulator, Output},
    stamp,
};

pub const CUSTOMER: &str = "Demo Water Utility";
const CHANNELS: &str = "ch0,ch1";
const DATABASE: &str = "M2MBackendForwarderData";
const CONTAINER: &str = "pollingAttempts";

/// The handler's environment.
pub type Settings = BTreeMap<String, String>;

pub struct World {
    pub backend: Emulator,
    pub cosmos: Emulator,
    pub hub: Emulator,
    pub settings: Settings,
    /// The output of every handler of this world.
    pub output: Output,
    ledger: OnceCell<Ledger>,
    sites: Vec<String>,
}

impl World {
    /// Sites with two channels, and without rows until [`add`](Self::add) adds some. The handler starts with the oldest
    /// row.
    pub async fn with_sites(sites: &[&str]) -> Self {
        let mut options = vec!["--no-generate", "--channels", "2"];
        options.extend(sites.iter().flat_map(|site| ["--site", site]));
        Self::start(&options, sites).await
    }

    pub async fn start(backend: &[&str], sites: &[&str]) -> Self {
        Self::start_with(backend, &[], sites).await
    }

    pub async fn start_with(backend: &[&str], cosmos: &[&str], sites: &[&str]) -> Self {
        let (backend, cosmos, hub) = join!(
            Emulator::start("rapidm2m", backend),
            Emulator::start("cosmos", cosmos),
            Emulator::start("iot_hub", &[])
        );
        Self::of(backend, cosmos, hub, sites)
    }

    /// A world made of stand-ins that already run.
    pub fn of(backend: Emulator, cosmos: Emulator, hub: Emulator, sites: &[&str]) -> Self {
        let credentials = format!("{}:{}", backend.ready("user"), backend.ready("password"));
        let sites: Vec<_> = sites.iter().map(|site| (*site).to_owned()).collect();
        let settings = [
            ("M2MBackendURL", backend.ready("endpoint")),
            ("Base64encodedUsernamePassword", &BASE64_STANDARD.encode(credentials)),
            ("Customer_ID", CUSTOMER),
            ("Site_ID", &sites.join(",")),
            ("Channelnames", CHANNELS),
            ("StartFrom", "all"),
            ("PollTimeoutSeconds", "20"),
            ("M2MDocumentsDBUri", cosmos.ready("endpoint")),
            ("M2MDocumentsDBPrimaryKey", cosmos.ready("key")),
            ("IoTHubURL", hub.ready("mqtt")),
            ("IoTHubDeviceId", "gateway-1"),
            ("IoTHubDeviceKey", hub.ready("key")),
            ("IoTHubTrustedCa", hub.ready("ca")),
            ("RUST_LOG", "debug"),
            // Most tests look at each poll. What the defaults save: see `tests/forwarding/economy.rs`.
            ("RecordEmptyPolls", "true"),
            ("SweepMinutes", "0"),
            ("MarkWithinSeconds", "0"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { backend, cosmos, hub, settings, output: Output::default(), ledger: OnceCell::new(), sites }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    pub fn unset(&mut self, name: &str) {
        assert!(self.settings.remove(name).is_some(), "{name} is not set");
    }

    /// From now on each site is a device of its own, which the hub's DPS provisions.
    pub async fn provision_sites(&mut self) {
        for name in ["IoTHubURL", "IoTHubDeviceId", "IoTHubDeviceKey"] {
            self.unset(name);
        }
        let [endpoint, scope, key] = ["dps", "idScope", "groupKey"].map(|name| self.hub.ready(name).to_owned());
        self.set("DPSGlobalDeviceEndpoint", &endpoint);
        self.set("DPSIDScope", &scope);
        self.set("DPSEnrollmentGroupSymmetricKey", &key);
        self.hub.put("dps/settings", json!({ "retryAfterSeconds": 0 })).await;
    }

    /// The registered devices by registration id: how often each registration was requested, and its result.
    pub async fn registrations(&self) -> BTreeMap<String, Value> {
        let all = self.hub.get("dps/registrations").await;
        let all = all.as_array().unwrap().iter();
        all.map(|one| (one["registrationId"].as_str().unwrap().to_owned(), one.clone())).collect()
    }

    /// Changes a device's document so that its registration is this many seconds older.
    pub async fn age_registration(&self, device: &str, seconds: i64) {
        let store = Ledger::open(self.cosmos.ready("endpoint"), self.cosmos.ready("key"), DATABASE, "devices").await;
        store.age(device, seconds).await;
    }

    pub async fn handler(&self) -> Handler {
        self.handler_with(&self.settings).await
    }

    pub async fn handler_with(&self, settings: &Settings) -> Handler {
        Handler::start(settings, self.output.clone()).await
    }

    /// The output of all handlers.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits until the output contains this text `count` times. Lines come through pipes, so they can be late.
    pub async fn printed(&self, part: &str, count: usize) {
        let give_up = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.output().matches(part).count() < count {
            assert!(tokio::time::Instant::now() < give_up, "{part:?} is not printed {count} times: {}", self.output());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Adds the rows that [`rows`](super::rows) expects.
    pub async fn add(&self, site: &str, minutes: impl IntoIterator<Item = i64>) {
        let rows: Vec<_> = minutes.into_iter().map(|minute| json!([stamp(minute), minute, 0.5])).collect();
        self.add_raw(site, json!(rows)).await;
    }

    pub async fn add_raw(&self, site: &str, rows: Value) {
        self.backend.post("rows", json!({ "site": site, "rows": rows })).await;
    }

    /// The messages that the hub has received.
    pub async fn delivered(&self) -> Delivered {
        delivered(&self.hub.get("received").await, CUSTOMER)
    }

    /// Asserts that the hub has exactly these rows of the site: all, in order, and repeats only under the same message
    /// id.
    pub async fn assert_rows(&self, site: &str, expected: &[Row]) {
        let delivered = self.delivered().await;
        let rows = delivered.rows.get(site).map_or(&[][..], Vec::as_slice);
        assert_eq!(rows, expected, "{site}\n{}", self.output());
    }

    async fn ledger(&self) -> &Ledger {
        let (endpoint, key) = (self.cosmos.ready("endpoint"), self.cosmos.ready("key"));
        self.ledger.get_or_init(|| Ledger::open(endpoint, key, DATABASE, CONTAINER)).await
    }

    /// Every document of the ledger; none if the container does not exist yet.
    pub async fn all_documents(&self) -> Vec<Value> {
        let (endpoint, key) = (self.cosmos.ready("endpoint"), self.cosmos.ready("key"));
        if self.ledger.get().is_none() {
            let Some(ledger) = Ledger::find(endpoint, key, DATABASE, CONTAINER).await else { return Vec::new() };
            // Another caller may have set it first; its value is just as good.
            let _ = self.ledger.set(ledger);
        }
        self.ledger().await.all().await
    }

    /// Edits a document, as an operator does by hand.
    #[allow(dead_code, reason = "for tests/forwarding and tests/replay")]
    pub async fn replace(&self, site: &str, document: &Value) {
        self.ledger().await.replace(CUSTOMER, site, document).await;
    }

    pub async fn documents(&self, site: &str) -> Vec<Value> {
        self.ledger().await.documents(CUSTOMER, site).await
    }

    /// The records of a site's polls, oldest first.
    pub async fn polls(&self, site: &str) -> Vec<Value> {
        let mut documents = self.documents(site).await;
        documents.retain(|document| document["Kind"] == "poll");
        documents
    }

    pub async fn cursor(&self, site: &str) -> Value {
        let documents = self.documents(site).await;
        documents
            .into_iter()
            .find(|document| document["id"] == "cursor")
            .unwrap_or_else(|| panic!("no cursor of {site}"))
    }

    pub async fn outcomes(&self, site: &str) -> Vec<String> {
        self.polls(site).await.iter().map(|poll| poll["Outcome"].as_str().unwrap().to_owned()).collect()
    }

    /// Asserts that the ledger agrees with the hub for each site: each `forwarded` message arrived, each message that
    /// arrived is `forwarded`, and nothing is pending.
    pub async fn assert_settled(&self) {
        let delivered = self.delivered().await;
        for site in &self.sites {
            let polls = self.polls(site).await;
            let ids = |outcome: &str| -> Vec<String> {
                let polls = polls.iter().filter(|poll| poll["Outcome"] == outcome);
                polls.map(|poll| poll["MessageId"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(ids("forwarded"), delivered.ids.get(site).cloned().unwrap_or_default(), "{site}");
            assert_eq!(ids("pending"), [""; 0], "{site}");
            assert_eq!(self.cursor(site).await["Unforwarded"], json!([]), "{site}");
        }
    }

    /// Asserts that no credential is in a handler's output or in a document.
    pub async fn assert_no_secrets(&self) {
        let mut texts = vec![("the output".to_owned(), self.output())];
        for site in &self.sites {
            for document in self.documents(site).await {
                texts.push((format!("a document of {site}"), document.to_string()));
            }
        }
        assert!(texts.len() > 1 && texts.iter().all(|(_, text)| !text.is_empty()), "nothing to search in");
        let mut secrets = vec![self.backend.ready("password"), self.hub.ready("key"), self.cosmos.ready("key"), "sig="];
        secrets.extend(self.settings.iter().filter_map(|(name, value)| {
            let secret = name.ends_with("Key") || name.contains("Password") || name.ends_with("Signature");
            secret.then_some(value.as_str())
        }));
        for (place, text) in &texts {
            for secret in &secrets {
                assert!(!text.contains(secret), "a secret stands in {place}");
            }
        }
    }
}
