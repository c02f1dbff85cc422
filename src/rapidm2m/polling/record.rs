//! Turns the result of a poll into documents and messages. Pure: no clock, no network.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    iot_hub::{Message, devices::Owner, message},
    rapidm2m::{
        FetchError, Site, Stamp,
        client::RowsQuery,
        ledger::{
            BadRows, Cursor, Fault, MAX_BATCH_BYTES, Outcome, Poll, PollKind, PollResult, Recorded, Request, SiteKey,
        },
        wire::Flaws,
    },
    support::backoff::{LONGEST_REQUESTED, Policy},
    support::kind::Kind,
};

use super::split::Part;

/// A site is not polled while this many of its messages are pending: the backend keeps the data.
pub const MAX_UNFORWARDED: usize = 100;
/// The waits of a site, or of the list of sites, after an error that an operator must fix.
pub const BACK_OFF: Policy = Policy::exact(Duration::from_secs(60), Duration::from_secs(60 * 60));
/// The largest message body that is kept in its record, in bytes: a larger one does not fit into a document. Only a
/// message of a single huge row comes near.
const MAX_KEPT_BODY: usize = 800_000;
/// An upper estimate for the size of a poll document without its message, in bytes.
const DOCUMENT_ENVELOPE: usize = 4_096;

/// The values that all documents of one poll have in common.
#[derive(Clone, Debug)]
pub struct PollContext {
    pub site: Site,
    pub at: DateTime<Utc>,
    pub request: Request,
    pub status: Option<u16>,
    pub bytes: usize,
    pub took: Duration,
    /// The id of the backfill that made the request.
    pub backfill: Option<String>,
    /// Rows of the answer that are ahead of the clock.
    pub rows_ahead: usize,
    /// Whether the messages hold other values for rows that were recorded before.
    pub correction: bool,
}

impl PollContext {
    #[must_use]
    pub fn request(query: &RowsQuery<'_>) -> Request {
        use crate::rapidm2m::{Client, client::Range};
        let (from, until) = match query.range {
            Range::Youngest => (None, None),
            Range::Window { from, until } => (Some(from.time()), until.map(|until| until.time())),
        };
        Request { path: Client::rows_path(query), select: query.channels.to_vec(), from, until }
    }

    /// The time up to which this request looked for rows.
    #[must_use]
    pub fn scanned_until(&self) -> DateTime<Utc> {
        self.request.until.unwrap_or(self.at)
    }

    fn poll(&self, part: usize, outcome: Outcome) -> Poll {
        Poll {
            id: crate::rapidm2m::ledger::documents::poll_id(self.at, part, fastrand::u32(..)),
            kind: PollKind::Poll,
            customer: self.site.key.customer.clone(),
            site: self.site.key.site.clone(),
            site_name: self.site.other_name().cloned(),
            site_uid: self.site.uid.clone(),
            polling_timestamp: self.at,
            request: self.request.clone(),
            result: PollResult {
                http_status: self.status,
                rows: 0,
                bytes: self.bytes,
                milliseconds: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
                rows_ahead: self.rows_ahead,
                bad_rows: None,
            },
            outcome,
            error: None,
            last_value_from: None,
            message: None,
            message_id: None,
            empty_polls: None,
            forwarded_at: None,
            confirmed: None,
            backfill: self.backfill.clone(),
            correction: self.correction,
            ttl: None,
        }
    }
}

