//! Checks a timer's call. The call only says that it is time: nothing of its envelope is read.

use std::collections::HashMap;

use serde::de::IgnoredAny;

use crate::support::http::{MAX_ERROR_TEXT, one_line};

/// Checks that the body is the envelope of a timer's call, or none, so that the function can be called by hand.
///
/// # Errors
/// The body is not a JSON object.
pub fn check(body: &[u8]) -> Result<(), String> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let envelope = serde_json::from_slice::<HashMap<String, IgnoredAny>>(body);
    envelope.map(drop).map_err(|error| one_line(&error.to_string(), MAX_ERROR_TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from the host.
    const TIMER: &str = r#"{"Data":{"myTimer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"2024-10-01T10:50:00.0039671+00:00","Next":"2024-10-01T10:55:00+00:00","LastUpdated":"2024-10-01T10:50:00.0039671+00:00"},"IsPastDue":false}},"Metadata":{"sys":{"MethodName":"rapidM2MForwarding","UtcNow":"2024-10-01T10:55:00.004275Z","RandGuid":"35e6e68c-0000-4000-8000-000000000000"}}}"#;

    #[test]
    fn a_call_by_hand_needs_no_envelope_and_nonsense_is_refused() {
        for call in [TIMER, r#"{"Data":{},"Metadata":null,"New":[1]}"#, "{}", "", "\n"] {
            assert_eq!(check(call.as_bytes()), Ok(()), "{call}");
        }
        for nonsense in ["[]", "7", "{", "hello"] {
            assert!(check(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }
}
