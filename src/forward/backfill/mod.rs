//! A range of a site, again or for the first time, beside the polling of what is new: what it does not touch is the site's
//! cursor. A backfill is a cursor of its own ([`Backfill`](crate::ledger::Backfill)) that goes through the range once, window by
//! window, and ends. All else is as in a turn: recorded before sent, moved only with what is recorded, `forwarded` when
//! acknowledged. It can be cut anywhere; whoever goes on finds in the document where.
//!
//! Its messages are a pure function of the range and of the backend's rows: see [`grid`].

pub mod grid;
mod measure;
mod outside;

use std::time::Duration;

use super::{
    Failure, Forwarder, Limits, Report, SiteMemory,
    outside::Outside,
    record::{self, Asked},
    recording::Batch,
    split::{Heading, Splitter},
    turn::{Stop, Turn},
};
use crate::{
    ledger::{Cursor, Fault, Outcome, SiteKey},
    rapidm2m::{
        FetchError, Rows, Stamp,
        client::{Answer, MAX_BODY, Range},
        window::SOFT_BODY_LIMIT,
        wire::Flaws,
    },
};

use grid::{Grid, Span, Window};
pub use measure::Measured;
pub use outside::BackfillOutside;

/// A backfill under way. Forgetting it costs requests, never data.
pub struct Run {
    memory: SiteMemory,
    grid: Grid,
}

/// What a stretch of a backfill came to: a window, or what waited.
#[derive(Debug)]
pub struct Stretch {
    pub report: Report,
    /// The backfill's document, as far as it is known.
    pub cursor: Option<Cursor>,
    pub next: Next,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With the next stretch.
    GoOn,
    /// All of the range is recorded, and nothing of it waits.
    Finished,
    /// Something failed that may pass; somebody asked to be left alone for so long.
    TryAgain(Duration),
    /// Somebody has to mend something first.
    GiveUp,
}

impl Run {
    #[must_use]
    pub fn new(range: Span) -> Self {
        Self { memory: SiteMemory::default(), grid: Grid::new(range) }
    }
}

/// Of a backfill: everything before this is recorded.
#[must_use]
pub fn position(cursor: &Cursor) -> Option<Stamp> {
    let backfill = cursor.backfill.as_ref()?;
    Some(Stamp::from_time(cursor.scanned_until.unwrap_or(backfill.from)))
}

impl<O: Outside> Forwarder<O> {
    /// Sends what waits, then fetches, records and sends the next window. `outside` must know the cursor of a backfill: see
    /// [`BackfillOutside`].
    pub async fn backfill(&self, key: &SiteKey, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(key, run, limits, async |turn, grid| turn.backfill(grid).await).await
    }

    /// Gives the backfill up: what waits is not sent any more.
    pub async fn drop_backfill(&self, key: &SiteKey, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(key, run, limits, async |turn, _| turn.drop_backfill().await).await
    }

    /// Begins with the range anew; what waits goes on waiting.
    pub async fn begin_backfill_again(&self, key: &SiteKey, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(key, run, limits, async |turn, _| {
            let cursor = turn.committed.cursor.begun_again();
            turn.commit(&[], &[], cursor).await.map_err(|error| turn.stop(&error)).map(|()| false)
        })
        .await
    }

