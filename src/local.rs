//! `local`: the whole function app on this machine. What local.settings.json sets is real, the rest is emulated in this
//! process; the handler is this executable again, started by the emulated Functions host as Azure would start it.
//!
//! | Part | |
//! |---|---|
//! | `services` | which service is real, and the settings that lead to the emulated ones |
//! | `schedule` | when the timer runs, for the introduction |
//! | `forwarded`, `tally` | what reached the hub, and what it comes to |
//! | `output` | what is printed: for people, or as JSON lines |

mod forwarded;
mod output;
mod schedule;
mod services;
mod tally;

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emulators::{
    functions_host::{self, Event},
    iot_hub::Received,
};
use iothub_connector::config::Config;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, timeout},
};

use self::{forwarded::Forwarded, output::Output, services::Services, tally::Tally};
use crate::cli::time::duration;

/// What the handler logs unless `RUST_LOG` is set, here or in the settings: what is wrong, and one line for each run.
const HANDLER_LOG: &str = "error,iothub_connector=warn,iothub_connector::functions=info";
/// Ctrl-C reaches the handler too. When it is gone first, our own signal is at most so far behind.
const SIGNALS_APART: Duration = Duration::from_millis(500);
const LONGEST_INTERVAL: i64 = 24 * 60 * 60 - 1;
const EXAMPLES: &str = "\
Examples:
  iothub-connector local                       # until Ctrl-C, on function.json's schedule
  iothub-connector local --every 5 --for 30s   # a run every 5 seconds, half a minute long
  iothub-connector local --device-per-site     # each site a device of its own

Every service that is not set in local.settings.json is emulated: nothing needs to
be installed or configured. To use your own, copy local.settings.json.example to
local.settings.json and keep in it only what is to be real.

