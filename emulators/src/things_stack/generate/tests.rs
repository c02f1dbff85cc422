use std::collections::{HashMap, HashSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::*;

const DOWNLINKS: &str = "http://127.0.0.1:1/";

fn generator(seed: u64) -> Generator {
    Generator::new(&Options { seed: Some(seed), devices: 50, ..Options::default() }, DOWNLINKS.to_owned())
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 123_456_789).unwrap()
}

fn mixed() -> Sending {
    Sending { v2_share: 0.3, event_share: 0.2, malformed_share: 0.1, repeat_share: 0.1, ..Sending::default() }
}

/// Uplinks only.
fn uplinks() -> Sending {
    Sending { event_share: 0.0, malformed_share: 0.0, repeat_share: 0.0, ..mixed() }
}

fn webhooks(seed: u64, sending: &Sending, count: usize) -> Vec<Webhook> {
    let mut generator = generator(seed);
    (0..count).map(|_| generator.next(sending, now())).collect()
}

fn json(webhook: &Webhook) -> Value {
    serde_json::from_slice(&webhook.body).unwrap()
}

#[test]
fn a_seed_gives_the_same_webhooks() {
    let bodies = |seed| webhooks(seed, &mixed(), 500).into_iter().map(|webhook| webhook.body).collect::<Vec<_>>();
    assert_eq!(bodies(7), bodies(7));
    assert_ne!(bodies(7), bodies(8));
}

/// Paths of members that protobuf's JSON would leave out. What users decode is theirs, zeros included.
fn omittable(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if matches!(name.as_str(), "decoded_payload" | "normalized_payload" | "data") {
                    continue;
                }
                let is_empty = match member {
                    Value::Null | Value::Bool(false) => true,
                    Value::Number(number) => number.as_f64() == Some(0.0),
                    Value::String(text) => text.is_empty(),
                    Value::Array(items) => items.is_empty(),
                    Value::Object(members) => members.is_empty(),
                    Value::Bool(true) => false,
                };
                if is_empty {
                    found.push(format!("{path}/{name}"));
                }
                omittable(&format!("{path}/{name}"), member, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| omittable(path, item, found)),
        _ => {}
    }
}

#[test]
fn v3_leaves_out_what_is_zero_or_empty() {
    for webhook in webhooks(1, &Sending { malformed_share: 0.0, ..mixed() }, 5000) {
        if webhook.version == 3 {
            let mut found = Vec::new();
            omittable("", &json(&webhook), &mut found);
            assert!(found.is_empty(), "{found:?} in {webhook:?}");
        }
    }
}

#[test]
fn every_uplink_has_its_marker_and_its_place_in_the_order_of_its_device() {
    let (mut markers, mut counters, mut keys) = (HashSet::new(), HashMap::new(), HashMap::new());
    for webhook in webhooks(2, &mixed(), 5000).iter().filter(|webhook| webhook.kind == Kind::Uplink) {
        let body = json(webhook);
        let uplink = if webhook.version == 2 { &body } else { &body["uplink_message"] };
        let (payload, decoded, counter) = match webhook.version {
            2 => ("payload_raw", "payload_fields", "counter"),
            _ => ("frm_payload", "decoded_payload", "f_cnt"),
        };
        let payload = BASE64_STANDARD.decode(uplink[payload].as_str().unwrap_or_default()).unwrap();
        let in_payload = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let in_decoded = uplink[decoded]["marker"].as_u64();
        let marker = in_decoded.or(in_payload).unwrap();
        assert!(in_payload.is_none_or(|in_payload| in_payload == marker), "{body}");
        assert_eq!(webhook.uplink.as_ref().unwrap().marker, marker);
        assert!(markers.insert(marker), "marker {marker} twice");

        let counter = uplink[counter].as_u64().unwrap_or(0);
        let before: Option<u64> = counters.insert(webhook.device.number, counter);
        assert_eq!(counter, before.map_or(0, |before| before + 1), "{body}");
        if webhook.version == 3 {
            let key = uplink["session_key_id"].as_str().unwrap().to_owned();
            assert_eq!(BASE64_STANDARD.decode(&key).unwrap().len(), 16);
            assert_eq!(*keys.entry(webhook.device.number).or_insert(key.clone()), key);
        }
    }
    assert_eq!(counters.len(), 50, "every device has its turn");
}

