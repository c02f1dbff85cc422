//! A telemetry message, and its form on the MQTT topic.
//! <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>

use std::fmt::Write as _;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::utf8_percent_encode;

use super::sas::RESERVED;

/// The largest sum of body, system property values and application properties, in bytes.
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling>
pub const MAX_SIZE: usize = 256 * 1024;
/// The largest body of an HTTPS request with a batch of messages, each in Base64: one byte less than 255 KiB, as in
/// Microsoft's SDKs.
pub const MAX_BATCH_SIZE: usize = 255 * 1024 - 1;
/// A message of at most this size fits every transport, whichever one it was recorded for: in Base64, with the JSON
/// around it, it fits into one batch.
pub const MAX_PORTABLE_SIZE: usize = 186 * 1024;

pub(super) const CONTENT_TYPE: &str = "application/json";
pub(super) const CONTENT_ENCODING: &str = "utf-8";

/// A JSON message from a device. A repeated message has the same bytes, so that a consumer can drop it by its id.
#[derive(Clone, Debug)]
pub struct Message {
    /// Message id (`$.mid`).
    pub id: String,
    /// Creation time (`$.ctime`), sent with milliseconds.
    pub created: DateTime<Utc>,
    /// Application properties: name and value.
    pub properties: Vec<(&'static str, String)>,
    /// JSON text in UTF-8.
    pub body: Bytes,
}

impl Message {
    /// The size that counts towards [`MAX_SIZE`], in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + envelope_size(&self.id, &self.properties)
    }

    pub(super) fn created_text(&self) -> String {
        self.created.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// The telemetry topic with its property bag. The hub needs content type and encoding to route on the body.
    #[must_use]
    pub fn topic(&self, device: &str) -> String {
        let created = self.created_text();
        let mut topic = format!("devices/{device}/messages/events/");
        let system =
            [("$.mid", self.id.as_str()), ("$.ctime", &created), ("$.ct", CONTENT_TYPE), ("$.ce", CONTENT_ENCODING)];
        let application = self.properties.iter().map(|(name, value)| (*name, value.as_str()));
        for (index, (name, value)) in system.into_iter().chain(application).enumerate() {
            let separator = if index == 0 { "" } else { "&" };
            let (name, value) = (utf8_percent_encode(name, RESERVED), utf8_percent_encode(value, RESERVED));
            write!(topic, "{separator}{name}={value}").expect("a String takes all");
        }
        topic
    }
}

/// The bytes that all parts except the body add to a message's size.
#[must_use]
pub fn envelope_size(id: &str, properties: &[(&'static str, String)]) -> usize {
    const CREATED: usize = "2026-01-31T00:00:00.000Z".len();
    let application: usize = properties.iter().map(|(name, value)| name.len() + value.len()).sum();
    id.len() + CREATED + CONTENT_TYPE.len() + CONTENT_ENCODING.len() + application
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bag_is_percent_encoded_as_microsofts_sdks_do() {
        let message = Message {
            id: "a b/1".into(),
            created: DateTime::from_timestamp_millis(1_700_000_000_120).unwrap(),
            properties: vec![("Site_Id", "é+ &".into())],
            body: Bytes::from_static(b"{}"),
        };
        assert_eq!(
            message.topic("dev(1)"),
            "devices/dev(1)/messages/events/%24.mid=a%20b%2F1&%24.ctime=2023-11-14T22%3A13%3A20.120Z\
             &%24.ct=application%2Fjson&%24.ce=utf-8&Site_Id=%C3%A9%2B%20%26"
        );
        assert_eq!(message.size(), 2 + 5 + 24 + 16 + 5 + 7 + 5);
    }

    proptest! {
        #[test]
        fn the_bag_holds_what_was_put_in(id: String, site: String, millis in 0_i64..253_402_300_800_000) {
            let created = DateTime::from_timestamp_millis(millis).unwrap();
            let message = Message { id, created, properties: vec![("Site_Id", site)], body: Bytes::new() };
            let topic = message.topic("d");
            let bag = topic.strip_prefix("devices/d/messages/events/").unwrap();
            prop_assert!(bag.bytes().all(|byte| byte.is_ascii_graphic() && !b"/+#".contains(&byte)), "{}", bag);
            let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
            let read: Vec<_> =
                bag.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (decoded(name), decoded(value))).collect();
            let expected = [
                ("$.mid", message.id.clone()),
                ("$.ctime", message.created_text()),
                ("$.ct", CONTENT_TYPE.into()),
                ("$.ce", CONTENT_ENCODING.into()),
                ("Site_Id", message.properties[0].1.clone()),
            ];
            prop_assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value)));
        }
    }
}