/// The record of a message that is pending, or that the hub can never accept.
#[must_use]
pub fn message_poll(context: &PollContext, index: usize, part: Part, history: Option<u32>) -> Poll {
    let mut poll = context.poll(index, Outcome::Pending);
    poll.result.rows = part.rows.len();
    // If the cursor moved to this stamp, its remaining rows would count as old.
    let recorded_up_to = if part.splits_stamp { part.newest.shifted(-1) } else { part.newest };
    poll.last_value_from = Some(recorded_up_to.time());
    let size = part.body.len()
        + message::envelope_size(
            &part.message_id,
            &properties(&context.site, context.backfill.is_some(), context.correction),
        );
    poll.message_id = Some(part.message_id);
    if size > message::MAX_SIZE {
        let text = format!(
            "the row of {} makes a message of {size} bytes, the hub takes {}; it stays in the backend",
            part.newest.rfc3339(),
            message::MAX_SIZE
        );
        poll.error = Some(Fault { kind: Kind::MessageTooLarge, text });
        poll.outcome = Outcome::Rejected;
        poll.ttl = history;
    }
    poll.message = (part.body.len() <= MAX_KEPT_BODY).then_some(part.body);
    poll
}

/// The record of a poll that found nothing new.
#[must_use]
pub fn empty_poll(context: &PollContext, cursor: &Cursor, history: Option<u32>) -> Poll {
    let mut poll = context.poll(0, Outcome::Empty);
    poll.last_value_from = cursor.last_value_from;
    poll.ttl = history;
    poll
}

/// The record of a poll that failed.
#[must_use]
pub fn failed_poll(context: &PollContext, fault: Fault, cursor: &Cursor, history: Option<u32>) -> Poll {
    let mut poll = empty_poll(context, cursor, history);
    poll.outcome = Outcome::Failed;
    poll.error = Some(fault);
    poll
}

/// The cursor after a successful poll. The `recorded` documents are written with it.
#[must_use]
pub fn advanced(cursor: &Cursor, recorded: &[Poll], scanned_until: DateTime<Utc>) -> Cursor {
    let mut cursor = cursor.clone();
    // Rows that arrive late do not move the cursor back.
    cursor.last_value_from = recorded.last().and_then(|poll| poll.last_value_from).max(cursor.last_value_from);
    cursor.scanned_until = Some(scanned_until);
    let waiting = recorded.iter().filter(|poll| poll.outcome == Outcome::Pending);
    waiting.for_each(|poll| cursor.unforwarded.push(poll.id.clone()));
    cursor.consecutive_failures = 0;
    cursor.last_error = None;
    if let Some(activity) = &mut cursor.activity {
        activity.failing_since = None;
    }
    cursor.not_before = None;
    cursor
}

/// The cursor after a poll that failed.
#[must_use]
pub fn set_back(cursor: &Cursor, fault: Fault, retry: Retry, now: DateTime<Utc>) -> Cursor {
    let mut cursor = cursor.clone();
    cursor.consecutive_failures = cursor.consecutive_failures.saturating_add(1);
    let wait = retry.wait(cursor.consecutive_failures);
    cursor.not_before = wait.and_then(|wait| now.checked_add_signed(TimeDelta::from_std(wait).ok()?));
    let last = cursor.last_error.replace(fault.clone()).map(|last| last.kind);
    cursor.activity.get_or_insert_default().note_failure(&fault.kind, last.as_ref(), now);
    cursor
}

/// The record by which a poller recognises a transaction of its own in the ledger: no other poller can have written it. `None`
/// if there is no such record: two pollers reject a message in the same way.
#[must_use]
pub fn witness<'a>(created: &'a [Poll], replaced: &'a [Poll]) -> Option<&'a Poll> {
    created.first().or_else(|| replaced.iter().find(|poll| poll.forwarded_at.is_some()))
}

/// Whether the ledger holds exactly this version of the record, not what another poller wrote under the same id.
#[must_use]
pub fn is_same(found: &Poll, written: &Poll) -> bool {
    let version = |poll: &Poll| (poll.outcome, poll.polling_timestamp, poll.forwarded_at);
    found.id == written.id && version(found) == version(written) && found.message_id == written.message_id
}

