//! Writes a site's rows, empty polls and failures to the ledger. The cursor moves in the same transaction.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::{
    Failure,
    plan::{Plan, SortedOut},
    record::{self, MAX_UNFORWARDED, PollContext, Retry},
    split::{Heading, Part, Splitter},
    turn::{EndTurn, Step, Turn},
    world::World,
};
use crate::rapidm2m::{
    FetchError, Rows, Stamp,
    ledger::{BadRows, Cursor, EmptyPolls, Fault, LedgerError, MAX_BATCH_POLLS, Outcome, Poll},
    wire::{Flaws, Row},
};
use crate::support::{kind::Kind, reading::Reading};

/// Polls that find nothing are recorded within this.
const RECORD_WITHIN: TimeDelta = TimeDelta::hours(1);

/// The content of one transaction.
pub struct Batch<'a> {
    pub polls: &'a [Poll],
    /// The rows of their messages.
    pub rows: &'a [Row],
    /// The whole answer is recorded with this batch.
    pub is_last: bool,
}

impl<W: World> Turn<'_, W> {
    /// Records rows and sends them, those with changed values first. The turn is done if there was no room or time for all
    /// of them.
    pub async fn record_and_send(
        &mut self,
        context: &PollContext,
        channels: &[String],
        rows: &Rows,
        sorted: &SortedOut,
        plan: &Plan,
    ) -> Result<Step, EndTurn> {
        let before = self.committed.cursor.last_value_from;
        let (mut bad_rows, mut number) = (record::bad_rows(&rows.flaws), 0..);
        for (some, correction) in [(0..sorted.changed, true), (sorted.changed..rows.rows.len(), false)] {
            if some.is_empty() {
                continue;
            }
            let oldest = rows.rows[some.start].stamp.time();
            let begin = before.map(|newest| newest.min(oldest));
            let heading = Heading { site: self.site, begin, end: context.at, channels, correction };
            let context = &PollContext { correction, ..context.clone() };
            let is_all = some.end == rows.rows.len();
            let max_body = record::max_body(self.site, false, correction);
            let parts = Splitter::of(&heading, rows, some.clone(), max_body);
            let parts = parts.filter_map(|part| Some((number.next()?, part)));
            let step = self.record_parts(context, &rows.rows[some], bad_rows.take(), parts, |turn, batch| {
                let mut cursor = record::advanced(&turn.committed.cursor, batch.polls, context.scanned_until());
                // Late rows are not the newest.
                if let Some(row) = batch.rows.last().filter(|row| cursor.last_value_from == Some(row.stamp.time())) {
                    let mut values = channels.iter().zip(rows.values(row));
                    let newest = values.find_map(|(name, value)| Some(Reading::of_json(name, value?)));
                    cursor.activity.get_or_insert_default().newest = newest;
                }
                let up_to = batch.polls.last().and_then(|poll| poll.last_value_from);
                turn.remember_recorded(&mut cursor, plan, sorted, batch.rows, up_to);
                if batch.is_last && is_all && plan.is_open() && context.rows_ahead == 0 {
                    cursor.contact = turn.site.contact.map(Stamp::time).or(cursor.contact);
                }
                cursor
            });
            if step.await? == Step::Done {
                return Ok(Step::Done);
            }
        }
        Ok(Step::GoOn)
    }

    /// Records messages, each with its number in the poll, and sends them, transaction by transaction. `advance` makes the cursor that each transaction
    /// writes. The turn is done if there was no room or time for all rows.
    pub async fn record_parts(
        &mut self,
        context: &PollContext,
        rows: &[Row],
        mut bad_rows: Option<BadRows>,
        parts: impl Iterator<Item = (usize, Part)>,
        advance: impl Fn(&mut Self, &Batch<'_>) -> Cursor,
    ) -> Result<Step, EndTurn> {
        let mut parts = parts.peekable();
        // A backfill goes its own way.
        let before = self.committed.cursor.last_value_from.filter(|_| self.range.is_none() && !context.correction);
        let (mut carried, mut rows_recorded): (Option<Poll>, usize) = (None, 0);
        let mut empty = self.memory.empty.0.clone();
        let history = self.forwarder.world.history_seconds();
        while carried.is_some() || parts.peek().is_some() {
            let room = MAX_UNFORWARDED.saturating_sub(self.committed.cursor.unforwarded.len()).min(MAX_BATCH_POLLS);
            if room == 0 || Instant::now() >= self.limits.send_until {
                self.report.is_behind = true;
                return Ok(Step::Done);
            }
            let (mut polls, mut size) = (Vec::new(), 0);
            while polls.len() < room {
                let next = carried.take().or_else(|| {
                    let (index, part) = parts.next()?;
                    let mut poll = record::message_poll(context, index, part, history);
                    poll.result.bad_rows = bad_rows.take();
                    poll.empty_polls = empty.take();
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
            let new = &rows[rows_recorded..rows_recorded + in_batch];
            let is_last = carried.is_none() && parts.peek().is_none();
            let mut cursor = advance(self, &Batch { polls: &polls, rows: new, is_last });
            let late = new.iter().filter(|row| before.is_some_and(|newest| row.stamp.time() <= newest)).count();
            let corrected = if context.correction { in_batch } else { 0 };
            let activity = cursor.activity.get_or_insert_default();
            activity.late_rows += late as u64;
            activity.corrected_rows += corrected as u64;
            self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))?;
            self.memory.empty.0 = None;
            rows_recorded += in_batch;
            self.report.rows_recorded += in_batch;
            self.report.late_rows += late;
            self.report.corrected_rows += corrected;
            for poll in polls.iter().filter(|poll| poll.outcome == Outcome::Rejected) {
                self.report.messages_rejected += 1;
                self.report.rejections.extend(poll.error.as_ref().map(Failure::known));
                let (kind, why) = poll.error.as_ref().map_or(("", ""), |fault| (fault.kind.as_str(), &fault.text));
                tracing::error!(poll.id = poll.id, failure.kind = kind, "a message is rejected: {why}");
            }
            if self.can_send {
                polls.retain(|poll| poll.outcome == Outcome::Pending);
                self.send_and_mark(polls, self.limits.send_until).await?;
            }
        }
        Ok(Step::GoOn)
    }

    /// With an overlap: adds the `new` rows to the cursor's list of recorded rows. If more rows of the last stamp are
    /// to come, that stamp is not added.
    fn remember_recorded(
        &mut self,
        cursor: &mut Cursor,
        plan: &Plan,
        sorted: &SortedOut,
        new: &[Row],
        up_to: Option<DateTime<Utc>>,
    ) {
        let (Some(overlap), Some(oldest), Some(newest)) =
            (self.forwarder.overlap, new.first(), cursor.last_value_from.map(Stamp::from_time))
        else {
            return;
        };
        let recorded = cursor.recorded.get_or_insert_with(|| plan.first_recorded(oldest.stamp));
        recorded.note_unusable(&sorted.unusable);
        let forget = newest.shifted(-i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
        let stamps = sorted.of(new, up_to.map(Stamp::from_time));
        if !recorded.extend(&stamps, sorted.channels, forget)
            && !std::mem::replace(&mut self.memory.said_overlap_is_short, true)
        {
            tracing::warn!(
                "the site measures at such odd times that late rows can be told from known ones only since {}, not for all of \
                 OverlapSeconds={}",
                recorded.since().rfc3339(),
                overlap.as_secs()
            );
        }
    }

    /// Records a poll without new rows, at once or with the site's next record.
    pub async fn record_nothing(&mut self, context: &PollContext) -> Result<(), EndTurn> {
        let cursor = &self.committed.cursor;
        let hub_news = cursor.activity.as_ref().is_some_and(|activity| activity.is_news);
        let news = cursor.scanned_until.is_none() || cursor.last_error.is_some() || hub_news;
        let is_due = self.forwarder.record_empty_polls || {
            let empty = EmptyPolls::and_one(self.memory.empty.0.take(), context.at, context.status);
            let is_due = empty.last - empty.first >= RECORD_WITHIN;
            self.memory.empty.0 = Some(empty);
            is_due
        };
        if !is_due && !news {
            return Ok(());
        }
        let mut poll = record::empty_poll(context, cursor, self.forwarder.world.history_seconds());
        poll.empty_polls.clone_from(&self.memory.empty.0);
        let cursor = record::advanced(cursor, &[], context.scanned_until());
        self.commit(&[poll], &[], cursor).await.map_err(|error| self.stop(&error))?;
        self.memory.empty.0 = None;
        Ok(())
    }

    /// Records a poll whose rows cannot be used. It must not look like "no data".
    pub async fn record_bad_rows(&mut self, context: &PollContext, flaws: &Flaws) -> Result<(), EndTurn> {
        let first = flaws.first.first().map(|flaw| format!("; the first: {flaw}")).unwrap_or_default();
        let text = format!("{} of the answer's rows cannot be used, none of the others is new{first}", flaws.count);
        let fault = Fault { kind: Kind::BadRows, text };
        if context.request.from.is_none() {
            self.begin_now(context);
        }
        self.write_failure(context, fault, Retry::NextRun, Some(flaws)).await
    }

    /// Begins with the rows after now, since the youngest row cannot be used. It might stay the youngest for years.
    pub fn begin_now(&mut self, context: &PollContext) {
        if self.committed.cursor.last_value_from.is_none() {
            self.committed.cursor.last_value_from = Some(context.at);
            record::keep_recorded(&mut self.committed.cursor, self.forwarder.overlap);
        }
    }

    pub async fn record_failure(&mut self, context: &PollContext, error: &FetchError) -> Result<(), EndTurn> {
        let fault = Fault { kind: error.kind(), text: error.to_string() };
        self.write_failure(context, fault, Retry::after(error), None).await
    }

    pub async fn write_failure(
        &mut self,
        context: &PollContext,
        fault: Fault,
        retry: Retry,
        flaws: Option<&Flaws>,
    ) -> Result<(), EndTurn> {
        self.report.failures.push(Failure::new(fault.kind.clone(), &fault.text));
        let history = self.forwarder.world.history_seconds();
        let mut poll = record::failed_poll(context, fault.clone(), &self.committed.cursor, history);
        poll.result.bad_rows = flaws.and_then(record::bad_rows);
        poll.empty_polls.clone_from(&self.memory.empty.0);
        let cursor = record::set_back(&self.committed.cursor, fault, retry, self.forwarder.world.now());
        self.commit(&[poll], &[], cursor).await.map_err(|error| self.stop(&error))?;
        self.memory.empty.0 = None;
        Ok(())
    }

    /// Ends the turn and reports why. A lost race is not a failure.
    pub fn stop(&mut self, error: &LedgerError) -> EndTurn {
        if matches!(error, LedgerError::Conflict) {
            tracing::debug!("another poller was faster");
            self.report.lost_race = true;
        } else {
            self.report.failures.push(Failure::new(error.kind(), error));
        }
        EndTurn
    }

    pub fn ledger_failed(&mut self, error: &LedgerError) -> Result<(), EndTurn> {
        Err(self.stop(error))
    }
}