    async fn stretch(
        &self,
        key: &SiteKey,
        run: &mut Run,
        limits: Limits,
        what: impl AsyncFnOnce(&mut Turn<'_, O>, &mut Grid) -> Result<bool, Stop>,
    ) -> Stretch {
        let Run { memory, grid } = run;
        let mut report = Report::default();
        // As in a turn: whoever is dropped half-way, or in doubt, reads it again.
        let committed = match memory.committed.take() {
            Some(committed) => committed,
            None => match self.outside.cursor(key).await {
                Ok(committed) => committed,
                Err(error) => {
                    report.failures.push(Failure::new(error.kind(), error));
                    let next = next(&report, None, Duration::ZERO);
                    return Stretch { report, cursor: None, next };
                }
            },
        };
        memory.acknowledged.retain(|id| committed.cursor.unforwarded.contains(id));
        let mut turn = Turn { forwarder: self, key, memory, committed, report, limits, can_send: true };
        let ended = what(&mut turn, grid).await;
        let Turn { committed, mut report, .. } = turn;
        report.waiting = committed.cursor.unforwarded.len();
        let now = self.outside.now();
        let rest = record::rests_until(&committed.cursor, now).and_then(|until| (until - now).to_std().ok());
        let is_finished = ended.as_ref().ok().copied();
        let next = next(&report, is_finished, rest.unwrap_or_default());
        let cursor = committed.cursor.clone();
        if ended.is_ok() {
            memory.committed = Some(committed);
        }
        Stretch { report, cursor: Some(cursor), next }
    }
}

/// `is_finished` is `None` if the stretch was stopped.
fn next(report: &Report, is_finished: Option<bool>, rest: Duration) -> Next {
    if report.failures.iter().any(|failure| is_for_somebody(&failure.kind)) {
        return Next::GiveUp;
    }
    match is_finished {
        Some(true) => Next::Finished,
        Some(false) if report.failures.is_empty() && !report.is_provisioning => Next::GoOn,
        _ => Next::TryAgain(rest),
    }
}

/// Failures that no further attempt of this process can mend.
fn is_for_somebody(kind: &str) -> bool {
    let of_ledger = ["ledger_unauthorized", "ledger_missing", "ledger_foreign_document"];
    record::is_permanent(kind) || of_ledger.contains(&kind) || kind == "too_large"
}

impl<O: Outside> Turn<'_, O> {
    /// Returns whether the backfill has come to its end.
    async fn backfill(&mut self, grid: &mut Grid) -> Result<bool, Stop> {
        self.send_what_waits(self.limits.send_until).await?;
        let cursor = &self.committed.cursor;
        let (Some(position), Some(backfill)) = (position(cursor), &cursor.backfill) else { return Ok(true) };
        if !cursor.unforwarded.is_empty() {
            return Ok(false);
        }
        if position >= Stamp::from_time(backfill.until) {
            if backfill.is_open() {
                self.end_backfill(|backfill, now| backfill.finished_at = Some(now)).await?;
            }
            return Ok(true);
        }
        let Some(channels) = self.channels().await? else { return Ok(false) };
        match self.fetch(grid, position, &channels).await {
            Ok((asked, window, answer)) => {
                self.take_window(grid, &asked, &window, &answer, &channels, position).await?;
            }
            // Nobody has heard of the site, and nothing is on record of it: it stays so.
            Err((_, error)) if error.is_permanent() && self.committed.etag.is_none() => {
                self.report.failures.push(Failure::new(error.kind(), error));
            }
            Err((asked, error)) => self.record_failure(&asked, &error).await?,
        }
        Ok(false)
    }

    async fn drop_backfill(&mut self) -> Result<bool, Stop> {
        let text = "the backfill was dropped by hand before the message was sent".into();
        self.reject_what_waits(&Fault { kind: "dropped".into(), text }).await?;
        self.end_backfill(|backfill, now| backfill.dropped_at = Some(now)).await?;
        Ok(true)
    }