/// Adds or removes the cursor's list of recorded rows, as `OverlapSeconds` requires. A cursor without a list gets an
/// empty one: then only rows after its newest row can be late.
pub fn keep_recorded(cursor: &mut Cursor, overlap: Option<Duration>) {
    if overlap.is_none() {
        cursor.recorded = None;
    } else if let (None, Some(newest)) = (&cursor.recorded, cursor.last_value_from) {
        let newest = Stamp::from_time(newest);
        let mut recorded = Recorded::starting(newest);
        // Its values are not known. A change of them is noticed only after the next row.
        recorded.note(newest);
        cursor.recorded = Some(recorded);
    }
}

/// Until when the site is not polled. A time further ahead than the longest wait does not count: it was set by a
/// clock that has since been corrected.
#[must_use]
pub fn backs_off_until(cursor: &Cursor, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let longest = TimeDelta::from_std(LONGEST_REQUESTED).unwrap_or(TimeDelta::MAX);
    cursor.not_before.filter(|until| now < *until && *until - now <= longest)
}

/// When a site is polled again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    NextRun,
    /// After the wait that the backend requests. If it requests none, after ever longer waits, because an operator
    /// must fix something.
    BackOff(Option<Duration>),
}

impl Retry {
    #[must_use]
    pub fn after(error: &FetchError) -> Self {
        match error.retry_after() {
            None if !error.is_permanent() => Self::NextRun,
            requested => Self::BackOff(requested),
        }
    }

    /// The wait after this many failures in a row.
    #[must_use]
    pub fn wait(self, failures: u32) -> Option<Duration> {
        match self {
            Self::NextRun => None,
            Self::BackOff(requested) => Some(BACK_OFF.wait_or(requested, failures)),
        }
    }
}

/// Why a pending message cannot be sent: its record is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The record was deleted.
    Gone,
    /// The record was edited, or a newer version wrote it.
    Unreadable(String),
}

impl Unsendable {
    /// Checks that a record can be sent.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn check(poll: &Poll) -> Result<(), Self> {
        if poll.message.is_some() && poll.message_id.is_some() {
            return Ok(());
        }
        Err(Self::Unreadable("it holds no message".into()))
    }

    #[must_use]
    pub fn fault(&self, key: &SiteKey, id: &str) -> Fault {
        let (kind, text) = match self {
            Self::Gone => (
                Kind::RecordLost,
                format!("the record {id} of a message that waited is gone from Cosmos DB: its rows cannot be sent"),
            ),
            Self::Unreadable(why) => (
                Kind::RecordUnreadable,
                format!(
                    "the record {id} of a message that waited cannot be read ({why}): it stays as it is and is not \
                     sent; to send it, fix it, set its Outcome to rejected, and run: iothub-connector replay {:?} --poll {id}",
                    key.site
                ),
            ),
        };
        Fault { kind, text }
    }
}

/// The note that a pending message cannot be sent. If the record is gone, the note takes its id. A damaged record
/// stays beside the note, because it may be the only copy of its rows.
#[must_use]
pub fn note(key: &SiteKey, id: &str, unsendable: &Unsendable, now: DateTime<Utc>) -> Poll {
    let (at, request, took) = (now, Request::default(), Duration::ZERO);
    let site = Site::of_key(key.clone());
    let context = PollContext {
        site,
        at,
        request,
        status: None,
        bytes: 0,
        took,
        backfill: None,
        rows_ahead: 0,
        correction: false,
    };
    let mut poll = context.poll(0, Outcome::Rejected);
    if *unsendable == Unsendable::Gone {
        poll.id = id.to_owned();
    }
    poll.error = Some(unsendable.fault(key, id));
    poll
}

/// Marks a message's record as acknowledged by the hub, or (not `confirmed`) as sent by a transport that cannot know.
pub fn set_forwarded(poll: &mut Poll, at: DateTime<Utc>, confirmed: bool, history: Option<u32>) {
    poll.outcome = Outcome::Forwarded;
    poll.forwarded_at = Some(at);
    poll.confirmed = (!confirmed).then_some(false);
    poll.ttl = history;
}

/// Marks a message's record as one that will never be sent.
pub fn set_rejected(poll: &mut Poll, fault: Fault, history: Option<u32>) {
    poll.outcome = Outcome::Rejected;
    poll.error = Some(fault);
    poll.ttl = history;
}

