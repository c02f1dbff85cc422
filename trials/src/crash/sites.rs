//! One run of the way from the rapidM2M backend to the hub.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use emulators::{cosmos, functions_host::InvocationFinished, iot_hub, rapidm2m, steps::Step};
use serde_json::json;
use tokio::time::{interval, sleep};

use super::{
    Setup,
    plan::Spot,
    victim::{Kills, Victim},
};
use crate::{
    app,
    audit::{
        Message, Verdict,
        sites::{Books, audit},
    },
    killer::Killer,
    ledger::Ledger,
    rows::Producer,
};

const CUSTOMER: &str = "Demo Water Utility";
const SITES: [&str; 5] = ["Energy meter 1", "Well 7 / Level", "Reservoir Süd", "Pumping station", "Tank"];
/// Channels of the rows that [`Producer`] makes.
const CHANNELS: &str = "ch0,ch1";
/// Time between two uploads.
const UPLOAD: Duration = Duration::from_millis(10);
/// How long the timer runs at the end until everything has arrived.
const SETTLING: Duration = Duration::from_secs(60);
/// Before the next try when the handler could not be called.
const BREATH: Duration = Duration::from_millis(1);

/// How often each step is reached soon after a start, with rows at all sites.
const SPOTS: [Spot; 16] = [
    Spot::new(Step::TimerCalled, 4),
    Spot::new(Step::TimerAnswered, 4),
    Spot::new(Step::RowsAsked, 12),
    Spot::new(Step::RowsAnswered, 12),
    // Once for each site: then it is in memory.
    Spot::new(Step::CursorRead, 5),
    // Only what the life before has left is read.
    Spot::new(Step::PollRead, 1).after(Step::RecordAnswered),
    Spot::new(Step::RecordCame, 10),
    Spot::new(Step::RecordApplied, 10),
    Spot::new(Step::RecordAnswered, 10),
    // All sites share one device, whose connection stays.
    Spot::new(Step::Connect, 1),
    Spot::new(Step::MessageCame, 10),
    Spot::new(Step::MessageTaken, 10),
    Spot::new(Step::MessageAnswered, 10),
    Spot::new(Step::MarkCame, 8),
    Spot::new(Step::MarkApplied, 8),
    Spot::new(Step::MarkAnswered, 8),
];

/// The stand-ins.
struct World {
    backend: rapidm2m::Emulator,
    cosmos: cosmos::Emulator,
    hub: iot_hub::Emulator,
}

impl World {
    async fn start(killer: &Killer) -> anyhow::Result<Self> {
        let backend = rapidm2m::Options {
            customer: CUSTOMER.to_owned(),
            site: SITES.map(str::to_owned).to_vec(),
            channels: CHANNELS.split(',').count(),
            no_generate: true,
            steps: killer.steps(),
            ..rapidm2m::Options::default()
        };
        let cosmos = cosmos::Options { steps: killer.steps(), ..cosmos::Options::default() };
        let hub = iot_hub::Options { steps: killer.steps(), ..iot_hub::Options::default() };
        Ok(Self {
            backend: rapidm2m::start(backend).await?,
            cosmos: cosmos::start(cosmos).await?,
            hub: iot_hub::start(hub).await?,
        })
    }

