//! The body for a queue function.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::metadata::{Metadata, literal};
use crate::queues::Taken;

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "Data")]
    data: BTreeMap<&'a str, String>,
    #[serde(rename = "Metadata")]
    metadata: Metadata<'a>,
}

/// The body for a queue function. `text` is the text of the message.
pub fn queue(function: &str, binding: &str, taken: &Taken, text: &str, now: DateTime<Utc>) -> String {
    let message = &taken.message;
    let next_visible = message.next_visible.unwrap_or(DateTime::<Utc>::MAX_UTC);
    let mut metadata = Metadata::default();
    metadata.set_text("DequeueCount", message.dequeue_count.to_string());
    metadata.set_text("ExpirationTime", to_the_second(message.expires));
    metadata.set_literal("Id", &message.id);
    metadata.set_text("InsertionTime", to_the_second(message.inserted));
    metadata.set_text("NextVisibleTime", to_the_second(next_visible));
    metadata.set_literal("PopReceipt", &taken.receipt);
    metadata.copy_properties(text, binding);
    metadata.add_system(function, now);
    let envelope = Envelope { data: BTreeMap::from([(binding, literal(text))]), metadata };
    serde_json::to_string(&envelope).expect("texts and JSON are JSON")
}

fn to_the_second(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

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
            ("SYS", json!({ "b": 1 })),
        ] {
            assert_eq!(metadata[name], expected, "{name}");
        }
        assert_eq!(metadata["$sys"]["MethodName"], "thingsNetworkForwarding");
        assert_eq!(metadata.len(), 7 + 7, "{metadata:?}");
    }
}
