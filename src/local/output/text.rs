//! Pieces of text.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

/// Columns for values; those that do not fit are left out.
const VALUES_WIDTH: usize = 40;
/// `2026-01-31T00:00:00Z`.
pub const STAMP_WIDTH: usize = 20;
/// Rows, or fPort and fCnt.
pub const COUNT_WIDTH: usize = "fPort/fCnt".len();

pub fn stamp(time: DateTime<Utc>, precision: SecondsFormat) -> String {
    time.to_rfc3339_opts(precision, true)
}

/// With milliseconds.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The first values, as many as fit; those that say most in little room come first.
pub fn values(values: &Map<String, Value>) -> String {
    let is_plain = |value: &Value| value.is_number() || value.is_string() || value.is_boolean();
    let (plain, others): (Vec<_>, Vec<_>) = values.iter().partition(|(_, value)| is_plain(value));
    let mut text = String::new();
    for (index, (name, value)) in plain.into_iter().chain(others).enumerate() {
        let value = format!("{name}={value}");
        if index > 0 && text.chars().count() + value.chars().count() + 2 > VALUES_WIDTH {
            text += " …";
            break;
        }
        if index > 0 {
            text += "  ";
        }
        text += &value;
    }
    if text.is_empty() { "(none)".to_owned() } else { text }
}

/// A downlink's payload: the text that it is, JSON, or hexadecimal digits.
pub fn payload(downlink: &Value) -> String {
    if let decoded @ Value::Object(_) = &downlink["decoded_payload"] {
        return decoded.to_string();
    }
    let bytes = BASE64_STANDARD.decode(downlink["frm_payload"].as_str().unwrap_or_default()).unwrap_or_default();
    match str::from_utf8(&bytes) {
        Ok(text) if !text.contains(char::is_control) => format!("{text:?}"),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_as_many_values_are_shown_as_fit() {
        let values = |text: &str| values(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        assert_eq!(values("{}"), "(none)");
        assert_eq!(values(r#"{"ch0":39801,"ch1":17.4}"#), "ch0=39801  ch1=17.4");
        assert_eq!(values(r#"{"ch0":1234567890,"ch1":1234567890,"ch2":34567}"#), "ch0=1234567890  ch1=1234567890 …");
        assert_eq!(values(r#"{"a":null,"b":{"x":1},"c":2.5}"#), "c=2.5  a=null  b={\"x\":1}");
        let long = "x".repeat(100);
        assert_eq!(values(&format!(r#"{{"a":"{long}","b":1}}"#)), format!("a=\"{long}\" …"));
    }

    #[test]
    fn payloads_are_shown_as_what_they_are() {
        assert_eq!(payload(&json!({ "frm_payload": "b3Blbg==" })), r#""open""#);
        assert_eq!(payload(&json!({ "frm_payload": "AP8=" })), "00ff");
        assert_eq!(payload(&json!({ "frm_payload": "Gw==" })), "1b");
        assert_eq!(payload(&json!({ "decoded_payload": { "open": true } })), r#"{"open":true}"#);
    }
}
