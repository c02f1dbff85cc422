//! An uplink, independent of its webhook format: makes its telemetry and its message id.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, Utc};
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::{
    extras::{Extras, Of},
    members::Members,
    position,
    reception::{Radio, Reception},
};
use crate::{host::input::Text, support::clock};

#[derive(Debug)]
pub struct Uplink<'a> {
    pub application: Cow<'a, str>,
    pub device: Cow<'a, str>,
    /// DevEUI (`hardware_serial` in V2), 16 hexadecimal digits.
    pub dev_eui: Option<Cow<'a, str>>,
    /// fPort; 0 if there is none.
    pub port: u8,
    /// fCnt. The Things Stack omits 0.
    pub counter: Option<u32>,
    /// V2 only: the device repeats an uplink.
    pub is_retry: bool,
    /// `FRMPayload` in Base64, perhaps empty.
    pub payload: Cow<'a, str>,
    /// The payload formatter's output: any JSON.
    pub decoded: Option<&'a RawValue>,
    /// When the network received it.
    pub received_at: Option<DateTime<Utc>>,
    /// When the application server of The Things Stack passed it on.
    pub published_at: Option<DateTime<Utc>>,
    /// Id of the session. It changes with each join.
    pub session: Option<Cow<'a, str>>,
    pub(super) reception: Reception<'a>,
    pub(super) extras: Extras<'a>,
    /// The whole webhook as the queue holds it.
    pub(super) body: &'a str,
}

/// The telemetry of an uplink, and its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    pub json: Vec<u8>,
    /// The numbers among the decoded fields, in their order, then the booleans as 0 or 1, then the numbers of the reception.
    pub numbers: Vec<(String, f64)>,
}

/// The telemetry's own members. Decoded fields are added next to them.
pub const MEMBERS: [&str; 13] = [
    "HardwareSerial",
    "Retry",
    "Counter",
    "DeviceID",
    "ApplicationID",
    "Port",
    "PayloadRaw",
    "ReceivedAtUTC",
    "Rssi",
    "Snr",
    "Gateway",
    "DataRate",
    "Frequency",
];
/// Holds decoded fields that have the name of one of these members (or this name), or a decoded payload that is no
/// object.
const PAYLOAD_FIELDS: &str = "PayloadFields";

fn is_own(name: &str) -> bool {
    name == PAYLOAD_FIELDS || MEMBERS.contains(&name)
}

impl Uplink<'_> {
    /// Whether the payload is still encrypted, because The Things Stack was told to leave it so.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        let has_key = self.extras.app_s_key.is_some_and(|key| key.get() != "{}");
        has_key && !self.payload.is_empty()
    }

    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.extras.simulated
    }

    /// The telemetry as JSON: the members of the C# sample with their names, reception data, and the decoded fields
    /// next to them. `members` are added. `received_at` is used if the network did not say when it received the uplink.
    #[must_use]
    pub fn telemetry(&self, received_at: DateTime<Utc>, members: &Members) -> Telemetry {
        let mut telemetry = Telemetry { json: Vec::with_capacity(512), numbers: Vec::new() };
        self.write(received_at, members, &mut telemetry).expect("a Vec takes all, and every key is a string");
        telemetry
    }

    fn write(&self, received_at: DateTime<Utc>, members: &Members, out: &mut Telemetry) -> serde_json::Result<()> {
        let Telemetry { json, numbers } = out;
        let mut serializer = serde_json::Serializer::new(json);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("HardwareSerial", &self.dev_eui)?;
        map.serialize_entry("Retry", &self.is_retry)?;
        map.serialize_entry("Counter", &self.counter.unwrap_or_default())?;
        map.serialize_entry("DeviceID", &self.device)?;
        map.serialize_entry("ApplicationID", &self.application)?;
        map.serialize_entry("Port", &self.port)?;
        map.serialize_entry("PayloadRaw", &self.payload)?;
        map.serialize_entry("ReceivedAtUTC", &clock::rfc3339(self.received_at.unwrap_or(received_at)))?;
        let radio = self.reception.radio();
        let Radio { gateway, rssi, snr, data_rate, frequency, .. } = &radio;
        for (name, number) in [("Rssi", rssi), ("Snr", snr)] {
            if let Some(number) = number {
                map.serialize_entry(name, number)?;
            }
        }
        for (name, text) in [("Gateway", gateway.as_deref()), ("DataRate", data_rate.as_deref())] {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        if let Some(frequency) = frequency {
            map.serialize_entry("Frequency", frequency)?;
        }
        let is_encrypted = self.is_encrypted();
        self.extras.write(&Of { members, is_encrypted, session: self.session.as_deref(), radio: &radio }, &mut map)?;
        if let Some(decoded) = self.decoded {
            let is_own = |name: &str| is_own(name) || self.extras.claims(name, members, is_encrypted);
            match serde_json::from_str::<BTreeMap<Text<'_>, &RawValue>>(decoded.get()) {
                Ok(fields) => write_fields(fields, is_own, &mut map, numbers)?,
                Err(_) => map.serialize_entry(PAYLOAD_FIELDS, decoded)?,
            }
        }
        for (name, number) in [("Rssi", rssi), ("Snr", snr)] {
            let number = number.as_ref().and_then(serde_json::Number::as_f64);
            numbers.extend(number.map(|number| (name.to_owned(), number)));
        }
        map.end()
    }
}

