//! The kinds of documents. Field names are part of the product: users query them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Activity, Recorded, backfill::Backfill};

/// Id of the cursor document in its partition.
pub const CURSOR_ID: &str = "cursor";

/// The partition key of a site's documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteKey {
    pub customer: String,
    pub site: String,
}

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The backend has no row newer than the cursor.
    Empty,
    /// The rows are recorded, the hub has not acknowledged them yet.
    Pending,
    /// The hub has acknowledged exactly this message.
    Forwarded,
    /// The hub will never take this message.
    Rejected,
    /// The backend gave no usable answer.
    Failed,
}

/// One poll and its message. A poll with more rows than one message holds is recorded as several documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Poll {
    /// Sorts by time: the poll's UTC milliseconds, the number of the message in the poll, something random.
    #[serde(rename = "id")]
    pub id: String,
    pub kind: PollKind,
    #[serde(rename = "Customer_Id")]
    pub customer: String,
    #[serde(rename = "Site_Id")]
    pub site: String,
    /// When the backend was asked.
    pub polling_timestamp: DateTime<Utc>,
    pub request: Request,
    pub result: PollResult,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// The newest row that is recorded up to and with this document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_value_from: Option<DateTime<Utc>>,
    /// The exact body of the message.
    #[serde(rename = "IoTHubMessage", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_at: Option<DateTime<Utc>>,
    /// `false` if the transport cannot know whether the hub has the message; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<bool>,
    /// Id of the backfill that fetched it; absent for the timer's polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// Seconds until the service removes the document. Absent while the message waits: a record that still has to be
    /// forwarded must not vanish.
    #[serde(rename = "ttl", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
}

/// The value of `Kind` in a poll document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PollKind {
    #[default]
    #[serde(rename = "poll")]
    Poll,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    /// Below the backend's base URL, percent-encoded.
    pub path: String,
    pub select: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Absent: no end.
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
    /// Size of the whole answer.
    pub bytes: usize,
    /// Duration of the request.
    pub milliseconds: u64,
    /// Rows of the answer that could not be used, and rows from the future that wait in the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_rows: Option<BadRows>,
}

/// Rows that were left out of the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BadRows {
    pub count: usize,
    /// The first few, each as `reason: text of the row`.
    pub first: Vec<String>,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fault {
    /// A short name, such as `not_found`.
    pub kind: String,
    /// A sentence for the user.
    pub text: String,
}

/// How far a site has come; or how far a backfill of it has, which has a document of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cursor {
    #[serde(rename = "id")]
    pub(super) id: String,
    pub(super) kind: CursorKind,
    #[serde(rename = "Customer_Id")]
    pub customer: String,
    #[serde(rename = "Site_Id")]
    pub site: String,
    /// Stamp of the newest recorded row.
    #[serde(default)]
    pub last_value_from: Option<DateTime<Utc>>,
    /// Which rows of the last `OverlapSeconds` are recorded; absent without an overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// Up to here the backend has been asked successfully. For people; the next window begins at `LastValueFrom` all the
    /// same, since rows may still arrive late.
    #[serde(default)]
    pub scanned_until: Option<DateTime<Utc>>,
    /// Ids of the polls whose messages are not acknowledged, oldest first.
    #[serde(default)]
    pub unforwarded: Vec<String>,
    #[serde(default)]
    pub consecutive_failures: u32,
    #[serde(default)]
    pub last_error: Option<Fault>,
    /// The site is left alone until then.
    #[serde(default)]
    pub not_before: Option<DateTime<Utc>>,
    /// Of a backfill alone: what it is to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// What the site did lately. For people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Activity::if_it_is_one")]
    pub activity: Option<Activity>,
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
    /// Of a site that was never polled.
    #[must_use]
    pub fn new(key: &SiteKey) -> Self {
        Self { id: CURSOR_ID.into(), customer: key.customer.clone(), site: key.site.clone(), ..Self::default() }
    }

    /// The document's id in its partition.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The id of the `part`th document of the poll at `at`.
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
        ids.sort();
        assert_eq!(ids, ["0000000000999-0000-00000001", "1700000000000-0002-ffffffff", "1700000000000-0010-00000000"]);
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
