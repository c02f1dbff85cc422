//! One run of the crash test from The Things Stack to the hub.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use emulators::{cosmos, functions_host, iot_hub, steps::Step, things_stack};
use fastrand::Rng;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::time::interval;

use super::{Setup, plan::Spot};
use crate::{
    app,
    audit::{
        Message, Verdict,
        uplinks::{Books, Sent, audit},
    },
    killer::Killer,
    ledger,
    victim::{Kills, Victim},
};

pub const QUEUE: &str = "uplinks";
pub const ROUTE: &str = "api/uplink";
/// Time between two uplinks.
const UPLINK: Duration = Duration::from_millis(15);
/// The most webhooks in flight at the same time.
const CONCURRENCY: usize = 16;
/// How often The Things Stack tries, and how long it waits between attempts, in seconds. It gives up on some webhooks.
const ATTEMPTS: u32 = 2;
const RETRY_DELAY: f64 = 0.05;
/// One uplink in this many is of a device that has never sent before; one device in this many uses V2.
const NEW_EVERY: usize = 3;
const V2_EVERY: usize = 10;
/// The devices that send in the calm, and how often. They are more than the host processes at the same time
/// (`batchSize` and `newBatchThreshold` of host.json). So two uplinks of a device are in flight together only if one of
/// them is delayed.
const CALM_DEVICES: usize = 80;
pub const CALM_ROUNDS: usize = 3;
/// How long the queue may take to become empty.
const DRAINING: Duration = Duration::from_secs(60);

/// How often each step is reached soon after a start.
const SPOTS: [Spot; 16] = [
    Spot::new(Step::WebhookCalled, 20),
    Spot::new(Step::WebhookAnswered, 20),
    Spot::new(Step::UplinkCalled, 20),
    Spot::new(Step::UplinkAnswered, 15),
    Spot::new(Step::DeviceRead, 10),
    Spot::new(Step::DeviceCame, 4),
    Spot::new(Step::DeviceApplied, 4),
    Spot::new(Step::DeviceAnswered, 4),
    Spot::new(Step::RegisterCame, 4),
    Spot::new(Step::RegisterAnswered, 4),
    Spot::new(Step::AssignmentAsked, 4),
    Spot::new(Step::AssignmentAnswered, 4),
    Spot::new(Step::Connect, 4),
    Spot::new(Step::MessageCame, 10),
    Spot::new(Step::MessageTaken, 10),
    Spot::new(Step::MessageAnswered, 10),
];

/// The stand-ins.
pub struct World {
    cosmos: cosmos::Emulator,
    hub: iot_hub::Emulator,
    pub stack: things_stack::Emulator,
}

impl World {
    pub async fn start(killer: &Killer, seed: u64) -> anyhow::Result<Self> {
        let cosmos = cosmos::Options { steps: killer.steps(), ..cosmos::Options::default() };
        let dps_options = iot_hub::DpsOptions { dps_retry_after: 0, ..iot_hub::DpsOptions::default() };
        let hub = iot_hub::Options { steps: killer.steps(), dps_options, ..iot_hub::Options::default() };
        let sending = things_stack::Sending { attempts: ATTEMPTS, retry_delay: RETRY_DELAY, ..Default::default() };
        let stack = things_stack::Options { seed: Some(seed), sending, ..things_stack::Options::default() };
        Ok(Self {
            cosmos: cosmos::start(cosmos).await?,
            hub: iot_hub::start(hub).await?,
            stack: things_stack::start(stack).await?,
        })
    }

