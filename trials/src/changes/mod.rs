//! What a fleet goes through in a year, in some minutes: sites are renamed and removed, loggers send bad, late and corrected
//! rows, the hub is away, and the handler is killed. At the end every row is at the hub, or in a count that a person is shown.

mod account;
mod fleet;

use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use emulators::{functions_host::InvocationFinished, steps::Step};
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use serde_json::{Value, json};

use self::{
    account::{Records, account},
    fleet::{Fleet, Upload},
};
use crate::{
    app,
    audit::Message,
    crash::{Kill, Spot, plan},
    killer::Killer,
    victim::Victim,
    world::{World, poll},
};

/// Ticks in which the hub is away. In the middle of them sites are renamed and removed.
const AWAY: usize = 10;
/// Ticks before and after that.
const TICKS: usize = 10;
const SETTLING: Duration = Duration::from_secs(300);
/// How many loggers send at once.
const UPLOADS: usize = 8;
const SHOWN: usize = 20;
/// At the end of a new name.
const RENAMED: &str = " (new)";

/// Where the handler is killed. Each is reached in nearly every tick.
const SPOTS: [Spot; 8] = [
    Spot::new(Step::TimerCalled, 1),
    Spot::new(Step::RowsAsked, 20),
    Spot::new(Step::RowsAnswered, 20),
    Spot::new(Step::RecordCame, 20),
    Spot::new(Step::RecordApplied, 20),
    Spot::new(Step::RecordAnswered, 20),
    Spot::new(Step::MarkCame, 10),
    Spot::new(Step::MessageCame, 10),
];

#[derive(Args)]
pub struct Options {
    /// Seed of the rows, the changes and the kills
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    sites: usize,
    /// How often the handler is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: usize,
    /// Other handlers that poll the same sites at the same time and are not killed
    #[arg(long, value_name = "N", default_value_t = 0)]
    rivals: usize,
    /// The connector's binary [default: iothub-connector beside this program]
    #[arg(long, value_name = "FILE")]
    handler: Option<PathBuf>,
}

/// Carries out the trial. `false` if a row is not accounted for.
///
/// # Errors
/// It could not be carried out.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let started = Instant::now();
    let handler = app::handler(options.handler.as_deref())?;
    let names: Vec<String> = (1..=options.sites).map(|number| format!("Site {number}")).collect();
    let killer = Killer::default();
    let world = World::start(&names, killer.steps(), true).await?;
    let mut settings = world.settings();
    // Over MQTT two clients of one device cut each other off.
    let transport = if options.rivals > 0 { "https" } else { "mqtt" };
    for (name, value) in [
        ("Site_ID", "*"),
        ("RUST_LOG", "warn"),
        ("BackendRequestsPerSecond", "10000"),
        ("IoTHubTransport", transport),
        ("MarkWithinSeconds", "1"),
    ] {
        settings.insert(name.to_owned(), value.to_owned());
    }
    let mut fleet = Fleet::new(&names, options.seed);
    let mut rivals = Vec::new();
    for _ in 0..options.rivals {
        rivals.push(Victim::start(Killer::default(), &handler, &[app::POLLING], settings.clone(), 0).await?);
    }
    let victim = Victim::start(killer, &handler, &[app::POLLING], settings, options.kills).await?;
    let pollers = Pollers { victim, rivals };
    let victim = &pollers.victim;
    let kills: Vec<Kill> = plan(options.seed, options.kills, &SPOTS);
    let is_over = Cell::new(false);
    let suffering = async {
        let kills = victim.suffer(&kills).await;
        is_over.set(true);
        kills
    };
    let (kills, lived) = tokio::join!(suffering, live(&world, &pollers, &mut fleet, &is_over));
    let (kills, ()) = (kills?, lived?);
    let mut findings = victim.findings();
    findings.extend(settle(&world, &pollers, &fleet).await?);
    let messages: Vec<Message> = world.hub.received().iter().map(Message::of).collect();
    let counted = account(&fleet, &Records::new(world.cosmos.plain_items()), &messages, &mut findings);
    println!(
        "{} sites, {} renamed, {} removed, {} rivals, {} kills ({} at a step, {} at a moment), hub away for {AWAY} ticks, seed {}, in {:.0} s",
        options.sites,
        fleet.sites.iter().filter(|site| site.name.ends_with(RENAMED)).count(),
        fleet.sites.iter().filter(|site| site.is_removed).count(),
        options.rivals,
        kills.total(),
        kills.at.values().sum::<usize>(),
        kills.at_moments,
        options.seed,
        started.elapsed().as_secs_f64()
    );
    println!(
        "{} good rows, {} bad, {} late and {} corrected were sent: {} at the hub, {} counted as bad, {} as late, {} as \
         corrected, {} repeats, {} unaccounted",
        fleet.good.len(),
        fleet.bad,
        fleet.late,
        fleet.corrected,
        counted.at_hub,
        counted.bad,
        counted.late,
        counted.corrected,
        counted.repeats,
        counted.lost,
    );
    findings.iter().take(SHOWN).for_each(|finding| println!("  {finding}"));
    let Pollers { victim, rivals } = pollers;
    for one in rivals.into_iter().chain([victim]) {
        one.host.stop().await;
    }
    Ok(findings.is_empty())
}

