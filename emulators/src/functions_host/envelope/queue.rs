//! The body for a queue function.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::sys;
use crate::queues::Taken;

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "Data")]
    data: BTreeMap<&'a str, String>,
    #[serde(rename = "Metadata")]
    metadata: BTreeMap<String, Datum<'a>>,
}

/// A value of `Metadata`.
#[derive(Serialize)]
#[serde(untagged)]
enum Datum<'a> {
    Text(String),
    Object(&'a RawValue),
    System(Value),
}

/// The body for a queue function. `text` is the text of the message.
pub fn queue(function: &str, binding: &str, taken: &Taken, text: &str, now: DateTime<Utc>) -> String {
    let message = &taken.message;
    let mut metadata = BTreeMap::from([
        ("sys".to_owned(), Datum::System(sys(function, now))),
        ("DequeueCount".to_owned(), Datum::Text(message.dequeue_count.to_string())),
        ("ExpirationTime".to_owned(), Datum::Text(to_the_second(message.expires))),
        ("Id".to_owned(), Datum::Text(literal(&message.id))),
        ("InsertionTime".to_owned(), Datum::Text(to_the_second(message.inserted))),
        (
            "NextVisibleTime".to_owned(),
            Datum::Text(to_the_second(message.next_visible.unwrap_or(DateTime::<Utc>::MAX_UTC))),
        ),
        ("PopReceipt".to_owned(), Datum::Text(literal(&taken.receipt))),
    ]);
    add_properties(&mut metadata, text);
    let envelope = Envelope { data: BTreeMap::from([(binding, literal(text))]), metadata };
    serde_json::to_string(&envelope).expect("texts and JSON are JSON")
}

/// Copies the top-level properties of a JSON object (`Utility.ApplyBindingData` of the host). If the name exists
/// already, in any case, the existing name stays and gets the new value. Arrays, nulls and names that end with
/// `…trigger` are left out; the host takes the latter for the message itself.
fn add_properties<'a>(metadata: &mut BTreeMap<String, Datum<'a>>, text: &'a str) {
    let trimmed = text.trim();
    if !trimmed.starts_with('{') || !trimmed.ends_with('}') {
        return;
    }
    let Ok(properties) = serde_json::from_str::<BTreeMap<String, &RawValue>>(trimmed) else { return };
    for (name, value) in properties {
        let datum = match value.get().as_bytes().first() {
            Some(b'{') => Datum::Object(value),
            Some(b'[' | b'n') | None => continue,
            _ => Datum::Text(literal(&as_dotnet_writes(value.get()))),
        };
        if name.to_ascii_lowercase().ends_with("trigger") {
            continue;
        }
        let there = metadata.keys().find(|key| key.eq_ignore_ascii_case(&name)).cloned();
        metadata.insert(there.unwrap_or(name), datum);
    }
}

/// The string that .NET makes of a JSON value: `true` becomes `True`, and a string that looks like a time is parsed as
/// a time first.
fn as_dotnet_writes(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => time_in(&text).map_or(text, |time| time.format("%m/%d/%Y %H:%M:%S").to_string()),
        Ok(Value::Bool(flag)) => if flag { "True" } else { "False" }.to_owned(),
        Ok(Value::Number(number)) if json.contains(['.', 'e', 'E']) => {
            number.as_f64().map_or_else(|| json.to_owned(), |number| number.to_string())
        }
        _ => json.to_owned(),
    }
}

fn time_in(text: &str) -> Option<NaiveDateTime> {
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let with_zone = DateTime::parse_from_rfc3339(text).map(|time| time.naive_utc());
    with_zone.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")).ok()
}

/// The text as a JSON string.
fn literal(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

fn to_the_second(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::queues::Message;

    fn envelope(text: &str) -> Value {
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let message = Message {
            id: "52d53c5f-e212-487e-998b-abbe3b9d51e4".to_owned(),
            content: Bytes::copy_from_slice(text.as_bytes()),
            is_undecodable: false,
            inserted: time("2025-02-18T03:06:19.7Z"),
            expires: time("2025-02-25T03:06:19.7Z"),
            next_visible: Some(time("2025-02-18T03:16:20Z")),
            dequeue_count: 1,
        };
        let taken = Taken { message, receipt: "MThGZWIy".to_owned() };
        let now = time("2025-02-18T03:06:20.7562691Z");
        serde_json::from_str(&queue("thingsNetworkForwarding", "uplink", &taken, text, now)).unwrap()
    }

    #[test]
    fn a_message_is_told_as_the_real_host_tells_it() {
        let mut told = envelope("hello!!");
        assert_eq!(told["Metadata"]["sys"]["RandGuid"].take().as_str().unwrap().len(), 36);
        let expected = r#"{"Data":{"uplink":"\"hello!!\""},"Metadata":{"DequeueCount":"1","ExpirationTime":"2025-02-25T03:06:19+00:00","Id":"\"52d53c5f-e212-487e-998b-abbe3b9d51e4\"","InsertionTime":"2025-02-18T03:06:19+00:00","NextVisibleTime":"2025-02-18T03:16:20+00:00","PopReceipt":"\"MThGZWIy\"","sys":{"MethodName":"thingsNetworkForwarding","RandGuid":null,"UtcNow":"2025-02-18T03:06:20.7562691Z"}}}"#;
        assert_eq!(told, serde_json::from_str::<Value>(expected).unwrap());
        assert_eq!(envelope(r#"{"a":1}"#)["Data"], json!({ "uplink": r#""{\"a\":1}""# }));
    }

    #[test]
    fn every_text_is_a_string_that_holds_a_string() {
        for text in ["", "1", "null", "[1]", "\"a\"", "{broken", "ü\n\u{1}"] {
            let told = envelope(text);
            let literal = told["Data"]["uplink"].as_str().unwrap();
            assert_eq!(serde_json::from_str::<String>(literal).unwrap(), text);
            assert_eq!(told["Metadata"].as_object().unwrap().len(), 7, "{text}");
        }
    }

    #[test]
    fn properties_of_an_object_are_metadata_too() {
        let told = envelope(
            r#" {"id":"mine","count":7,"ratio":1.50,"on":true,"at":"2024-10-01T10:55:00.5+02:00","day":"2024-10-01",
            "payload":{"a":[1]},"list":[1],"none":null,"QueueTrigger":"x","SYS":{"b":1}} "#,
        );
        let metadata = told["Metadata"].as_object().unwrap();
        for (name, expected) in [
            ("Id", json!("\"mine\"")),
            ("count", json!("\"7\"")),
            ("ratio", json!("\"1.5\"")),
            ("on", json!("\"True\"")),
            ("at", json!("\"10/01/2024 08:55:00\"")),
            ("day", json!("\"2024-10-01\"")),
            ("payload", json!({ "a": [1] })),
            ("sys", json!({ "b": 1 })),
        ] {
            assert_eq!(metadata[name], expected, "{name}");
        }
        assert_eq!(metadata.len(), 7 + 6, "{metadata:?}");
    }
}
