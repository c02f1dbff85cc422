//! The world of rapidM2M sites: backend, ledger, hub, and the rows in it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use emulators::{
    cosmos,
    functions_host::{self, InvocationFinished},
    iot_hub, rapidm2m,
    steps::Steps,
};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use crate::{
    app,
    audit::{
        Message, Verdict,
        sites::{Books, audit},
    },
    ledger::{Document, Ledger},
    rows::{Producer, Row},
};

const CUSTOMER: &str = "Demo Water Utility";
/// Channels of the rows that [`Producer`] makes.
const CHANNELS: &str = "ch0,ch1";
/// More sites than this are not named one by one: Linux limits an environment variable to 128 KiB.
const MOST_NAMED: usize = 2_000;
/// The queue through which sites are polled, if they are.
const QUEUE: &str = "polls";
/// How long a run of the timer waits for its batches. A batch whose handler was killed comes again after a second.
const WORKING: Duration = Duration::from_secs(3);
/// Pause before the next attempt if the handler could not be called.
const BREATH: Duration = Duration::from_millis(1);

/// The stand-ins.
pub struct World {
    pub backend: rapidm2m::Emulator,
    pub cosmos: cosmos::Emulator,
    pub hub: iot_hub::Emulator,
    /// For the control endpoints.
    pub client: reqwest::Client,
}

impl World {
    /// `is_large`: for very many documents, which the real engine cannot hold.
    pub async fn start(sites: &[String], steps: Steps, is_large: bool) -> anyhow::Result<Self> {
        let backend = rapidm2m::Options {
            customer: CUSTOMER.to_owned(),
            site: sites.to_vec(),
            channels: CHANNELS.split(',').count(),
            no_generate: true,
            steps: steps.clone(),
            ..rapidm2m::Options::default()
        };
        let cosmos = cosmos::Options { steps: steps.clone(), plain_items: is_large, ..cosmos::Options::default() };
        // Everything is kept, because the audit reads every message.
        let dps_options = iot_hub::DpsOptions { dps_retry_after: 0, ..iot_hub::DpsOptions::default() };
        let hub = iot_hub::Options {
            steps,
            dps_options,
            keep_messages: usize::MAX,
            keep_bytes: usize::MAX,
            ..iot_hub::Options::default()
        };
        Ok(Self {
            backend: rapidm2m::start(backend).await?,
            cosmos: cosmos::start(cosmos).await?,
            hub: iot_hub::start(hub).await?,
            client: reqwest::Client::new(),
        })
    }