/// The handler that is killed, and those that compete with it.
struct Pollers {
    victim: Victim,
    rivals: Vec<Victim>,
}

impl Pollers {
    /// A run of each. Returns how the victim's ended.
    async fn poll(&self) -> anyhow::Result<InvocationFinished> {
        let rivals = join_all(self.rivals.iter().map(|rival| poll(&rival.host)));
        let (finished, rivals) = tokio::join!(poll(&self.victim.host), rivals);
        rivals.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        finished
    }
}

/// The year. It goes on until all kills are over.
async fn live(world: &World, pollers: &Pollers, fleet: &mut Fleet, is_over: &Cell<bool>) -> anyhow::Result<()> {
    for tick in 0.. {
        if tick >= TICKS + AWAY + TICKS && is_over.get() {
            break;
        }
        if tick == TICKS {
            // What is to be removed later must be recorded, for nobody can fetch it afterwards; and what is recorded waits. While the
            // hub is away, no site is polled of which a message waits already.
            for place in fleet.some() {
                fleet.sites[place].is_silent = true;
            }
            recorded(world, pollers, fleet, true).await?;
            control(world, &world.hub.ready().control, "away", &json!(true)).await?;
            let uploads = fleet.send_last();
            upload_all(world, fleet, &uploads).await?;
        }
        if tick == TICKS + AWAY / 2 {
            recorded(world, pollers, fleet, false).await?;
            for place in fleet.some() {
                let site = &mut fleet.sites[place];
                let name = format!("{}{RENAMED}", site.name);
                let url = format!("{}sites/{}", world.backend.ready().control, site.name);
                put(world, &url, &json!({ "name": name })).await?;
                site.name = name;
            }
            for site in fleet.sites.iter_mut().filter(|site| site.is_silent) {
                let url = format!("{}sites/{}", world.backend.ready().control, site.name);
                let response = world.client.delete(url).send().await?;
                ensure!(response.status().is_success(), "the backend removed no site: {}", response.status());
                site.is_removed = true;
            }
        }
        if tick == TICKS + AWAY {
            control(world, &world.hub.ready().control, "away", &json!(false)).await?;
        }
        let uploads = fleet.send();
        upload_all(world, fleet, &uploads).await?;
        pollers.poll().await?;
    }
    Ok(())
}

async fn upload_all(world: &World, fleet: &Fleet, uploads: &[Upload]) -> anyhow::Result<()> {
    let sent = uploads.iter().map(|row| upload(world, &fleet.sites[row.place].name, row));
    stream::iter(sent).buffer_unordered(UPLOADS).try_collect().await
}

async fn upload(world: &World, site: &str, row: &Upload) -> anyhow::Result<()> {
    control(world, &world.backend.ready().control, "rows", &json!({ "site": site, "rows": [row.raw()] })).await
}

async fn control(world: &World, control: &str, name: &str, body: &Value) -> anyhow::Result<()> {
    put(world, &format!("{control}{name}"), body).await
}

async fn put(world: &World, url: &str, body: &Value) -> anyhow::Result<()> {
    let response = world.client.put(url).json(body).send().await?;
    ensure!(response.status().is_success(), "{url}: {}", response.status());
    Ok(())
}

/// Polls until every row of the silent sites is recorded, and (`are_sent`) at the hub.
async fn recorded(world: &World, pollers: &Pollers, fleet: &Fleet, are_sent: bool) -> anyhow::Result<()> {
    let give_up = Instant::now() + SETTLING;
    loop {
        let finished = pollers.poll().await?;
        // A run that was not killed has seen the bad rows, too.
        if finished.status.is_some() && Records::new(world.cosmos.plain_items()).has_silent(fleet, are_sent) {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "not all rows are recorded after {SETTLING:?}");
    }
}

/// Polls until nothing waits any more.
async fn settle(world: &World, pollers: &Pollers, fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let give_up = Instant::now() + SETTLING;
    loop {
        let finished = pollers.poll().await?;
        let is_late = Instant::now() >= give_up;
        if finished.status != Some(200) && !is_late {
            continue;
        }
        let records = Records::new(world.cosmos.plain_items());
        let (waiting, missing) = (records.waiting, records.missing(fleet));
        if finished.status == Some(200) && waiting == 0 && missing == 0 {
            return Ok(Vec::new());
        }
        if is_late {
            let text = format!("after {SETTLING:?} {waiting} messages wait, and {missing} rows are not recorded");
            return Ok(vec![text]);
        }
    }
}