/// The message of a record. It contains only what is recorded, so that it is the same whenever it is sent.
#[must_use]
pub fn message(poll: &Poll) -> Option<Message> {
    Some(Message {
        id: poll.message_id.clone()?,
        created: poll.polling_timestamp,
        properties: properties(&site_of(poll), poll.backfill.is_some(), poll.correction),
        body: poll.message.clone()?.into(),
    })
}

/// The site of a record, as it was when the record was written.
fn site_of(poll: &Poll) -> Site {
    let key = SiteKey { customer: poll.customer.clone(), site: poll.site.clone() };
    Site { name: poll.site_name.as_ref().unwrap_or(&poll.site).clone(), uid: poll.site_uid.clone(), contact: None, key }
}

/// The application properties of a site's messages.
#[must_use]
pub fn properties(site: &Site, is_backfill: bool, is_correction: bool) -> Vec<(&'static str, String)> {
    let mut properties = vec![("Customer_Id", site.key.customer.clone()), ("Site_Id", site.name.clone())];
    properties.extend(site.uid.clone().map(|uid| ("Site_Uid", uid)));
    properties.extend(is_backfill.then(|| ("Backfill", "true".into())));
    properties.extend(is_correction.then(|| ("Correction", "true".into())));
    properties
}

/// The owner of a site's messages.
#[must_use]
pub fn owner(key: &SiteKey) -> Owner {
    Owner::rapidm2m_site(&key.customer, &key.site)
}

/// The largest body that leaves room for the properties of the site's messages.
#[must_use]
pub fn max_body(site: &Site, is_backfill: bool, is_correction: bool) -> usize {
    let (message_id, properties) = ("0".repeat(32), properties(site, is_backfill, is_correction));
    message::MAX_PORTABLE_SIZE.saturating_sub(message::envelope_size(&message_id, &properties))
}

/// The unusable rows, for the record.
#[must_use]
pub fn bad_rows(flaws: &Flaws) -> Option<BadRows> {
    let first = flaws.first.iter().map(ToString::to_string).collect();
    (flaws.count > 0).then_some(BadRows { count: flaws.count, first })
}

