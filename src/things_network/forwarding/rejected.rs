//! Builds the text for the queue of rejected messages: the webhook and the reason. If the operator puts it back into
//! the queue of uplinks unchanged, it is tried again.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json, value::RawValue};

use crate::{
    support::{http::one_line, kind::Kind},
    things_network::queued::{MAX_TEXT, Queued, stamp, with_member},
};

/// The longest reason of the connector names two devices and a remedy.
const LONGEST_REASON: usize = 2000;

/// The text of the message. It leaves out the downlink API key, because it is unknown who reads that queue.
///
/// If `original` fits into a queue message, the text always fits too: if there is no room for the reason, the text
/// leaves it out. The log has the reason.
pub fn text(original: &str, kind: &Kind, reason: &str, now: DateTime<Utc>) -> String {
    let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let head = json!({ "RejectedAtUTC": at, "Kind": kind, "Reason": one_line(reason, LONGEST_REASON) });
    let fits = |text: &String| text.len() <= MAX_TEXT;
    let queued = Queued::parse(original).ok();
    let Some(queued) = queued.filter(|queued| serde_json::from_str::<&RawValue>(&queued.webhook).is_ok()) else {
        return Some(with_member(&head.to_string(), "Text", &json!(original).to_string()))
            .filter(fits)
            .unwrap_or_else(|| original.to_owned());
    };
    // What a message must keep so that it is the same when it is put back.
    let mut received = json!({});
    if let Some(time) = queued.received_at {
        received["ReceivedAtUTC"] = stamp(time).into();
    }
    if let Some(domain) = &queued.domain {
        received["Domain"] = domain.as_str().into();
    }
    let mut full = head;
    if let (Value::Object(full), Value::Object(received)) = (&mut full, received.clone()) {
        full.extend(received);
    }
    [full, received]
        .into_iter()
        .map(|head| with_member(&head.to_string(), "Webhook", &queued.webhook))
        .find(fits)
        .unwrap_or_else(|| queued.webhook.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected_text(original: &str) -> String {
        text(original, &Kind::Malformed, "no\nids", "2026-01-31T12:00:00Z".parse().unwrap())
    }

    fn rejected(original: &str) -> (String, Value) {
        let text = rejected_text(original);
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn a_rejected_webhook_can_be_put_back_and_has_no_key() {
        let original = r#"{"ReceivedAtUTC":"2026-01-31T11:00:00Z","Downlink":{"ApiKey":"NNSXS.secret"},"Domain":"d.example","Webhook":{ "x":1.0 }}"#;
        let (text, value) = rejected(original);
        let expected = json!({
            "RejectedAtUTC": "2026-01-31T12:00:00.000Z", "Kind": "malformed", "Reason": "no ids",
            "ReceivedAtUTC": "2026-01-31T11:00:00.000Z", "Domain": "d.example", "Webhook": {"x": 1.0}
        });
        assert_eq!(value, expected);
        assert!(!text.contains("NNSXS"), "{text}");
        let again = Queued::parse(&text).unwrap();
        assert_eq!((again.received_at, &*again.webhook), ("2026-01-31T11:00:00Z".parse().ok(), r#"{ "x":1.0 }"#));
    }

    #[test]
    fn whatever_was_queued_fits() {
        let wrapped = |length: usize| {
            format!(r#"{{"ReceivedAtUTC":"2026-01-31T11:00:00.000Z","Webhook":{{"x":"{}"}}}}"#, "y".repeat(length))
        };
        let bare = |length: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(length));
        for fill in [&wrapped as &dyn Fn(usize) -> String, &bare, &|length| "\"".repeat(length)] {
            for spare in [0, 10, 60, 100, 200, 400, 1000] {
                let original = fill(MAX_TEXT - fill(0).len() - spare);
                let (text, again) = (rejected_text(&original), Queued::parse(&original));
                assert!(text.len() <= MAX_TEXT, "{spare}: {}", text.len());
                if let Ok(before) = again {
                    let after = Queued::parse(&text).unwrap();
                    assert_eq!((after.received_at, after.webhook), (before.received_at, before.webhook), "{spare}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_webhook_is_kept_as_text() {
        let (_, value) = rejected("hello \"there\"");
        assert_eq!((&value["Text"], value.get("Webhook")), (&json!("hello \"there\""), None));
    }
}
