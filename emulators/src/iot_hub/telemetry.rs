//! Reads the topic that a device sends its telemetry to. The topic holds the message's properties: `devices/{device
//! id}/messages/events/{key}={value}&{key}={value}…`.
//!
//! Source: <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#sending-device-to-cloud-messages>.

use std::collections::BTreeMap;

/// Largest message that IoT Hub accepts, in bytes as counted by [`size`].
pub const MAX_MESSAGE: usize = 256 * 1024;

/// System properties that only services may set.
const RESERVED: [&str; 2] = ["$.cdid", "$.cmid"];

/// The decoded property bag of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    pub application: BTreeMap<String, String>,
    /// Keys begin with `$.`, for example `$.mid`.
    pub system: BTreeMap<String, String>,
}

/// Reads the properties from a topic that a device published to.
///
/// # Errors
/// Why the hub would cut the connection.
pub fn parse_topic(topic: &str, device_id: &str) -> Result<Properties, String> {
    let bag = topic
        .strip_prefix("devices/")
        .and_then(|rest| rest.strip_prefix(device_id))
        .and_then(|rest| rest.strip_prefix("/messages/events/"))
        .ok_or_else(|| format!("the topic is not `devices/{device_id}/messages/events/…`"))?;
    parse_bag(bag)
}

fn parse_bag(bag: &str) -> Result<Properties, String> {
    let mut properties = Properties::default();
    if bag.is_empty() {
        return Ok(properties);
    }
    if bag.starts_with('?') {
        return Err("the property bag begins with `?`".into());
    }
    for pair in bag.split('&') {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("the property {pair:?} has no `=`"))?;
        let (key, value) = (decode(key)?, decode(value)?);
        if key.is_empty() {
            return Err(format!("the property {pair:?} has no name"));
        }
        if RESERVED.contains(&key.as_str()) {
            return Err(format!("a device must not set {key}"));
        }
        let kind = if key.starts_with("$.") { &mut properties.system } else { &mut properties.application };
        if let Some(before) = kind.insert(key, value) {
            return Err(format!("a property comes twice, first with the value {before:?}"));
        }
    }
    Ok(properties)
}

/// Percent-decoding that refuses malformed text; the usual decoders leave it unchanged. `+` is a plus.
fn decode(text: &str) -> Result<String, String> {
    let malformed = || format!("{text:?} is not percent-encoded UTF-8");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(malformed)?, digit().ok_or_else(malformed)?);
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| malformed())
}

/// A message's size as the hub counts it: body, system property values, application property names and values.
pub fn size(body: &[u8], properties: &Properties) -> usize {
    let system: usize = properties.system.values().map(String::len).sum();
    let application: usize = properties.application.iter().map(|(name, value)| name.len() + value.len()).sum();
    body.len() + system + application
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_bag_microsofts_sdks_send_is_decoded() {
        let topic =
            "devices/d/messages/events/%24.mid=a%20b%2F1&%24.ct=application%2Fjson&%24.ce=utf-8&z=%C3%A9%2B%20%26";
        let properties = parse_topic(topic, "d").unwrap();
        assert_eq!(properties.system, map(&[("$.mid", "a b/1"), ("$.ct", "application/json"), ("$.ce", "utf-8")]));
        assert_eq!(properties.application, map(&[("z", "é+ &")]));
        assert_eq!(size(b"12", &properties), 2 + 5 + 16 + 5 + 1 + 5);
    }

    #[test]
    fn literal_signs_and_empty_values_are_kept() {
        let properties = parse_topic("devices/a%20/messages/events/$.mid=1&a=&b=x+y=z/1", "a%20").unwrap();
        assert_eq!(properties.system, map(&[("$.mid", "1")]));
        assert_eq!(properties.application, map(&[("a", ""), ("b", "x+y=z/1")]));
        assert_eq!(parse_topic("devices/d/messages/events/", "d").unwrap(), Properties::default());
    }

    #[test]
    fn other_topics_are_refused() {
        for topic in [
            "devices/other/messages/events/",
            "devices/d/messages/events",
            "devices/dd/messages/events/",
            "devices/D/messages/events/",
            "/devices/d/messages/events/",
            "devices/d/messages/devicebound/",
            "",
        ] {
            assert!(parse_topic(topic, "d").unwrap_err().contains("topic"), "{topic}");
        }
    }

    #[test]
    fn a_malformed_bag_is_refused() {
        for bag in [
            "a",
            "=b",
            "a=b&",
            "&a=b",
            "a=%",
            "a=%4",
            "a=%zz",
            "a=%FF",
            "%C3=x",
            "?a=b",
            "a=1&a=2",
            "a=1&%61=2",
            "$.mid=1&%24.mid=2",
            "$.cdid=d",
            "%24.cmid=m",
        ] {
            assert!(parse_bag(bag).is_err(), "{bag}");
        }
    }
}
