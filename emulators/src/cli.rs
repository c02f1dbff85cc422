//! The command line of the emulators, with one subcommand for each. A started emulator prints one line of JSON on
//! standard output with everything that a client needs. Then it runs until it is interrupted.

use clap::Subcommand;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use crate::{cosmos, functions_host, interrupt::interrupted, iot_hub, rapidm2m, storage, things_stack};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The Microtronics backend: REST API for sites and their time series
    #[command(name = "rapidm2m")]
    RapidM2m(rapidm2m::Options),
    /// Azure Cosmos DB for NoSQL, in memory
    #[command(name = "cosmos")]
    Cosmos(cosmos::Options),
    /// Azure IoT Hub: MQTT, WebSocket and HTTPS for any device that has the printed key
    #[command(name = "iot_hub")]
    IotHub(iot_hub::Options),
    /// The queues of an Azure Storage account, and leased blobs, in memory
    #[command(name = "storage")]
    Storage(storage::Options),
    /// The Azure Functions host, running a custom handler from its app folder
    #[command(name = "functions_host")]
    FunctionsHost(functions_host::Options),
    /// The Things Stack: sends the webhooks of a fleet of LoRaWAN devices, takes downlinks
    #[command(name = "things_stack")]
    ThingsStack(things_stack::Options),
}

/// Runs one emulator until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot start. The Functions host also fails when its handler has failed for good.
pub async fn run(command: Command) -> anyhow::Result<()> {
    // Standard output has the one line of JSON. An error means that the caller logs already.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_ansi(false).try_init();
    match command {
        Command::RapidM2m(options) => {
            let emulator = rapidm2m::start(options).await?;
            print_ready(emulator.ready())?;
            Ok(interrupted().await?)
        }
        Command::Cosmos(options) => {
            let emulator = cosmos::start(options).await?;
            print_ready(emulator.ready())?;
            Ok(interrupted().await?)
        }
        Command::IotHub(options) => {
            let emulator = iot_hub::start(options).await?;
            print_ready(emulator.ready())?;
            Ok(interrupted().await?)
        }
        Command::Storage(options) => {
            let emulator = storage::start(options).await?;
            print_ready(emulator.ready())?;
            Ok(interrupted().await?)
        }
        Command::ThingsStack(options) => {
            let emulator = things_stack::start(options).await?;
            print_ready(emulator.ready())?;
            Ok(interrupted().await?)
        }
        Command::FunctionsHost(options) => {
            let emulator = functions_host::start(options).await?;
            print_ready(emulator.ready())?;
            let mut events = emulator.events();
            loop {
                tokio::select! {
                    result = interrupted() => {
                        let telemetry = emulator.stop().await;
                        eprintln!("telemetry: {telemetry}");
                        return Ok(result?);
                    }
                    reason = emulator.stopped() => {
                        eprintln!("telemetry: {}", emulator.telemetry());
                        anyhow::bail!(reason);
                    }
                    event = events.recv() => match event {
                        Ok(event) => eprintln!("{event}"),
                        Err(RecvError::Lagged(count)) => eprintln!("({count} events came too fast to be shown)"),
                        Err(RecvError::Closed) => anyhow::bail!("the host has ended"),
                    },
                }
            }
        }
    }
}

fn print_ready(ready: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(ready)?);
    Ok(())
}