The exit code is 0 if at least one run succeeded and none failed.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// End by itself after this time, such as 20s, 2m or 1h; a run under way is waited for
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    end_after: Option<Duration>,
    /// Print one JSON object per line, for scripts
    #[arg(long)]
    json: bool,
    /// Run every so many seconds, not on function.json's schedule; an emulated backend has new rows as often
    #[arg(long, value_name = "SECONDS", conflicts_with = "schedule",
          value_parser = clap::value_parser!(u32).range(1..=LONGEST_INTERVAL))]
    every: Option<u32>,
    /// Run on this schedule, not on function.json's, for example "*/20 * * * * *"
    #[arg(long, value_name = "NCRONTAB")]
    schedule: Option<String>,
    /// Send each site as a device of its own, provisioned by an emulated Device Provisioning Service
    #[arg(long)]
    device_per_site: bool,
    /// Folder of the function app, with host.json in it
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    app: PathBuf,
    /// Settings of the services that are real [default: local.settings.json in the app's folder, if it is there]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Runs the app until it is told to end, and says how it went.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let (app, settings_file) = folder(&options)?;
    let services = Services::start(settings_file.as_deref(), options.every, options.device_per_site).await?;
    // The handler would say the same, three times.
    let config = match Config::from_settings(&services.settings.clone().into_iter().collect()) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            for reason in services.why_real() {
                eprintln!("{reason}");
            }
            return Ok(ExitCode::from(crate::MISCONFIGURED));
        }
    };
    let every = options.every.map(schedule::time_span);
    let own_schedule = every.or(options.schedule);
    let messages = services.iot_hub.as_ref().map(emulators::iot_hub::Emulator::subscribe);
    let mut env = services.settings.clone();
    env.entry("RUST_LOG".to_owned())
        .or_insert_with(|| std::env::var("RUST_LOG").unwrap_or_else(|_| HANDLER_LOG.to_owned()));
    let host = functions_host::start(functions_host::Options {
        app: app.clone(),
        handler: Some(std::env::current_exe().context("cannot find this executable")?),
        env: env.into_iter().collect(),
        schedule: own_schedule.clone(),
        run_at_start: true,
        ..functions_host::Options::default()
    })
    .await?;

    let mut output = Output::new(
        options.json,
        services.site_names(&config),
        config.hub.identity.as_ref().is_some_and(|identity| identity.one().is_none()),
    );
    let introduction = output::Introduction {
        endpoint: &host.ready().endpoint,
        services: services.rows(&config),
        timers: schedule::timers(&app, &host.ready().functions, own_schedule.as_deref(), &services.settings),
        settings_file: settings_file.as_deref(),
    };
    let started = Instant::now();
    let mut session = Session { tally: Tally::default(), functions: host.ready().functions.clone(), handler_starts: 0 };
    let printed = match output.introduction(&introduction) {
        Ok(()) => session.watch(host, messages, options.end_after, &mut output).await,
        Err(error) => Err(error),
    };
    let printed = printed.and_then(|()| output.summary(&session.tally, services.iot_hub.is_some(), started.elapsed()));
    match printed {
        // Nobody reads on (`| head`): the exit code still tells how it went.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ if session.tally.is_success() => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
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

struct Session {
    tally: Tally,
    functions: Vec<String>,
    handler_starts: usize,
}

impl Session {
    /// Prints what happens until the time is over, Ctrl-C is pressed or the host gives up.
    async fn watch(
        &mut self,
        host: functions_host::Emulator,
        mut messages: Option<broadcast::Receiver<Arc<Received>>>,
        end_after: Option<Duration>,
        output: &mut Output,
    ) -> io::Result<()> {
        let mut events = host.events();
        let mut interrupted = pin!(interrupted());
        let mut time_is_over = pin!(sleep(end_after.unwrap_or(Duration::MAX)));
        let mut is_ending = false;
        while !(is_ending && self.tally.under_way == 0) {
            tokio::select! {
                // Messages come before the run that sent them ends.
                biased;
                result = &mut interrupted => {
                    result?;
                    break;
                }
                () = &mut time_is_over, if !is_ending => is_ending = true,
                message = next(&mut messages) => self.message(message, output)?,
                event = events.recv() => match event {
                    Ok(Event::Stopped { reason }) => {
                        if timeout(SIGNALS_APART, &mut interrupted).await.is_err() {
                            self.tally.gave_up = Some(reason);
                        }
                        break;
                    }
                    Ok(event) => self.event(event, output)?,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                },
            }
        }
        // The handler's last lines are there when the host has stopped.
        host.stop().await;
        while let Some(Ok(message)) = messages.as_mut().map(broadcast::Receiver::try_recv) {
            self.message(Ok(message), output)?;
        }
        while let Ok(event) = events.try_recv() {
            if matches!(event, Event::Line { .. } | Event::InvocationFinished(_)) {
                self.event(event, output)?;
            }
        }
        Ok(())
    }

    fn message(&mut self, message: Result<Arc<Received>, RecvError>, output: &mut Output) -> io::Result<()> {
        match message {
            Ok(message) => {
                let forwarded = Forwarded::read(&message);
                output.forwarded(&forwarded)?;
                self.tally.add(forwarded);
            }
            Err(RecvError::Lagged(count)) => self.tally.missed += count,
            Err(RecvError::Closed) => {}
        }
        Ok(())
    }

    fn event(&mut self, event: Event, output: &mut Output) -> io::Result<()> {
        match event {
            Event::InvocationStarted { .. } => self.tally.under_way += 1,
            Event::InvocationFinished(finished) => {
                self.tally.finished(finished.succeeded);
                output.run(&finished)?;
            }
            Event::Line { level, text, .. } => output.line(level, &text, &self.functions)?,
            Event::HandlerStarted { .. } => {
                self.handler_starts += 1;
                if self.handler_starts > 1 {
                    let text = "the handler had ended and is started again";
                    output.line(functions_host::Level::Warning, text, &self.functions)?;
                }
            }
            Event::HandlerReady { .. } | Event::HandlerExited { .. } | Event::Stopped { .. } => {}
        }
        Ok(())
    }
}

/// The next message; never one when the hub is real.
async fn next(messages: &mut Option<broadcast::Receiver<Arc<Received>>>) -> Result<Arc<Received>, RecvError> {
    match messages {
        Some(messages) => messages.recv().await,
        None => std::future::pending().await,
    }
}

async fn interrupted() -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminated.recv() => Ok(()),
    }
}
