//! The command line of the binary: parses the arguments and runs the command.

mod cli;
#[cfg(feature = "local")]
mod local;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use iothub_connector::{config::Problems, support::logging};

use self::cli::exit;

/// The clients of Azure's services allocate 800 times for each poll.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  iothub-connector local --for 30s       # see it run: everything emulated, no cloud
  iothub-connector polls \"Well 7\"        # what became of a site's last polls
  iothub-connector backfill --help       # every command has examples of its own

Settings come from the environment, else from Values in local.settings.json. Data goes
to standard output, remarks and errors to standard error. All times are UTC.";
#[cfg(feature = "local")]
const EMULATOR_EXAMPLES: &str = "\
Examples:
  iothub-connector emulator rapidm2m --sites 100 --interval 10
  iothub-connector emulator cosmos --port 8081
  iothub-connector emulator iot_hub --help

Each prints one line of JSON when it is ready: where it is and what a client needs.
`iothub-connector local` starts all of them, and the connector.";

/// Forwards rows of rapidM2M sites and uplinks of The Things Network to Azure IoT Hub
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs as the custom handler of an Azure Functions app (this is what host.json starts)
    #[command(after_help = cli::serve::EXAMPLES)]
    Serve,
    /// Checks the settings, and whether everything that they name can be reached and used
    Check(cli::check::Options),
    /// Lists a site's polls and what became of them
    Polls(cli::polls::Options),
    /// Fetches a range of a site's rows again, or for the first time, and sends it
    Backfill(cli::backfill::Options),
    /// Puts back what was rejected, so that it is sent again
    Replay(cli::replay::Options),
    /// Continues where the C# sample stopped: takes over its position at each site
    ImportSample(cli::import_sample::Options),
    /// Lists the provisioned devices, and what each represents
    Devices(cli::devices::Options),
    /// Sets up the webhook in The Things Stack, and shows the health of webhooks
    ThingsStack(cli::things_stack::Options),
    /// Prints a token (SAS) for a device or a registration
    Sas(cli::sas::Options),
    /// Runs the whole function app on this machine, with an emulator for every service that is not configured
    #[cfg(feature = "local")]
    Local(local::Options),
    /// Breaks a service of the `local` session that runs here, or repairs it
    #[cfg(feature = "local")]
    Fault(local::fault::Options),
    /// Sends a command to a device of the `local` session that runs here
    #[cfg(feature = "local")]
    #[command(name = "command")]
    ToDevice(local::command::Options),
    /// Runs one emulator alone, until Ctrl-C
    #[cfg(feature = "local")]
    #[command(after_help = EMULATOR_EXAMPLES)]
    Emulator {
        #[command(subcommand)]
        name: Box<emulators::cli::Command>,
    },
    /// Prints a script that completes commands and options in a shell
    Completions(cli::completions::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if wants_log(&cli.command)
        && let Err(problem) = logging::init()
    {
        eprintln!("error: {problem}");
        return ExitCode::from(exit::USAGE);
    }
    let is_serving = matches!(cli.command, Command::Serve);
    let result = match cli.command {
        Command::Serve => runtime().and_then(cli::serve::run),
        Command::Check(options) => runtime().and_then(|runtime| runtime.block_on(cli::check::run(options))),
        Command::Polls(options) => runtime().and_then(|runtime| runtime.block_on(cli::polls::run(options))),
        Command::Backfill(options) => runtime().and_then(|runtime| runtime.block_on(cli::backfill::run(options))),
        Command::Replay(options) => runtime().and_then(|runtime| runtime.block_on(cli::replay::run(options))),
        Command::ImportSample(options) => {
            runtime().and_then(|runtime| runtime.block_on(cli::import_sample::run(options)))
        }
        Command::Devices(options) => runtime().and_then(|runtime| runtime.block_on(cli::devices::run(options))),
        Command::ThingsStack(options) => {
            runtime().and_then(|runtime| runtime.block_on(cli::things_stack::run(options)))
        }
        Command::Sas(options) => cli::sas::run(&options),
        Command::Completions(options) => cli::completions::run(&options, Cli::command()),
        #[cfg(feature = "local")]
        Command::Local(options) => threads().and_then(|runtime| runtime.block_on(local::run(options))),
        #[cfg(feature = "local")]
        Command::Fault(options) => runtime().and_then(|runtime| runtime.block_on(local::fault::run(options))),
        #[cfg(feature = "local")]
        Command::ToDevice(options) => runtime().and_then(|runtime| runtime.block_on(local::command::run(options))),
        #[cfg(feature = "local")]
        Command::Emulator { name } => {
            threads().and_then(|runtime| runtime.block_on(emulators::cli::run(*name))).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        match error.downcast_ref::<Problems>() {
            Some(problems) => eprintln!("{problems}"),
            None => eprintln!("error: {error:#}"),
        }
        // The Functions host shows the last three lines that a handler wrote before it ended: the last one names them all.
        if let Some(problems) = error.downcast_ref::<Problems>().filter(|_| is_serving) {
            let names = problems.iter().map(|(setting, _)| setting).filter(|name| !name.is_empty());
            let names = match names.collect::<Vec<_>>() {
                names if names.is_empty() => "them".to_owned(),
                names => names.join(", "),
            };
            eprintln!(
                "The connector cannot start. Set {names} in the function app's settings, or in local.settings.json."
            );
        }
        ExitCode::from(exit::code(&error))
    })
}

/// `local` and `backfill` print their own progress, so they log only if the user requests it. Scripts read the output
/// of the other commands.
fn wants_log(command: &Command) -> bool {
    match command {
        Command::Check(_)
        | Command::Polls(_)
        | Command::Replay(_)
        | Command::ImportSample(_)
        | Command::Devices(_)
        | Command::ThingsStack(_)
        | Command::Sas(_)
        | Command::Completions(_) => false,
        Command::Backfill(_) => std::env::var_os("RUST_LOG").is_some(),
        #[cfg(feature = "local")]
        Command::Local(_) => std::env::var_os("RUST_LOG").is_some(),
        #[cfg(feature = "local")]
        Command::Fault(_) | Command::ToDevice(_) | Command::Emulator { .. } => false,
        _ => true,
    }
}

/// One thread: moving a poll between threads costs more than it gains. Long work runs on other threads, see
/// `blocking`.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// For the emulators: a session that cannot print because nothing reads its output must still end at the second
/// Ctrl-C.
#[cfg(feature = "local")]
fn threads() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
