//! A webhook as The Things Stack's registry has it. Pure.
//! <https://www.thethingsindustries.com/docs/api/reference/grpc/application-server-web/>

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::health::Health;

/// The member, and message, of uplinks.
pub const UPLINK: &str = "uplink_message";

/// The messages that a webhook can be enabled for, by their members.
pub const MESSAGES: [&str; 11] = [
    UPLINK,
    "uplink_normalized",
    "join_accept",
    "downlink_ack",
    "downlink_nack",
    "downlink_sent",
    "downlink_failed",
    "downlink_queued",
    "downlink_queue_invalidated",
    "location_solved",
    "service_data",
];

/// The members beside the messages that are asked for.
const FIELDS: [&str; 7] =
    ["base_url", "format", "headers", "downlink_api_key", "field_mask", "paused", "health_status"];

/// The field mask of a request for webhooks.
#[must_use]
pub fn fields() -> String {
    FIELDS.into_iter().chain(MESSAGES).collect::<Vec<_>>().join(",")
}

/// Does not print: the URL and the headers may hold keys.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Webhook {
    ids: Ids,
    #[serde(deserialize_with = "or_default")]
    pub base_url: String,
    #[serde(deserialize_with = "or_default")]
    pub format: String,
    #[serde(deserialize_with = "hidden")]
    pub headers: BTreeMap<String, SecretString>,
    #[serde(deserialize_with = "or_default")]
    pub(super) downlink_api_key: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) field_mask: FieldMask,
    #[serde(deserialize_with = "or_default")]
    pub paused: bool,
    #[serde(deserialize_with = "or_default")]
    pub health_status: Health,
    /// The messages, and members that are not asked for.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ids {
    webhook_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FieldMask {
    pub paths: Vec<String>,
}

/// What is not set is absent or null.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn hidden<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, SecretString>, D::Error> {
    let headers: BTreeMap<String, String> = or_default(deserializer)?;
    Ok(headers.into_iter().map(|(name, value)| (name, value.into())).collect())
}

impl Webhook {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.ids.webhook_id
    }

    /// The messages that it is enabled for, each with its path behind the base URL.
    pub fn messages(&self) -> impl Iterator<Item = (&'static str, &str)> {
        MESSAGES.into_iter().filter_map(|message| Some((message, self.path(message)?)))
    }

    /// The path of a message. `None` if it is not enabled.
    #[must_use]
    pub fn path(&self, message: &str) -> Option<&str> {
        let settings = self.others.get(message)?.as_object()?;
        Some(settings.get("path").and_then(Value::as_str).unwrap_or_default())
    }

    /// The header with this name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<(&str, &SecretString)> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        Some((found.0, found.1))
    }

    /// The key that The Things Stack gives the app for downlinks.
    #[must_use]
    pub fn downlink_api_key(&self) -> Option<SecretString> {
        (!self.downlink_api_key.is_empty()).then(|| self.downlink_api_key.clone().into())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::json;

    use super::*;
    use crate::things_network::webhook;

    #[test]
    fn what_is_not_set_is_absent_or_null_or_empty() {
        let full = json!({
            "ids": {"application_ids": {"application_id": "pumps"}, "webhook_id": "iot-hub"},
            "created_at": "2026-03-02T10:15:30Z", "base_url": "https://a.example/api/uplink", "format": "json",
            "headers": {"X-Functions-Key": "k"}, "downlink_api_key": "NNSXS.A.B", "field_mask": {"paths": ["up"]},
            "uplink_message": {}, "join_accept": {"path": "/join"}, "service_data": null, "paused": true
        });
        let webhook: Webhook = serde_json::from_value(full).unwrap();
        assert_eq!(webhook.messages().collect::<Vec<_>>(), [("uplink_message", ""), ("join_accept", "/join")]);
        assert_eq!((webhook.id(), webhook.paused, webhook.field_mask.paths.len()), ("iot-hub", true, 1));
        let (name, value) = webhook.header("x-functions-key").unwrap();
        assert_eq!((name, value.expose_secret()), ("X-Functions-Key", "k"));
        assert!(webhook.downlink_api_key().is_some() && webhook.health_status == Health::default());
        let bare = json!({"ids": {"webhook_id": "w"}, "headers": null, "field_mask": null, "health_status": null});
        let bare: Webhook = serde_json::from_value(bare).unwrap();
        assert!(bare.messages().next().is_none() && bare.downlink_api_key().is_none() && !bare.paused);
    }

    #[test]
    fn each_message_is_one_that_the_connector_takes() {
        for message in MESSAGES {
            let body = json!({
                "end_device_ids": {"device_id": "d", "application_ids": {"application_id": "a"}},
                "received_at": "2026-03-02T10:15:30Z", message: {}
            });
            let body = body.to_string();
            let kind = match webhook::Webhook::parse(&body).unwrap() {
                webhook::Webhook::Uplink(_) => UPLINK.to_owned(),
                webhook::Webhook::Event(event) => event.kind().unwrap().to_owned(),
            };
            assert_eq!(kind, message);
            assert!(fields().split(',').any(|field| field == message));
        }
    }
}
