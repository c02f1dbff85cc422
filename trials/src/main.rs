//! Trials of the whole connector. The Functions host's stand-in runs the real binary against the other stand-ins, and
//! the trial disturbs it while data flows. Afterwards every row must be accounted for.
//!
//! | Module | |
//! |---|---|
//! | [`crash`] | the handler is killed at named steps and at random moments |
//! | [`races`] | many handlers poll the same sites |
//! | [`changes`] | sites are renamed and removed, rows come bad, late and corrected |
//! | [`soak`] | many sites and a fault every few seconds, for a long time |
//! | [`audit`] | what must hold at the end; does no I/O |
//! | [`rows`] | the data that is sent; does no I/O |
//! | [`world`] | the stand-ins around rapidM2M sites, and the end of a trial: settle, audit |
//! | [`victim`] | the handler under the Functions host |
//! | [`killer`] | SIGKILL at an exact moment |
//! | [`app`], [`ledger`] | the function app's folder; the documents, read back |

mod app;
mod audit;
mod changes;
mod crash;
mod killer;
mod ledger;
mod races;
mod rows;
mod soak;
mod victim;
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
    /// Let many handlers poll the same sites at the same time, then account for every row
    Races(races::Options),
    /// Rename and remove sites, send bad, late and corrected rows, kill the handler, then account for every row
    Changes(changes::Options),
    /// Run one handler for a long time, with a fault every few seconds, and watch its memory
    Soak(soak::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let trial = Cli::parse().trial;
    let passed = async {
        match &trial {
            Trial::Crash(options) => crash::run(options).await,
            Trial::Races(options) => races::run(options).await,
            Trial::Changes(options) => changes::run(options).await,
            Trial::Soak(options) => soak::run(options).await,
        }
    };
    tokio::select! {
        passed = passed => Ok(if passed? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        // The running trial is dropped, which kills the handler.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted")
        }
    }
}
