//! What a timer's next host must know: when it ran, and when it was to run. It is in a blob, as in the real host
//! (`StorageScheduleMonitor`).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{envelope::ScheduleStatus, schedule::Schedule};
use crate::queues::Container;

pub struct Monitor {
    pub container: Arc<Container>,
    pub blob: String,
}

/// .NET's `default(DateTime)`.
const NEVER: &str = "0001-01-01T00:00:00";

impl Monitor {
    /// The stored status. `None` if there is none, or none that can be read.
    pub async fn status(&self) -> Option<ScheduleStatus> {
        let text = match self.container.get(&self.blob).await {
            Ok(text) => text?,
            Err(error) => {
                tracing::warn!(self.blob, %error, "the timer's status cannot be read");
                return None;
            }
        };
        read(&text)
    }

    pub async fn store(&self, status: ScheduleStatus) {
        let text = written(status);
        if let Err(error) = self.container.put(&self.blob, &text).await {
            tracing::warn!(self.blob, %error, "the timer's status was not stored");
        }
    }

    /// The timer's status at the start of its listener, and whether a run was missed.
    pub async fn start(&self, schedule: &Schedule, now: DateTime<Utc>) -> Option<(ScheduleStatus, bool)> {
        let Some(status) = self.status().await else {
            let first = ScheduleStatus { last: None, next: schedule.next(now)?, updated: None };
            self.store(ScheduleStatus { updated: Some(now), ..first }).await;
            return Some((first, false));
        };
        let known = followed(status, schedule, now)?;
        if known != status {
            self.store(known).await;
        }
        Some((known, now > known.next))
    }
}

/// The status, as it is with this schedule. If the schedule has changed, a time that is not yet over is reckoned anew from
/// now, so that nothing counts as missed because of the change.
fn followed(status: ScheduleStatus, schedule: &Schedule, now: DateTime<Utc>) -> Option<ScheduleStatus> {
    let reference = status.last.or(status.updated).unwrap_or(now);
    let expected = schedule.next(reference)?;
    if status.next == expected {
        return Some(status);
    }
    let (next, updated) = if now <= expected { (schedule.next(now)?, now) } else { (expected, reference) };
    Some(ScheduleStatus { last: None, next, updated: Some(updated) })
}

fn written(status: ScheduleStatus) -> String {
    let time = |time: Option<DateTime<Utc>>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_rfc3339());
    json!({ "Last": time(status.last), "Next": time(Some(status.next)), "LastUpdated": time(status.updated) })
        .to_string()
}

fn read(text: &str) -> Option<ScheduleStatus> {
    let stored: Value = serde_json::from_str(text).ok()?;
    let time = |name: &str| stored[name].as_str()?.parse::<DateTime<Utc>>().ok().filter(|time| time.timestamp() > 0);
    Some(ScheduleStatus { last: time("Last"), next: time("Next")?, updated: time("LastUpdated") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let now = Utc::now();
        for (last, updated) in [(None, None), (None, Some(now)), (Some(now), Some(now))] {
            let status = ScheduleStatus { last, next: now, updated };
            assert_eq!(read(&written(status)), Some(status));
        }
        assert_eq!(read("{}"), None);
        assert_eq!(read(""), None);
    }
    #[test]
    fn a_changed_schedule_makes_up_only_for_what_it_would_have_missed_itself() {
        let time = |text: &str| format!("2026-01-01T{text}Z").parse::<DateTime<Utc>>().unwrap();
        let last = Some(time("08:00:00"));
        let status = ScheduleStatus { last, next: time("09:00:00"), updated: last };
        for (schedule, now, next, is_same) in [
            ("0 0 * * * *", "08:30:00", "09:00:00", true),
            ("0 0 * * * *", "11:30:00", "09:00:00", true),
            ("0 0 */6 * * *", "11:30:00", "12:00:00", false),
            ("0 */10 * * * *", "08:30:00", "08:10:00", false),
        ] {
            let followed = followed(status, &Schedule::parse(schedule).unwrap(), time(now)).unwrap();
            assert_eq!((followed.next, followed == status), (time(next), is_same), "{schedule} {now}");
        }
    }
}