/// How many of the bodies have what is asked for.
fn having(bodies: &[Value], what: impl Fn(&Value) -> bool) -> usize {
    bodies.iter().filter(|body| what(body)).count()
}

fn bodies(version: u8, sending: &Sending) -> Vec<Value> {
    webhooks(3, sending, 5000).iter().filter(|webhook| webhook.version == version).map(json).collect()
}

#[test]
fn v3_shows_everything_that_webhooks_may_have() {
    let bodies = bodies(3, &uplinks());
    let has = |pointer: &'static str| having(&bodies, |body| body.pointer(pointer).is_some());
    for pointer in [
        "/simulated",
        "/end_device_ids/join_eui",
        "/delivery_hints",
        "/uplink_message/confirmed",
        "/uplink_message/decoded_payload/energy/import_kwh",
        "/uplink_message/decoded_payload/phases/2/voltage",
        "/uplink_message/decoded_payload/gps_1/latitude",
        "/uplink_message/decoded_payload_warnings/0",
        "/uplink_message/normalized_payload/0/air/temperature",
        "/uplink_message/packet_error_rate",
        "/uplink_message/last_a_f_cnt_down",
        "/uplink_message/last_battery_percentage/value",
        "/uplink_message/locations/user/source",
        "/uplink_message/version_ids/brand_id",
        "/uplink_message/attributes/building",
        "/uplink_message/signal_history/0",
        "/uplink_message/rx_metadata/3/gateway_ids/eui",
        "/uplink_message/rx_metadata/0/location/latitude",
        "/uplink_message/settings/coding_rate",
        "/uplink_message/settings/data_rate/lora/coding_rate",
        "/uplink_message/settings/data_rate/fsk/bit_rate",
        "/uplink_message/settings/data_rate/lrfhss/operating_channel_width",
    ] {
        assert!(has(pointer) > 0, "{pointer}");
        assert!(has(pointer) < bodies.len(), "{pointer} is optional");
    }
    for pointer in ["decoded_payload", "f_port", "frm_payload", "f_cnt"] {
        let lacking = having(&bodies, |body| body["uplink_message"].get(pointer).is_none());
        assert!(lacking > 0 && lacking < bodies.len() / 2, "{lacking} without {pointer}");
    }
    for body in &bodies {
        let uplink = &body["uplink_message"];
        assert!(uplink["settings"]["frequency"].as_str().unwrap().parse::<u32>().is_ok(), "a string of hertz: {body}");
        for stamp in [&body["received_at"], &uplink["received_at"], &uplink["rx_metadata"][0]["received_at"]] {
            let stamp = stamp.as_str().unwrap();
            assert_eq!(stamp.len(), "2020-02-12T15:15:46.014773143Z".len(), "nanoseconds: {stamp}");
            assert!(DateTime::parse_from_rfc3339(stamp).is_ok());
        }
    }
}

#[test]
fn v2_shows_everything_that_webhooks_had() {
    let bodies = bodies(2, &uplinks());
    assert_eq!(having(&bodies, |body| body["app_id"].is_string() && body["dev_id"].is_string()), bodies.len());
    for (what, count) in [
        ("port 0", having(&bodies, |body| body["port"] == 0)),
        ("a retry", having(&bodies, |body| body["is_retry"] == true)),
        ("no is_retry", having(&bodies, |body| body.get("is_retry").is_none())),
        ("an array", having(&bodies, |body| body["payload_fields"].is_array())),
        ("nothing decoded", having(&bodies, |body| body.get("payload_fields").is_none())),
        ("a position", having(&bodies, |body| body["payload_fields"]["gps_1"]["longitude"].is_number())),
        ("no payload", having(&bodies, |body| body["payload_raw"] == "")),
        ("FSK", having(&bodies, |body| body["metadata"]["bit_rate"].is_number())),
        ("a gateway without a clock", having(&bodies, |body| body["metadata"]["gateways"][0]["time"] == "")),
        ("no URL", having(&bodies, |body| body.get("downlink_url").is_none())),
    ] {
        assert!(count > 0 && count < bodies.len() / 2 + 100, "{what}: {count} of {}", bodies.len());
    }
}

#[test]
fn plain_uplinks_are_all_alike() {
    let sending = Sending { plain: true, v2_share: 0.0, ..uplinks() };
    for body in bodies(3, &sending) {
        let uplink = &body["uplink_message"];
        assert!(uplink["decoded_payload"]["marker"].is_null() && uplink["f_port"].is_u64(), "{body}");
        assert!(uplink["decoded_payload"].as_object().is_some_and(|fields| !fields.is_empty()), "{body}");
        assert!(uplink["settings"]["data_rate"]["lora"].is_object() && body.get("simulated").is_none(), "{body}");
    }
}

