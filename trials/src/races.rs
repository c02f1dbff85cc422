//! Many handlers poll the same sites at the same time, and each starts a run before its previous one is over. This
//! happens when an app is scaled out, when its timer's lease is lost, or when a poll is slower than the schedule.

use std::{
    cell::Cell,
    path::PathBuf,
    sync::PoisonError,
    time::{Duration, Instant},
};

use clap::Args;
use emulators::{steps::Steps, storage};
use fastrand::Rng;
use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    app,
    audit::Verdict,
    crash,
    killer::Killer,
    rows::Producer,
    victim::Victim,
    world::{World, poll, through_queue},
};

/// Milliseconds between the starts of two runs of a handler. A run takes this long or longer.
const TICK: std::ops::Range<u64> = 0..400;
/// The most runs of one handler at the same time.
const AT_ONCE: usize = 2;
/// With a queue: so many of the handlers have a timer, and so many sites are in a batch.
const TIMERS: usize = 2;
const BATCH: usize = 10;
/// Time between two uploads.
const UPLOAD: Duration = Duration::from_millis(4);
const SETTLING: Duration = Duration::from_secs(120);
/// Number of findings that are printed.
const SHOWN: usize = 20;

const EXAMPLES: &str = "\
Examples:
  cargo build --release --workspace
  cargo run --release -p trials -- races                 8 handlers, 200 sites, 50 runs each
  cargo run --release -p trials -- races --one-device    as one device: each cuts the others
  cargo run --release -p trials -- races --device-per-site --handlers 2 --sites 20
                                                         as two apps whose sites are devices of their own
  cargo run --release -p trials -- races --queue         8 handlers share the sites of two timers";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Seed of the rows, and of the moments at which runs start
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Handlers, each with its own Functions host
    #[arg(long, value_name = "N", default_value_t = 8)]
    handlers: usize,
    /// Sites, which every handler polls
    #[arg(long, value_name = "N", default_value_t = 200)]
    sites: usize,
    /// Runs of each handler
    #[arg(long, value_name = "N", default_value_t = 50)]
    ticks: usize,
    /// All handlers are the same device and take its connection from each other; then runs may fail
    #[arg(long)]
    one_device: bool,
    /// Each site is a device of its own, registered through DPS: the handlers take the devices from each other, and no run may
    /// fail
    #[arg(long, conflicts_with = "one_device")]
    device_per_site: bool,
    /// The sites go through one storage queue to all handlers. Two of them put the same sites into it
    #[arg(long)]
    queue: bool,
    /// The connector's binary [default: iothub-connector beside this program]
    #[arg(long, value_name = "FILE")]
    handler: Option<PathBuf>,
    /// A further setting of the connector; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = crash::setting)]
    settings: Vec<(String, String)>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Carries out the trial. `false` if there were findings, which are printed.
