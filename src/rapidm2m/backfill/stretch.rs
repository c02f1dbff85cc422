//! Takes one step of a backfill: sends pending messages, or fetches, records and sends a window.

use chrono::{DateTime, Utc};

use super::{
    grid::{Grid, Span, Window},
    position,
};
use crate::rapidm2m::{
    FetchError, Rows, Site, Stamp,
    client::{Answer, MAX_BODY, Range},
    ledger::{Backfill, Cursor, Fault, Outcome},
    polling::{
        Failure,
        record::{self, PollContext},
        recording::Batch,
        split::{Heading, Part, Splitter},
        turn::{EndTurn, Step, Turn, read_rows},
        world::World,
    },
    window::SOFT_BODY_LIMIT,
    wire::Flaws,
};
use crate::support::kind::Kind;

impl<W: World> Turn<'_, W> {
    /// Done when the backfill is finished.
    pub(super) async fn backfill(&mut self, grid: &mut Grid) -> Result<Step, EndTurn> {
        if self.committed.cursor.backfill.as_ref().is_some_and(|backfill| backfill.dropped_at.is_some()) {
            self.report
                .failures
                .push(Failure::new(Kind::Dropped, "the backfill was dropped by hand: --again begins it anew"));
            return Err(EndTurn);
        }
        self.send_what_waits(self.limits.send_until).await?;
        let cursor = &self.committed.cursor;
        let (Some(position), Some(backfill)) = (position(cursor), &cursor.backfill) else { return Ok(Step::Done) };
        if !cursor.unforwarded.is_empty() {
            return Ok(Step::GoOn);
        }
        if position >= Stamp::from_time(backfill.until) {
            if backfill.is_open() {
                self.end_backfill(|backfill, now| backfill.finished_at = Some(now)).await?;
            }
            return Ok(Step::Done);
        }
        let Some(channels) = self.channels().await? else { return Ok(Step::GoOn) };
        match self.fetch(grid, position, &channels).await {
            Ok((context, window, answer)) => {
                self.take_window(grid, &context, &window, answer, &channels, position).await?;
            }
            // Nothing was asked.
            Err((_, error @ FetchError::Held { .. })) => self.report.failures.push(Failure::new(error.kind(), error)),
            // The backend does not know the site, and the ledger has no record of this backfill. Do not create one.
            Err((_, error)) if error.is_permanent() && self.committed.etag.is_none() => {
                self.report.failures.push(Failure::new(error.kind(), error));
            }
            Err((context, error)) => self.record_failure(&context, &error).await?,
        }
        Ok(Step::GoOn)
    }

    pub(super) async fn drop_backfill(&mut self) -> Result<Step, EndTurn> {
        let text = "the backfill was dropped by hand before the hub had acknowledged the message".into();
        self.reject_what_waits(&Fault { kind: Kind::Dropped, text }).await?;
        self.end_backfill(|backfill, now| backfill.dropped_at = Some(now)).await?;
        Ok(Step::Done)
    }

    async fn end_backfill(&mut self, end: impl FnOnce(&mut Backfill, DateTime<Utc>)) -> Result<(), EndTurn> {
        let mut cursor = self.committed.cursor.clone();
        if let Some(backfill) = &mut cursor.backfill {
            end(backfill, self.forwarder.world.now());
        }
        self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// Requests the window at `position`, or a shorter one if the answer is too large.
    pub(super) async fn fetch(
        &mut self,
        grid: &mut Grid,
        position: Stamp,
        channels: &[String],
    ) -> Result<(PollContext, Window, Answer), (PollContext, FetchError)> {
        loop {
            let window = grid.window(position);
            // It is not documented whether the bounds are inclusive. Request a little more, and keep only the
            // intended rows.
            let range = Range::Window { from: window.span.from.shifted(-1), until: Some(window.span.until) };
            let limit = if window.can_narrow() { SOFT_BODY_LIMIT } else { MAX_BODY };
            let at = self.forwarder.world.now();
            let (context, answer) = self.ask(at, channels, range, limit).await;
            match answer {
                Ok(answer) => {
                    self.report.bytes += answer.body.len();
                    return Ok((context, window, answer));
                }
                Err(FetchError::TooLarge { prefix, .. }) if grid.narrow(&window) => self.report.bytes += prefix.len(),
                Err(error) => return Err((context, error)),
            }
        }
    }

    async fn take_window(
        &mut self,
        grid: &mut Grid,
        context: &PollContext,
        window: &Window,
        answer: Answer,
        channels: &[String],
        position: Stamp,
    ) -> Result<(), EndTurn> {
        let size = answer.body.len();
        let rows = match read(answer, channels, window, position).await {
            Ok(rows) => rows,
            Err(error) => return self.record_failure(context, &error).await,
        };
        self.report.bad_rows += rows.flaws.count;
        grid.fitted(window, size);
        if rows.rows.is_empty() {
            return self.record_window_without_rows(context, window, &rows.flaws).await;
        }
        let site = self.site;
        let (parts, bad_rows) = (parts(site, window, &rows, channels), record::bad_rows(&rows.flaws));
        let all = self.record_parts(context, &rows.rows, bad_rows, parts.enumerate(), |turn, batch| {
            moved(&turn.committed.cursor, batch, window, &rows.flaws)
        });
        all.await.map(|_all| ())
    }

    async fn record_window_without_rows(
        &mut self,
        context: &PollContext,
        window: &Window,
        flaws: &Flaws,
    ) -> Result<(), EndTurn> {
        let history = self.forwarder.world.history_seconds();
        let nothing = Batch { polls: &[], rows: &[], is_last: true };
        let cursor = moved(&self.committed.cursor, &nothing, window, flaws);
        let polls = if flaws.count > 0 {
            // This must not look like "no data". The backfill continues all the same, because these rows will not
            // become usable.
            let text = format!("{} rows of the answer cannot be used, the others are none of this range", flaws.count);
            let mut poll = record::failed_poll(context, Fault { kind: Kind::BadRows, text }, &cursor, history);
            poll.result.bad_rows = record::bad_rows(flaws);
            vec![poll]
        } else if self.forwarder.record_empty_polls {
            vec![record::empty_poll(context, &cursor, history)]
        } else {
            Vec::new()
        };
        self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))
    }
}

