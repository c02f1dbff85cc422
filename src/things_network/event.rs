//! Parses webhooks other than uplinks: joins, results of downlinks, locations, data of services.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{
    correlation,
    extras::CutDown,
    ids::{EndDeviceIds, Invalid},
    time,
    v3::CUT_DOWN,
};
use crate::{
    host::input::Text,
    iot_hub::devices::confirmations::Confirmation,
    support::{clock, hex::hex, http::one_line},
};

/// An event of The Things Stack.
#[derive(Debug)]
pub struct Event<'a> {
    pub application: Option<Cow<'a, str>>,
    pub device: Option<Cow<'a, str>>,
    pub dev_eui: Option<Cow<'a, str>>,
    pub received_at: Option<DateTime<Utc>>,
    /// The event's kind and its content.
    content: Option<(Cow<'a, str>, &'a RawValue)>,
    cut_down: Option<CutDown<'a>>,
    body: &'a str,
}

/// Members of the envelope that are not the event itself.
const ENVELOPE: [&str; 6] =
    ["end_device_ids", "correlation_ids", "received_at", "simulated", "application_ids", CUT_DOWN];

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    end_device_ids: Option<EndDeviceIds<'a>>,
    #[serde(borrow)]
    received_at: Option<Text<'a>>,
    #[serde(borrow)]
    cut_down: Option<&'a RawValue>,
}

/// Some events have the time inside, too.
#[derive(Default, Deserialize)]
struct Times {
    received_at: Option<String>,
}

#[derive(Serialize)]
struct Telemetry<'a> {
    #[serde(rename = "Type")]
    kind: Option<&'a str>,
    #[serde(rename = "HardwareSerial")]
    hardware_serial: Option<&'a str>,
    #[serde(rename = "DeviceID")]
    device: Option<&'a str>,
    #[serde(rename = "ApplicationID")]
    application: Option<&'a str>,
    #[serde(rename = "ReceivedAtUTC")]
    received_at: String,
    /// The message id of the cloud-to-device message, if the event is about its downlink.
    #[serde(rename = "CommandID", skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Not parsed, so that numbers keep their digits.
    #[serde(rename = "Event")]
    event: Option<&'a RawValue>,
    #[serde(rename = "Receptions", skip_serializing_if = "Option::is_none")]
    receptions: Option<usize>,
}

/// What became of the downlink of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The message id of the cloud-to-device message.
    pub message_id: String,
    /// The downlink's fPort; 0 if the event does not name it.
    pub port: u8,
    pub result: Confirmation,
}

/// The downlink itself, or a `downlink` beside the reason.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    f_port: Option<u8>,
    downlink: Downlink,
    error: Failure,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Downlink {
    f_port: Option<u8>,
}

/// An error of The Things Stack.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    message_format: String,
    name: String,
}

impl Failure {
    fn text(&self) -> String {
        let text = [&self.message_format, &self.name].into_iter().find(|text| !text.is_empty());
        text.map_or_else(|| "no reason given".into(), |text| one_line(text, 200))
    }
}

impl<'a> Event<'a> {
    pub(super) fn parse(body: &'a str) -> Result<Self, Invalid> {
        let members: BTreeMap<Text<'a>, &'a RawValue> =
            serde_json::from_str(body).map_err(|error| Invalid::malformed(&error))?;
        // Accept future kinds of events, but not arbitrary JSON.
        if !members.keys().any(|Text(name)| ENVELOPE.contains(&&**name) || is_known(name)) {
            return Err(Invalid::Unknown);
        }
        let envelope: Envelope<'a> = serde_json::from_str(body).map_err(|error| Invalid::malformed(&error))?;
        let content = members.into_iter().find(|(Text(name), _)| !ENVELOPE.contains(&&**name) && is_name(name));
        let content = content.map(|(Text(name), content)| (name, content));
        let inside = || {
            let times: Times = serde_json::from_str(content.as_ref()?.1.get()).ok()?;
            time::read(&times.received_at?)
        };
        let received_at = envelope.received_at.and_then(|Text(text)| time::read(&text)).or_else(inside);
        let mut ids = envelope.end_device_ids.unwrap_or_default();
        Ok(Self {
            application: ids.application(),
            device: ids.device(),
            dev_eui: ids.dev_eui(),
            received_at,
            content,
            cut_down: envelope.cut_down.and_then(|raw| serde_json::from_str(raw.get()).ok()),
            body,
        })
    }

