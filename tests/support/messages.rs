//! Checks the messages that the hub received, and makes the rows that the tests send and expect.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling>
const HUBS_LIMIT: usize = 256 * 1024;

/// A row in a message.
pub type Row = Value;

/// The messages that reached the hub, without repeats under the same message id.
#[derive(Default)]
pub struct Delivered {
    /// The rows of each site, in the order of their first arrival.
    pub rows: BTreeMap<String, Vec<Row>>,
    /// The ids of each site's messages, in the order of their first arrival.
    pub ids: BTreeMap<String, Vec<String>>,
    /// The number of messages that arrived again.
    pub repeats: usize,
}

/// Checks each message, then sorts the messages by site.
pub fn delivered(messages: &Value, customer: &str) -> Delivered {
    let mut delivered = Delivered::default();
    let mut bodies: HashMap<String, String> = HashMap::new();
    for message in messages.as_array().unwrap() {
        let text = message["body"].as_str().unwrap();
        let body: Value = serde_json::from_str(text).unwrap();
        let site = body["site_id"].as_str().unwrap_or_else(|| panic!("no site_id in {text}")).to_owned();
        check(message, &body, text, customer, &site);
        let id = message["messageId"].as_str().unwrap().to_owned();
        if let Some(earlier) = bodies.get(&id) {
            assert_eq!(earlier, text, "message {id} came again with another body");
            delivered.repeats += 1;
            continue;
        }
        bodies.insert(id.clone(), text.to_owned());
        delivered.ids.entry(site.clone()).or_default().push(id);
        let rows = body["Timeseries"].as_array().unwrap().iter().cloned();
        delivered.rows.entry(site).or_default().extend(rows);
    }
    delivered
}

fn check(message: &Value, body: &Value, text: &str, customer: &str, site: &str) {
    let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["Timerange", "Timeseries", "customer_id", "site_id"], "{text}");
    assert_eq!(body["customer_id"], customer);
    let range: Vec<_> = body["Timerange"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(range, ["begin", "end"]);
    for (_, time) in body["Timerange"].as_object().unwrap() {
        assert!(is_utc(time), "{time}");
    }
    let rows = body["Timeseries"].as_array().unwrap();
    assert!(!rows.is_empty(), "an empty message");
    for row in rows {
        let members: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["Channels", "Timestamp"]);
        assert!(is_utc(&row["Timestamp"]), "{row}");
        for (_, value) in row["Channels"].as_object().unwrap() {
            assert!(!value.is_null() && *value != "NAN", "{row}");
        }
    }
    let properties = ["Customer_Id", "Site_Id"].map(|name| property(message, name));
    assert_eq!(properties, [customer, site]);
    let uid = message["properties"].get("Site_Uid");
    assert!(uid.is_none_or(|uid| uid.as_str().unwrap().len() == 16), "{message}");
    assert_eq!(message["properties"].as_object().unwrap().len(), 2 + usize::from(uid.is_some()));
    let system = &message["systemProperties"];
    assert_eq!(system["$.mid"], message["messageId"]);
    assert_eq!((&system["$.ct"], &system["$.ce"]), (&json!("application/json"), &json!("utf-8")));
    assert!(is_utc(&system["$.ctime"]), "{system}");
    let strings = |value: &Value| -> usize {
        value.as_object().unwrap().iter().map(|(name, value)| name.len() + value.as_str().unwrap().len()).sum()
    };
    let size = text.len() + strings(&message["properties"]) + strings(system);
    // This sum includes the names of the system properties, the hub's does not. The limit here is a few bytes larger
    // for that.
    assert!(size <= HUBS_LIMIT + 4 * "$.ctime".len(), "a message of {size} bytes");
}

/// Whether the time is RFC 3339 with `Z`.
fn is_utc(time: &Value) -> bool {
    time.as_str().is_some_and(|text| text.ends_with('Z') && DateTime::parse_from_rfc3339(text).is_ok())
}

/// The time of the `minute`th row: long ago, and the same in every run.
fn time(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_709_251_200, 0).unwrap() + TimeDelta::minutes(minute)
}

/// The time as the backend writes it: digits without trailing zeros.
pub fn stamp(minute: i64) -> String {
    time(minute).format("%Y%m%d%H%M%S%3f").to_string().trim_end_matches('0').to_owned()
}

/// The row that the tests expect in a message.
pub fn row(minute: i64, channels: Value) -> Row {
    json!({ "Timestamp": time(minute).format("%Y-%m-%dT%H:%M:%SZ").to_string(), "Channels": channels })
}

/// The plain rows of these minutes, as [`World::add`](super::World::add) adds them.
pub fn rows(minutes: impl IntoIterator<Item = i64>) -> Vec<Row> {
    minutes.into_iter().map(|minute| row(minute, json!({ "ch0": minute, "ch1": 0.5 }))).collect()
}

/// A property of a message, decoded if it was encoded for HTTPS.
fn property(message: &Value, name: &str) -> String {
    let value = message["properties"][name].as_str().unwrap();
    if message["transport"] == "https" {
        return percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned();
    }
    value.to_owned()
}
