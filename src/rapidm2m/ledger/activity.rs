//! What a site did lately: for people, so that a page of thousands of sites needs no poll of any of them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::documents::{Fault, Outcome, Poll};
use crate::support::hours::Hours;

/// How many polls are remembered.
pub const REMEMBERED_POLLS: usize = 24;

/// A part of the cursor, written whenever that is. Nothing is decided by it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activity {
    /// When the last recorded poll asked.
    pub polled_at: DateTime<Utc>,
    /// How the last recorded polls ended, one letter each, the last one last: `r` with rows, `e` empty, `f` failed.
    pub polls: String,
    /// Rows recorded in each hour.
    pub rows: Hours,
    /// Why the hub did not take what waits; absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_error: Option<Fault>,
    /// `hub_error` is not in the ledger yet.
    #[serde(skip)]
    pub is_news: bool,
}

/// Leaves nearly all out: what a turn does next does not depend on it, and states that differ in nothing else are the same.
impl fmt::Debug for Activity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Activity").field("is_news", &self.is_news).finish_non_exhaustive()
    }
}

impl Activity {
    /// One that is none, since somebody edited it or another version wrote it, is none: no site stands still for it.
    ///
    /// # Errors
    /// The document is no JSON.
    pub fn if_it_is_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(serde_json::from_value(value).ok())
    }

    /// Notes polls that are recorded together. Several documents of one poll count once.
    pub fn note(&mut self, polls: &[Poll]) {
        for poll in polls {
            let mark = match poll.outcome {
                Outcome::Empty => 'e',
                Outcome::Failed => 'f',
                Outcome::Pending | Outcome::Forwarded | Outcome::Rejected => 'r',
            };
            if poll.polling_timestamp != self.polled_at || !self.polls.ends_with(mark) {
                self.polled_at = poll.polling_timestamp;
                self.polls.push(mark);
            }
            if poll.result.rows > 0 {
                self.rows.add(poll.polling_timestamp, poll.result.rows);
            }
        }
        if let Some((old, _)) = self.polls.char_indices().rev().nth(REMEMBERED_POLLS - 1) {
            self.polls.drain(..old);
        }
    }

    /// Notes how sending ended.
    pub fn note_hub(&mut self, error: Option<Fault>) {
        let kind = |error: &Option<Fault>| error.as_ref().map(|error| error.kind.clone());
        // Texts say how long to wait: each of them another.
        self.is_news |= kind(&self.hub_error) != kind(&error);
        self.hub_error = error;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::TimeDelta;

    use super::*;
    use crate::rapidm2m::{
        ledger::{Cursor, Request, SiteKey},
        polling::record::{Asked, empty_poll, failed_poll},
    };

    fn polls(second: i64) -> [Poll; 3] {
        let key = SiteKey { customer: "c".into(), site: "s".into() };
        let at = DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap();
        let cursor = Cursor::new(&key);
        let asked = Asked {
            key,
            at,
            request: Request::default(),
            status: None,
            bytes: 0,
            took: Duration::ZERO,
            backfill: None,
        };
        let empty = empty_poll(&asked, &cursor, None);
        let fault = Fault { kind: "timeout".into(), text: String::new() };
        let mut rows = empty.clone();
        (rows.outcome, rows.result.rows) = (Outcome::Pending, 5);
        [failed_poll(&asked, fault, &cursor, None), rows, empty]
    }

    #[test]
    fn the_last_polls_are_remembered_and_a_poll_of_several_documents_is_one() {
        let mut activity = Activity::default();
        let [failed, ..] = polls(0);
        let [_, rows, _] = polls(60);
        let [.., empty] = polls(120);
        activity.note(&[failed]);
        activity.note(&[rows.clone(), rows.clone()]);
        activity.note(&[rows]);
        activity.note(std::slice::from_ref(&empty));
        assert_eq!((activity.polls.as_str(), activity.polled_at), ("fre", empty.polling_timestamp));
        assert_eq!(activity.rows.until(empty.polling_timestamp)[23], 15);
        for second in 0..100 {
            activity.note(&polls(1_000 + second)[2..]);
        }
        assert_eq!(activity.polls, "e".repeat(REMEMBERED_POLLS));
        let later = empty.polling_timestamp + TimeDelta::hours(1);
        assert_eq!(activity.rows.until(later)[22], 15);
    }

    #[test]
    fn a_hubs_error_is_news_once() {
        let fault = || Some(Fault { kind: "hub_refused".into(), text: String::new() });
        let mut activity = Activity::default();
        activity.note_hub(None);
        assert!(!activity.is_news);
        activity.note_hub(fault());
        assert!(std::mem::take(&mut activity.is_news));
        activity.note_hub(fault());
        assert!(!activity.is_news);
        activity.note_hub(None);
        assert!(activity.is_news && activity.hub_error.is_none());
    }

    #[test]
    fn an_odd_one_does_not_stop_the_site() {
        let json = serde_json::json!({
            "id": "cursor", "Kind": "cursor", "Customer_Id": "c", "Site_Id": "s", "Unforwarded": ["a"],
            "Activity": {"PolledAt": "yesterday", "Polls": 7}
        });
        let cursor: Cursor = serde_json::from_value(json).unwrap();
        assert_eq!((cursor.activity, cursor.unforwarded), (None, vec!["a".to_owned()]));
    }

    #[test]
    fn the_fields_are_as_documented() {
        let mut activity = Activity::default();
        activity.note(&polls(0)[1..2]);
        let json = serde_json::json!({
            "PolledAt": "2026-01-01T00:00:00Z", "Polls": "r", "Rows": {"Last": "2026-01-01T00:00:00Z", "Counts": [5]}
        });
        assert_eq!(serde_json::to_value(&activity).unwrap(), json);
        assert_eq!(serde_json::from_value::<Activity>(json).unwrap(), activity);
    }
}
