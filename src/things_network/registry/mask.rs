//! What a webhook's field mask must let through. Without a mask, all comes. Pure.
//!
//! `things-stack setup` makes no mask: one that names a member which The Things Stack does not know yet would lose every
//! webhook, and what does not fit the queue is cut down anyway. It only widens one that is there.

use crate::things_network::members::{Group, Members};

use super::document::{MESSAGES, UPLINK};

/// A webhook with a downlink API key names both in its headers.
const IDS: [&str; 2] = ["end_device_ids.application_ids.application_id", "end_device_ids.device_id"];
const ENVELOPE: [&str; 3] = ["end_device_ids.dev_eui", "received_at", "simulated"];
/// Of an uplink, whatever `ThingsNetworkMembers` says. `network_ids` names the tenant; an encrypted payload comes with what
/// it takes to decrypt it.
const ALWAYS: [&str; 11] = [
    "session_key_id",
    "f_port",
    "f_cnt",
    "frm_payload",
    "received_at",
    "decoded_payload",
    "rx_metadata",
    "settings",
    "network_ids",
    "app_s_key",
    "last_a_f_cnt_down",
];
/// Of an uplink, for a group of `ThingsNetworkMembers`.
const OF_GROUPS: [(Group, &[&str]); 7] = [
    (Group::Radio, &["confirmed", "consumed_airtime", "packet_error_rate"]),
    (Group::Battery, &["last_battery_percentage"]),
    (Group::Attributes, &["attributes"]),
    (Group::Locations, &["locations"]),
    (Group::Normalized, &["normalized_payload", "normalized_payload_warnings"]),
    (Group::Warnings, &["decoded_payload_warnings"]),
    (Group::Version, &["version_ids"]),
];

/// What the connector would use, and the mask leaves out.
pub fn left_out(mask: &[String], members: &Members, has_events: bool, has_downlink_key: bool) -> Vec<String> {
    if mask.is_empty() {
        return Vec::new();
    }
    let passes = |needed: &String| {
        let is_whole = |path: &String| {
            needed.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        mask.iter().any(is_whole)
    };
    needed(members, has_events, has_downlink_key).into_iter().filter(|needed| !passes(needed)).collect()
}

fn needed(members: &Members, has_events: bool, has_downlink_key: bool) -> Vec<String> {
    let ids = IDS.iter().filter(|_| !has_downlink_key);
    let session: &[&str] =
        if members.has(Group::Session) { &["end_device_ids.join_eui", "end_device_ids.dev_addr"] } else { &[] };
    let of_groups = OF_GROUPS.iter().filter(|(group, _)| members.has(*group)).flat_map(|(_, names)| *names);
    let of_uplink = ALWAYS.iter().chain(of_groups).map(|name| format!("up.{UPLINK}.{name}"));
    // An event is about the command whose id is among its correlation ids.
    let events = MESSAGES.iter().filter(|message| has_events && **message != UPLINK);
    let of_events =
        events.map(|message| format!("up.{message}")).chain(has_events.then(|| "correlation_ids".to_owned()));
    let envelope = ids.chain(&ENVELOPE).chain(session).map(|name| (*name).to_owned());
    envelope.chain(of_uplink).chain(of_events).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::things_network::v3;

    fn mask(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn all_that_a_message_can_have_is_asked_for() {
        let prefix = format!("up.{UPLINK}.");
        let needed = needed(&Members::all(), false, false);
        let needed: BTreeSet<_> = needed.iter().filter_map(|path| path.strip_prefix(&prefix)).collect();
        assert_eq!(needed, BTreeSet::from(v3::USED));
    }

    #[test]
    fn a_mask_lets_through_what_is_below_its_paths() {
        let none = Members::default();
        assert_eq!(left_out(&[], &Members::all(), true, false), [""; 0]);
        let whole = mask(&["end_device_ids", "received_at", "simulated", "up.uplink_message"]);
        assert_eq!(left_out(&whole, &Members::all(), false, false), [""; 0]);
        let events = left_out(&whole, &none, true, false);
        assert!(events.contains(&"up.join_accept".into()) && events.contains(&"correlation_ids".into()), "{events:?}");
        let part = mask(&["end_device_ids.device", "received_at", "simulated", "up"]);
        assert_eq!(
            left_out(&part, &none, true, false),
            [IDS[0], IDS[1], "end_device_ids.dev_eui", "correlation_ids"],
            "the begin of a name is another name"
        );
        let of_reception = mask(&["up.uplink_message.rx_metadata.rssi"]);
        assert!(left_out(&of_reception, &none, false, false).contains(&"up.uplink_message.rx_metadata".into()));
    }

    #[test]
    fn what_nobody_asked_for_may_stay_out() {
        let short = mask(&["end_device_ids.dev_eui", "received_at", "simulated"]);
        let all: Vec<_> = short.into_iter().chain(ALWAYS.map(|name| format!("up.{UPLINK}.{name}"))).collect();
        assert_eq!(left_out(&all, &Members::default(), false, true), [""; 0], "the headers have the ids");
        assert_eq!(left_out(&all, &Members::default(), false, false), IDS);
        let battery = Members::parse("battery,session").unwrap();
        let expected =
            ["end_device_ids.join_eui", "end_device_ids.dev_addr", "up.uplink_message.last_battery_percentage"];
        assert_eq!(left_out(&all, &battery, false, true), expected);
    }
}
