//! `command`: sends a cloud-to-device message to a device of a running session.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use anyhow::{bail, ensure};
use iothub_connector::iot_hub::sas::RESERVED;
use percent_encoding::utf8_percent_encode;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{
    fault::Service,
    open_session::{Asked, OpenSession},
};

const EXAMPLES: &str = "\
Examples:
  iothub-connector command water-meter-00000 open --property Port=1
  iothub-connector command water-meter-00000 vu8= -p Port=15 -p Payload=base64

It is for the session of `iothub-connector local` that runs in this folder. A real hub
takes commands from `az iot device c2d-message send`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Id of the device at the hub
    device: String,
    /// The message
    body: String,
    /// A property of the message, such as Port=1; see docs/how-to/send-commands.md
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a property has the form NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// # Errors
/// No session runs here, or it does not emulate IoT Hub.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { device, body, property } = options;
    let session = OpenSession::here(Path::new("."))?;
    ensure!(
        session.setting("IoTHubDeviceId") != Some(device.as_str()),
        "{device} is the device that sends the rows of all sites: only LoRaWAN devices take commands"
    );
    let path = format!("c2d?device={}", utf8_percent_encode(&device, RESERVED));
    let properties: BTreeMap<_, _> = property.into_iter().collect();
    let message = json!({ "body": body, "properties": properties }).to_string();
    match session.request(Service::Hub.name(), Method::POST, &path, Some(&message)).await? {
        Asked::Done => {}
        Asked::NotEmulated => {
            bail!("the session does not emulate IoT Hub: send commands with `az iot device c2d-message send`")
        }
        Asked::Refused(StatusCode::NOT_FOUND, _) => bail!(
            "the hub knows no device {device:?}: a LoRaWAN device is registered with its first uplink; `iothub-connector devices \
             --local` lists them"
        ),
        Asked::Refused(status, text) => bail!("the emulated hub answers {status}: {text}"),
    }
    println!("The hub has the command. It leaves as a downlink at the next uplink of {device}, if not before.");
    Ok(ExitCode::SUCCESS)
}
