//! `local`: the whole function app on this machine. What local.settings.json sets is real, the rest is emulated in this
//! process; the handler is this executable again, or the app's own (`--packaged`), started by the emulated Functions host as
//! Azure would start it.
//!
//! | Part | |
//! |---|---|
//! | `plan` | what is real, what is emulated and what is off |
//! | `handler` | the executable that the host starts |
//! | `services` | the emulators, and the settings that lead the handler to them |
//! | `rows`, `schedule` | where the services are and when the timer runs, for the introduction |
//! | `session` | watches until it is over |
//! | `forwarded`, `tally` | what reached the hub, and what it comes to |
//! | `output` | what is printed: for people, or as JSON lines |

mod forwarded;
mod handler;
mod output;
mod plan;
mod rows;
mod schedule;
mod services;
mod session;
mod tally;

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emulators::functions_host;
use iothub_connector::{config::Config, iot_hub::devices::Owner};
use tokio::time::Instant;

use self::{
    output::{Downlinks, Introduction, Layout, Output, Webhooks},
    plan::Source,
    services::{FORWARDING, RAPIDM2M, ROUTE, STATUS, STATUS_ROUTE, Services, UPLINK},
    session::{Session, Watched, WatchedStack},
    tally::Expected,
};
use crate::cli::time::duration;

/// What the handler logs unless `RUST_LOG` is set, here or in the settings: what is wrong, and one line for each run.
const HANDLER_LOG: &str = "error,iothub_connector=warn,iothub_connector::functions=info";
const LONGEST_INTERVAL: i64 = 24 * 60 * 60 - 1;
const EXAMPLES: &str = "\
Examples:
  iothub-connector local                       # until Ctrl-C, on function.json's schedule
  iothub-connector local --every 5 --for 30s   # a run every 5 seconds, half a minute long
  iothub-connector local --port 7071           # webhooks always go to the same port
  iothub-connector local --device-per-site     # each site a device of its own
  iothub-connector local --app target/package/app --packaged
                                               # the executable that will be deployed

Every service that is not set in local.settings.json is emulated: nothing needs to
be installed or configured. To use your own, copy local.settings.json.example to
local.settings.json and keep in it only what is to be real.

Nothing made up is sent to The Things Network's half of a real hub or storage
account: that half is on there if UplinkQueueName is set, and waits for webhooks.

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

/// Runs the app until it is told to end, and says how it went.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let (app, settings_file) = folder(&options)?;
    let handler = handler::executable(&app, options.packaged)?;
    let services = Services::start(settings_file.as_deref(), options.every, options.device_per_site).await?;
    // The handler would say the same, three times.
    let mut config = match Config::from_settings(&services.settings.clone().into_iter().collect()) {
        Ok(config) if config.rapidm2m.is_none() && services.plan.rapidm2m == Source::Real => {
            return Ok(misconfigured(&"error: rapidM2M needs M2MBackendURL and Customer_ID", &services));
        }
        Ok(config) => config,
        Err(problems) => return Ok(misconfigured(&problems, &services)),
    };
    let own_schedule = options.every.map(schedule::time_span).or_else(|| options.schedule.clone());
    let mut env = services.settings.clone();
    env.entry("RUST_LOG".to_owned())
        .or_insert_with(|| std::env::var("RUST_LOG").unwrap_or_else(|_| HANDLER_LOG.to_owned()));
    // The lines are read by `output`, whatever the user would have chosen.
    env.insert("LOG_FORMAT".to_owned(), "json".to_owned());
    let messages = services.iot_hub.as_ref().map(emulators::iot_hub::Emulator::subscribe);
    let host = functions_host::start(functions_host::Options {
        app: app.clone(),
        port: options.port,
        handler: Some(handler),
        env: env.into_iter().collect(),
        schedule: own_schedule.clone(),
        run_at_start: true,
        home: app.join(STATUS).is_dir().then(|| STATUS.to_owned()),
        ..functions_host::Options::default()
    })
    .await?;

    // The app may have fewer functions than the settings are for.
    let has = |function: &str| host.ready().functions.iter().any(|name| name == function);
    config.rapidm2m = config.rapidm2m.filter(|_| has(RAPIDM2M));
    config.things_network = config.things_network.filter(|_| has(UPLINK) && has(FORWARDING));
    let introduction = introduction(&services, &config, &host, &app, own_schedule.as_deref(), settings_file.as_deref());
    let timers: Vec<_> = introduction.timers.iter().map(|timer| timer.function.clone()).collect();
    let layout = Layout {
        has_messages: services.iot_hub.is_some(),
        has_devices: config.hub.identity.as_ref().is_some_and(|identity| identity.one().is_none()),
        has_sites: config.rapidm2m.is_some(),
        has_uplinks: config.things_network.is_some(),
    };
    let mut output = Output::new(options.json, layout, &services.names(&config), timers.clone());
    let mut watched = Watched { messages, stack: None };
    let started = Instant::now();
    let mut printed = output.introduction(&introduction);
    if let (Some(things_network), Some(stack), Ok(())) = (&config.things_network, &services.things_stack, &printed) {
        let (emulator, events) = (&stack.emulator, stack.emulator.subscribe());
        watched.stack = Some(WatchedStack { emulator, events, queue: things_network.queue.clone() });
        stack.send(&host.ready().endpoint, things_network)?;
    }
    let expected = Expected { runs: layout.has_sites, uplinks: watched.stack.is_some() };
    let mut session = Session::new(host.ready().functions.clone(), timers);
    if printed.is_ok() {
        tokio::spawn(session::end_at_second_interrupt(host.killing()));
        printed = session.watch(host, watched, options.end_after, &mut output).await;
    }
    let printed = printed.and_then(|()| output.summary(&session.tally, started.elapsed()));
    match printed {
        // Nobody reads on (`| head`): the exit code still tells how it went.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ if session.tally.is_success(expected) => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn misconfigured(problems: &dyn Display, services: &Services) -> ExitCode {
    eprintln!("{problems}");
    for reason in &services.plan.why_real {
        eprintln!("{reason}");
    }
    ExitCode::from(crate::MISCONFIGURED)
}

