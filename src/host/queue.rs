//! Reads the host's envelope of a storage queue's message.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::input::{self, Text};
use crate::{queue::Receipt, support::clock};

/// A queue message as it arrives.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueMessage {
    /// May hold a secret, so it must not be printed.
    pub text: String,
    /// How often the message was taken from the queue, this time included, if the host gives the count.
    pub dequeue_count: Option<u32>,
    /// When the message was put into the queue, if the host gives the time.
    pub inserted_at: Option<DateTime<Utc>>,
    /// How long the queue keeps the message after this delivery, if the host gives the times.
    pub life: Option<TimeDelta>,
    /// Names this delivery, so that the message can be put back. `None` if the host does not give it.
    pub receipt: Option<Receipt>,
}

impl fmt::Debug for QueueMessage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("QueueMessage").field("dequeue_count", &self.dequeue_count).finish_non_exhaustive()
    }
}

// Members of the message can replace the host's metadata, so treat these values only as hints.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    dequeue_count: Option<&'a RawValue>,
    #[serde(borrow)]
    insertion_time: Option<&'a RawValue>,
    #[serde(borrow)]
    expiration_time: Option<&'a RawValue>,
    #[serde(borrow)]
    next_visible_time: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    pop_receipt: Option<&'a RawValue>,
}

impl QueueMessage {
    /// Reads the envelope of a queue's call. The text normally comes as a string that holds a JSON string. Some
    /// versions of the host, and operators who call by hand, send the string itself, or the object in the text.
    ///
    /// # Errors
    /// What is missing.
    pub fn read(envelope: &[u8], binding: &str) -> Result<Self, String> {
        let (text, metadata) = match input::read::<Text<'_>, Metadata<'_>>(envelope, binding) {
            Ok((Text(text), metadata)) => (unquoted(&text).unwrap_or_else(|| text.into_owned()), metadata),
            Err(_) => {
                let (object, metadata) = input::read::<&RawValue, Metadata<'_>>(envelope, binding)?;
                (object.get().to_owned(), metadata)
            }
        };
        let metadata = metadata.unwrap_or_default();
        let hint = |raw: Option<&RawValue>| raw.map(|raw| unquoted(raw.get()).unwrap_or_else(|| raw.get().to_owned()));
        // A text, in JSON once more.
        let quoted = |raw| hint(raw).and_then(|text| unquoted(&text));
        let time = |raw| hint(raw).and_then(|text| clock::read_rfc3339(&text));
        let (expires, visible) = (time(metadata.expiration_time), time(metadata.next_visible_time));
        let (id, pop_receipt) = (quoted(metadata.id), quoted(metadata.pop_receipt));
        Ok(Self {
            text,
            dequeue_count: hint(metadata.dequeue_count).and_then(|text| text.parse().ok()),
            inserted_at: time(metadata.insertion_time),
            life: expires.zip(visible).map(|(expires, visible)| expires - visible),
            receipt: id.zip(pop_receipt).and_then(|(id, pop_receipt)| Receipt::new(&id, &pop_receipt)),
        })
    }
}

/// The text in a JSON string. The connector never queues a text that is itself a JSON string.
fn unquoted(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::support::http::MAX_ERROR_TEXT;

    /// Captured from the host, shortened.
    const PLAIN: &str = r#"{"Data":{"uplink":"\"hello!!\""},"Metadata":{"DequeueCount":"1","ExpirationTime":"2025-02-25T03:06:19+00:00","Id":"\"52d53c5f-e212-487e-998b-abbe3b9d51e4\"","InsertionTime":"2025-02-18T03:06:19+00:00","NextVisibleTime":"2025-02-18T03:16:19+00:00","PopReceipt":"\"MThGZWIy\"","sys":{"MethodName":"thingsNetworkForwarding"}}}"#;

    fn read(body: &str) -> QueueMessage {
        QueueMessage::read(body.as_bytes(), "uplink").unwrap()
    }

    #[test]
    fn the_hosts_envelope_is_read() {
        let message = read(PLAIN);
        assert_eq!((message.text.as_str(), message.dequeue_count), ("hello!!", Some(1)));
        assert_eq!(message.receipt, Receipt::new("52d53c5f-e212-487e-998b-abbe3b9d51e4", "MThGZWIy"));
        assert_eq!(message.life.map(|life| life.num_minutes()), Some(7 * 24 * 60 - 10));
        assert_eq!(message.inserted_at, "2025-02-18T03:06:19Z".parse().ok());
        let json = r#"{"Data":{"uplink":"\"{\\\"a\\\":1}\""},"Metadata":{"DequeueCount":7,"InsertionTime":{"of":"the message"},"Id":"\"7\"","PopReceipt":"\"MThG\""}}"#;
        let message = read(json);
        assert_eq!((message.text.as_str(), message.dequeue_count, message.inserted_at), (r#"{"a":1}"#, Some(7), None));
        assert_eq!((message.receipt, message.life), (None, None), "a member of the message took the id's place");
    }

    #[test]
    fn every_way_to_write_a_text_is_read() {
        for data in [r#""\"{\\\"a\\\":1}\"""#, r#""{\"a\":1}""#, r#"{"a":1}"#] {
            let body = format!(r#"{{"Data":{{"uplink":{data}}}}}"#);
            assert_eq!(read(&body).text, r#"{"a":1}"#, "{data}");
        }
    }

    #[test]
    fn what_is_no_envelope_says_what_is_missing() {
        for (body, problem) in [("{}", "Data"), (r#"{"Data":{"other":""}}"#, "no uplink in Data"), ("", "EOF")] {
            let error = QueueMessage::read(body.as_bytes(), "uplink").unwrap_err();
            assert!(error.contains(problem), "{body}: {error}");
        }
        let error =
            QueueMessage::read(format!(r#"{{"Data":"{}"}}"#, "x".repeat(60_000)).as_bytes(), "uplink").unwrap_err();
        assert!(error.len() <= MAX_ERROR_TEXT, "{} bytes", error.len());
    }

    proptest! {
        #[test]
        fn a_text_is_the_one_that_was_queued(text: String, count: u32) {
            let data = Value::from(Value::from(text.as_str()).to_string());
            let body = serde_json::json!({"Data": {"uplink": data}, "Metadata": {"DequeueCount": count.to_string()}});
            let message = read(&body.to_string());
            prop_assert_eq!((message.text, message.dequeue_count), (text, Some(count)));
        }
    }
}
