//! Runs as the custom handler of an Azure Functions app.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use iothub_connector::{
    app::App,
    config::{
        Config, Problems, Settings, Setup,
        key_vault::{self, Completed},
        misspelt,
    },
    server::{self, Current},
    support::{backoff::Policy, ending::Ending},
};

use super::{
    exit,
    interrupt::{LAST_WORDS, interrupted_twice, told_to_end},
};

pub const EXAMPLES: &str = "\
Examples:
  func start                             # the host starts `iothub-connector serve` by itself
  FUNCTIONS_CUSTOMHANDLER_PORT=7071 iothub-connector serve

By hand it needs all settings in the environment: local.settings.json is read by the
host, not by this command. Then a run of the timer is
  curl -X POST http://localhost:7071/rapidM2MForwarding -H 'Content-Type: application/json' \\
    -d '{\"Data\":{},\"Metadata\":{}}'";
const VAULT_AGAIN: Policy = Policy::exact(Duration::from_secs(10), Duration::from_secs(5 * 60));
/// When the process ends in any case after it was told to. Azure waits 10 s.
const LONGEST_END: Duration = Duration::from_secs(8);

/// Serves until the process is told to end.
///
/// # Errors
/// The settings prevent the start ([`Problems`]), or the handler cannot listen.
pub fn run(runtime: tokio::runtime::Runtime) -> anyhow::Result<ExitCode> {
    let (setup, incomplete) = setup(&runtime, Settings::from_env())?;
    let port = match handler_port() {
        Ok(port) => port,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(ExitCode::from(exit::USAGE));
        }
    };
    let ended = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port} (FUNCTIONS_CUSTOMHANDLER_PORT)"))?;
        let ending = Ending::default();
        let app = Current::new(App::new(setup, ending.clone()));
        announce(&app.app());
        if let Some(settings) = incomplete {
            tokio::spawn(complete_later(settings, app.clone(), ending.clone()));
        }
        let told = {
            let ending = ending.clone();
            async move {
                told_to_end().await;
                ending.begin();
            }
        };
        tokio::select! {
            served = server::run(listener, app.clone(), told) => served.context("the server failed")?,
            // What is in flight by now is dropped, and logs that.
            () = ending.after(LONGEST_END) => {}
            () = interrupted_twice() => return Ok(ExitCode::from(exit::INTERRUPTED)),
        }
        app.app().end().await;
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_timeout(LAST_WORDS);
    ended
}

/// Says what works.
fn announce(app: &App) {
    let state = |is_on, is_faulty| match (is_on, is_faulty) {
        (true, _) => "on",
        (false, true) => "not ready",
        (false, false) => "off",
    };
    tracing::info!(
        handler.version = env!("CARGO_PKG_VERSION"),
        "the connector has started: rapidM2M is {}, The Things Network is {}",
        state(app.polling.is_some(), app.faults.rapidm2m.is_some()),
        state(app.forwarding.is_some(), app.faults.things_network.is_some())
    );
    for sentence in app.faults.sentences() {
        tracing::error!("{sentence}");
    }
}

/// Reads the settings. On a developer's machine a fault prevents the start, so that it is seen at once. In Azure, a handler
/// that ends is started over and over, and takes the part along that could work.
///
/// Also returns the settings if they could not be completed from the Key Vault that they name.
fn setup(runtime: &tokio::runtime::Runtime, settings: Settings) -> Result<(Setup, Option<Settings>), Problems> {
    let is_development = settings.is_development();
    for (name, right) in misspelt(&settings) {
        tracing::warn!("unknown setting `{name}`; did you mean `{right}`?");
    }
    match runtime.block_on(complete(&settings)) {
        Ok(settings) if is_development => {
            let surroundings = settings.surroundings();
            Ok((Setup { surroundings, ..Config::from_settings(&settings)?.into() }, None))
        }
        Ok(settings) => Ok((Setup::read(&settings, None), None)),
        Err(problems) if is_development => Err(problems),
        Err(problems) => Ok((Setup::read(&settings, Some(&problems)), Some(settings))),
    }
}

/// Asks the vault again until it answers: roles that were just given, and a vault's network, take minutes to work.
async fn complete_later(settings: Settings, app: Current, ending: Ending) {
    for attempt in 1.. {
        tokio::time::sleep(VAULT_AGAIN.wait(attempt)).await;
        match complete(&settings).await {
            Ok(settings) => {
                app.replace(App::new(Setup::read(&settings, None), ending));
                return announce(&app.app());
            }
            Err(problems) => tracing::warn!("the settings are still incomplete: {}", problems.list()),
        }
    }
}

/// The settings with those from the Key Vault that they name.
async fn complete(settings: &Settings) -> Result<Settings, Problems> {
    let Completed { settings, from_vault } = key_vault::complete(settings.clone()).await?;
    if key_vault::is_wanted(&settings) {
        let names = from_vault.into_iter().collect::<Vec<_>>().join(", ");
        tracing::info!(settings = %names, "looked for absent settings in the Key Vault");
    }
    Ok(settings)
}

/// The port that the host assigns. Older hosts still use the older name.
fn handler_port() -> Result<u16, String> {
    let names = ["FUNCTIONS_CUSTOMHANDLER_PORT", "FUNCTIONS_HTTPWORKER_PORT"];
    let Some((name, value)) = names.iter().find_map(|name| Some((name, std::env::var(name).ok()?))) else {
        return Err(
            "FUNCTIONS_CUSTOMHANDLER_PORT is not set: `serve` is started by the Azure Functions host (func start)"
                .into(),
        );
    };
    value.trim().parse().map_err(|_| format!("{name} is {value:?}: it must be a port number"))
}
