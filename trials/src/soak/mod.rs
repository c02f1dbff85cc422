//! One handler, many sites, a fault every few seconds, for a long time: nothing may be lost, and nothing may grow.

mod trouble;
mod usage;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    sync::PoisonError,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use emulators::steps::Steps;
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use self::usage::{Trend, Usage};
use crate::{
    app,
    audit::Verdict,
    crash,
    killer::Killer,
    rows::Producer,
    victim::Victim,
    world::{World, poll, through_queue},
};

/// How long each fault lasts, in milliseconds.
const LASTS: std::ops::RangeInclusive<u64> = 2_000..=8_000;
/// Sites in a batch, with a queue.
const BATCH: usize = 20;
/// The handler's own deadline.
const RUN_SECONDS: u64 = 30;
/// A site that the backend refused is not polled for a minute, then for two minutes.
const SETTLING: Duration = Duration::from_secs(6 * 60);
/// Memory and descriptors may exceed their first third by a tenth of it and this slack.
const SLACK_MIB: f64 = 2.0;
const SLACK_DESCRIPTORS: f64 = 4.0;
/// Growth is judged from this minute on: before, caches fill.
const JUDGED: u64 = 10;
/// Number of findings that are printed.
const SHOWN: usize = 20;

const EXAMPLES: &str = "\
At the end every row is accounted for, and the last third of the time compared with the first: resident memory and file
descriptors must be the same but for a tenth (if it took 10 minutes or more: before, caches fill). The exit code is 0 if nothing was found, 1 otherwise.

Examples:
  cargo build --release --workspace
  cargo run --release -p trials -- soak                                2000 sites, 30 minutes, a fault every 20 s
  cargo run --release -p trials -- soak --minutes 2 --sites 100 --tick 2 --fault-every 5";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Seed of the rows and of the faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Sites; before each run of the timer, half of them have new rows
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    sites: usize,
    /// How long the trial runs
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u64,
    /// Seconds between two runs of the timer
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    tick: u64,
    /// Seconds between the starts of two faults
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    fault_every: u64,
    /// The timer hands out the sites through a storage queue
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

/// The observations of a trial.
#[derive(Default)]
struct Log {
    runs: usize,
    failed_runs: usize,
    usage: Vec<Usage>,
    faults: BTreeMap<&'static str, usize>,
}

/// Carries out the trial. `false` if there were findings, which are printed.
///
/// # Errors
/// It could not be carried out.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let handler = app::handler(options.handler.as_deref())?;
    let panics = crash::panics();
    let sites: Vec<String> = (1..=options.sites).map(|number| format!("Site {number}")).collect();
    let world = World::start(&sites, Steps::default(), true).await?;
    let mut settings = world.settings();
    settings.insert("RUST_LOG".to_owned(), "error".to_owned());
    settings.insert("PollTimeoutSeconds".to_owned(), RUN_SECONDS.to_string());
    settings.insert("RecordEmptyPolls".to_owned(), false.to_string());
    settings.insert("MarkWithinSeconds".to_owned(), "1".to_owned());
    let functions = if options.queue { through_queue(&mut settings, BATCH).to_vec() } else { vec![app::POLLING] };
    settings.extend(options.settings.iter().cloned());
    let victim = Victim::start(Killer::default(), &handler, &functions, settings, 0).await?;
    let mut producer = Producer::new(options.seed, &sites);

    let log = RefCell::new(Log::default());
    let (end, is_over) = (Instant::now() + Duration::from_secs(options.minutes * 60), Cell::new(false));
    let (ticked, troubled) = tokio::join!(
        async {
            let ticked = ticks(options, &world, &victim, &mut producer, end, &log).await;
            is_over.set(true);
            ticked
        },
        trouble_world(options, &world, end, &is_over, &log),
    );
    ticked.and(troubled)?;
    let mut findings = victim.findings();
    findings.extend(world.settle(&victim.host, &producer, SETTLING).await?);
    let mut verdict = world.audit(&producer, true).await?;
    verdict.findings.extend(findings);
    verdict.findings.append(&mut panics.lock().unwrap_or_else(PoisonError::into_inner));
    let log = log.into_inner();
    let memory = Trend::of(log.usage.iter().map(|usage| usage.resident));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
    let descriptors = Trend::of(log.usage.iter().map(|usage| usage.descriptors as f64));
    for (what, trend, slack) in [("memory (MiB)", memory, SLACK_MIB), ("descriptors", descriptors, SLACK_DESCRIPTORS)] {
        if options.minutes >= JUDGED && !trend.is_flat(slack) {
            verdict.findings.push(format!("{what} grew from {:.1} to {:.1}", trend.first, trend.last));
        }
    }
    tell(options, &log, &verdict, memory, descriptors);
    victim.host.stop().await;
    Ok(verdict.is_clean())
}