    async fn end_backfill(
        &mut self,
        end: impl FnOnce(&mut crate::ledger::Backfill, chrono::DateTime<chrono::Utc>),
    ) -> Result<(), Stop> {
        let mut cursor = self.committed.cursor.clone();
        if let Some(backfill) = &mut cursor.backfill {
            end(backfill, self.forwarder.outside.now());
        }
        self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// Asks for the window at `position`; for a shorter one if the answer is too large.
    async fn fetch(
        &mut self,
        grid: &mut Grid,
        position: Stamp,
        channels: &[String],
    ) -> Result<(Asked, Window, Answer), (Asked, FetchError)> {
        loop {
            let window = grid.window(position);
            // Whether the bounds belong to a window is not known: ask for a little more, keep what was meant.
            let range = Range::Window { from: window.span.from.shifted(-1), until: Some(window.span.until) };
            let limit = if window.can_narrow() { SOFT_BODY_LIMIT } else { MAX_BODY };
            let at = self.forwarder.outside.now();
            let (asked, answer) = self.ask(at, channels, range, limit).await;
            match answer {
                Ok(answer) => {
                    self.report.bytes += answer.body.len();
                    return Ok((asked, window, answer));
                }
                Err(FetchError::TooLarge { prefix, .. }) if grid.narrow(&window) => self.report.bytes += prefix.len(),
                Err(error) => return Err((asked, error)),
            }
        }
    }

    async fn take_window(
        &mut self,
        grid: &mut Grid,
        asked: &Asked,
        window: &Window,
        answer: &Answer,
        channels: &[String],
        position: Stamp,
    ) -> Result<(), Stop> {
        let rows = match read(answer, channels, window, position) {
            Ok(rows) => rows,
            Err(error) => return self.record_failure(asked, &error).await,
        };
        self.report.bad_rows += rows.flaws.count;
        grid.fitted(window, answer.body.len());
        if rows.rows.is_empty() {
            return self.record_window_without_rows(asked, window, &rows.flaws).await;
        }
        let key = self.key;
        let parts = parts(key, window, &rows, channels);
        let all = self
            .record_parts(asked, &rows, parts, |turn, batch| moved(&turn.committed.cursor, batch, window, &rows.flaws));
        all.await.map(|_all| ())
    }

    async fn record_window_without_rows(&mut self, asked: &Asked, window: &Window, flaws: &Flaws) -> Result<(), Stop> {
        let history = self.forwarder.outside.history_seconds();
        let nothing = Batch { polls: &[], rows: &[], is_last: true };
        let cursor = moved(&self.committed.cursor, &nothing, window, flaws);
        let polls = if flaws.count > 0 {
            // It must not look like "no data". The range goes on all the same: they will not get better.
            let text = format!("{} rows of the answer cannot be used, the others are none of this range", flaws.count);
            let mut poll = record::failed_poll(asked, Fault { kind: "bad_rows".into(), text }, &cursor, history);
            poll.result.bad_rows = record::bad_rows(flaws);
            vec![poll]
        } else if self.forwarder.record_empty_polls {
            vec![record::empty_poll(asked, &cursor, history)]
        } else {
            Vec::new()
        };
        self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))
    }
}

/// The rows of the window that are not recorded yet. Those that the backend was not asked for are flaws.
fn read<'a>(answer: &'a Answer, channels: &[String], window: &Window, position: Stamp) -> Result<Rows<'a>, FetchError> {
    let mut rows = Rows::read(&answer.body, channels.len())?;
    rows.sort();
    let Span { from, until } = window.span;
    let mut outside = Flaws::default();
    rows.rows.retain(|row| {
        if row.stamp < from.shifted(-1) || row.stamp > until {
            outside.add("a stamp outside of the window that was asked for", &row.stamp.rfc3339());
        }
        position.max(from) <= row.stamp && row.stamp < until
    });
    rows.flaws.count += outside.count;
    rows.flaws.first.extend(outside.first);
    Ok(rows)
}

/// The messages of a window: none spans two units of time.
fn parts<'a>(
    key: &'a SiteKey,
    window: &Window,
    rows: &'a Rows<'a>,
    channels: &'a [String],
) -> impl Iterator<Item = super::split::Part> + use<'a> {
    let max_body = record::max_body(key, true);
    window.units(&rows.rows).into_iter().flat_map(move |(unit, of_unit)| {
        let heading = Heading { key, begin: Some(unit.from.time()), end: unit.until.time(), channels };
        Splitter::of(&heading, rows, of_unit, max_body)
    })
}

/// The cursor with a transaction of the window.
fn moved(cursor: &Cursor, batch: &Batch<'_>, window: &Window, flaws: &Flaws) -> Cursor {
    let recorded_up_to = batch.polls.last().and_then(|poll| poll.last_value_from);
    let next = match recorded_up_to.filter(|_| !batch.is_last) {
        Some(newest) => Stamp::from_time(newest).shifted(1),
        None => window.span.until,
    };
    let mut cursor = record::advanced(cursor, batch.polls, next.time());
    if let Some(backfill) = &mut cursor.backfill {
        backfill.rows += batch.rows.len() as u64;
        backfill.messages += batch.polls.len() as u64;
        let rejected = batch.polls.iter().filter(|poll| poll.outcome == Outcome::Rejected);
        backfill.rejected += rejected.count() as u64;
        // A window that is asked for twice has them twice.
        backfill.bad_rows += if batch.is_last { flaws.count as u64 } else { 0 };
    }
    cursor
}
