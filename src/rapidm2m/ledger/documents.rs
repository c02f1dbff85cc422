//! Defines the ledger's documents. Their field names are part of the product, because users query them.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Activity, Kept, Outcome, Recorded, Unforwarded};
use crate::rapidm2m::gate::Refusals;
pub use crate::support::fault::Fault;

/// Id of the cursor document in its partition.
pub const CURSOR_ID: &str = "cursor";

/// The pseudo site for the record that the sites could not be listed.
pub const ALL_SITES: &str = "*";

/// The partition key of a site's documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteKey {
    pub customer: String,
    pub site: String,
}

/// One poll and its message. A poll with more rows than one message holds is recorded as several documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Poll {
    /// Sorts by time: the poll's UTC milliseconds, the number of the message in the poll, a random number.
    #[serde(rename = "id")]
    pub id: String,
    pub kind: PollKind,
    #[serde(rename = "Customer_Id")]
    pub customer: String,
    #[serde(rename = "Site_Id")]
    pub site: String,
    /// The site's name at the time of the poll, if it is not `Site_Id`.
    #[serde(rename = "Site_Name", default, skip_serializing_if = "Option::is_none")]
    pub site_name: Option<String>,
    #[serde(rename = "Site_Uid", default, skip_serializing_if = "Option::is_none")]
    pub site_uid: Option<String>,
    /// When the backend was polled.
    pub polling_timestamp: DateTime<Utc>,
    pub request: Request,
    pub result: PollResult,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// The newest row that is recorded with this document or before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_value_from: Option<DateTime<Utc>>,
    /// The exact body of the message.
    #[serde(rename = "IoTHubMessage", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Polls before this one that found nothing new and have no record of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_polls: Option<EmptyPolls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_at: Option<DateTime<Utc>>,
    /// `false` if the transport cannot know whether the hub has the message; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<bool>,
    /// Id of the backfill that made the poll; absent in the timer's polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// The message holds other values for rows that were recorded before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub correction: bool,
    /// Seconds until the service removes the document. Absent while the message is pending, so that no record
    /// disappears before it is forwarded.
    #[serde(rename = "ttl", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
}

/// Polls that found nothing new, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EmptyPolls {
    pub count: u32,
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
    /// The status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
}

impl EmptyPolls {
    /// These and one more.
    #[must_use]
    pub fn and_one(before: Option<Self>, at: DateTime<Utc>, http_status: Option<u16>) -> Self {
        let (count, first) = before.map_or((0, at), |before| (before.count, before.first));
        Self { count: count + 1, first, last: at, http_status }
    }
}

/// The value of `Kind` in a poll document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PollKind {
    #[default]
    #[serde(rename = "poll")]
    Poll,
}

/// What was requested.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    /// Below the backend's base URL, percent-encoded.
    pub path: String,
    pub select: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Absent if the window has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PollResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Rows in this document's message.
    pub rows: usize,
    /// Size of the whole answer, in bytes.
    pub bytes: usize,
    /// Duration of the request.
    pub milliseconds: u64,
    /// Rows of the answer that are ahead of the clock. They stay in the backend until their time has come.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows_ahead: usize,
    /// Unusable rows of the answer that were not told before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_rows: Option<BadRows>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Rows that were left out of the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BadRows {
    pub count: usize,
    /// The first few, each as `reason: text of the row`.
    pub first: Vec<String>,
}

