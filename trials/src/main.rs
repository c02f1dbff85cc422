//! Trials of the whole connector: the real binary, run by the Functions host's stand-in against the other stand-ins, and
//! mistreated while data flows. Afterwards every row is accounted for.
//!
//! | Module | |
//! |---|---|
//! | [`crash`] | the handler is killed at named steps and at random moments |
//! | [`audit`] | what must hold at the end. Pure |
//! | [`rows`] | the data that is sent through. Pure |
//! | [`world`] | the stand-ins around rapidM2M sites, and the end of a trial: settle, audit |
//! | [`killer`] | SIGKILL at just that moment |
//! | [`app`], [`ledger`] | the function app's folder; the documents, read back |

mod app;
mod audit;
mod crash;
mod killer;
mod ledger;
mod rows;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tries the IoT Hub Connector's promises: nothing lost, everything in order, whatever happens
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Subcommand)]
enum Trial {
    /// Kill the handler again and again while rows flow, then account for every row
    Crash(crash::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Trial::Crash(options) = Cli::parse().trial;
    tokio::select! {
        passed = crash::run(&options) => Ok(if passed? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        // Whatever runs is dropped, and the handler killed with it.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted")
        }
    }
}
