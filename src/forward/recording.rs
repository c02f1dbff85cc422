//! What is written to the ledger: rows, empty polls, failures. The cursor moves in the same transaction.

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{
    Failure,
    outside::Outside,
    plan::Plan,
    record::{self, Asked, MAX_UNFORWARDED, Rest},
    split::{Heading, Part, Splitter},
    turn::{Stop, Turn},
};
use crate::{
    ledger::{Committed, Cursor, Fault, LedgerError, MAX_BATCH_POLLS, Outcome, Poll},
    rapidm2m::{
        FetchError, Rows, Stamp,
        wire::{Flaws, Row},
    },
};

/// What one transaction records.
pub(super) struct Batch<'a> {
    pub polls: &'a [Poll],
    /// The rows of their messages.
    pub rows: &'a [Row],
    /// With it all of the answer is recorded.
    pub is_last: bool,
}

impl<O: Outside> Turn<'_, O> {
    /// Records rows and sends them. Returns whether all were recorded.
    pub(super) async fn record_and_send(
        &mut self,
        asked: &Asked,
        channels: &[String],
        rows: &Rows<'_>,
        plan: &Plan,
    ) -> Result<bool, Stop> {
        let begin = self.committed.cursor.last_value_from.map(|newest| newest.min(plan.from.time()));
        let heading = Heading { key: self.key, begin, end: asked.at, channels };
        let parts = Splitter::new(&heading, rows, record::max_body(self.key, false));
        self.record_parts(asked, rows, parts, |turn, batch| {
            let mut cursor = record::advanced(&turn.committed.cursor, batch.polls, asked.scanned_until());
            let up_to = batch.polls.last().and_then(|poll| poll.last_value_from);
            turn.remember_recorded(&mut cursor, plan, batch.rows, up_to);
            cursor
        })
        .await
    }

    /// Records messages and sends them, transaction by transaction. `advance` makes the cursor that is written with each.
    /// Returns whether all were recorded.
    pub(super) async fn record_parts(
        &mut self,
        asked: &Asked,
        rows: &Rows<'_>,
        parts: impl Iterator<Item = Part>,
        advance: impl Fn(&mut Self, &Batch<'_>) -> Cursor,
    ) -> Result<bool, Stop> {
        let mut parts = parts.enumerate().peekable();
        let (mut carried, mut rows_recorded): (Option<Poll>, usize) = (None, 0);
        let history = self.forwarder.outside.history_seconds();
        while carried.is_some() || parts.peek().is_some() {
            let room = MAX_UNFORWARDED.saturating_sub(self.committed.cursor.unforwarded.len()).min(MAX_BATCH_POLLS);
            if room == 0 || Instant::now() >= self.limits.send_until {
                self.report.is_behind = true;
                return Ok(false);
            }
            let (mut polls, mut size) = (Vec::new(), 0);
            while polls.len() < room {
                let next = carried.take().or_else(|| {
                    let (index, part) = parts.next()?;
                    let mut poll = record::message_poll(asked, index, part, history);
                    if index == 0 {
                        poll.result.bad_rows = record::bad_rows(&rows.flaws);
                    }
                    Some(poll)
                });
                let Some(poll) = next else { break };
                if record::fits(&mut size, &poll) {
                    polls.push(poll);
                } else {
                    carried = Some(poll);
                    break;
                }
            }
            let in_batch = polls.iter().map(|poll| poll.result.rows).sum::<usize>();
            let new = &rows.rows[rows_recorded..rows_recorded + in_batch];
            let is_last = carried.is_none() && parts.peek().is_none();
            let cursor = advance(self, &Batch { polls: &polls, rows: new, is_last });
            self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))?;
            rows_recorded += in_batch;
            self.report.rows_recorded += in_batch;
            for poll in polls.iter().filter(|poll| poll.outcome == Outcome::Rejected) {
                self.report.messages_rejected += 1;
                let (kind, why) = poll.error.as_ref().map_or(("", ""), |fault| (&fault.kind, &fault.text));
                tracing::error!(poll.id = poll.id, failure.kind = kind, "a message is rejected: {why}");
            }
            if self.can_send {
                polls.retain(|poll| poll.outcome == Outcome::Pending);
                self.send_and_mark(polls, self.limits.send_until).await?;
            }
        }
        Ok(true)
    }

    /// With an overlap: `new` rows go into the cursor's list of what is recorded, but for those of a last stamp of which rows
    /// are still to come.
    fn remember_recorded(&mut self, cursor: &mut Cursor, plan: &Plan, new: &[Row], up_to: Option<DateTime<Utc>>) {
        let (Some(overlap), Some(oldest), Some(newest)) =
            (self.forwarder.overlap, new.first(), cursor.last_value_from.map(Stamp::from_time))
        else {
            return;
        };
        let recorded = cursor.recorded.get_or_insert_with(|| plan.first_recorded(oldest.stamp));
        let forget = newest.shifted(-i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
        let stamps = new.iter().map(|row| row.stamp).filter(|stamp| Some(stamp.time()) <= up_to);
        if !recorded.extend(stamps, forget) && !std::mem::replace(&mut self.memory.said_overlap_is_short, true) {
            tracing::warn!(
                "the site measures at such odd times that late rows can be told from known ones only since {}, not for all of \
                 OverlapSeconds={}",
                recorded.since().rfc3339(),
                overlap.as_secs()
            );
        }
    }

    /// A poll without new rows; `flaws` are rows of the future that were said before.
    pub(super) async fn record_nothing(&mut self, asked: &Asked, flaws: &Flaws) -> Result<(), Stop> {
        let cursor = &self.committed.cursor;
        let hub_news = cursor.activity.as_ref().is_some_and(|activity| activity.is_news);
        let news = cursor.scanned_until.is_none() || cursor.last_error.is_some() || hub_news;
        if !self.forwarder.record_empty_polls && !news {
            return Ok(());
        }
        let mut polls = Vec::new();
        if self.forwarder.record_empty_polls {
            let mut poll = record::empty_poll(asked, cursor, self.forwarder.outside.history_seconds());
            poll.result.bad_rows = record::bad_rows(flaws);
            polls.push(poll);
        }
        let cursor = record::advanced(cursor, &[], asked.scanned_until());
        self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// A poll that brought rows, none of which can be used now. It must not look like "no data".
    pub(super) async fn record_bad_rows(&mut self, asked: &Asked, flaws: &Flaws) -> Result<(), Stop> {
        let (reason, _) = flaws.first.first().cloned().unwrap_or_default();
        let text = format!(
            "{} of the answer's rows cannot be used, none of the others is new; the first: {reason}",
            flaws.count
        );
        let fault = Fault { kind: "bad_rows".into(), text };
        if asked.request.from.is_none() && self.committed.cursor.last_value_from.is_none() {
            // The youngest row is of no use, and might be the youngest for years: begin with what comes after now.
            self.committed.cursor.last_value_from = Some(asked.at);
            record::keep_recorded(&mut self.committed.cursor, self.forwarder.overlap);
        }
        self.write_failure(asked, fault, Rest::None, Some(flaws)).await
    }

    pub(super) async fn record_failure(&mut self, asked: &Asked, error: &FetchError) -> Result<(), Stop> {
        let fault = Fault { kind: error.kind().into(), text: error.to_string() };
        self.write_failure(asked, fault, Rest::after(error), None).await
    }

    pub(super) async fn write_failure(
        &mut self,
        asked: &Asked,
        fault: Fault,
        rest: Rest,
        flaws: Option<&Flaws>,
    ) -> Result<(), Stop> {
        self.report.failures.push(Failure::new(&fault.kind, &fault.text));
        let history = self.forwarder.outside.history_seconds();
        let mut poll = record::failed_poll(asked, fault.clone(), &self.committed.cursor, history);
        poll.result.bad_rows = flaws.and_then(record::bad_rows);
        let cursor = record::set_back(&self.committed.cursor, fault, rest, self.forwarder.outside.now());
        self.commit(&[poll], &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// Writes, and the cursor that was written is the turn's. After a [`LedgerError::Conflict`] it is what stands in the ledger
    /// now.
    pub(super) async fn commit(
        &mut self,
        created: &[Poll],
        replaced: &[Poll],
        mut cursor: Cursor,
    ) -> Result<(), LedgerError> {
        if cursor.backfill.is_some() {
            // What a backfill does is not what the site does.
            cursor.activity = None;
        } else {
            let activity = cursor.activity.get_or_insert_default();
            activity.note(created);
            activity.is_news = false;
        }
        let etag = self.committed.etag.as_deref();
        match self.forwarder.outside.commit(self.key, created, replaced, &cursor, etag).await {
            Ok(etag) => {
                self.committed = Committed { cursor, etag: Some(etag) };
                Ok(())
            }
            Err(LedgerError::Conflict) => {
                let is_ours = self.is_written(created, replaced).await?;
                self.committed = self.forwarder.outside.cursor(self.key).await?;
                let is_ours = is_ours && self.committed.cursor == cursor;
                if is_ours { Ok(()) } else { Err(LedgerError::Conflict) }
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a transaction was applied although it was refused, by one of its records: all were written or none. Cosmos DB's
    /// client repeats a transaction whose answer is late, and then loses to itself. The cursor alone says too little: another
    /// poller can have moved it to the same place.
    async fn is_written(&self, created: &[Poll], replaced: &[Poll]) -> Result<bool, LedgerError> {
        // Of the cursor alone it is enough that it stands there as it was to be.
        let Some(poll) = record::witness(created, replaced) else { return Ok(replaced.is_empty()) };
        match self.forwarder.outside.poll(self.key, &poll.id).await {
            Ok(found) => Ok(found.is_some_and(|found| record::is_same(&found, poll))),
            Err(LedgerError::Foreign { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The end of the turn, and why. A lost race is no failure.
    pub(super) fn stop(&mut self, error: &LedgerError) -> Stop {
        if matches!(error, LedgerError::Conflict) {
            tracing::debug!("another poller was faster");
            self.report.lost_race = true;
        } else {
            self.report.failures.push(Failure::new(error.kind(), error));
        }
        Stop
    }

    pub(super) fn ledger_failed(&mut self, error: &LedgerError) -> Result<(), Stop> {
        Err(self.stop(error))
    }
}
