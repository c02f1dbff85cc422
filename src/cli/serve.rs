//! Runs as the custom handler of an Azure Functions app.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use iothub_connector::{
    app::App,
    config::{
        Config, Settings,
        key_vault::{self, Completed},
    },
    server,
};

use super::interrupt::{INTERRUPTED, LAST_WORDS, interrupted, interrupted_twice};

pub const EXAMPLES: &str = "\
Examples:
  func start                             # the host starts `iothub-connector serve` by itself
  FUNCTIONS_CUSTOMHANDLER_PORT=7071 iothub-connector serve

By hand it needs all settings in the environment: local.settings.json is read by the
host, not by this command. Then a run of the timer is
  curl -X POST http://localhost:7071/rapidM2MForwarding -H 'Content-Type: application/json' \\
    -d '{\"Data\":{},\"Metadata\":{}}'";
/// Serves until Ctrl-C.
///
/// # Errors
/// The settings prevent the start ([`Problems`](iothub_connector::config::Problems)), or the handler cannot listen.
pub fn run(runtime: tokio::runtime::Runtime) -> anyhow::Result<ExitCode> {
    let config = Config::from_settings(&settings(&runtime)?)?;
    let port = match handler_port() {
        Ok(port) => port,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(ExitCode::from(crate::MISCONFIGURED));
        }
    };
    let ended = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port} (FUNCTIONS_CUSTOMHANDLER_PORT)"))?;
        let app = Arc::new(App::new(config));
        let on_or_off = |is_on| if is_on { "on" } else { "off" };
        tracing::info!(
            handler.version = env!("CARGO_PKG_VERSION"),
            "the handler has started: rapidM2M is {}, The Things Network is {}",
            on_or_off(app.polling.is_some()),
            on_or_off(app.forwarding.is_some())
        );
        tokio::select! {
            served = server::run(listener, app, interrupted()) => {
                served.context("the server failed")?;
                Ok(ExitCode::SUCCESS)
            }
            () = interrupted_twice() => Ok(ExitCode::from(INTERRUPTED)),
        }
    });
    // Work in flight is dropped and logs that.
    runtime.shutdown_timeout(LAST_WORDS);
    ended
}

/// The function app's settings.
fn settings(runtime: &tokio::runtime::Runtime) -> anyhow::Result<Settings> {
    let settings = Settings::from_env();
    if !key_vault::is_wanted(&settings) {
        return Ok(settings);
    }
    let Completed { settings, from_vault } = runtime.block_on(key_vault::complete(settings))?;
    let names = from_vault.into_iter().collect::<Vec<_>>().join(", ");
    tracing::info!(settings = %names, "looked for absent settings in the Key Vault");
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