/// How far a site has come. A backfill has a document of its own of this type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cursor {
    #[serde(rename = "id")]
    pub(super) id: String,
    pub(super) kind: CursorKind,
    #[serde(rename = "Customer_Id")]
    pub customer: String,
    /// The name under which the site was first polled, or its `_uid` if another site had this name. It never changes.
    #[serde(rename = "Site_Id")]
    pub site: String,
    /// The site's `_uid`, as soon as the backend has told it.
    #[serde(rename = "Site_Uid", default, skip_serializing_if = "Option::is_none")]
    pub site_uid: Option<String>,
    /// The site's name today, if it is not `Site_Id`.
    #[serde(rename = "Site_Name", default, skip_serializing_if = "Option::is_none")]
    pub site_name: Option<String>,
    /// Names that it had before, the latest last.
    #[serde(rename = "Earlier_Names", default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_names: Vec<String>,
    /// Since when the backend does not list the site any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<DateTime<Utc>>,
    /// The container that is polled. Cursors of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histdata: Option<u8>,
    /// How far the site has come in other containers, which were polled before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_histdata: BTreeMap<u8, DateTime<Utc>>,
    /// Stamp of the newest recorded row.
    #[serde(default)]
    pub last_value_from: Option<DateTime<Utc>>,
    /// When the site's device last had contact with the backend, as the list told it when all that the backend had was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<DateTime<Utc>>,
    /// Which rows of the last `OverlapSeconds` are recorded; absent without an overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// Up to here the backend was polled successfully. For users only: the next window still begins at
    /// `LastValueFrom`, because rows may arrive late.
    #[serde(default)]
    pub scanned_until: Option<DateTime<Utc>>,
    /// Ids of the polls whose messages are not finished, oldest first.
    #[serde(default)]
    pub unforwarded: Unforwarded,
    /// The record of the first of them, if it is small and alone: it becomes a document of its own when it is finished. So
    /// such a message costs two writes instead of four.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Kept>,
    #[serde(default)]
    pub consecutive_failures: u32,
    #[serde(default)]
    pub last_error: Option<Fault>,
    /// The site is not polled until then.
    #[serde(default)]
    pub not_before: Option<DateTime<Utc>>,
    /// Under the site `*`: logins that the backend refused within the last hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_logins: Option<Refusals>,
    /// Under the site `*`: since when the contacts that the site list tells are not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts_wrong_since: Option<DateTime<Utc>>,
    /// The range of a backfill; absent in a site's cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// What the site did lately. For users only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Activity::if_it_is_one")]
    pub activity: Option<Activity>,
}

/// The range of a backfill, and its progress in numbers. In a backfill's document `ScannedUntil` is exact: every row
/// from `From` up to it is recorded, and no row after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Backfill {
    /// The first moment of the range.
    pub from: DateTime<Utc>,
    /// The first moment after the range.
    pub until: DateTime<Utc>,
    /// How often the range was begun.
    pub runs: u32,
    /// Rows that this run has recorded.
    #[serde(default)]
    pub rows: u64,
    /// Messages that this run has recorded.
    #[serde(default)]
    pub messages: u64,
    /// Messages of this run that were rejected.
    #[serde(default)]
    pub rejected: u64,
    /// Rows that this run could not use.
    #[serde(default)]
    pub bad_rows: u64,
    /// When all rows were fetched and no message was pending any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// When the operator gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_at: Option<DateTime<Utc>>,
}

impl Backfill {
    pub(super) fn new(from: DateTime<Utc>, until: DateTime<Utc>, runs: u32) -> Self {
        Self { from, until, runs, rows: 0, messages: 0, rejected: 0, bad_rows: 0, finished_at: None, dropped_at: None }
    }

    /// Whether it is neither finished nor dropped.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.finished_at.is_none() && self.dropped_at.is_none()
    }
}

/// The value of `Kind` in a cursor document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CursorKind {
    #[default]
    Cursor,
    Backfill,
}

impl Cursor {
    /// The cursor of a site that was never polled.
    #[must_use]
    pub fn new(key: &SiteKey) -> Self {
        Self { id: CURSOR_ID.into(), customer: key.customer.clone(), site: key.site.clone(), ..Self::default() }
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this text names the site: by a name of today or of another day, by its `_uid`, or as `Site_Id`.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        self.site == text
            || self.name() == text
            || self.site_uid.as_deref() == Some(text)
            || self.earlier_names.iter().any(|name| name == text)
    }

    /// The site's name today.
    #[must_use]
    pub fn name(&self) -> &str {
        self.site_name.as_ref().unwrap_or(&self.site)
    }

