//! Converts a webhook to the message for the hub, and identifies its owner.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{
    iot_hub::Message,
    things_network::{
        ids::Invalid,
        uplink::{Telemetry, Uplink},
        webhook::Webhook,
    },
};

/// A message that is ready to be sent.
#[derive(Debug)]
pub struct Forwardable {
    pub application: String,
    pub device: String,
    pub dev_eui: Option<String>,
    /// 0 for events that are not uplinks.
    pub port: u8,
    pub is_uplink: bool,
    pub message: Message,
    /// The numbers of an uplink by their names. The status page draws them as curves.
    pub numbers: Vec<(String, f64)>,
}

impl Forwardable {
    /// Reads a webhook that was received at `received_at`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(webhook: &str, received_at: DateTime<Utc>) -> Result<Self, Invalid> {
        match Webhook::parse(webhook)? {
            Webhook::Uplink(uplink) => {
                let created = uplink.received_at.unwrap_or(received_at);
                let mut properties = properties("uplink", created, &uplink.application, &uplink.device);
                properties.push(("Port", uplink.port.to_string()));
                let Telemetry { json, numbers } = uplink.telemetry(received_at);
                let message = Message { id: uplink.message_id(), created, properties, body: json.into() };
                let Uplink { application, device, dev_eui, port, .. } = *uplink;
                Ok(Self { application, device, dev_eui, port, is_uplink: true, message, numbers })
            }
            Webhook::Event(event) => {
                let (application, device) = event.ids()?;
                let kind = event.kind().ok_or(Invalid::Unknown)?;
                let created = event.received_at.unwrap_or(received_at);
                let message = Message {
                    id: event.message_id(),
                    created,
                    properties: properties(kind, created, &application, &device),
                    body: event.telemetry(received_at).into(),
                };
                let (dev_eui, numbers) = (event.dev_eui, Vec::new());
                Ok(Self { application, device, dev_eui, port: 0, is_uplink: false, message, numbers })
            }
        }
    }
}

/// The C# sample uses `iothub-creation-time-utc` to give IoT Central the time of the values.
fn properties(kind: &str, created: DateTime<Utc>, application: &str, device: &str) -> Vec<(&'static str, String)> {
    vec![
        ("Type", kind.to_owned()),
        ("ApplicationID", application.to_owned()),
        ("DeviceID", device.to_owned()),
        ("iothub-creation-time-utc", created.to_rfc3339_opts(SecondsFormat::Millis, true)),
    ]
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use serde_json::{Value, json};

    use super::*;

    /// Every `NAME.json` in the fixtures is a webhook's body. `NAME.expected.json` beside it holds the expected
    /// result.
    #[test]
    fn every_webhook_becomes_the_message_beside_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/things_network");
        let received_at = "2026-02-01T00:00:00Z".parse().unwrap();
        let mut seen = 0;
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let Some(name) = name.strip_suffix(".json").filter(|name| !name.ends_with(".expected")) else { continue };
            let forwardable = Forwardable::read(&fs::read_to_string(&file).unwrap(), received_at).unwrap();
            let Forwardable { application, device, dev_eui, port, is_uplink, message, .. } = &forwardable;
            let properties: BTreeMap<_, _> = message.properties.iter().map(|(name, value)| (*name, value)).collect();
            let actual = json!({
                "application": application, "device": device, "devEui": dev_eui, "port": port, "isUplink": is_uplink,
                "messageId": message.id, "created": message.created, "properties": properties,
                "body": serde_json::from_slice::<Value>(&message.body).unwrap(),
            });
            let expected = fs::read_to_string(folder.join(format!("{name}.expected.json"))).unwrap_or_default();
            let expected: Value = serde_json::from_str(&expected).unwrap_or_default();
            assert_eq!(actual, expected, "{name}: {actual:#}");
            seen += 1;
        }
        assert_eq!(seen, 22);
    }
}
