//! Converts a webhook to the message for the hub, and identifies its owner.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{
    iot_hub::Message,
    things_network::{
        event::Confirmed,
        ids::Invalid,
        members::{Group, Members},
        queued::Queued,
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
    /// What became of a command's downlink, if it is an event about that.
    pub confirmed: Option<Confirmed>,
    /// The numbers of an uplink by their names. The status page draws them as curves.
    pub numbers: Vec<(String, f64)>,
}

impl Forwardable {
    /// Reads the webhook. `otherwise` is the time of its reception if the queue does not know it. All else, the message
    /// id in particular, depends only on what is in the queue.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(queued: &Queued<'_>, otherwise: DateTime<Utc>, members: &Members) -> Result<Self, Invalid> {
        let (queued_at, received_at) = (queued.received_at, queued.received_at.unwrap_or(otherwise));
        match Webhook::parse(&queued.webhook)? {
            Webhook::Uplink(uplink) => {
                let created = uplink.received_at.unwrap_or(received_at);
                let mut properties = properties("uplink", created, &uplink.application, &uplink.device);
                properties.push(("Port", uplink.port.to_string()));
                for (name, is_so) in [
                    ("Simulated", uplink.is_simulated() && members.has(Group::Simulated)),
                    ("Encrypted", uplink.is_encrypted()),
                ] {
                    if is_so {
                        properties.push((name, "true".to_owned()));
                    }
                }
                let Telemetry { json, numbers } = uplink.telemetry(received_at, members);
                let message = Message { id: uplink.message_id(queued_at), created, properties, body: json.into() };
                let Uplink { application, device, dev_eui, port, .. } = *uplink;
                let (application, device) = (application.into_owned(), device.into_owned());
                let dev_eui = dev_eui.map(Cow::into_owned);
                Ok(Self { application, device, dev_eui, port, is_uplink: true, message, confirmed: None, numbers })
            }
            Webhook::Event(event) => {
                let (application, device) = event.ids()?;
                let kind = event.kind().ok_or(Invalid::Unknown)?;
                let created = event.received_at.unwrap_or(received_at);
                let confirmed = event.confirmed();
                let message = Message {
                    id: event.message_id(queued_at),
                    created,
                    properties: properties(kind, created, &application, &device),
                    body: event.telemetry(received_at).into(),
                };
                let (application, device) = (application.into_owned(), device.into_owned());
                let (dev_eui, numbers) = (event.dev_eui.map(Cow::into_owned), Vec::new());
                Ok(Self { application, device, dev_eui, port: 0, is_uplink: false, message, confirmed, numbers })
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
    /// result, `NAME.all.json` what `ThingsNetworkMembers=all` changes in it.
    #[test]
    fn every_webhook_becomes_the_message_beside_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/things_network");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let message = |webhook: &str, members: &Members| {
            let queued = Queued { received_at: None, downlink: None, domain: None, webhook: webhook.into() };
            let received_at = "2026-02-01T00:00:00Z".parse().unwrap();
            let Forwardable { application, device, dev_eui, port, is_uplink, message, .. } =
                Forwardable::read(&queued, received_at, members).unwrap();
            let properties: BTreeMap<_, _> = message.properties.iter().map(|(name, value)| (*name, value)).collect();
            json!({
                "application": application, "device": device, "devEui": dev_eui, "port": port, "isUplink": is_uplink,
                "messageId": message.id, "created": message.created, "properties": properties,
                "body": serde_json::from_slice::<Value>(&message.body).unwrap(),
            })
        };
        let (mut seen, mut seen_all) = (0, 0);
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let name = name.strip_suffix(".json").filter(|name| !name.contains('.'));
            let Some(name) = name else { continue };
            let webhook = read(&format!("{name}.json"));
            let expected: Value = serde_json::from_str(&read(&format!("{name}.expected.json"))).unwrap_or_default();
            let actual = message(&webhook, &Members::default());
            assert_eq!(actual, expected, "{name}: {actual:#}");
            seen += 1;
            let Ok(changes) = serde_json::from_str::<Value>(&read(&format!("{name}.all.json"))) else { continue };
            let mut expected = expected;
            for part in ["body", "properties"] {
                let changes = changes[part].as_object().cloned().unwrap_or_default();
                expected[part].as_object_mut().unwrap().extend(changes);
            }
            let actual = message(&webhook, &Members::all());
            assert_eq!(actual, expected, "{name}: {actual:#}");
            seen_all += 1;
        }
        assert_eq!((seen, seen_all), (40, 8));
    }
}
