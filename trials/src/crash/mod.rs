//! The crash test: kills the handler in many runs, each with its own world.

mod hosts;
mod plan;
mod report;
mod sites;
mod uplinks;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use self::plan::{Kill, Spot, plan};

use clap::{Args, ValueEnum};
use emulators::steps::Step;

use self::report::Reporter;
use crate::{app, audit::Verdict, victim::Kills};

const EXAMPLES: &str = "\
Each run starts the stand-ins and the handler afresh, and draws from its seed what happens: the kills (at which step of \
which stand-in, for which of the requests or messages that reach it, or so long after the handler's start) and the rows, \
one after the other. When the last kill is done, no more rows come, the timer runs until everything has arrived, and \
every row, message and record is accounted for.

A seed gives the same kills and the same rows again. How far the rows have come when a kill strikes depends on threads and \
on the machine: a run that found something may have to be repeated a few times.

The exit code is 0 if nothing was found, 1 otherwise.

Examples:
  A thousand kills:
    cargo build --release --workspace
    cargo run --release -p trials -- crash --seed 1 --runs 100
  The run of seed 17 once more, with the handler's log if it finds something:
    cargo run --release -p trials -- crash --seed 17 --runs 1 --log debug
  The other way of data, over another transport:
    cargo run --release -p trials -- crash --path uplinks --set IoTHubTransport=https
  A short one with a debug build, for a script:
    cargo run -p trials -- crash --runs 3 --kills 5 --json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Seed of the first run; each further run adds 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Runs, each with its own seed and world
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: u64,
    /// Kills of each run
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: usize,
    /// The way of the data
    #[arg(long, value_enum, default_value_t = Path::Rapidm2m)]
    path: Path,
    /// The connector's binary [default: iothub-connector beside this program]
    #[arg(long, value_name = "FILE")]
    handler: Option<PathBuf>,
    /// The handler's RUST_LOG; its log is printed after a run with findings
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
    /// A further setting of the connector; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// One JSON object per line: each run, and the total
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Path {
    /// Sites of the rapidM2M backend, polled by the timer
    Rapidm2m,
    /// The same sites, handed out by the timer through a storage queue
    Queue,
    /// Uplinks of The Things Stack, by webhook and queue, each device with its own identity
    Uplinks,
    /// The same, but the host itself is killed, stopped or restarted, and its storage account goes away
    Hosts,
}

impl Path {
    /// The unit of the counts.
    fn unit(self) -> &'static str {
        match self {
            Self::Rapidm2m | Self::Queue => "rows",
            Self::Uplinks | Self::Hosts => "uplinks",
        }
    }
}

/// The setup that all runs share.
struct Setup {
    handler: PathBuf,
    kills: usize,
    /// Settings of the connector besides those that lead it to the stand-ins.
    settings: Vec<(String, String)>,
}

impl Setup {
    /// The kills of a run, at any of those steps that are reached with these settings.
    fn plan(&self, seed: u64, spots: &[Spot]) -> Vec<Kill> {
        let is_https = self.settings.iter().any(|(name, value)| name == "IoTHubTransport" && value == "https");
        let spots: Vec<Spot> = spots.iter().filter(|spot| !(is_https && spot.step == Step::Connect)).copied().collect();
        plan::plan(seed, self.kills, &spots)
    }
}

/// The result of a run.
struct Run {
    seed: u64,
    kills: Kills,
    verdict: Verdict,
    /// The handler's last lines.
    log: Vec<String>,
    seconds: f64,
}

/// Runs all of them. `false` if there were findings, which are printed.
///
/// # Errors
/// A run could not be carried out.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let mut settings = vec![("RUST_LOG".to_owned(), options.log.clone())];
    settings.extend(options.settings.iter().cloned());
    let setup = Setup { handler: app::handler(options.handler.as_deref())?, kills: options.kills, settings };
    let panics = panics();
    let mut reporter = Reporter::new(options.json, options.runs, options.path.unit());
    for seed in (0..options.runs).map(|number| options.seed.wrapping_add(number)) {
        let started = Instant::now();
        let (kills, mut verdict, log) = match options.path {
            Path::Rapidm2m => sites::run(&setup, seed, false).await?,
            Path::Queue => sites::run(&setup, seed, true).await?,
            Path::Uplinks => uplinks::run(&setup, seed).await?,
            Path::Hosts => hosts::run(&setup, seed).await?,
        };
        verdict.findings.append(&mut panics.lock().unwrap_or_else(PoisonError::into_inner));
        reporter.add(Run { seed, kills, verdict, log, seconds: started.elapsed().as_secs_f64() })?;
    }
    reporter.finish()
}

/// Collects the panics of this process from now on. Panics in the tasks of the stand-ins would otherwise stay
/// unnoticed.
pub fn panics() -> Arc<Mutex<Vec<String>>> {
    let panics: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, print) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(format!("a stand-in: {panic}"));
        print(panic);
    }));
    panics
}

pub fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}