///
/// # Errors
/// It could not be carried out.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let started = Instant::now();
    let handler = app::handler(options.handler.as_deref())?;
    let panics = crash::panics();
    let sites: Vec<String> = (1..=options.sites).map(|number| format!("Site {number}")).collect();
    let world = World::start(&sites, Steps::default(), true).await?;
    let storage = if options.queue { Some(storage::start(storage::Options::default()).await?) } else { None };
    let mut pollers = Vec::new();
    for number in 1..=options.handlers {
        let mut settings = if options.device_per_site { world.provisioned_settings() } else { world.settings() };
        settings.insert("RUST_LOG".to_owned(), "warn".to_owned());
        settings.insert("MarkWithinSeconds".to_owned(), "1".to_owned());
        if !options.one_device && !options.device_per_site {
            settings.insert("IoTHubDeviceId".to_owned(), format!("gateway-{number}"));
        }
        let mut functions = vec![app::POLLING];
        if let Some(storage) = &storage {
            functions = through_queue(&mut settings, BATCH).into();
            settings.insert("AzureStorageConnectionString".to_owned(), storage.ready().connection.clone());
            // One batch at a time for each host, so that all have some.
            for (member, value) in [("batchSize", "1"), ("newBatchThreshold", "0")] {
                settings.insert(format!("AzureFunctionsJobHost__extensions__queues__{member}"), value.to_owned());
            }
        }
        settings.extend(options.settings.iter().cloned());
        pollers.push(Victim::start(Killer::default(), &handler, &functions, settings, 0).await?);
    }
    let mut producer = Producer::new(options.seed, &sites);
    let is_over = Cell::new(false);
    let (produced, failed) = tokio::join!(world.produce(&mut producer, UPLOAD, &is_over), async {
        let timers = if options.queue { TIMERS } else { pollers.len() };
        let runs = pollers.iter().take(timers).zip(0..).map(|(poller, number)| ticks(poller, options, number));
        let failed = futures::future::join_all(runs).await;
        is_over.set(true);
        failed
    });
    produced?;
    let failed: Vec<String> = failed.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();

    let conflicts = world.cosmos.conflicts();
    let mut findings: Vec<String> = pollers.iter().flat_map(Victim::findings).collect();
    if !options.one_device {
        findings.extend(failed.iter().cloned());
    }
    findings.extend(world.settle(&pollers[0].host, &producer, SETTLING).await?);
    let mut verdict = world.audit(&producer, false).await?;
    verdict.findings.extend(findings);
    verdict.findings.append(&mut panics.lock().unwrap_or_else(PoisonError::into_inner));
    tell(options, &verdict, conflicts, failed.len(), started.elapsed());
    for poller in pollers {
        poller.host.stop().await;
    }
    Ok(verdict.is_clean())
}

/// All runs of one handler. Returns the reasons of the failed ones.
async fn ticks(poller: &Victim, options: &Options, number: u64) -> anyhow::Result<Vec<String>> {
    let mut random = Rng::with_seed(options.seed.wrapping_mul(1_000).wrapping_add(number));
    let pauses: Vec<_> = (0..options.ticks).map(|_| Duration::from_millis(random.u64(TICK))).collect();
    #[expect(clippy::async_yields_async, reason = "the pauses follow each other, the runs need not")]
    let runs = stream::iter(pauses).then(|pause| async move {
        sleep(pause).await;
        poll(&poller.host)
    });
    // A run waits for its batches: more of them would only pile up.
    let at_once = if options.queue { 1 } else { AT_ONCE };
    let finished: Vec<_> = runs.buffer_unordered(at_once).collect().await;
    let mut failed = Vec::new();
    for run in finished {
        let run = run?;
        if run.status != Some(200) {
            let why = run.error.unwrap_or_default();
            failed.push(format!("a run of handler {} failed: {why} {}", number + 1, run.response));
        }
    }
    Ok(failed)
}

fn tell(options: &Options, verdict: &Verdict, conflicts: u64, failed: usize, took: Duration) {
    let runs = if options.queue { TIMERS.min(options.handlers) } else { options.handlers } * options.ticks;
    if options.json {
        let told = json!({
            "handlers": options.handlers, "sites": options.sites, "runs": runs, "failedRuns": failed, "conflicts": conflicts,
            "rows": verdict.sent, "messages": verdict.messages, "repeats": verdict.repeats, "lost": verdict.lost,
            "outOfOrder": verdict.out_of_order, "findings": verdict.findings, "seconds": took.as_secs_f64(),
        });
        println!("{told}");
        return;
    }
    println!(
        "{} handlers, {} sites, {runs} runs ({failed} failed) in {:.0} s",
        options.handlers,
        options.sites,
        took.as_secs_f64()
    );
    println!(
        "{conflicts} lost races, {} rows in {} messages, {} repeats",
        verdict.sent, verdict.messages, verdict.repeats
    );
    println!("{} lost, {} out of order, {} findings", verdict.lost, verdict.out_of_order, verdict.findings.len());
    for finding in verdict.findings.iter().take(SHOWN) {
        println!("  {finding}");
    }
}
