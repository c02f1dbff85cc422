//! Runs the whole function app on this machine (`local`). Services that local.settings.json sets are real; this
//! process emulates the others. The handler is this executable again, or the app's own (`--packaged`). The emulated
//! Functions host starts it as Azure would.
//!
//! | Part | |
//! |---|---|
//! | `plan` | decides what is real, what is emulated and what is off |
//! | `handler` | finds the executable that the host starts |
//! | `services` | the emulators, and the settings that point the handler to them |
//! | `introduction`, `rows` | printed first: where everything is |
//! | `open_session` | what commands of another terminal need of a running session |
//! | `fault`, `command` | such commands: break a service, send a device a command |
//! | `session` | passes on the handler's lines until the end |
//! | `tally`, `arrived`, `summary` | the result, the messages that reached the hub, and both as text |
//! | `output` | prints text for the user, or JSON lines |

mod arrived;
pub mod command;
pub mod fault;
mod handler;
mod introduction;
pub mod open_session;
mod output;
mod plan;
mod rows;
mod services;
mod session;
mod summary;
mod tally;

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emulators::{file, functions_host};
use iothub_connector::config::{Config, LOCAL_SESSION, Settings};
use tokio::time::Instant;

use self::{
    arrived::Arrived,
    introduction::Introduction,
    open_session::{FILE, Published},
    output::Output,
    plan::Source,
    services::{DOWNLINKS, FORWARDING, RAPIDM2M, STATUS, Services, UPLINK},
    session::{Queues, Session},
};
use crate::cli::{exit::usage, settings::warn_of_unknown, time::duration};

const LONGEST_INTERVAL: i64 = 24 * 60 * 60 - 1;
const EXAMPLES: &str = "\
Examples:
  iothub-connector local                       # until Ctrl-C, on function.json's schedule
  iothub-connector local --every 5 --for 30s   # a run every 5 seconds, half a minute long
  iothub-connector local --port 7071           # webhooks always go to the same port
  iothub-connector local --device-per-site     # each site a device of its own
  iothub-connector local --instances 3         # three handlers share the sites
  iothub-connector local --app target/package/app --packaged
                                               # the executable that will be deployed

Every service that is not set in local.settings.json is emulated: nothing needs to
be installed or configured. To use your own, copy local.settings.json.example to
local.settings.json and keep in it only what is to be real.

With a real hub or storage account no LoRaWAN devices are simulated: the connector
waits for webhooks if UplinkQueueName is set.