    /// Settings for a handler that uses these stand-ins and polls all sites, as the device `gateway-1`.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let (backend, cosmos, hub) = (self.backend.ready(), self.cosmos.ready(), self.hub.ready());
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", backend.user, backend.password));
        let names = self.backend.site_names();
        let names = if names.len() > MOST_NAMED { "*".to_owned() } else { names.join(",") };
        let settings = [
            ("M2MBackendURL", backend.endpoint.as_str()),
            ("Base64encodedUsernamePassword", &credentials),
            ("Customer_ID", CUSTOMER),
            ("Site_ID", &names),
            ("Channelnames", CHANNELS),
            ("StartFrom", "all"),
            ("M2MDocumentsDBUri", &cosmos.endpoint),
            ("M2MDocumentsDBPrimaryKey", &cosmos.key),
            ("IoTHubURL", &hub.mqtt),
            ("IoTHubDeviceId", "gateway-1"),
            ("IoTHubDeviceKey", &hub.key),
            ("IoTHubTrustedCa", &hub.ca.to_string_lossy()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// As [`settings`](Self::settings), with a device of its own for each site.
    pub fn provisioned_settings(&self) -> BTreeMap<String, String> {
        let hub = self.hub.ready();
        let mut settings = self.settings();
        settings.retain(|name, _| !["IoTHubURL", "IoTHubDeviceId", "IoTHubDeviceKey"].contains(&name.as_str()));
        let provisioning = [
            ("DPSGlobalDeviceEndpoint", &hub.dps),
            ("DPSIDScope", &hub.id_scope),
            ("DPSEnrollmentGroupSymmetricKey", &hub.group_key),
        ];
        settings.extend(provisioning.map(|(name, value)| (name.to_owned(), value.clone())));
        settings
    }

    /// Uploads the producer's rows, one upload per `pace`, until it is over.
    pub async fn produce(&self, producer: &mut Producer, pace: Duration, is_over: &Cell<bool>) -> anyhow::Result<()> {
        let mut uploads = interval(pace);
        while !is_over.get() {
            uploads.tick().await;
            self.produce_once(producer).await?;
        }
        Ok(())
    }

    /// Uploads the next rows.
    pub async fn produce_once(&self, producer: &mut Producer) -> anyhow::Result<()> {
        let (site, rows) = producer.next();
        self.upload(site, rows).await
    }

    async fn upload(&self, site: &str, rows: &[Row]) -> anyhow::Result<()> {
        let url = format!("{}rows", self.backend.ready().control);
        let rows: Vec<_> = rows.iter().map(Row::raw).collect();
        let response = self.client.post(url).json(&json!({ "site": site, "rows": rows })).send().await?;
        ensure!(response.status().is_success(), "the backend took no rows: {}", response.status());
        Ok(())
    }

    /// Polls until the ledger shows that everything has arrived, or the time is over. Returns the findings.
    pub async fn settle(
        &self,
        host: &functions_host::Emulator,
        producer: &Producer,
        at_most: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let give_up = Instant::now() + at_most;
        let mut ledger = None;
        loop {
            let finished = poll(host).await?;
            if finished.status == Some(200) {
                let ledger = match &ledger {
                    Some(ledger) => ledger,
                    None => ledger.insert(Ledger::open(self.cosmos.ready(), CUSTOMER).await?),
                };
                if is_settled(ledger, producer).await? {
                    return Ok(Vec::new());
                }
            }
            if Instant::now() >= give_up {
                let how = finished.error.unwrap_or_else(|| finished.response.to_string());
                return Ok(vec![format!(
                    "not settled {at_most:?} after the last trouble; the last run of the timer: {how}"
                )]);
            }
        }
    }

    /// Compares all produced rows with the hub and the ledger.
    pub async fn audit(&self, producer: &Producer, may_fail: bool) -> anyhow::Result<Verdict> {
        let mut documents = documents_by_site(self.cosmos.plain_items())?;
        if documents.is_empty() {
            let ledger = Ledger::open(self.cosmos.ready(), CUSTOMER).await?;
            for site in producer.produced.keys() {
                documents.insert(site.clone(), ledger.documents(site).await?);
            }
        }
        let messages: Vec<Message> = self.hub.received().iter().map(Message::of).collect();
        Ok(audit(&Books { produced: &producer.produced, messages: &messages, documents: &documents, may_fail }))
    }
}

fn documents_by_site(items: Vec<Value>) -> anyhow::Result<BTreeMap<String, Vec<Document>>> {
    let mut documents: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for item in items {
        let site = item["Site_Id"].as_str().unwrap_or_default().to_owned();
        documents.entry(site).or_default().push(serde_json::from_value(item)?);
    }
    Ok(documents)
}

/// Adds the settings with which the timer hands out the sites through a storage queue, in batches of so many. The functions
/// that poll them this way.
pub fn through_queue(settings: &mut BTreeMap<String, String>, batch_sites: usize) -> [app::Function; 2] {
    let batch_sites = batch_sites.to_string();
    for (name, value) in
        [("PollQueueName", QUEUE), ("PollBatchSites", &batch_sites), ("BackendRequestsPerSecond", "1000")]
    {
        settings.insert(name.to_owned(), value.to_owned());
    }
    [app::POLLING, app::SITES]
}

/// One run of the timer's function, and of the batches that it has put into the queue.
///
/// # Errors
/// The app has no such function.
pub async fn poll(host: &functions_host::Emulator) -> anyhow::Result<InvocationFinished> {
    let finished = host.invoke(app::POLLING.0).await.context("cannot run the timer")?;
    if host.ready().queues.contains_key(QUEUE) {
        // If it takes longer, the next run has the same sites.
        host.wait_until_empty(QUEUE, WORKING).await.context("the queue cannot be looked into")?;
    }
    if finished.status.is_none() {
        sleep(BREATH).await;
    }
    Ok(finished)
}

async fn is_settled(ledger: &Ledger, producer: &Producer) -> anyhow::Result<bool> {
    for (site, rows) in &producer.produced {
        let cursor = ledger.cursor(site).await?;
        if !cursor.unforwarded.is_empty() || cursor.last_value_from != rows.last().map(|row| row.at) {
            return Ok(false);
        }
    }
    Ok(true)
}