    /// Whether both say the same of the site. Its activity does not count: no decision depends on it.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let without_activity = |cursor: &Self| Self { activity: None, ..cursor.clone() };
        without_activity(self) == without_activity(other)
    }

    /// Keeps the record of the only message that waits, so that it needs no document of its own.
    pub fn keep(&mut self, record: Poll) {
        self.unforwarded.note_first_is_in_cursor();
        self.record = Some(record.into());
    }

    /// Takes finished messages out of the queue. Returns the record that the cursor kept, if it is one of them: it needs a
    /// document.
    pub fn take_out(&mut self, is_finished: impl Fn(&String) -> bool) -> Option<Poll> {
        if self.unforwarded.take_out(is_finished) { self.record.take().map(Poll::from) } else { None }
    }

    /// How many messages wait for the hub, for users. The one whose record the cursor keeps is usually acknowledged, and only
    /// not marked yet: it counts if the hub refused it, or if nobody has marked it for long.
    #[must_use]
    pub fn waiting(&self, now: DateTime<Utc>) -> usize {
        let is_marked_soon = self.unforwarded.is_first_in_cursor()
            && self.activity.as_ref().is_none_or(|activity| activity.hub_error.is_none())
            && self.unforwarded.first().and_then(|id| time_of(id)).is_some_and(|at| now - at < MARKED_AFTER);
        self.unforwarded.len() - usize::from(is_marked_soon)
    }
}

/// Whoever sent a message has marked it by then: `MarkWithinSeconds` is at most ten minutes, and a run may be late.
const MARKED_AFTER: TimeDelta = TimeDelta::minutes(15);

/// When the poll of a document with this id was made.
#[must_use]
pub fn time_of(poll_id: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(poll_id.get(..13)?.parse().ok()?)
}

/// The id of the document with index `part` of the poll at `at`.
#[must_use]
pub fn poll_id(at: DateTime<Utc>, part: usize, random: u32) -> String {
    format!("{:013}-{part:04}-{random:08x}", at.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_part() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let mut ids = [
            poll_id(at(1_700_000_000_000), 10, 0),
            poll_id(at(1_700_000_000_000), 2, u32::MAX),
            poll_id(at(999), 0, 1),
        ];
        assert_eq!(super::time_of(&ids[0]), Some(at(1_700_000_000_000)));
        ids.sort();
        assert_eq!(ids, ["0000000000999-0000-00000001", "1700000000000-0002-ffffffff", "1700000000000-0010-00000000"]);
    }

    /// People are not told that a message waits which is only not marked yet; but that the hub refuses it, or that nobody marks
    /// it.
    #[test]
    fn a_kept_record_waits_for_people_only_if_something_is_wrong() {
        let at = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        let mut cursor = Cursor::new(&SiteKey { customer: "c".into(), site: "s".into() });
        cursor.unforwarded = vec![poll_id(at, 0, 1), poll_id(at, 1, 1)].into();
        assert_eq!(cursor.waiting(at), 2, "both are documents");
        cursor.unforwarded.note_first_is_in_cursor();
        assert_eq!(cursor.waiting(at + TimeDelta::minutes(1)), 1);
        assert_eq!(cursor.waiting(at + MARKED_AFTER), 2);
        let fault = Fault { kind: crate::support::kind::Kind::Timeout, text: "t".into() };
        cursor.activity.get_or_insert_default().note_hub(Some(fault), at);
        assert_eq!(cursor.waiting(at), 2);
    }

    #[test]
    fn a_cursor_has_the_documented_fields() {
        let key = SiteKey { customer: "c".into(), site: "s".into() };
        let json = serde_json::to_value(Cursor::new(&key)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": "cursor", "Kind": "cursor", "Customer_Id": "c", "Site_Id": "s", "LastValueFrom": null,
                "ScannedUntil": null, "Unforwarded": [], "ConsecutiveFailures": 0, "LastError": null, "NotBefore": null
            })
        );
        let minimal =
            serde_json::json!({"id": "cursor", "Kind": "cursor", "Customer_Id": "c", "Site_Id": "s", "_etag": "x"});
        assert_eq!(serde_json::from_value::<Cursor>(minimal).unwrap(), Cursor::new(&key));
    }
}