    /// The name of the member that holds the event, such as `join_accept`. `None` if the webhook's field mask has
    /// removed it.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.content.as_ref().map(|(kind, _)| &**kind)
    }

    /// What became of the downlink of a command. `None` if the event says nothing final. After `downlink_nack` The Things Stack
    /// sends the downlink again by itself, until it gives up with `downlink_failed`.
    #[must_use]
    pub fn confirmed(&self) -> Option<Confirmed> {
        let (kind, content) = self.content.as_ref()?;
        let Content { f_port, downlink, error } = serde_json::from_str(content.get()).unwrap_or_default();
        let result = match &**kind {
            "downlink_ack" => Confirmation::Acknowledged,
            "downlink_failed" => Confirmation::Failed(error.text()),
            _ => return None,
        };
        let message_id = correlation::command_id(self.body, Some(content))?;
        Some(Confirmed { message_id, port: f_port.or(downlink.f_port).unwrap_or(0), result })
    }

    /// The application and the device.
    ///
    /// # Errors
    /// The id that is missing.
    pub fn ids(&self) -> Result<(Cow<'a, str>, Cow<'a, str>), Invalid> {
        const IDS: [&str; 2] = ["end_device_ids.application_ids.application_id", "end_device_ids.device_id"];
        Invalid::ids(self.application.clone(), self.device.clone(), IDS)
    }

    /// A webhook that is sent again has the same id. One without a time has nothing that tells it from another of its
    /// kind but `queued_at`, the time at which it was put into the queue.
    #[must_use]
    pub fn message_id(&self, queued_at: Option<DateTime<Utc>>) -> String {
        let mut hash = Sha256::new_with_prefix(self.body);
        if let Some(time) = queued_at.filter(|_| self.received_at.is_none()) {
            hash = hash.chain_update([0]).chain_update(time.to_rfc3339_opts(SecondsFormat::Nanos, true));
        }
        hex(&hash.finalize()[..16])
    }

    /// The telemetry as JSON: the device, the event's kind and its whole content.
    #[must_use]
    pub fn telemetry(&self, received_at: DateTime<Utc>) -> Vec<u8> {
        let telemetry = Telemetry {
            kind: self.kind(),
            hardware_serial: self.dev_eui.as_deref(),
            device: self.device.as_deref(),
            application: self.application.as_deref(),
            received_at: clock::rfc3339(self.received_at.unwrap_or(received_at)),
            command: correlation::command_id(self.body, self.content.as_ref().map(|(_, content)| *content)),
            event: self.content.as_ref().map(|(_, content)| *content),
            receptions: self.cut_down.as_ref().map(|cut| cut.receptions),
        };
        serde_json::to_vec(&telemetry).expect("a Vec takes all, and what was JSON stays JSON")
    }
}

/// Whether the name can be that of an event.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// <https://www.thethingsindustries.com/docs/integrations/webhooks/>
fn is_known(name: &str) -> bool {
    name.starts_with("downlink_")
        || ["join_accept", "location_solved", "service_data", "uplink_normalized"].contains(&name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn events_are_known_by_their_member() {
        let body = r#"{"end_device_ids":{"device_id":"d","application_ids":{"application_id":"a"},"dev_eui":"00"},
            "correlation_ids":["x"],"received_at":"2020-02-12T15:15:46.0147Z","join_accept":{"session_key_id":"AX=="}}"#;
        let event = Event::parse(body).unwrap();
        assert_eq!(event.kind(), Some("join_accept"));
        assert_eq!(event.ids().unwrap(), ("a".into(), "d".into()));
        let telemetry: Value = serde_json::from_slice(&event.telemetry(Utc::now())).unwrap();
        let expected = json!({
            "Type": "join_accept", "HardwareSerial": "00", "DeviceID": "d", "ApplicationID": "a",
            "ReceivedAtUTC": "2020-02-12T15:15:46.014700Z", "Event": {"session_key_id": "AX=="}
        });
        assert_eq!(telemetry, expected);
        assert_eq!(event.message_id(None), Event::parse(body).unwrap().message_id(None));
    }

    #[test]
    fn kinds_of_tomorrow_are_events() {
        assert_eq!(Event::parse(r#"{"end_device_ids":{},"teleported":{}}"#).unwrap().kind(), Some("teleported"));
        assert_eq!(Event::parse(r#"{"received_at":"","teleported":7}"#).unwrap().kind(), Some("teleported"));
        assert_eq!(Event::parse(r#"{"end_device_ids":{},"a\nb":{}}"#).unwrap().kind(), None);
    }

    /// The content is passed on unchanged, even a number that no type can hold or nesting that no parser accepts.
    #[test]
    fn an_events_content_stays_the_text_that_it_was() {
        for content in [r#"{"a":1e999,"b":21.50}"#.to_owned(), format!("{}1{}", "[".repeat(200), "]".repeat(200))] {
            let body = format!(r#"{{"end_device_ids":{{}},"service_data":{content}}}"#);
            let text = String::from_utf8(Event::parse(&body).unwrap().telemetry(Utc::now())).unwrap();
            assert!(text.ends_with(&format!("\"Event\":{content}}}")), "{text}");
        }
    }

    /// The Things Stack sends the part of an event that the field mask leaves. This must not be a failure.
    #[test]
    fn events_that_the_field_mask_hides_are_events() {
        let masked = Event::parse(r#"{"downlink_queue_invalidated":{}}"#).unwrap();
        assert!(masked.ids().unwrap_err().to_string().contains("end_device_ids.device_id"));
        for body in
            [r#"{"end_device_ids":{}}"#, r#"{"received_at":"2020-02-12T15:15:46Z"}"#, r#"{"correlation_ids":[]}"#]
        {
            assert_eq!(Event::parse(body).unwrap().kind(), None, "{body}");
        }
        for other in [r#"{"some":{}}"#, "{}"] {
            assert_eq!(Event::parse(other).unwrap_err(), Invalid::Unknown, "{other}");
        }
    }
}