The exit code is 0 if at least one run succeeded, at least one emulated uplink was
forwarded, and nothing failed.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// End by itself after this time, such as 20s, 2m or 1h; runs under way and emulated uplinks are waited for
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    end_after: Option<Duration>,
    /// Print one JSON object per line, for scripts
    #[arg(long)]
    json: bool,
    /// Run every so many seconds, not on function.json's schedule; emulated sites have new rows and emulated LoRaWAN
    /// devices send uplinks as often
    #[arg(long, value_name = "SECONDS", conflicts_with = "schedule",
          value_parser = clap::value_parser!(u32).range(1..=LONGEST_INTERVAL))]
    every: Option<u32>,
    /// Run on this schedule, not on function.json's, for example "*/20 * * * * *"
    #[arg(long, value_name = "NCRONTAB")]
    schedule: Option<String>,
    /// Send each site as a device of its own, provisioned by an emulated Device Provisioning Service
    #[arg(long)]
    device_per_site: bool,
    /// Poll the sites through a storage queue (PollQueueName), with so many handlers, each with a host of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    instances: u8,
    /// Emulate a day of rows, and two more sites: one that fails, and one that is silent. The status page then has something
    /// to show
    #[arg(long, conflicts_with = "instances")]
    with_trouble: bool,
    /// Address at which the Functions host listens; 0.0.0.0 in a container. Whoever reaches it can use the app
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port of the Functions host, to which webhooks go [default: any free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Folder of the function app, with host.json in it
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    app: PathBuf,
    /// Start the executable that lies in the app's folder, as Azure does, instead of this one
    #[arg(long)]
    packaged: bool,
    /// Settings of the services that are real [default: local.settings.json in the app's folder, if it is there]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Runs the app until it must end, and prints a summary.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let places = folder(&options).map_err(usage)?;
    let Places { app, settings: settings_file, .. } = &places;
    let handler = handler::executable(app, options.packaged)?;
    let services = Services::start(
        settings_file.as_deref(),
        options.every,
        options.device_per_site,
        options.instances.into(),
        options.with_trouble,
    )
    .await?;
    let settings: Settings = services.settings.clone().into_iter().collect();
    warn_of_unknown(&settings);
    // Check here first: the handler would report the same problems three times.
    let mut config = match Config::from_settings(&settings) {
        Ok(config) if config.rapidm2m.is_none() && services.plan.rapidm2m == Source::Real => {
            return Ok(misconfigured(&"error: rapidM2M needs M2MBackendURL and Customer_ID", &services));
        }
        Ok(config) => config,
        Err(problems) => return Ok(misconfigured(&problems, &services)),
    };
    let common = functions_host::Options {
        app: app.clone(),
        handler: Some(handler),
        env: handlers_settings(&services, options.json),
        // What is set in the user's shell must not lead to real services.
        only_settings: true,
        ..functions_host::Options::default()
    };
    let host = functions_host::start(functions_host::Options {
        host: options.host,
        port: options.port,
        without: services.without.clone(),
        schedule: options.every.map(time_span).or(options.schedule),
        run_at_start: true,
        home: app.join(STATUS).is_dir().then(|| STATUS.to_owned()),
        ..common.clone()
    })
    .await?;
    let mut others = Vec::new();
    for _ in 1..options.instances {
        // In Azure, too, the timer and the webhooks have instances of their own.
        let without = [RAPIDM2M, UPLINK, FORWARDING, DOWNLINKS, STATUS].map(str::to_owned).into();
        others.push(functions_host::start(functions_host::Options { without, ..common.clone() }).await?);
    }

    // The app may have fewer functions than the settings configure.
    let ready = host.ready().clone();
    let has = |function: &str| ready.functions.iter().any(|name| name == function);
    config.rapidm2m = config.rapidm2m.filter(|_| has(RAPIDM2M));
    config.things_network = config.things_network.filter(|_| has(UPLINK) && has(FORWARDING));
    let things_stack = config.things_network.as_ref().zip(services.things_stack.as_ref());
    let mut session = Session::new(Output { is_json: options.json }, &others);
    session.tally.needs = (config.rapidm2m.is_some(), things_stack.is_some());
    let started = Instant::now();
    let published = services.published.clone().into_iter().chain(ready.settings.clone()).collect();
    let published = Published::write(app, published, services.controls());
    if let Err(error) = &published {
        eprintln!("warning: {FILE} cannot be written, so other commands do not find this session: {error}");
    }
    let introduction = Introduction::new(&services, &config, &ready, &places);
    let mut printed = session.output.tell(&introduction);
    if printed.is_ok() {
        tokio::spawn(session::end_at_second_interrupt(host.killing()));
        if let Some((config, stack)) = things_stack {
            stack.send(&ready.endpoint, config)?;
        }
        let webhooks = things_stack.map(|(config, stack)| (&stack.emulator, config.webhooks.queue.as_str()));
        let poll_queue = config.rapidm2m.as_ref().and_then(|rapidm2m| rapidm2m.queue.as_ref());
        let queues = Queues { webhooks, sites: poll_queue.map(|queue| queue.name.as_str()) };
        printed = session.watch(host, others, queues, options.end_after).await;
    }
    let Session { output, mut tally, .. } = session;
    tally.seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    tally.arrived = services.iot_hub.as_ref().map(|hub| Arrived::of(&hub.received()));
    if let Some((_, stack)) = things_stack {
        tally.downlinks = stack.downlinks().await.context("the emulated Things Stack does not answer")?;
    }
    match printed.and_then(|()| output.tell(&tally)) {
        // The reader has closed the output (`| head`): the exit code still reports the result.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ if tally.is_success() => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// The handler's environment: the settings, and the format of its log unless the environment or the settings set it.
fn handlers_settings(services: &Services, is_json: bool) -> Vec<(String, String)> {
    let mut settings = services.settings.clone();
    for name in ["RUST_LOG", "LOG_FORMAT"] {
        if let Ok(own) = std::env::var(name) {
            settings.entry(name.to_owned()).or_insert(own);
        }
    }
    // What people have set for real services is not in the session's file, so `--local` would not find it.
    if services.plan.why_real.is_empty() {
        settings.insert(LOCAL_SESSION.to_owned(), "true".to_owned());
    }
    let format = settings.entry("LOG_FORMAT".to_owned()).or_insert_with(|| "brief".to_owned());
    if is_json {
        "json".clone_into(format);
    }
    settings.into_iter().collect()
}

/// .NET's time span `hh:mm:ss`, for less than a day.
fn time_span(seconds: u32) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn misconfigured(problems: &dyn Display, services: &Services) -> ExitCode {
    eprintln!("{problems}");
    for reason in &services.plan.why_real {
        eprintln!("{reason}");
    }
    ExitCode::from(crate::cli::exit::USAGE)
}

/// Folders and files of a session.
pub struct Places {
    pub app: PathBuf,
    /// Of real services.
    pub settings: Option<PathBuf>,
    /// Where the person has started it.
    pub started_in: PathBuf,
}

/// Finds the app and its settings, and changes to the app's folder: the handler resolves the files that settings name
/// there.
fn folder(options: &Options) -> anyhow::Result<Places> {
    let started_in = file::absolute(Path::new("."))?;
    let app = file::absolute(&options.app)?;
    ensure!(
        app.join("host.json").is_file(),
        "{} has no host.json, so it is not the function app's folder: go to the root of the repository, or name it with --app",
        app.display()
    );
    let default = app.join("local.settings.json");
    let settings = match &options.settings {
        Some(settings) => Some(file::absolute(settings)?),
        None => default.is_file().then_some(default),
    };
    std::env::set_current_dir(&app).with_context(|| format!("cannot go to {}", app.display()))?;
    Ok(Places { app, settings, started_in })
}
