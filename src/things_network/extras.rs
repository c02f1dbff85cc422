//! What an uplink of The Things Stack brings beside the members of the C# sample. Values keep the text in which they came.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    members::{Group, Members},
    reception::{Radio, Raw},
    time,
};
use crate::{host::input::Text, support::clock};

/// How many gateways received the uplink.
pub const RECEPTIONS: &str = "Receptions";
/// What was left out of a webhook that did not fit the queue.
const LEFT_OUT: &str = "LeftOut";
/// What it takes to decrypt a payload, with the payload, its port and its counter.
const KEYS: [&str; 5] = ["Encrypted", "AppSKey", "LastAFCntDown", "DevAddr", "SessionKeyID"];

#[derive(Debug, Default)]
pub struct Extras<'a> {
    pub simulated: bool,
    pub join_eui: Option<&'a RawValue>,
    pub dev_addr: Option<&'a RawValue>,
    pub confirmed: Option<&'a RawValue>,
    /// Such as `"0.056576s"`.
    pub consumed_airtime: Option<&'a RawValue>,
    pub packet_error_rate: Option<&'a RawValue>,
    pub last_battery_percentage: Option<&'a RawValue>,
    pub attributes: Option<&'a RawValue>,
    pub locations: Option<&'a RawValue>,
    pub normalized_payload: Option<&'a RawValue>,
    pub normalized_payload_warnings: Option<&'a RawValue>,
    pub decoded_payload_warnings: Option<&'a RawValue>,
    pub version_ids: Option<&'a RawValue>,
    pub network_ids: Option<&'a RawValue>,
    /// Only The Things Stack that leaves payloads encrypted sends it.
    pub app_s_key: Option<&'a RawValue>,
    pub last_a_f_cnt_down: Option<&'a RawValue>,
    pub cut_down: Option<CutDown<'a>>,
}

/// What the connector wrote into a webhook that did not fit the queue.
#[derive(Debug, Deserialize, Serialize)]
pub struct CutDown<'a> {
    /// How many gateways received the uplink.
    pub receptions: usize,
    /// The members that were left out because the rest did not fit either.
    #[serde(borrow, default)]
    pub left_out: Vec<Text<'a>>,
}

#[derive(Deserialize)]
struct Battery<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    received_at: Option<String>,
}

/// An uplink as far as its extras need it.
pub struct Of<'a> {
    pub members: &'a Members,
    pub is_encrypted: bool,
    pub session: Option<&'a str>,
    pub radio: &'a Radio<'a>,
}

impl Extras<'_> {
    /// Whether a member of this name is the connector's own.
    pub fn claims(&self, name: &str, members: &Members, is_encrypted: bool) -> bool {
        members.claims(name)
            || is_encrypted && KEYS.contains(&name)
            || self.cut_down.is_some() && [RECEPTIONS, LEFT_OUT].contains(&name)
    }

    pub fn write<M: SerializeMap>(&self, of: &Of<'_>, map: &mut M) -> Result<(), M::Error> {
        let Of { members, is_encrypted, session, radio } = of;
        if members.has(Group::Simulated) {
            map.serialize_entry("Simulated", &self.simulated)?;
        }
        if members.has(Group::Session) {
            entry(map, "JoinEUI", self.join_eui)?;
        }
        if members.has(Group::Session) || *is_encrypted {
            entry(map, "DevAddr", self.dev_addr)?;
            entry(map, "SessionKeyID", *session)?;
        }
        if *is_encrypted {
            map.serialize_entry("Encrypted", &true)?;
            entry(map, "AppSKey", self.app_s_key)?;
            entry(map, "LastAFCntDown", self.last_a_f_cnt_down)?;
        }
        if members.has(Group::Network) {
            entry(map, "NetworkIDs", self.network_ids)?;
        }
        if members.has(Group::Radio) {
            map.serialize_entry("Confirmed", &is_true(self.confirmed))?;
            entry(map, "ConsumedAirtime", self.consumed_airtime.and_then(seconds).as_deref())?;
            entry(map, "PacketErrorRate", self.packet_error_rate)?;
            entry(map, "PacketBroker", radio.packet_broker.map(|Raw(broker)| broker))?;
        }
        if members.has(Group::Radio) || self.cut_down.is_some() {
            let receptions = self.cut_down.as_ref().map_or(radio.receptions, |cut| cut.receptions);
            map.serialize_entry(RECEPTIONS, &receptions)?;
        }
        if let Some(cut) = self.cut_down.as_ref().filter(|cut| !cut.left_out.is_empty()) {
            map.serialize_entry(LEFT_OUT, &cut.left_out)?;
        }
        if members.has(Group::Battery)
            && let Some(battery) = self.last_battery_percentage
            && let Ok(Battery { value: Some(value), received_at }) = serde_json::from_str(battery.get())
        {
            map.serialize_entry("LastBatteryPercentage", value)?;
            let received_at: Option<DateTime<Utc>> = received_at.as_deref().and_then(time::read);
            entry(map, "LastBatteryPercentageAtUTC", received_at.map(clock::rfc3339))?;
        }
        for (group, name, value) in [
            (Group::Attributes, "Attributes", self.attributes),
            (Group::Locations, "Locations", self.locations),
            (Group::Normalized, "NormalizedPayload", self.normalized_payload),
            (Group::Normalized, "NormalizedPayloadWarnings", self.normalized_payload_warnings),
            (Group::Warnings, "DecodedPayloadWarnings", self.decoded_payload_warnings),
            (Group::Version, "VersionIDs", self.version_ids),
        ] {
            if members.has(group) {
                entry(map, name, value)?;
            }
        }
        Ok(())
    }
}

pub fn is_true(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get() == "true")
}

fn entry<M: SerializeMap>(map: &mut M, name: &str, value: Option<impl Serialize>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

/// The number in a duration such as `"0.056576s"`, with its digits.
fn seconds(duration: &RawValue) -> Option<Box<RawValue>> {
    let number = duration.get().strip_prefix('"')?.strip_suffix("s\"")?;
    let number = RawValue::from_string(number.to_owned()).ok()?;
    number.get().bytes().all(|letter| letter.is_ascii_digit() || b".-".contains(&letter)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_airtime_is_a_number_of_seconds() {
        let of = |text: &str| {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            seconds(&raw).map(|number| number.get().to_owned())
        };
        assert_eq!(of(r#""0.056576s""#).as_deref(), Some("0.056576"));
        assert_eq!(of(r#""3s""#).as_deref(), Some("3"));
        for other in [r#""s""#, r#""true s""#, r#""[1]s""#, "0.5", r#""1m""#, r#""""#, "null"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