    pub fn settings(&self) -> BTreeMap<String, String> {
        let (cosmos, hub) = (self.cosmos.ready(), self.hub.ready());
        let settings = [
            ("UplinkQueueName", QUEUE),
            ("M2MDocumentsDBUri", &cosmos.endpoint),
            ("M2MDocumentsDBPrimaryKey", &cosmos.key),
            ("DPSGlobalDeviceEndpoint", &hub.dps),
            ("DPSIDScopeDefault", &hub.id_scope),
            ("DPSEnrollmentGroupSymmetricKeyDefault", &hub.group_key),
            ("IoTHubTrustedCa", &hub.ca.to_string_lossy()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}

/// Carries out a run. Returns the kills, the verdict and the handler's log.
pub async fn run(setup: &Setup, seed: u64) -> anyhow::Result<(Kills, Verdict, Vec<String>)> {
    let killer = Killer::default();
    let world = World::start(&killer, seed).await?;
    let mut settings = world.settings();
    settings.extend(setup.settings.iter().cloned());
    let victim = Victim::start(killer, &setup.handler, &[app::UPLINK, app::FORWARDING], settings, setup.kills).await?;
    let target = format!("{}{ROUTE}", victim.host.ready().endpoint);
    let fleet = Fleet { stack: &world.stack, target };
    let is_over = Cell::new(false);
    let plan = setup.plan(seed, &SPOTS);
    let (kills, sent) = tokio::join!(
        async {
            let kills = victim.suffer(&plan).await;
            is_over.set(true);
            kills
        },
        fleet.send_until(&is_over, seed),
    );
    let (kills, mut sent) = (kills?, sent?);
    let mut findings = victim.findings();
    if victim.host.wait_until_empty(QUEUE, DRAINING).await? {
        // One more uplink from every device of the calm, so that each of them is known before the calm.
        sent.extend(fleet.send_round().await?);
        victim.host.wait_until_empty(QUEUE, DRAINING).await?;
        for _ in 0..CALM_ROUNDS {
            let round = fleet.send_round().await?;
            sent.extend(round.into_iter().map(|sent| Sent { is_in_calm: true, ..sent }));
        }
        victim.host.wait_until_empty(QUEUE, DRAINING).await?;
    }
    let left = victim.host.queue_messages(QUEUE).await?;
    if !left.is_empty() {
        findings.push(format!("{} uplinks are still in the queue {DRAINING:?} after the last kill", left.len()));
    }
    let mut verdict = look(&world, &victim.host, &sent).await?;
    verdict.findings.extend(findings);
    let log = victim.log();
    victim.host.stop().await;
    Ok((kills, verdict, log))
}

/// LoRaWAN devices; their webhooks go to the host.
pub struct Fleet<'a> {
    pub stack: &'a things_stack::Emulator,
    pub target: String,
}

impl Fleet<'_> {
    /// Sends until it is over, from new and known devices. The seed decides their order.
    pub async fn send_until(&self, is_over: &Cell<bool>, seed: u64) -> anyhow::Result<Vec<Sent>> {
        let mut random = Rng::with_seed(seed);
        let mut known = 0;
        let mut pace = interval(UPLINK);
        let chosen = stream::poll_fn(|context| {
            if is_over.get() {
                return std::task::Poll::Ready(None);
            }
            std::task::ready!(pace.poll_tick(context));
            let is_new = known == 0 || random.usize(..NEW_EVERY) == 0;
            let device = if is_new { known } else { random.usize(..known) };
            known = known.max(device + 1);
            std::task::Poll::Ready(Some(device))
        });
        // Answers may arrive in any order, but a device's own uplinks are sent one after the other.
        let answers = chosen.map(|device| self.send(device)).buffered(CONCURRENCY);
        answers.collect::<Vec<_>>().await.into_iter().collect()
    }

    /// Sends one uplink from each device of the calm.
    pub async fn send_round(&self) -> anyhow::Result<Vec<Sent>> {
        let answers = stream::iter((0..CALM_DEVICES).map(|device| self.send(device))).buffered(CONCURRENCY);
        answers.collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn send(&self, device: usize) -> anyhow::Result<Sent> {
        let wanted = things_stack::Wanted {
            application: format!("app-{}", device % 2 + 1),
            device: format!("pump-{device}"),
            target: Some(self.target.clone()),
            version: Some(if device % V2_EVERY == V2_EVERY - 1 { 2 } else { 3 }),
            ..things_stack::Wanted::default()
        };
        let device = wanted.device.clone();
        let answer = self.stack.send_uplink(wanted).await?;
        let marker = answer.marker.context("an uplink without a marker")?;
        Ok(Sent { device, marker, status: answer.status, is_in_calm: false })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    registration_id: String,
    status: String,
}

pub async fn look(world: &World, host: &functions_host::Emulator, sent: &[Sent]) -> anyhow::Result<Verdict> {
    let url = format!("{}dps/registrations", world.hub.ready().control);
    let registrations: Vec<Registration> = reqwest::get(url).await?.error_for_status()?.json().await?;
    let registrations: BTreeMap<String, String> =
        registrations.into_iter().map(|one| (one.registration_id, one.status)).collect();
    let mut leftovers = Vec::new();
    for queue in [format!("{QUEUE}-poison"), format!("{QUEUE}-rejected")] {
        let messages = host.queue_messages(&queue).await?;
        leftovers.push((queue, messages.into_iter().map(|message| message.text).collect()));
    }
    let messages: Vec<Message> = world.hub.received().iter().map(Message::of).collect();
    let documents = ledger::devices(world.cosmos.ready()).await?;
    Ok(audit(&Books {
        sent,
        messages: &messages,
        registrations: &registrations,
        documents: &documents,
        leftovers: &leftovers,
    }))
}