/// Values keep the payload formatter's text.
fn write_fields<M: SerializeMap<Error = serde_json::Error>>(
    fields: BTreeMap<Text<'_>, &RawValue>,
    is_own: impl Fn(&str) -> bool,
    map: &mut M,
    numbers: &mut Vec<(String, f64)>,
) -> serde_json::Result<()> {
    let (apart, fields): (BTreeMap<_, _>, BTreeMap<_, _>) =
        fields.into_iter().partition(|(Text(name), _)| is_own(name));
    // A device's newest value is its first number, rather than one of these.
    let mut switches = Vec::new();
    for (Text(name), raw) in fields {
        match position::repeated(&name, raw) {
            Some(repeated) => map.serialize_entry(&name, &repeated)?,
            None => map.serialize_entry(&name, raw)?,
        }
        match raw.get() {
            "true" => switches.push((name.into_owned(), 1.0)),
            "false" => switches.push((name.into_owned(), 0.0)),
            other => numbers.extend(serde_json::from_str(other).ok().map(|number| (name.into_owned(), number))),
        }
    }
    numbers.append(&mut switches);
    if apart.is_empty() { Ok(()) } else { map.serialize_entry(PAYLOAD_FIELDS, &apart) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::things_network::webhook::Webhook;

    fn uplink(body: &str) -> Box<Uplink<'_>> {
        match Webhook::parse(body).unwrap() {
            Webhook::Uplink(uplink) => uplink,
            Webhook::Event(event) => panic!("{event:?}"),
        }
    }

    fn v3(message: &Value) -> String {
        let ids = json!({"device_id": "d", "application_ids": {"application_id": "a"}});
        json!({"end_device_ids": ids, "uplink_message": message}).to_string()
    }

    fn telemetry(message: &Value) -> Value {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        serde_json::from_slice(&uplink(&v3(message)).telemetry(now, &Members::default()).json).unwrap()
    }

    #[test]
    fn an_uplink_without_anything_is_telemetry_too() {
        let expected = json!({
            "HardwareSerial": null, "Retry": false, "Counter": 0, "DeviceID": "d", "ApplicationID": "a", "Port": 0,
            "PayloadRaw": "", "ReceivedAtUTC": "2026-01-31T12:00:00Z"
        });
        assert_eq!(telemetry(&json!({})), expected);
        assert_eq!(telemetry(&json!({"decoded_payload": null})), expected);
    }

    #[test]
    fn decoded_fields_never_replace_our_own_and_none_is_lost() {
        let clash = telemetry(&json!({"f_port": 7, "decoded_payload": {"Port": "COM1", "DeviceID": 5, "level": 1.5}}));
        assert_eq!((&clash["Port"], &clash["DeviceID"], &clash["level"]), (&json!(7), &json!("d"), &json!(1.5)));
        assert_eq!(clash["PayloadFields"], json!({"Port": "COM1", "DeviceID": 5}));
        let nested = telemetry(&json!({"decoded_payload": {"PayloadFields": 1}}));
        assert_eq!(nested["PayloadFields"], json!({"PayloadFields": 1}));
        for odd in [json!([1, {"a": 2}]), json!("text"), json!(4.5), json!(false)] {
            assert_eq!(telemetry(&json!({"decoded_payload": odd}))["PayloadFields"], odd);
        }
    }

    #[test]
    fn values_stay_the_text_that_was_decoded() {
        let ids = r#""end_device_ids":{"device_id":"d","application_ids":{"application_id":"a"}}"#;
        let decoded = r#"{"level":21.50,"big":123456789012345678901234567890,"list":[1.0,{"x":2.10}]}"#;
        let body = format!(r#"{{{ids},"uplink_message":{{"decoded_payload":{decoded}}}}}"#);
        let text = String::from_utf8(uplink(&body).telemetry(Utc::now(), &Members::default()).json).unwrap();
        for part in ["\"level\":21.50", "\"big\":123456789012345678901234567890", "[1.0,{\"x\":2.10}]"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn decoded_numbers_are_numbers_and_so_is_the_reception() {
        let message = json!({
            "decoded_payload": {"alarm": true, "temperature": -1.5, "leak": false, "state": "on", "luminosity": 64, "Port": 7, "text": "5", "list": [1]},
            "rx_metadata": [{"rssi": -35, "snr": 5.2}]
        });
        let body = v3(&message);
        let switches = [("alarm", 1.0), ("leak", 0.0)];
        let expected =
            [("luminosity", 64.0), ("temperature", -1.5), switches[0], switches[1], ("Rssi", -35.0), ("Snr", 5.2)];
        let numbers = uplink(&body).telemetry(Utc::now(), &Members::default()).numbers;
        assert_eq!(numbers, expected.map(|(name, value)| (name.to_owned(), value)));
        for none in [json!(null), json!([1]), json!(4.5)] {
            assert_eq!(
                uplink(&v3(&json!({"decoded_payload": none}))).telemetry(Utc::now(), &Members::default()).numbers,
                [],
                "{none}"
            );
        }
    }

    #[test]
    fn positions_are_repeated_for_iot_central() {
        let decoded = json!({
            "gps_1": {"latitude": -43.5, "Longitude": 172.6, "altitude": 6.19, "fix": {"ALTITUDE": 7}},
            "GPSTrack": [{"latitude": 1, "lat": "kept"}],
            "place": {"latitude": 2}, "latitude": 3, "gps": 4, "gp": {"latitude": 5}, "gps_2": {"latitude": [1]}
        });
        let telemetry = telemetry(&json!({"decoded_payload": decoded}));
        let gps = json!({"latitude": -43.5, "Longitude": 172.6, "altitude": 6.19, "lat": -43.5, "lon": 172.6, "alt": 6.19,
                         "fix": {"ALTITUDE": 7, "alt": 7}});
        assert_eq!(telemetry["gps_1"], gps);
        assert_eq!(telemetry["GPSTrack"], json!([{"latitude": 1, "lat": "kept"}]));
        assert_eq!((&telemetry["place"], &telemetry["latitude"]), (&json!({"latitude": 2}), &json!(3)));
        assert_eq!((&telemetry["gp"], &telemetry["gps_2"]), (&json!({"latitude": 5}), &json!({"latitude": [1]})));
    }

    proptest! {
        #[test]
        fn decoded_fields_arrive_as_they_are(name in "[a-zA-Z_0-9 äé\"\\\\]{0,12}", number in any::<i64>(), text in any::<String>()) {
            prop_assume!(!is_own(&name));
            let value = json!({"n": number, "t": text, "l": [number, null, true]});
            let telemetry = telemetry(&json!({"decoded_payload": {name.clone(): value}}));
            prop_assert_eq!(&telemetry[&name], &value);
        }
    }
}
