//! What goes to the queue of rejected messages: the webhook, and why. Put back into the queue of uplinks as it is, it is
//! tried again.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json, value::RawValue};

use crate::{
    http::{MAX_ERROR_TEXT, one_line},
    things_network::queued::{MAX_TEXT, Queued},
};

/// The text of the message. The downlink API key is left out: nobody knows who reads that queue.
pub fn text(original: &str, kind: &str, reason: &str, now: DateTime<Utc>) -> String {
    let now = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut rejected = json!({ "RejectedAtUTC": now, "Kind": kind, "Reason": one_line(reason, MAX_ERROR_TEXT) });
    match Queued::parse(original) {
        Ok(queued) if serde_json::from_str::<&RawValue>(&queued.webhook).is_ok() => {
            if let Some(time) = queued.received_at {
                rejected["ReceivedAtUTC"] = time.to_rfc3339_opts(SecondsFormat::Millis, true).into();
            }
            let text = with_raw(&rejected, &queued.webhook);
            if text.len() <= MAX_TEXT {
                return text;
            }
            // The log has the reason; what the queue takes of the uplink is kept.
            with_raw(&json!({ "RejectedAtUTC": now }), &queued.webhook)
        }
        _ => {
            rejected["Text"] = original.into();
            rejected.to_string()
        }
    }
}

/// The object with the webhook as one more member, byte for byte.
fn with_raw(rejected: &Value, webhook: &str) -> String {
    let text = rejected.to_string();
    let open = text.strip_suffix('}').unwrap_or(&text);
    format!(r#"{open},"Webhook":{webhook}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(original: &str) -> (String, Value) {
        let text = text(original, "malformed", "no\nids", "2026-01-31T12:00:00Z".parse().unwrap());
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn a_rejected_webhook_can_be_put_back_and_has_no_key() {
        let original =
            r#"{"ReceivedAtUTC":"2026-01-31T11:00:00Z","Downlink":{"ApiKey":"NNSXS.secret"},"Webhook":{ "x":1.0 }}"#;
        let (text, value) = rejected(original);
        let expected = json!({
            "RejectedAtUTC": "2026-01-31T12:00:00.000Z", "Kind": "malformed", "Reason": "no ids",
            "ReceivedAtUTC": "2026-01-31T11:00:00.000Z", "Webhook": {"x": 1.0}
        });
        assert_eq!(value, expected);
        assert!(!text.contains("NNSXS"), "{text}");
        let again = Queued::parse(&text).unwrap();
        assert_eq!((again.received_at, &*again.webhook), ("2026-01-31T11:00:00Z".parse().ok(), r#"{ "x":1.0 }"#));
    }

    #[test]
    fn a_webhook_of_any_size_that_was_queued_fits() {
        let fill = |length: usize| {
            format!(r#"{{"ReceivedAtUTC":"2026-01-31T11:00:00.000Z","Webhook":{{"x":"{}"}}}}"#, "y".repeat(length))
        };
        let original = fill(MAX_TEXT - fill(0).len());
        assert_eq!(original.len(), MAX_TEXT);
        let (text, value) = rejected(&original);
        assert!(text.len() <= MAX_TEXT, "{}", text.len());
        assert_eq!(value["RejectedAtUTC"], "2026-01-31T12:00:00.000Z");
    }

    #[test]
    fn what_is_no_webhook_is_kept_as_text() {
        let (_, value) = rejected("hello \"there\"");
        assert_eq!((&value["Text"], value.get("Webhook")), (&json!("hello \"there\""), None));
    }
}
