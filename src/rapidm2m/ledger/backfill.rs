//! The document of a backfill: a cursor that goes through one range of time and ends, beside the one that follows the site.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::documents::{Cursor, CursorKind, SiteKey};

/// What a backfill is to fetch, and how far that is in numbers. `ScannedUntil` of the document is exact here: every row
/// from `From` up to it is recorded, and nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Backfill {
    /// The first moment that belongs to it.
    pub from: DateTime<Utc>,
    /// The first moment that does not belong to it any more.
    pub until: DateTime<Utc>,
    /// How often it was begun.
    pub runs: u32,
    /// Rows that this run has recorded.
    #[serde(default)]
    pub rows: u64,
    /// Messages that this run has recorded.
    #[serde(default)]
    pub messages: u64,
    /// Messages of this run that the hub will never take.
    #[serde(default)]
    pub rejected: u64,
    /// Rows that this run could not use.
    #[serde(default)]
    pub bad_rows: u64,
    /// When everything was fetched and nothing waited any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// When somebody gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_at: Option<DateTime<Utc>>,
}

impl Backfill {
    fn new(from: DateTime<Utc>, until: DateTime<Utc>, runs: u32) -> Self {
        Self { from, until, runs, rows: 0, messages: 0, rejected: 0, bad_rows: 0, finished_at: None, dropped_at: None }
    }

    /// Whether there is something left to do.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.finished_at.is_none() && self.dropped_at.is_none()
    }
}

/// The id of the document: the same for the same range, whoever asks for it.
#[must_use]
pub fn backfill_id(from: DateTime<Utc>, until: DateTime<Utc>) -> String {
    const DIGITS: &str = "%Y%m%dT%H%M%S%3fZ";
    format!("backfill-{}-{}", from.format(DIGITS), until.format(DIGITS))
}

impl Cursor {
    /// Of a backfill that has not begun.
    #[must_use]
    pub fn of_backfill(key: &SiteKey, from: DateTime<Utc>, until: DateTime<Utc>) -> Self {
        let (id, kind) = (backfill_id(from, until), CursorKind::Backfill);
        Self { id, kind, backfill: Some(Backfill::new(from, until, 1)), ..Self::new(key) }
    }

    /// The backfill whose document this is, for the polls that it makes.
    #[must_use]
    pub fn backfill_id(&self) -> Option<String> {
        self.backfill.as_ref().map(|_| self.id.clone())
    }

    /// The same range from its beginning, as a new run. What still waits goes on waiting.
    #[must_use]
    pub fn begun_again(&self) -> Self {
        let mut cursor = self.clone();
        cursor.last_value_from = None;
        cursor.scanned_until = None;
        cursor.consecutive_failures = 0;
        cursor.last_error = None;
        cursor.not_before = None;
        if let Some(backfill) = &mut cursor.backfill {
            *backfill = Backfill::new(backfill.from, backfill.until, backfill.runs.saturating_add(1));
        }
        cursor
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn a_backfill_has_the_documented_fields() {
        let key = SiteKey { customer: "c".into(), site: "s".into() };
        let mut cursor = Cursor::of_backfill(&key, time("2026-01-01T00:00:00Z"), time("2026-01-31T12:00:00.125Z"));
        let json = serde_json::to_value(&cursor).unwrap();
        assert_eq!(
            json,
            json!({
                "id": "backfill-20260101T000000000Z-20260131T120000125Z", "Kind": "backfill", "Customer_Id": "c",
                "Site_Id": "s", "LastValueFrom": null, "ScannedUntil": null, "Unforwarded": [],
                "ConsecutiveFailures": 0, "LastError": null, "NotBefore": null,
                "Backfill": { "From": "2026-01-01T00:00:00Z", "Until": "2026-01-31T12:00:00.125Z", "Runs": 1,
                              "Rows": 0, "Messages": 0, "Rejected": 0, "BadRows": 0 }
            })
        );
        assert_eq!(serde_json::from_value::<Cursor>(json).unwrap(), cursor);
        assert_eq!(Cursor::new(&key).backfill_id(), None);

        cursor.scanned_until = Some(time("2026-01-31T12:00:00.125Z"));
        cursor.unforwarded = vec!["waits".into()];
        cursor.backfill.as_mut().unwrap().finished_at = Some(time("2026-02-01T00:00:00Z"));
        assert!(!cursor.backfill.as_ref().unwrap().is_open());
        let again = cursor.begun_again();
        assert_eq!((again.id(), again.scanned_until, &again.unforwarded), (cursor.id(), None, &cursor.unforwarded));
        let backfill = again.backfill.unwrap();
        assert!(backfill.is_open() && backfill.runs == 2);
    }
}