/// The rows of the window that are not recorded yet. Rows outside of the requested window are flaws.
pub(super) async fn read(
    answer: Answer,
    channels: &[String],
    window: &Window,
    position: Stamp,
) -> Result<Rows, FetchError> {
    let mut rows = read_rows(answer.body, channels.len()).await?;
    let Span { from, until } = window.span;
    let mut outside = Flaws::default();
    rows.rows.retain(|row| {
        if row.stamp < from.shifted(-1) || row.stamp > until {
            outside.add(Some(row.stamp), "outside of the window that was asked for", "");
        }
        position.max(from) <= row.stamp && row.stamp < until
    });
    rows.flaws.count += outside.count;
    rows.flaws.first.extend(outside.first);
    rows.flaws.stamps.extend(outside.stamps);
    Ok(rows)
}

/// The messages of a window. None crosses a time unit.
pub(super) fn parts<'a>(
    site: &'a Site,
    window: &Window,
    rows: &'a Rows,
    channels: &'a [String],
) -> impl Iterator<Item = Part> + use<'a> {
    let max_body = record::max_body(site, true, false);
    window.units(&rows.rows).into_iter().flat_map(move |(unit, of_unit)| {
        let heading =
            Heading { site, begin: Some(unit.from.time()), end: unit.until.time(), channels, correction: false };
        Splitter::of(&heading, rows, of_unit, max_body)
    })
}

/// The cursor that a transaction of the window writes.
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
        // A window that is requested twice counts them twice.
        backfill.bad_rows += if batch.is_last { flaws.count as u64 } else { 0 };
    }
    cursor
}
