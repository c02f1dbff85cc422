//! `cargo run -p emulators -- NAME` runs one emulator in its own process.

use clap::Parser;
use emulators::cli;

/// Stand-ins for the cloud services around the IoT Hub Connector, on loopback
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "Each prints one line of JSON when it is ready.\n\nExample:\n  cargo run -p emulators -- rapidm2m --sites 100 --interval 10"
)]
struct Cli {
    #[command(subcommand)]
    emulator: cli::Command,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    cli::run(Cli::parse().emulator).await
}
