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
use serde_json::json;
use tokio::time::{interval, sleep};

use crate::{
    app,
    audit::{
        Message, Verdict,
        sites::{Books, audit},
    },
    ledger::Ledger,
    rows::{Producer, Row},
};

const CUSTOMER: &str = "Demo Water Utility";
/// Channels of the rows that [`Producer`] makes.
const CHANNELS: &str = "ch0,ch1";
/// How long the timer runs at the end until everything has arrived.
const SETTLING: Duration = Duration::from_secs(60);
/// Before the next try when the handler could not be called.
const BREATH: Duration = Duration::from_millis(1);

/// The stand-ins.
pub struct World {
    pub backend: rapidm2m::Emulator,
    pub cosmos: cosmos::Emulator,
    pub hub: iot_hub::Emulator,
    client: reqwest::Client,
}

impl World {
    pub async fn start(sites: &[String], steps: Steps) -> anyhow::Result<Self> {
        let backend = rapidm2m::Options {
            customer: CUSTOMER.to_owned(),
            site: sites.to_vec(),
            channels: CHANNELS.split(',').count(),
            no_generate: true,
            steps: steps.clone(),
            ..rapidm2m::Options::default()
        };
        let cosmos = cosmos::Options { steps: steps.clone(), ..cosmos::Options::default() };
        let hub = iot_hub::Options { steps, ..iot_hub::Options::default() };
        Ok(Self {
            backend: rapidm2m::start(backend).await?,
            cosmos: cosmos::start(cosmos).await?,
            hub: iot_hub::start(hub).await?,
            client: reqwest::Client::new(),
        })
    }

    /// Settings that lead a handler here, to all sites, as the device `gateway-1`.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let (backend, cosmos, hub) = (self.backend.ready(), self.cosmos.ready(), self.hub.ready());
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", backend.user, backend.password));
        let settings = [
            ("M2MBackendURL", backend.endpoint.as_str()),
            ("Base64encodedUsernamePassword", &credentials),
            ("Customer_ID", CUSTOMER),
            ("Site_ID", &self.backend.site_names().join(",")),
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

    /// Uploads what is produced, one upload in `pace`, until it is over.
    pub async fn produce(&self, producer: &mut Producer, pace: Duration, is_over: &Cell<bool>) -> anyhow::Result<()> {
        let mut uploads = interval(pace);
        while !is_over.get() {
            uploads.tick().await;
            let (site, rows) = producer.next();
            self.upload(site, rows).await?;
        }
        Ok(())
    }

    async fn upload(&self, site: &str, rows: &[Row]) -> anyhow::Result<()> {
        let url = format!("{}rows", self.backend.ready().control);
        let rows: Vec<_> = rows.iter().map(Row::raw).collect();
        let response = self.client.post(url).json(&json!({ "site": site, "rows": rows })).send().await?;
        ensure!(response.status().is_success(), "the backend took no rows: {}", response.status());
        Ok(())
    }

    /// Polls until the ledger says that everything has arrived, or the time is over. Returns what must not be.
    pub async fn settle(&self, host: &functions_host::Emulator, producer: &Producer) -> anyhow::Result<Vec<String>> {
        let give_up = Instant::now() + SETTLING;
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
                    "not settled {SETTLING:?} after the last kill; the last run of the timer: {how}"
                )]);
            }
        }
    }

    /// Compares everything that was produced with hub and ledger.
    pub async fn audit(&self, producer: &Producer) -> anyhow::Result<Verdict> {
        let ledger = Ledger::open(self.cosmos.ready(), CUSTOMER).await?;
        let mut documents = BTreeMap::new();
        for site in producer.produced.keys() {
            documents.insert(site.clone(), ledger.documents(site).await?);
        }
        let messages: Vec<Message> = self.hub.received().iter().map(Message::of).collect();
        Ok(audit(&Books { produced: &producer.produced, messages: &messages, documents: &documents }))
    }
}

/// One run of the timer's function.
///
/// # Errors
/// The app has no such function.
pub async fn poll(host: &functions_host::Emulator) -> anyhow::Result<InvocationFinished> {
    let finished = host.invoke(app::POLLING.0).await.context("cannot run the timer")?;
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