fn introduction<'a>(
    services: &Services,
    config: &Config,
    host: &'a functions_host::Emulator,
    app: &Path,
    own_schedule: Option<&str>,
    settings_file: Option<&'a Path>,
) -> Introduction<'a> {
    let ready = host.ready();
    let webhooks = config.things_network.as_ref().map(|things_network| Webhooks {
        url: format!("{}{ROUTE}", ready.endpoint),
        queue: things_network.queue.clone(),
    });
    let downlinks = || {
        let device = services.things_stack.as_ref()?.devices.first()?;
        let ids = &config.things_network.as_ref()?.device_ids;
        let name = ids.expand(&device.application, &device.device, Some(&device.dev_eui)).ok()?;
        let owner = Owner::things_network(&device.application, &device.device, name);
        let control = services.iot_hub.as_ref()?.ready().control.clone();
        Some(Downlinks { control, device: owner.registration_id() })
    };
    let mut off = Vec::new();
    if services.plan.rapidm2m == Source::Off {
        off.push("rapidM2M is off: it is on when M2MBackendURL and Customer_ID are set, or EmulationMode=true");
    }
    if services.plan.things_stack == Source::Off {
        off.push("The Things Network is off: it is on when UplinkQueueName is set");
    }
    let has_status = ready.functions.iter().any(|function| function == STATUS);
    Introduction {
        status: has_status.then(|| format!("{}{STATUS_ROUTE}", ready.endpoint)),
        endpoint: &ready.endpoint,
        services: services.rows(config, &ready.queues),
        timers: schedule::timers(app, &ready.functions, own_schedule, &services.settings),
        webhooks,
        downlinks: downlinks(),
        off,
        settings_file,
    }
}

/// Finds the app and its settings, and goes to the app's folder: there the handler looks for what settings name.
fn folder(options: &Options) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
    let absolute = |path: &Path| path.canonicalize().with_context(|| format!("{} cannot be read", path.display()));
    let app = absolute(&options.app)?;
    ensure!(
        app.join("host.json").is_file(),
        "{} has no host.json, so it is not the function app's folder: go to the root of the repository, or name it with --app",
        app.display()
    );
    let default = app.join("local.settings.json");
    let settings = match &options.settings {
        Some(file) => Some(absolute(file)?),
        None => default.is_file().then_some(default),
    };
    std::env::set_current_dir(&app).with_context(|| format!("cannot go to {}", app.display()))?;
    Ok((app, settings))
}
