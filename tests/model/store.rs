//! The model's ledger: the cursor, the records that have a message, and a transaction that is still in flight.

use std::sync::Arc;

use crate::{
    backend::{Row, Value, row_of, stamp},
    corrections, late,
    listing::{self, check_gone},
    poller::Write,
    rules::{Rule, Violation},
    scope::{Sabotage, Scope},
    text::{Known, etag},
    unusable,
};
use chrono::{DateTime, Utc};
use iothub_connector::rapidm2m::{
    ledger::{Committed, Cursor, Outcome, Poll},
    polling::record,
};

/// A record with a message.
#[derive(Clone)]
pub struct Record {
    pub poll: Arc<Poll>,
    /// The cursor keeps it; it is not a document yet.
    pub is_in_cursor: bool,
    /// The backend's rows in the message.
    pub rows: Arc<[Row]>,
}

#[derive(Clone, Default)]
pub struct Store {
    /// The cursor with its ETag.
    pub cursor: Option<Arc<Known<Committed>>>,
    /// How often the cursor was written.
    version: u32,
    /// The cursor that a stale read sees.
    pub previous: Option<Arc<Known<Committed>>>,
    /// The records in the order in which they were created.
    pub records: Vec<Record>,
    /// Records without a message. Only their writer reads them, after a refusal.
    others: Vec<Arc<Poll>>,
    /// How many unusable rows all records count.
    pub unusable: usize,
    /// A transaction whose sender gave up; it may still be applied.
    pub on_its_way: Option<Arc<Known<Write>>>,
}

impl Store {
    pub fn etag(&self) -> Option<String> {
        self.cursor.as_ref().and_then(|committed| committed.etag.clone())
    }

    pub fn committed(&self) -> Committed {
        match &self.cursor {
            Some(committed) => Committed::clone(committed),
            None => Committed { cursor: Cursor::new(&listing::key()), etag: None },
        }
    }

    pub fn waiting(&self) -> usize {
        self.cursor.as_ref().map_or(0, |committed| committed.cursor.unforwarded.len())
    }

