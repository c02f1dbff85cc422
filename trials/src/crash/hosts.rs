//! One run in which the Functions host itself is killed, stopped or restarted, and its storage account goes away, while
//! uplinks flow.

use std::{cell::Cell, time::Duration};

use anyhow::Context as _;
use emulators::{functions_host, storage};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Setup,
    uplinks::{CALM_ROUNDS, Fleet, QUEUE, ROUTE, World, look},
};
use crate::{
    app,
    audit::{Verdict, uplinks::Sent},
    killer::Killer,
    victim::Kills,
};

/// Between two blows, in milliseconds.
const PEACE: std::ops::Range<u64> = 200..1500;
/// How long the storage account is away, in milliseconds.
const AWAY: std::ops::Range<u64> = 200..2500;
/// A message that a host took is invisible for 10 minutes. After its host's end, so much time passes for the queue.
const INVISIBLE: i64 = 10 * 60 + 1;
/// What is put back comes within this time.
const LONGEST_WAIT: i64 = 60;
const STEP: Duration = Duration::from_secs(1);
/// A host ends within this time after its storage account has refused a request.
const LONGEST_END: Duration = Duration::from_secs(60);
const DRAINING: Duration = Duration::from_secs(90);

#[derive(Clone, Copy)]
enum Blow {
    KillHost,
    StopHost,
    /// Within the host: two handlers run for a while.
    Restart,
    StorageAway,
    StorageRefuses,
}

const BLOWS: [Blow; 5] = [Blow::KillHost, Blow::StopHost, Blow::Restart, Blow::StorageAway, Blow::StorageRefuses];

/// A host that is started anew after each end, on the same port and the same queues.
struct Hosts {
    options: functions_host::Options,
    storage: storage::Emulator,
    /// How far the queues' time is ahead, in seconds.
    ahead: Cell<i64>,
}

impl Hosts {
    async fn start(&self) -> anyhow::Result<functions_host::Emulator> {
        functions_host::start(self.options.clone()).await.context("the host does not start")
    }

    async fn set(&self, switch: &str, value: Value) -> anyhow::Result<()> {
        let url = format!("{}{switch}", self.storage.ready().control);
        let request = reqwest::Client::new().put(url).header("content-type", "application/json");
        request.body(value.to_string()).send().await?.error_for_status()?;
        Ok(())
    }

    async fn pass(&self, seconds: i64) -> anyhow::Result<()> {
        self.ahead.set(self.ahead.get() + seconds);
        self.set("clock", json!({ "aheadSeconds": self.ahead.get() })).await
    }

    /// Strikes, and returns the host that goes on.
    async fn strike(
        &self,
        host: functions_host::Emulator,
        blow: Blow,
        random: &mut Rng,
    ) -> anyhow::Result<functions_host::Emulator> {
        let away = Duration::from_millis(random.u64(AWAY));
        match blow {
            Blow::KillHost => drop(host),
            Blow::StopHost => drop(host.stop().await),
            Blow::Restart => {
                host.restart().await?;
                return Ok(host);
            }
            Blow::StorageAway => {
                self.set("away", json!(true)).await?;
                sleep(away).await;
                self.set("away", json!(false)).await?;
                // It asks for longer than this before it ends.
                return Ok(host);
            }
            Blow::StorageRefuses => {
                let refusal = json!([{ "path": "/", "effect": { "answer": {
                    "status": 403, "headers": { "x-ms-error-code": "AuthorizationFailure" } } } }]);
                self.set("trouble", refusal).await?;
                let ended = timeout(LONGEST_END, host.stopped()).await;
                ended.context("the host goes on although its storage account refuses everything")?;
                self.set("trouble", json!([])).await?;
                drop(host);
            }
        }
        self.pass(INVISIBLE).await?;
        self.start().await
    }
}

/// Carries out a run. Returns the blows, the verdict and an empty log.
pub async fn run(setup: &Setup, seed: u64) -> anyhow::Result<(Kills, Verdict, Vec<String>)> {
    let killer = Killer::default();
    let world = World::start(&killer, seed).await?;
    let storage = storage::start(storage::Options::default()).await?;
    let mut settings = world.settings();
    settings.insert("AzureStorageConnectionString".to_owned(), storage.ready().connection.clone());
    settings.extend(setup.settings.iter().cloned());
    let folder = app::folder(&[app::UPLINK, app::FORWARDING])?;
    let options = functions_host::Options {
        app: folder.path().to_owned(),
        handler: Some(setup.handler.clone()),
        env: settings.into_iter().collect(),
        ..functions_host::Options::default()
    };
    let mut hosts = Hosts { options, storage, ahead: Cell::new(0) };
    let host = hosts.start().await?;
    let endpoint: reqwest::Url = host.ready().endpoint.parse()?;
    hosts.options.port = endpoint.port().context("a port")?;
    let fleet = Fleet { stack: &world.stack, target: format!("{endpoint}{ROUTE}") };
    let is_over = Cell::new(false);
    let (host, sent) = tokio::join!(
        async {
            let result = suffer(&hosts, host, setup.kills, seed).await;
            is_over.set(true);
            result
        },
        fleet.send_until(&is_over, seed),
    );
    let (host, mut sent) = (host?, sent?);
    let mut findings = Vec::new();
    for round in 0..=CALM_ROUNDS {
        drain(&hosts, &host, &mut findings).await?;
        if round < CALM_ROUNDS {
            // Not known to be in order: an uplink that was put back may still be overtaken by one of the next round.
            sent.extend(fleet.send_round().await?.into_iter().map(|sent| Sent { is_in_calm: false, ..sent }));
        }
    }
    let mut verdict = look(&world, &host, &sent).await?;
    verdict.findings.extend(findings);
    host.stop().await;
    Ok((Kills { at_moments: setup.kills, ..Kills::default() }, verdict, Vec::new()))
}

async fn suffer(
    hosts: &Hosts,
    mut host: functions_host::Emulator,
    blows: usize,
    seed: u64,
) -> anyhow::Result<functions_host::Emulator> {
    let mut random = Rng::with_seed(seed);
    for _ in 0..blows {
        sleep(Duration::from_millis(random.u64(PEACE))).await;
        let blow = BLOWS[random.usize(..BLOWS.len())];
        host = hosts.strike(host, blow, &mut random).await?;
    }
    Ok(host)
}

/// Lets time pass for the queue until it is empty.
async fn drain(hosts: &Hosts, host: &functions_host::Emulator, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let give_up = Instant::now() + DRAINING;
    while !host.wait_until_empty(QUEUE, STEP).await? {
        if Instant::now() > give_up {
            let left = host.queue_messages(QUEUE).await?.len();
            findings.push(format!("{left} uplinks are still in the queue {DRAINING:?} after the last blow"));
            break;
        }
        hosts.pass(LONGEST_WAIT).await?;
    }
    Ok(())
}