    fn settings(&self, records_empty_polls: bool) -> Vec<(String, String)> {
        let (backend, cosmos, hub) = (self.backend.ready(), self.cosmos.ready(), self.hub.ready());
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", backend.user, backend.password));
        let settings = [
            ("M2MBackendURL", backend.endpoint.as_str()),
            ("Base64encodedUsernamePassword", &credentials),
            ("Customer_ID", CUSTOMER),
            ("Site_ID", &SITES.join(",")),
            ("Channelnames", CHANNELS),
            ("StartFrom", "all"),
            ("RecordEmptyPolls", if records_empty_polls { "true" } else { "false" }),
            ("M2MDocumentsDBUri", &cosmos.endpoint),
            ("M2MDocumentsDBPrimaryKey", &cosmos.key),
            ("IoTHubURL", &hub.mqtt),
            ("IoTHubDeviceId", "gateway-1"),
            ("IoTHubDeviceKey", &hub.key),
            ("IoTHubTrustedCa", &hub.ca.to_string_lossy()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

/// Runs it, and says how the handler was killed, what was found, and what it has logged.
pub async fn run(setup: &Setup, seed: u64) -> anyhow::Result<(Kills, Verdict, Vec<String>)> {
    let killer = Killer::default();
    let world = World::start(&killer).await?;
    let mut settings = world.settings(seed.is_multiple_of(2));
    settings.extend(setup.settings.iter().cloned());
    let victim = Victim::start(killer, &setup.handler, &[app::POLLING], settings, setup.kills).await?;
    let mut producer = Producer::new(seed, &SITES);
    let is_over = Cell::new(false);
    let plan = setup.plan(seed, &SPOTS);
    let (kills, produced, ()) = tokio::join!(
        async {
            let kills = victim.suffer(&plan).await;
            is_over.set(true);
            kills
        },
        produce(&world, &mut producer, &is_over),
        async {
            while !is_over.get() {
                poll(&victim).await;
            }
        },
    );
    let kills = kills?;
    produced?;
    let mut findings = victim.findings();
    findings.extend(settle(&world, &victim, &producer).await?);
    let mut verdict = look(&world, &producer).await?;
    verdict.findings.extend(findings);
    let log = victim.log();
    victim.host.stop().await;
    Ok((kills, verdict, log))
}

/// One run of the timer's function.
async fn poll(victim: &Victim) -> Option<InvocationFinished> {
    let finished = victim.host.invoke(app::POLLING.0).await.ok()?;
    if finished.status.is_none() {
        sleep(BREATH).await;
    }
    Some(finished)
}

/// Uploads until it is over.
async fn produce(world: &World, producer: &mut Producer, is_over: &Cell<bool>) -> anyhow::Result<()> {
    let (client, url) = (reqwest::Client::new(), format!("{}rows", world.backend.ready().control));
    let mut uploads = interval(UPLOAD);
    while !is_over.get() {
        uploads.tick().await;
        let (site, rows) = producer.next();
        let rows: Vec<_> = rows.iter().map(crate::rows::Row::raw).collect();
        let response = client.post(&url).json(&json!({ "site": site, "rows": rows })).send().await?;
        ensure!(response.status().is_success(), "the backend took no rows: {}", response.status());
    }
    Ok(())
}

/// Polls until the ledger says that everything has arrived, or the time is over. Returns what must not be.
async fn settle(world: &World, victim: &Victim, producer: &Producer) -> anyhow::Result<Vec<String>> {
    let give_up = Instant::now() + SETTLING;
    let mut ledger = None;
    loop {
        let finished = poll(victim).await.context("there is no such timer")?;
        let has_succeeded = finished.status == Some(200);
        if has_succeeded {
            let ledger = match &ledger {
                Some(ledger) => ledger,
                None => ledger.insert(Ledger::open(world.cosmos.ready(), CUSTOMER).await?),
            };
            if is_settled(ledger, producer).await? {
                return Ok(Vec::new());
            }
        }
        if Instant::now() >= give_up {
            let how = finished.error.unwrap_or_else(|| finished.response.to_string());
            return Ok(vec![format!("not settled after {SETTLING:?} without kills; the last run of the timer: {how}")]);
        }
    }
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

async fn look(world: &World, producer: &Producer) -> anyhow::Result<Verdict> {
    let ledger = Ledger::open(world.cosmos.ready(), CUSTOMER).await?;
    let mut documents = BTreeMap::new();
    for site in SITES {
        documents.insert(site.to_owned(), ledger.documents(site).await?);
    }
    let messages: Vec<Message> = world.hub.received().iter().map(Message::of).collect();
    Ok(audit(&Books { produced: &producer.produced, messages: &messages, documents: &documents }))
}
