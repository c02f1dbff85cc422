//! The command line of `cargo xtask`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks for this repository besides building and testing it
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the function app as it is deployed: target/package/app and target/package/iothub-connector.zip
    Package(xtask::package::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Package(options) => xtask::package::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
