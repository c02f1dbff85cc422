//! Defines the document of a backfill: a cursor that goes through one time range and ends, beside the cursor of the
//! site.

use chrono::{DateTime, Utc};

use super::documents::{Backfill, Cursor, CursorKind, SiteKey, time_of};

/// What a backfill goes through, from its first moment (included) to its end (excluded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackfillRange {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

impl BackfillRange {
    /// The id of the document. The same range always has the same id, so a second request finds it.
    pub(super) fn document_id(self) -> String {
        const DIGITS: &str = "%Y%m%dT%H%M%S%3fZ";
        format!("backfill-{}-{}", self.from.format(DIGITS), self.until.format(DIGITS))
    }
}

impl Cursor {
    /// The cursor of a backfill that has not begun.
    #[must_use]
    pub fn of_backfill(key: &SiteKey, range: BackfillRange) -> Self {
        let (id, kind) = (range.document_id(), CursorKind::Backfill);
        Self { id, kind, backfill: Some(Backfill::new(range.from, range.until, 1)), ..Self::new(key) }
    }

    /// The backfill's id for the polls that it makes; `None` if this is a site's cursor.
    #[must_use]
    pub fn backfill_id(&self) -> Option<String> {
        self.backfill.as_ref().map(|_| self.id.clone())
    }

    /// The range, if this is a backfill whose messages nobody has sent since `before`. Whoever runs it again sends them, too,
    /// but a command that gave up may never be run again.
    #[must_use]
    pub fn abandoned(&self, before: DateTime<Utc>) -> Option<BackfillRange> {
        let Backfill { from, until, .. } = *self.backfill.as_ref()?;
        let newest = time_of(self.unforwarded.last()?)?;
        (newest < before).then_some(BackfillRange { from, until })
    }

    /// The same range from its beginning, as a new run. Pending messages stay pending.
    #[must_use]
    pub fn begun_again(&self) -> Self {
        let mut cursor = self.clone();
        cursor.last_value_from = None;
        cursor.scanned_until = None;
        cursor.consecutive_failures = 0;
        cursor.last_error = None;
        cursor.not_before = None;
        cursor.histdata = None;
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
        let mut cursor = Cursor::of_backfill(
            &key,
            BackfillRange { from: time("2026-01-01T00:00:00Z"), until: time("2026-01-31T12:00:00.125Z") },
        );
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
        cursor.unforwarded = vec!["waits".to_owned()].into();
        cursor.backfill.as_mut().unwrap().finished_at = Some(time("2026-02-01T00:00:00Z"));
        assert!(!cursor.backfill.as_ref().unwrap().is_open());
        let again = cursor.begun_again();
        assert_eq!((again.id(), again.scanned_until, &again.unforwarded), (cursor.id(), None, &cursor.unforwarded));
        let backfill = again.backfill.unwrap();
        assert!(backfill.is_open() && backfill.runs == 2);
    }
}
