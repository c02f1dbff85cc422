//! Shows users what a site did lately, so that a page of thousands of sites need not read their polls.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Outcome;
use crate::support::{fault::Fault, hours::Hours, kind::Kind, reading::Reading};

pub const REMEMBERED_POLLS: usize = 24;

/// A part of the cursor, written with it. No decision depends on it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activity {
    /// When the last recorded poll was made.
    pub polled_at: DateTime<Utc>,
    /// The results of the last recorded polls, one letter each, the latest last: `r` with rows, `e` empty, `f`
    /// failed.
    pub polls: String,
    /// Rows recorded in each hour.
    pub rows: Hours,
    /// Rows that came after newer ones, since the site was first polled.
    #[serde(default, skip_serializing_if = "is_none")]
    pub late_rows: u64,
    /// Rows that came again with other values.
    #[serde(default, skip_serializing_if = "is_none")]
    pub corrected_rows: u64,
    /// Rows of the backend with times of before 2001, which a logger gives after its clock was reset.
    #[serde(default, skip_serializing_if = "is_none")]
    pub reset_rows: u64,
    /// Rows that could not be used.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unusable_rows: u64,
    /// Why the hub did not accept the pending messages; absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_error: Option<Fault>,
    /// Since when the hub has not accepted them for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_error_since: Option<DateTime<Utc>>,
    /// Since when the site cannot be polled for the reason in the cursor's `LastError`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<DateTime<Utc>>,
    /// The first channel that has a value in the newest row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Reading>,
    /// `hub_error` is not in the ledger yet.
    #[serde(skip)]
    pub is_news: bool,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Omits nearly all fields: the next turn does not depend on them, so states that differ only in them count as the
/// same.
impl fmt::Debug for Activity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Activity").field("is_news", &self.is_news).finish_non_exhaustive()
    }
}

