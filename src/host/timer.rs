//! Reads a timer's call.

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::invocation_id;
use crate::support::http::{MAX_ERROR_TEXT, one_line};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The host's id of the call; empty if there is none.
    pub id: String,
    /// The timer's run is late: it makes up for a missed one.
    pub is_past_due: bool,
}

impl Invocation {
    /// Reads the envelope of a timer's call. Unknown members are ignored. An empty body counts as an empty envelope, so
    /// that the function can be called by hand.
    ///
    /// # Errors
    /// The body is not a JSON object.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| one_line(&error.to_string(), MAX_ERROR_TEXT);
        let mut envelope: Map<String, Value> =
            if body.trim_ascii().is_empty() { Map::new() } else { serde_json::from_slice(body).map_err(wrong)? };
        let data: Map<String, Value> =
            envelope.remove("Data").map_or(Ok(Map::new()), serde_json::from_value).map_err(wrong)?;
        // The user chooses the binding's name, so the timer is found as the entry that has `IsPastDue`.
        let is_past_due =
            data.into_values().filter_map(object).any(|timer| timer.get("IsPastDue") == Some(&Value::Bool(true)));
        Ok(Self { id: invocation_id(headers).to_owned(), is_past_due })
    }
}

/// An entry of `Data`: an object, or a string that contains one.
fn object(entry: Value) -> Option<Map<String, Value>> {
    match entry {
        Value::Object(object) => Some(object),
        Value::String(text) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from the host.
    const TIMER: &str = r#"{"Data":{"myTimer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"2024-10-01T10:50:00.0039671+00:00","Next":"2024-10-01T10:55:00+00:00","LastUpdated":"2024-10-01T10:50:00.0039671+00:00"},"IsPastDue":false}},"Metadata":{"sys":{"MethodName":"rapidM2MForwarding","UtcNow":"2024-10-01T10:55:00.004275Z","RandGuid":"35e6e68c-0000-4000-8000-000000000000"}}}"#;

    fn read(body: &str) -> Result<Invocation, String> {
        let headers =
            HeaderMap::from_iter([("x-azure-functions-invocationid".parse().unwrap(), "abc".parse().unwrap())]);
        Invocation::read(&headers, body.as_bytes())
    }

    #[test]
    fn the_hosts_envelope_is_read() {
        assert_eq!(read(TIMER).unwrap(), Invocation { id: "abc".into(), is_past_due: false });
        let past_due = TIMER.replace("\"IsPastDue\":false", "\"IsPastDue\":true,\"New\":[1]");
        assert!(read(&past_due).unwrap().is_past_due);
        let no_status = r#"{"Data":{"t":{"ScheduleStatus":null,"IsPastDue":true}},"Metadata":null}"#;
        assert!(read(no_status).unwrap().is_past_due);
    }

    #[test]
    fn an_entry_may_be_a_string_of_json() {
        assert!(read(r#"{"Data":{"t":"{\"IsPastDue\":true}"},"Metadata":{}}"#).unwrap().is_past_due);
        assert!(!read(r#"{"Data":{"t":"\"text\"","u":[1],"v":7}}"#).unwrap().is_past_due);
    }

    #[test]
    fn a_call_by_hand_needs_no_envelope_and_nonsense_is_refused() {
        assert_eq!(read("").unwrap().id, "abc");
        assert_eq!(read("{}").unwrap().id, "abc");
        for nonsense in ["[]", "7", "{", "hello", r#"{"Data":7}"#] {
            assert!(read(nonsense).is_err(), "{nonsense}");
        }
    }
}
