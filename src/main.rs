//! The command line: parses, binds, calls.

mod cli;
#[cfg(feature = "local")]
mod local;

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use iothub_connector::{
    app::App,
    config::{
        Config, Problems, Settings,
        key_vault::{self, Completed},
    },
    logging, server,
};

/// Forwards rows of rapidM2M sites and uplinks of The Things Network to Azure IoT Hub
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs as the custom handler of an Azure Functions app (this is what host.json starts)
    Serve,
    /// Prints a token (SAS) for a device or a registration
    Sas(cli::sas::Options),
    /// Checks the settings, and whether everything that they name can be reached and used
    Check(cli::check::Options),
    /// Lists the devices that are provisioned, and whom they stand for
    Devices(cli::devices::Options),
    /// Puts back what was rejected, so that it is sent again
    Replay(cli::replay::Options),
    /// Runs the whole function app on this machine, with stand-ins for every service that is not configured
    #[cfg(feature = "local")]
    Local(local::Options),
    /// Runs one of the stand-ins alone, until Ctrl-C
    #[cfg(feature = "local")]
    Emulator {
        #[command(subcommand)]
        name: Box<emulators::cli::Command>,
    },
}

/// Settings that stop the start. Also what clap uses for a wrong command line.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if wants_log(&cli.command)
        && let Err(problem) = logging::init()
    {
        eprintln!("error: {problem}");
        return ExitCode::from(MISCONFIGURED);
    }
    let is_serving = matches!(cli.command, Command::Serve);
    let result = match cli.command {
        Command::Serve => serve(),
        Command::Sas(options) => cli::sas::run(&options),
        Command::Check(options) => runtime().and_then(|runtime| runtime.block_on(cli::check::run(options))),
        Command::Devices(options) => runtime().and_then(|runtime| runtime.block_on(cli::devices::run(options))),
        Command::Replay(options) => runtime().and_then(|runtime| runtime.block_on(cli::replay::run(options))),
        #[cfg(feature = "local")]
        Command::Local(options) => runtime().and_then(|runtime| runtime.block_on(local::run(options))),
        #[cfg(feature = "local")]
        Command::Emulator { name } => {
            runtime().and_then(|runtime| runtime.block_on(emulators::cli::run(*name))).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| match error.downcast_ref::<Problems>() {
        Some(problems) if is_serving => {
            eprintln!("{problems}");
            ExitCode::from(MISCONFIGURED)
        }
        Some(problems) => {
            eprintln!("error: {}", problems.list());
            ExitCode::from(MISCONFIGURED)
        }
        None => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// `local` tells itself what happens in the emulators; their log is for whoever asks for it. What the other commands
/// print is read by scripts.
fn wants_log(command: &Command) -> bool {
    match command {
        Command::Sas(_) | Command::Check(_) | Command::Devices(_) | Command::Replay(_) => false,
        #[cfg(feature = "local")]
        Command::Local(_) => std::env::var_os("RUST_LOG").is_some(),
        _ => true,
    }
}

fn serve() -> anyhow::Result<ExitCode> {
    let config = Config::from_settings(&settings()?)?;
    let port = match handler_port() {
        Ok(port) => port,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(ExitCode::from(MISCONFIGURED));
        }
    };
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port} (FUNCTIONS_CUSTOMHANDLER_PORT)"))?;
        let app = Arc::new(App::new(config));
        let on_or_off = |is_on| if is_on { "on" } else { "off" };
        tracing::info!(
            handler.version = env!("CARGO_PKG_VERSION"),
            "the handler has started: rapidM2M is {}, The Things Network is {}",
            on_or_off(app.rapidm2m_forwarding.is_some()),
            on_or_off(app.things_network_forwarding.is_some())
        );
        server::run(listener, app, interrupted()).await.context("the server failed")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The function app's settings.
fn settings() -> anyhow::Result<Settings> {
    let settings = Settings::from_env();
    if !key_vault::is_wanted(&settings) {
        return Ok(settings);
    }
    let Completed { settings, from_vault } = runtime()?.block_on(key_vault::complete(settings))?;
    tracing::info!(settings = ?from_vault, "looked for absent settings in the Key Vault");
    Ok(settings)
}

/// The port that the host wants us on; its older name is still given by older hosts.
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

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Resolves when a person presses Ctrl-C. The host itself kills without asking; every step is safe to cut.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