impl Activity {
    /// `None` if the value is not an activity, because it was edited or another version wrote it. A site must not
    /// stop for that.
    ///
    /// # Errors
    /// The document is not JSON.
    pub fn if_it_is_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(serde_json::from_value(value).ok())
    }

    /// Notes a recorded poll. Several documents of one poll count once.
    pub fn note(&mut self, at: DateTime<Utc>, outcome: Outcome, rows: usize) {
        let mark = match outcome {
            Outcome::Empty => 'e',
            Outcome::Failed => 'f',
            Outcome::Pending | Outcome::Forwarded | Outcome::Rejected => 'r',
        };
        if at != self.polled_at || !self.polls.ends_with(mark) {
            self.polled_at = at;
            self.polls.push(mark);
        }
        if rows > 0 {
            self.rows.add(at, rows);
        }
        if let Some((old, _)) = self.polls.char_indices().rev().nth(REMEMBERED_POLLS - 1) {
            self.polls.drain(..old);
        }
    }

    /// Notes that a poll failed with `kind`, after `last`.
    pub fn note_failure(&mut self, kind: &Kind, last: Option<&Kind>, now: DateTime<Utc>) {
        if !last.is_some_and(|last| last.is_alike(kind)) {
            self.failing_since = None;
        }
        self.failing_since.get_or_insert(now);
    }

    /// Notes the result of sending. What only follows from the known error does not replace it.
    pub fn note_hub(&mut self, error: Option<Fault>, now: DateTime<Utc>) {
        match (&self.hub_error, &error) {
            (Some(_), Some(new)) if new.kind.is_consequence() => return,
            // The same cause, and perhaps another text and another kind. That is not worth a write.
            (Some(old), Some(new)) if old.kind.is_alike(&new.kind) => {
                self.hub_error_since.get_or_insert(now);
            }
            (None, None) => {}
            (_, new) => {
                self.hub_error_since = new.as_ref().map(|_| now);
                self.is_news = true;
            }
        }
        self.hub_error = error;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::rapidm2m::ledger::Cursor;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap()
    }

    #[test]
    fn the_last_polls_are_remembered_and_a_poll_of_several_documents_is_one() {
        let mut activity = Activity::default();
        activity.note(at(0), Outcome::Failed, 0);
        for _ in 0..3 {
            activity.note(at(60), Outcome::Pending, 5);
        }
        activity.note(at(120), Outcome::Empty, 0);
        assert_eq!((activity.polls.as_str(), activity.polled_at), ("fre", at(120)));
        assert_eq!(activity.rows.until(at(120))[23], 15);
        for second in 0..100 {
            activity.note(at(1_000 + second), Outcome::Empty, 0);
        }
        assert_eq!(activity.polls, "e".repeat(REMEMBERED_POLLS));
        assert_eq!(activity.rows.until(at(120) + TimeDelta::hours(1))[22], 15);
    }

    #[test]
    fn a_hubs_error_is_news_once() {
        let fault = || Some(Fault { kind: "hub_refused".into(), text: String::new() });
        let mut activity = Activity::default();
        activity.note_hub(None, at(0));
        assert!(!activity.is_news);
        activity.note_hub(fault(), at(1));
        assert!(std::mem::take(&mut activity.is_news));
        activity.note_hub(fault(), at(2));
        assert!(!activity.is_news);
        let note = |activity: &mut Activity, kind| {
            activity.note_hub(Some(Fault { kind, text: String::new() }), at(2));
            std::mem::take(&mut activity.is_news)
        };
        assert!(note(&mut activity, Kind::HubUnreachable), "another cause");
        assert!(!note(&mut activity, Kind::HubTimeout), "a hub that is away fails now in one way, now in another");
        activity.note_hub(None, at(3));
        assert!(activity.is_news && activity.hub_error.is_none());
    }

    #[test]
    fn an_error_lasts_since_its_cause_began_and_its_consequences_do_not_hide_it() {
        let mut activity = Activity::default();
        let mut note = |second, kind: Kind| {
            activity.note_hub(Some(Fault { kind, text: String::new() }), at(second));
            (activity.hub_error.clone().unwrap().kind, activity.hub_error_since)
        };
        assert_eq!(note(1, Kind::Deadline), (Kind::Deadline, Some(at(1))));
        assert_eq!(note(2, Kind::HubUnreachable), (Kind::HubUnreachable, Some(at(2))));
        assert_eq!(note(3, Kind::HubTimeout), (Kind::HubTimeout, Some(at(2))));
        assert_eq!(note(4, Kind::Deadline), (Kind::HubTimeout, Some(at(2))));
        assert_eq!(note(5, Kind::HubQuota), (Kind::HubQuota, Some(at(5))));
        activity.note_hub(None, at(6));
        assert_eq!(activity.hub_error_since, None);
        // A version that did not note the time has left it.
        activity.hub_error = Some(Fault { kind: Kind::HubQuota, text: String::new() });
        activity.note_hub(Some(Fault { kind: Kind::HubQuota, text: String::new() }), at(7));
        assert_eq!(activity.hub_error_since, Some(at(7)));

        activity.note_failure(&Kind::Connect, None, at(1));
        activity.note_failure(&Kind::Timeout, Some(&Kind::Connect), at(2));
        assert_eq!(activity.failing_since, Some(at(1)));
        activity.note_failure(&Kind::Unauthorized, Some(&Kind::Timeout), at(3));
        assert_eq!(activity.failing_since, Some(at(3)));
    }

    #[test]
    fn an_odd_one_does_not_stop_the_site() {
        let json = serde_json::json!({
            "id": "cursor", "Kind": "cursor", "Customer_Id": "c", "Site_Id": "s", "Unforwarded": ["a"],
            "Activity": {"PolledAt": "yesterday", "Polls": 7}
        });
        let cursor: Cursor = serde_json::from_value(json).unwrap();
        assert_eq!((cursor.activity, cursor.unforwarded), (None, vec!["a".to_owned()].into()));
    }

    #[test]
    fn the_fields_are_as_documented() {
        let mut activity = Activity::default();
        activity.note(at(0), Outcome::Pending, 5);
        let json = serde_json::json!({
            "PolledAt": "2026-01-01T00:00:00Z", "Polls": "r", "Rows": {"Last": "2026-01-01T00:00:00Z", "Counts": [5]}
        });
        assert_eq!(serde_json::to_value(&activity).unwrap(), json);
        assert_eq!(serde_json::from_value::<Activity>(json).unwrap(), activity);
    }
}