/// Whether one more document fits into a transaction that holds `bytes` already; adds its size.
#[must_use]
pub fn fits(bytes: &mut usize, poll: &Poll) -> bool {
    let body = poll.message.as_deref().unwrap_or_default();
    // A quote or a backslash takes two bytes in the text of a document.
    let escaped = body.len() + body.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let size = DOCUMENT_ENVELOPE
        + escaped
        + poll.request.path.len()
        + poll.request.select.iter().map(|name| name.len() + 8).sum::<usize>();
    let first = *bytes == 0;
    *bytes += size;
    first || *bytes <= MAX_BATCH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> PollContext {
        PollContext {
            site: Site::of_key(SiteKey { customer: "c".into(), site: "s".into() }),
            at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            request: Request::default(),
            status: Some(200),
            bytes: 10,
            took: Duration::from_millis(5),
            backfill: None,
            rows_ahead: 0,
            correction: false,
        }
    }

    fn part(body: String) -> Part {
        Part {
            rows: 0..3,
            newest: Stamp::parse("2017012").unwrap(),
            splits_stamp: false,
            body,
            message_id: "id".into(),
        }
    }

    #[test]
    fn a_waiting_record_does_not_expire_and_a_finished_one_does() {
        let mut poll = message_poll(&context(), 0, part("{}".into()), Some(60));
        assert_eq!((poll.outcome, poll.ttl, poll.result.rows), (Outcome::Pending, None, 3));
        set_forwarded(&mut poll, context().at, true, Some(60));
        assert_eq!((poll.outcome, poll.ttl, poll.forwarded_at), (Outcome::Forwarded, Some(60), Some(context().at)));
    }

    #[test]
    fn a_message_over_the_hubs_limit_is_rejected_when_it_is_recorded() {
        let limit = message::MAX_SIZE - message::envelope_size("id", &properties(&context().site, false, false));
        let fits = message_poll(&context(), 0, part("x".repeat(limit)), None);
        assert_eq!(fits.outcome, Outcome::Pending);
        assert_eq!(message(&fits).unwrap().size(), message::MAX_SIZE);
        let too_large = message_poll(&context(), 0, part("x".repeat(limit + 1)), Some(60));
        assert_eq!((too_large.outcome, too_large.ttl), (Outcome::Rejected, Some(60)));
        assert!(too_large.error.unwrap().text.contains("2017-01-20T00:00:00Z"));
        assert_eq!(message_poll(&context(), 0, part("x".repeat(MAX_KEPT_BODY + 1)), None).message, None);
    }

    #[test]
    fn the_cursor_does_not_stand_between_rows_of_one_stamp() {
        let split = Part { splits_stamp: true, ..part("{}".into()) };
        let poll = message_poll(&context(), 0, split, None);
        assert_eq!(poll.last_value_from, Some(Stamp::parse("2017012").unwrap().shifted(-1).time()));
    }

    #[test]
    fn the_cursor_moves_with_the_records_and_queues_what_waits() {
        let mut cursor = Cursor::new(&context().site.key);
        cursor.consecutive_failures = 3;
        cursor.unforwarded = vec!["old".to_owned()].into();
        let waiting = message_poll(&context(), 0, part("{}".into()), None);
        let rejected = message_poll(&context(), 1, part("x".repeat(300_000)), None);
        let moved = advanced(&cursor, &[waiting.clone(), rejected], context().at);
        assert_eq!(*moved.unforwarded, ["old".to_owned(), waiting.id]);
        assert_eq!(moved.last_value_from, Some(Stamp::parse("2017012").unwrap().time()));
        assert_eq!(moved.consecutive_failures, 0);
        let empty = empty_poll(&context(), &moved, None);
        assert_eq!(advanced(&moved, &[empty], context().at).last_value_from, moved.last_value_from);
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_prolong_a_rest() {
        let mut cursor = Cursor::new(&context().site.key);
        cursor.not_before = Some(context().at + TimeDelta::minutes(60));
        let rests = |now| backs_off_until(&cursor, now).is_some();
        assert!(rests(context().at) && rests(context().at + TimeDelta::minutes(59)));
        assert!(!rests(context().at + TimeDelta::minutes(60)) && !rests(context().at - TimeDelta::days(1)));
    }

    #[test]
    fn rows_that_come_late_do_not_move_the_cursor_back() {
        let mut cursor = Cursor::new(&context().site.key);
        cursor.last_value_from = Some(context().at);
        let late = message_poll(&context(), 0, part("{}".into()), None);
        assert!(late.last_value_from < cursor.last_value_from);
        assert_eq!(advanced(&cursor, &[late], context().at).last_value_from, Some(context().at));
    }

    #[test]
    fn rests_grow_to_an_hour_and_heed_the_backend() {
        let fault = || Fault { kind: Kind::Timeout, text: "t".into() };
        let now = context().at;
        let mut cursor = Cursor::new(&context().site.key);
        let mut rests = Vec::new();
        for _ in 0..8 {
            cursor = set_back(&cursor, fault(), Retry::BackOff(None), now);
            rests.push((cursor.not_before.unwrap() - now).num_minutes());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(set_back(&cursor, fault(), Retry::NextRun, now).not_before, None);
        let asked_for =
            set_back(&cursor, fault(), Retry::BackOff(Some(Duration::from_secs(7))), now).not_before.unwrap();
        assert_eq!((asked_for - now).num_seconds(), 7);
        let forever = set_back(&cursor, fault(), Retry::BackOff(Some(Duration::MAX)), now).not_before.unwrap();
        assert_eq!((forever - now).num_minutes(), 60);
    }
}
