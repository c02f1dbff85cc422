//! Reads a timer's call. It says that it is time, and on most schedules how far apart the calls are.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::support::{
    clock,
    http::{MAX_ERROR_TEXT, one_line},
};

/// Times before the first call are written as one in the year 1.
const LONGEST_INTERVAL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads the envelope of a timer's call, or none, so that the function can be called by hand. Returns the time between two
/// calls: `Next` is the call that was due, which is this one, and `Last` the one before. `None` if the host does not say:
/// on schedules of less than a minute, before the first call, and by hand.
///
/// # Errors
/// The body is not a JSON object.
pub fn read(body: &[u8]) -> Result<Option<Duration>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let envelope: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| one_line(&error.to_string(), MAX_ERROR_TEXT))?;
    let inputs = envelope.get("Data").and_then(Value::as_object);
    Ok(inputs.into_iter().flat_map(Map::values).find_map(interval))
}

fn interval(timer: &Value) -> Option<Duration> {
    let time = |name| clock::read_rfc3339(timer["ScheduleStatus"][name].as_str()?);
    let interval = (time("Next")? - time("Last")?).to_std().ok()?;
    (!interval.is_zero() && interval <= LONGEST_INTERVAL).then_some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from the host.
    const TIMER: &str = r#"{"Data":{"myTimer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"2024-10-01T10:50:00.0039671+00:00","Next":"2024-10-01T10:55:00+00:00","LastUpdated":"2024-10-01T10:50:00.0039671+00:00"},"IsPastDue":false}},"Metadata":{"sys":{"MethodName":"rapidM2MForwarding","UtcNow":"2024-10-01T10:55:00.004275Z","RandGuid":"35e6e68c-0000-4000-8000-000000000000"}}}"#;

    #[test]
    fn a_call_by_hand_needs_no_envelope_and_nonsense_is_refused() {
        for call in [TIMER, r#"{"Data":{},"Metadata":null,"New":[1]}"#, "{}", "", "\n"] {
            assert!(read(call.as_bytes()).is_ok(), "{call}");
        }
        for nonsense in ["[]", "7", "{", "hello"] {
            assert!(read(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn the_schedule_says_how_far_apart_calls_are() {
        let minutes = |call: &str| read(call.as_bytes()).unwrap().map(|interval| interval.as_secs() / 60);
        assert_eq!(minutes(TIMER), Some(4), "the last call was a little late");
        for unknown in [
            &TIMER.replace("2024-10-01T10:50:00.0039671+00:00", "0001-01-01T00:00:00+00:00"),
            r#"{"Data":{"myTimer":{"ScheduleStatus":null}}}"#,
            r#"{"Data":{"myTimer":"7"}}"#,
            "{}",
            "",
        ] {
            assert_eq!(minutes(unknown), None, "{unknown}");
        }
    }
}