/// Half of the sites upload something, then all are polled, again and again until the end.
async fn ticks(
    options: &Options,
    world: &World,
    victim: &Victim,
    producer: &mut Producer,
    end: Instant,
    log: &RefCell<Log>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let bar = ProgressBar::new(options.minutes * 60);
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {msg}, {eta} left").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    while Instant::now() < end {
        let next = Instant::now() + Duration::from_secs(options.tick);
        for _ in 0..options.sites / 2 {
            world.produce_once(producer).await?;
        }
        let finished = poll(&victim.host).await?;
        let usage = Usage::of(victim.pid().context("the handler is not running")?)?;
        {
            let mut log = log.borrow_mut();
            log.runs += 1;
            log.failed_runs += usize::from(finished.status != Some(200));
            log.usage.push(usage);
            bar.set_message(format!("{} runs, {} failed, {:.1} MiB", log.runs, log.failed_runs, usage.resident));
        }
        bar.set_position(started.elapsed().as_secs());
        sleep_until(next.min(end)).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Causes one fault after another.
async fn trouble_world(
    options: &Options,
    world: &World,
    end: Instant,
    is_over: &Cell<bool>,
    log: &RefCell<Log>,
) -> anyhow::Result<()> {
    let (all, mut random) = (trouble::all(), Rng::with_seed(options.seed));
    let mut order: Vec<usize> = Vec::new();
    while !is_over.get() {
        let next = Instant::now() + Duration::from_secs(options.fault_every);
        // Each fault comes once before any comes again.
        if order.is_empty() {
            order = (0..all.len()).collect();
            random.shuffle(&mut order);
        }
        let fault = &all[order.pop().unwrap_or_default()];
        fault.begin(world).await?;
        *log.borrow_mut().faults.entry(fault.name).or_default() += 1;
        sleep(Duration::from_millis(random.u64(LASTS))).await;
        trouble::end(world).await?;
        sleep_until(next.min(end)).await;
        if next >= end {
            break;
        }
    }
    Ok(())
}

fn tell(options: &Options, log: &Log, verdict: &Verdict, memory: Trend, descriptors: Trend) {
    let faults: usize = log.faults.values().sum();
    if options.json {
        let trend = |trend: Trend| json!({ "firstThird": trend.first, "lastThird": trend.last, "most": trend.most });
        let told = json!({
            "sites": options.sites, "minutes": options.minutes, "runs": log.runs, "failedRuns": log.failed_runs,
            "faults": log.faults, "residentMiB": trend(memory), "descriptors": trend(descriptors), "rows": verdict.sent,
            "messages": verdict.messages, "repeats": verdict.repeats, "lost": verdict.lost,
            "outOfOrder": verdict.out_of_order, "findings": verdict.findings,
        });
        println!("{told}");
        return;
    }
    println!(
        "{} sites, {} minutes, {} runs of the timer ({} failed), {faults} faults",
        options.sites, options.minutes, log.runs, log.failed_runs
    );
    for (name, count) in &log.faults {
        println!("  {count:4} {name}");
    }
    println!("{:14} first third  last third   most", "");
    for (what, trend) in [("memory (MiB)", memory), ("descriptors", descriptors)] {
        println!("{what:14} {:11.1} {:11.1} {:6.1}", trend.first, trend.last, trend.most);
    }
    println!("{} rows in {} messages, {} repeats", verdict.sent, verdict.messages, verdict.repeats);
    println!("{} lost, {} out of order, {} findings", verdict.lost, verdict.out_of_order, verdict.findings.len());
    for finding in verdict.findings.iter().take(SHOWN) {
        println!("  {finding}");
    }
}
