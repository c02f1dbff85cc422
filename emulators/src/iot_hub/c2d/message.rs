//! A message to a device, and how it travels in an MQTT topic.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::iot_hub::telemetry::{self, Properties};

/// Largest message to a device, in bytes: body and properties.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What is percent-encoded in a property bag: everything but `A-Za-z0-9-_.~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[derive(Clone, Debug, Default)]
pub struct Message {
    pub properties: Properties,
    pub body: Bytes,
    /// How long it may wait for its device; absent: the hub's default.
    pub ttl: Option<Duration>,
}

impl Message {
    /// The message id, system property `$.mid`.
    pub fn id(&self) -> &str {
        self.properties.system.get("$.mid").map_or("", String::as_str)
    }

    /// Size in bytes, as the hub counts it.
    pub fn size(&self) -> usize {
        telemetry::size(&self.body, &self.properties)
    }

    /// The properties as they stand in the topic, system properties first.
    pub fn bag(&self, device_id: &str) -> String {
        let to = BTreeMap::from([("$.to".to_owned(), to(device_id))]);
        let pairs = to.iter().chain(&self.properties.system).chain(&self.properties.application);
        let encode = |text| utf8_percent_encode(text, ENCODED).to_string();
        let pairs: Vec<_> = pairs.map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        pairs.join("&")
    }
}

/// The address that messages to a device carry.
pub fn to(device_id: &str) -> String {
    format!("/devices/{device_id}/messages/devicebound")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bag_is_written_as_the_hub_writes_it() {
        let system = [("$.mid".to_owned(), "a b/1".to_owned())].into();
        let application = [("k".to_owned(), "é+ &~".to_owned())].into();
        let message = Message { properties: Properties { application, system }, ..Message::default() };
        let bag = message.bag("d");
        let expected = "%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&%24.mid=a%20b%2F1&k=%C3%A9%2B%20%26~";
        assert_eq!((bag.as_str(), message.size()), (expected, 5 + 1 + 6));
    }
}