#[test]
fn the_mix_is_as_asked_for_and_repeats_are_exact() {
    let sent = webhooks(4, &mixed(), 10_000);
    for (kind, share) in [(Kind::Repeat, 0.1), (Kind::Malformed, 0.1), (Kind::Event, 0.2), (Kind::Uplink, 0.6)] {
        let count = sent.iter().filter(|webhook| webhook.kind == kind).count();
        assert!((share * 0.9..share * 1.1).contains(&(count as f64 / 10_000.0)), "{kind:?}: {count}");
    }
    let (mut at_once, mut later) = (0, 0);
    for (index, repeat) in sent.iter().enumerate().filter(|(_, webhook)| webhook.kind == Kind::Repeat) {
        let first =
            sent[..index].iter().rposition(|webhook| webhook.kind != Kind::Repeat && webhook.body == repeat.body);
        let first = first.unwrap_or_else(|| panic!("never sent before: {repeat:?}"));
        assert!(sent[first].kind != Kind::Malformed && index - first < 100);
        *(if index == first + 1 { &mut at_once } else { &mut later }) += 1;
    }
    assert!(at_once > 100 && later > 100, "{at_once} at once, {later} later");
    let events: HashSet<String> = sent
        .iter()
        .filter(|webhook| webhook.kind == Kind::Event)
        .flat_map(|webhook| json(webhook).as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        .collect();
    assert!(events::NAMES.iter().all(|name| events.contains(*name)), "{events:?}");
}

#[test]
fn malformed_bodies_cannot_be_made_sense_of() {
    let mut seen = HashSet::new();
    let sending = Sending { malformed_share: 1.0, ..uplinks() };
    for webhook in webhooks(5, &sending, 1000) {
        let flaw = match serde_json::from_slice::<Value>(&webhook.body) {
            _ if webhook.body.is_empty() => "empty",
            _ if webhook.content_type == "application/octet-stream" => "protobuf",
            Err(_) => "cut",
            Ok(_) if webhook.body.len() > 60_000 => "too large",
            Ok(body) if body.get("end_device_ids").or(body.get("dev_id")).is_none() => "no ids",
            Ok(body) if body["end_device_ids"].is_array() || body["dev_id"].is_array() => "wrong types",
            Ok(body) => panic!("{body}"),
        };
        seen.insert((flaw, if flaw == "empty" || flaw == "protobuf" { 3 } else { webhook.version }));
        assert!(webhook.uplink.is_none());
    }
    assert_eq!(seen.len(), 10, "{seen:?}");
}

#[test]
fn an_uplink_on_demand_is_as_demanded() {
    let mut generator = generator(6);
    let mut make = |json: &str| generator.wanted(serde_json::from_str(json).unwrap(), now());
    let webhook = make(
        r#"{"application":"a","device":"d","fPort":0,"fCnt":7,"frmPayload":"vu8=","decodedPayload":null,"confirmed":true}"#,
    );
    let webhook = webhook.unwrap();
    let uplink = &json(&webhook)["uplink_message"];
    assert_eq!((&uplink["frm_payload"], &uplink["f_cnt"]), (&json!("vu8="), &json!(7)));
    assert!(uplink.get("decoded_payload").is_none() && uplink.get("f_port").is_none(), "{uplink}");
    assert_eq!(uplink["confirmed"], true);
    let next = json(&make(r#"{"application":"a","device":"d","version":2,"decodedPayload":[1]}"#).unwrap());
    assert_eq!((&next["counter"], &next["payload_fields"], &next["dev_id"]), (&json!(8), &json!([1]), &json!("d")));
    for (json, reason) in [
        (r#"{"application":"a"}"#, "application and device"),
        (r#"{"application":"a","device":"d","version":1}"#, "version 1"),
        (r#"{"application":"a","device":"d","frmPayload":"?"}"#, "not Base64"),
    ] {
        assert!(make(json).unwrap_err().contains(reason), "{json}");
    }
    assert!(generator.knows("a", "d") && generator.knows_application("a") && !generator.knows("a", "e"));
    assert_eq!(generator.fleet().len(), 50, "it takes no turns");
}
