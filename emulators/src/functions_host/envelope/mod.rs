//! Writes the bodies that are posted to the handler: the envelopes of the custom handler's contract.

mod http;
mod metadata;
mod queue;
#[cfg(test)]
mod recorded_tests;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use self::metadata::{Metadata, dotnet};
pub use self::{http::http, queue::queue};
use super::function::TimerTrigger;

/// A timer's `ScheduleStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// `None` before the first run.
    pub last: Option<DateTime<Utc>>,
    pub next: DateTime<Utc>,
    /// `None` in the first run ever.
    pub updated: Option<DateTime<Utc>>,
}

/// The body for a timer function. `input` comes from whoever has started the function by hand.
pub fn timer(
    function: &str,
    trigger: &TimerTrigger,
    status: Option<ScheduleStatus>,
    past_due: bool,
    input: Option<&str>,
    now: DateTime<Utc>,
) -> Value {
    let time = |time: Option<DateTime<Utc>>| {
        time.map_or_else(|| "0001-01-01T00:00:00+00:00".to_owned(), |time| dotnet(time, "+00:00"))
    };
    let status = status.map(|status| {
        json!({ "Last": time(status.last), "Next": time(Some(status.next)), "LastUpdated": time(status.updated) })
    });
    let timer = json!({
        "Schedule": { "AdjustForDST": trigger.schedule.adjusts_for_dst() },
        "ScheduleStatus": status,
        "IsPastDue": past_due,
    });
    let data = Map::from_iter([(trigger.binding.clone(), timer)]);
    let mut metadata = Metadata::default();
    if let Some(input) = input {
        metadata.set_literal(&trigger.binding, input);
    }
    metadata.add_system(function, now);
    json!({ "Data": data, "Metadata": metadata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions_host::schedule::Schedule;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The envelope without its random part.
    fn settled(mut envelope: Value) -> Value {
        let guid = envelope["Metadata"]["sys"]["RandGuid"].take();
        assert_eq!(guid.as_str().unwrap().len(), 36);
        envelope
    }

    fn trigger(schedule: &str) -> TimerTrigger {
        TimerTrigger {
            binding: "myTimer".to_owned(),
            schedule: Schedule::parse(schedule).unwrap(),
            schedule_text: schedule.to_owned(),
            monitored: true,
            run_on_startup: false,
            retry: None,
        }
    }

    #[test]
    fn a_timer_is_told_as_the_real_host_tells_it() {
        let last = time("2024-10-01T10:50:00.0039671Z");
        let status = ScheduleStatus { last: Some(last), next: time("2024-10-01T10:55:00Z"), updated: Some(last) };
        let now = time("2024-10-01T10:55:00.004275Z");
        let envelope = timer("rapidM2MForwarding", &trigger("0 */5 * * * *"), Some(status), false, None, now);
        let expected = json!({
            "Data": { "myTimer": {
                "Schedule": { "AdjustForDST": true },
                "ScheduleStatus": {
                    "Last": "2024-10-01T10:50:00.0039671+00:00",
                    "Next": "2024-10-01T10:55:00+00:00",
                    "LastUpdated": "2024-10-01T10:50:00.0039671+00:00",
                },
                "IsPastDue": false,
            } },
            "Metadata": { "sys": {
                "MethodName": "rapidM2MForwarding", "UtcNow": "2024-10-01T10:55:00.004275Z", "RandGuid": null,
            } },
        });
        assert_eq!(settled(envelope), expected);
    }

    #[test]
    fn a_timer_without_history_or_status() {
        let now = time("2024-10-01T10:55:00Z");
        let status = ScheduleStatus { last: None, next: now, updated: None };
        let first = timer("f", &trigger("00:05:00"), Some(status), true, Some("by hand"), now);
        assert_eq!(first["Data"]["myTimer"]["ScheduleStatus"]["Last"], "0001-01-01T00:00:00+00:00");
        assert_eq!(first["Data"]["myTimer"]["Schedule"], json!({ "AdjustForDST": false }));
        assert_eq!(first["Data"]["myTimer"]["ScheduleStatus"]["LastUpdated"], "0001-01-01T00:00:00+00:00");
        assert_eq!(first["Data"]["myTimer"]["IsPastDue"], true);
        assert_eq!(first["Metadata"]["myTimer"], "\"by hand\"");
        let unmonitored = timer("f", &trigger("00:05:00"), None, false, None, now);
        assert_eq!(unmonitored["Data"]["myTimer"]["ScheduleStatus"], Value::Null);
    }
}