    pub fn record(&self, id: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.poll.id == id)
    }

    /// A record with a message that is a document.
    fn document(&self, id: &str) -> Option<&Record> {
        self.record(id).filter(|record| !record.is_in_cursor)
    }

    /// Any document of a record, with a message or without.
    pub fn poll(&self, id: &str) -> Option<&Arc<Poll>> {
        let others = || self.others.iter().find(|poll| poll.id == id);
        self.document(id).map(|record| &record.poll).or_else(others)
    }

    pub fn by_message(&self, id: &str) -> Option<(usize, &Record)> {
        self.records.iter().enumerate().find(|(_, record)| record.poll.message_id.as_deref() == Some(id))
    }

    /// Whether the ledger would apply the transaction.
    pub fn takes(&self, write: &Write) -> bool {
        write.etag == self.etag() && self.has_places_for(write)
    }

    fn has_places_for(&self, write: &Write) -> bool {
        write.created.iter().all(|poll| self.document(&poll.id).is_none())
            && write.replaced.iter().all(|poll| self.document(&poll.id).is_some())
    }

    /// The recorded rows, in the order in which they were recorded.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = Row> {
        self.records.iter().flat_map(|record| record.rows.iter().copied())
    }

    pub fn newest(&self) -> Option<usize> {
        self.rows().map(|row| row.number).max()
    }

    /// The value with which a row was recorded the last time.
    pub fn last_value(&self, number: usize) -> Option<Value> {
        self.rows().rev().find(|row| row.number == number).map(|row| row.value)
    }

    /// Applies a transaction that [`takes`](Self::takes) accepts (or that sabotage forces). Returns the cursor's new
    /// ETag.
    pub fn apply(&mut self, write: &Write, scope: &Scope) -> Result<String, Violation> {
        Rule::LoserWritesNothing
            .check(self.takes(write), || "a transaction was applied whose poller had read an older cursor".into())?;
        let previous = self.committed();
        let before = previous.cursor.last_value_from;
        let mut committed = Committed { cursor: write.cursor.clone(), etag: None };
        match scope.sabotage {
            Some(Sabotage::DropsRecord) => {
                committed.cursor.record = None;
                committed.cursor.unforwarded = committed.cursor.unforwarded.to_vec().into();
            }
            Some(Sabotage::DropsList) => committed.cursor.recorded = None,
            Some(Sabotage::KeepsGone) => {
                committed.cursor.gone_since = committed.cursor.gone_since.or(previous.cursor.gone_since);
            }
            _ => {}
        }
        check_gone(&previous.cursor, &committed.cursor, write)?;
        self.previous = Some(Arc::new(previous.into()));
        if scope.sabotage != Some(Sabotage::CursorWithoutRecords) {
            for poll in &write.created {
                // What the cursor kept becomes a document.
                if self.record(&poll.id).is_some_and(|record| record.is_in_cursor) {
                    self.replace(poll)?;
                } else {
                    self.create(poll, false, scope)?;
                }
            }
        }
        if let Some(kept) = write.cursor.record.as_ref().filter(|kept| self.record(&kept.id).is_none()) {
            self.create(kept, true, scope)?;
        }
        for poll in &write.replaced {
            self.replace(poll)?;
        }
        self.version += 1;
        let new = etag(self.version);
        committed.etag = Some(new.clone());
        self.cursor = Some(Arc::new(committed.into()));
        // The ledger can now only refuse a transaction that was sent under the old ETag.
        self.on_its_way = None;
        self.check(before, scope)?;
        Ok(new)
    }

    fn create(&mut self, poll: &Poll, is_in_cursor: bool, scope: &Scope) -> Result<(), Violation> {
        self.unusable += poll.result.bad_rows.as_ref().map_or(0, |bad| bad.count);
        match (poll.outcome, &poll.message) {
            (Outcome::Empty | Outcome::Failed, None) => {
                self.others.push(Arc::new(poll.clone()));
                return Ok(());
            }
            (Outcome::Pending, Some(_)) => {}
            (outcome, _) => {
                let what =
                    format!("a record was created as {outcome:?}, though no message was refused and no record lost");
                return Err(Violation { rule: Rule::InOrder, what });
            }
        }
        let rows = rows_of(poll).unwrap_or_default();
        Rule::RecordedBeforeSent.check(!rows.is_empty(), || format!("a record without rows: {:?}", poll.message))?;
        if scope.overlap.is_some() {
            late::check_new(&rows, poll.correction, self)?;
        } else {
            // Without an overlap the row numbers follow the order of recording.
            let count = self.rows().count();
            let next = (0..).filter(|row| !scope.nonsense.contains(row)).skip(count).take(rows.len());
            Rule::RecordedBeforeSent.check(rows.iter().map(|row| row.number).eq(next), || {
                format!("the first {count} rows were recorded, a new record holds {rows:?} of: {:?}", poll.message)
            })?;
        }
        corrections::check_mark(poll, &rows, self)?;
        let same = poll.message_id.as_deref().and_then(|id| self.by_message(id));
        Rule::SameBytes.check(same.is_none(), || "two records have the same message id".into())?;
        self.records.push(Record { poll: Arc::new(poll.clone()), is_in_cursor, rows: rows.into() });
        Ok(())
    }

    fn replace(&mut self, poll: &Poll) -> Result<(), Violation> {
        let Some(record) = self.records.iter_mut().find(|record| record.poll.id == poll.id) else {
            return Err(Violation {
                rule: Rule::QueueIsThePending,
                what: "a record was replaced that is not there".into(),
            });
        };
        let (before, rows) = (&record.poll, &record.rows);
        Rule::QueueIsThePending.check(before.outcome == Outcome::Pending, || {
            format!("the record of rows {rows:?} was {:?} and became {:?}", before.outcome, poll.outcome)
        })?;
        let message = |poll: &Poll| {
            record::message(poll).map(|message| (message.id, message.created, message.properties, message.body))
        };
        let is_same = message(before) == message(poll);
        Rule::SameBytes.check(is_same, || format!("the message of rows {rows:?} was changed in its record"))?;
        record.poll = Arc::new(poll.clone());
        record.is_in_cursor = false;
        Ok(())
    }

    /// Checks that the cursor agrees with the records.
    fn check(&self, before: Option<DateTime<Utc>>, scope: &Scope) -> Result<(), Violation> {
        let Some(cursor) = self.cursor.as_ref().map(|committed| &committed.cursor) else { return Ok(()) };
        let recorded = self.newest().map(|row| stamp(row).time());
        Rule::RecordedBeforeSent.check(cursor.last_value_from == recorded, || {
            format!(
                "the cursor moved from {before:?} to {:?}, the newest recorded row is of {recorded:?}",
                cursor.last_value_from
            )
        })?;
        late::check_list(cursor, self, scope)?;
        unusable::check_counts(cursor, self, scope)?;
        let places = 0..self.records.len();
        let pending: Vec<_> = places.filter(|place| self.records[*place].poll.outcome == Outcome::Pending).collect();
        let place = |id: &String| self.records.iter().position(|record| record.poll.id == *id);
        let queue: Vec<_> = cursor.unforwarded.iter().map(place).collect();
        Rule::QueueIsThePending.check(queue.iter().copied().eq(pending.iter().copied().map(Some)), || {
            format!("of the records the cursor's queue holds {queue:?}, pending are {pending:?}")
        })?;
        let kept = cursor.record.as_ref().map(|kept| kept.id.as_str());
        let in_cursor = self.records.iter().find(|record| record.is_in_cursor).map(|record| record.poll.id.as_str());
        Rule::QueueIsThePending
            .check(kept == in_cursor, || format!("the cursor should keep {in_cursor:?}, it keeps {kept:?}"))?;
        Rule::LimitHeeded.check(cursor.unforwarded.len() <= 100, || "more than 100 messages wait".into())
    }
}

/// The rows in a record's message; `None` if they are not the backend's rows in order.
fn rows_of(poll: &Poll) -> Option<Vec<Row>> {
    let body: serde_json::Value = serde_json::from_str(poll.message.as_deref()?).ok()?;
    let rows: Option<Vec<_>> = body["Timeseries"].as_array()?.iter().map(row_of).collect();
    rows.filter(|rows| rows.is_sorted_by(|one, next| one.number < next.number))
}
