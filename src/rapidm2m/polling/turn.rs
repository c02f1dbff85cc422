//! Decides within a site's turn what to request next, and handles each answer.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::{
    Failure, Forwarder, Limits, Report, SiteMemory,
    plan::Plan,
    record::{self, MAX_UNFORWARDED, PollContext},
    world::World,
};
use crate::{
    rapidm2m::{
        FetchError, Rows, Selection, Stamp,
        client::{Answer, MAX_BODY, Range, RowsQuery},
        ledger::{BackfillRange, Committed, Fault, SiteKey},
        window::SOFT_BODY_LIMIT,
        wire::{Flaws, WireError},
    },
    support::{blocking, kind::Kind},
};

/// A row may be this far ahead of our clock. A row further ahead stays in the backend: if the cursor moved to it, new
/// rows before it would count as old.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(60);
/// How long channels from a site's blueprint are remembered.
const BLUEPRINT_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How many windows in a row may be too large before the turn ends.
const NARROWINGS: usize = 60;

/// A site's turn ends early. The report already says why.
pub struct EndTurn;

/// What comes next in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more to poll, or to record.
    GoOn,
    /// There is nothing more to do in this turn; of a backfill: it has come to its end.
    Done,
}

pub struct Turn<'a, W> {
    pub forwarder: &'a Forwarder<W>,
    pub key: &'a SiteKey,
    /// Of a backfill.
    pub range: Option<BackfillRange>,
    pub memory: &'a mut SiteMemory,
    pub committed: Committed,
    pub report: Report,
    pub limits: Limits,
    /// `false` after the hub's first failure: newer messages must not overtake pending ones.
    pub can_send: bool,
    /// Whether the next turn may begin with this turn's cursor.
    pub is_cursor_kept: bool,
}

impl<W: World> Turn<'_, W> {
    pub async fn run(&mut self) -> Result<(), EndTurn> {
        self.send_what_waits(self.limits.resend_until).await?;
        if self.is_left_alone() {
            // Such turns write nothing, so they would not notice that the operator put a message back.
            self.is_cursor_kept = false;
            return Ok(());
        }
        self.memory.tried = true;
        let Some(channels) = self.channels().await? else { return Ok(()) };
        while self.committed.cursor.unforwarded.len() < MAX_UNFORWARDED {
            if Instant::now() >= self.limits.ask_until {
                self.report.is_behind = true;
                return Ok(());
            }
            if self.poll(&channels).await? == Step::Done {
                return Ok(());
            }
        }
        // Too many messages are pending, so the site is not polled further.
        self.report.is_behind = true;
        Ok(())
    }

    /// Whether the site backs off now; reports it if so.
    fn is_left_alone(&mut self) -> bool {
        let cursor = &self.committed.cursor;
        let Some(until) = record::backs_off_until(cursor, self.forwarder.world.now()) else { return false };
        let error = cursor.last_error.clone().unwrap_or_else(|| Fault { kind: Kind::Rest, text: String::new() });
        // An operator who has corrected the settings restarts the app. Try at once, so that the operator need not
        // wait an hour.
        if !self.memory.tried && error.kind.is_permanent() {
            return false;
        }
        let text = format!("left alone until {}, after {}", Stamp::from_time(until).rfc3339(), error.text);
        self.report.failures.push(Failure { kind: error.kind, text, is_known: true });
        true
    }

    /// The channels to select: the named ones, or those of the blueprint. `None` after a failure, which is recorded.
    pub async fn channels(&mut self) -> Result<Option<Vec<String>>, EndTurn> {
        let forwarder = self.forwarder;
        if let Selection::Named(channels) = &forwarder.channels {
            return Ok(Some(channels.clone()));
        }
        if let Some((_, channels)) = self.memory.channels.as_ref().filter(|(at, _)| at.elapsed() < BLUEPRINT_LIFETIME) {
            return Ok(Some(channels.clone()));
        }
        let (at, started) = (forwarder.world.now(), Instant::now());
        self.report.requests += 1;
        let limit = self.request_limit();
        let found = forwarder.world.channels(self.key, forwarder.histdata, limit).await;
        match found {
            Ok(channels) => {
                self.memory.channels = Some((Instant::now(), channels.clone()));
                Ok(Some(channels))
            }
            Err(error) => {
                let request = crate::rapidm2m::ledger::Request { path: "blueprint".into(), ..Default::default() };
                let context = PollContext {
                    key: self.key.clone(),
                    at,
                    request,
                    status: error.status(),
                    bytes: 0,
                    took: started.elapsed(),
                    backfill: self.committed.cursor.backfill_id(),
                };
                self.record_failure(&context, &error).await?;
                Ok(None)
            }
        }
    }

    /// Makes one request for rows, begun at the time `at`.
    pub async fn ask(
        &mut self,
        at: DateTime<Utc>,
        channels: &[String],
        range: Range,
        max_body: usize,
    ) -> (PollContext, Result<Answer, FetchError>) {
        let forwarder = self.forwarder;
        let (customer, site, histdata) = (&self.key.customer, &self.key.site, forwarder.histdata);
        let query = RowsQuery { customer, site, histdata, channels, range };
        let started = Instant::now();
        let answer = forwarder.world.rows(&query, max_body, self.request_limit()).await;
        self.report.requests += 1;
        let context = PollContext {
            key: self.key.clone(),
            at,
            request: PollContext::request(&query),
            status: answer.as_ref().map_or_else(FetchError::status, |answer| Some(answer.status)),
            bytes: answer.as_ref().map_or(0, |answer| answer.body.len()),
            took: started.elapsed(),
            backfill: self.committed.cursor.backfill_id(),
        };
        (context, answer)
    }

    fn request_limit(&self) -> Duration {
        self.limits.ask_until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Requests one window and handles the answer. Returns whether there is more to request now.
    async fn poll(&mut self, channels: &[String]) -> Result<Step, EndTurn> {
        let forwarder = self.forwarder;
        let mut force = false;
        for _ in 0..NARROWINGS {
            let at = forwarder.world.now();
            let now = Stamp::from_time(at);
            let plan = Plan::new(&self.committed.cursor, forwarder.start_from, self.memory, now);
            let narrowable = plan.window.filter(|window| window.can_narrow && !force);
            let limit = if narrowable.is_some() { SOFT_BODY_LIMIT } else { MAX_BODY };
            let (context, answer) = self.ask(at, channels, plan.range, limit).await;
            match (answer, narrowable) {
                (Ok(answer), _) => return self.take_answer(&context, &plan, answer, channels).await,
                (Err(FetchError::TooLarge { prefix, .. }), Some(window)) => {
                    self.report.bytes += prefix.len();
                    let count = channels.len();
                    let stamps = blocking::run(prefix.len(), move || {
                        Rows::read_prefix(&prefix, count).rows.iter().map(|row| row.stamp).collect::<Vec<_>>()
                    });
                    let stamps = stamps.await;
                    force = !self.memory.search.narrow(plan.from, window, now, &stamps);
                    tracing::debug!(rows.read = stamps.len(), window.forced = force, "a window was too large");
                    if Instant::now() >= self.limits.ask_until {
                        self.report.is_behind = true;
                        return Ok(Step::Done);
                    }
                }
                (Err(error), _) => {
                    self.record_failure(&context, &error).await?;
                    return Ok(Step::Done);
                }
            }
        }
        self.report.is_behind = true;
        Ok(Step::Done)
    }

    async fn take_answer(
        &mut self,
        context: &PollContext,
        plan: &Plan,
        answer: Answer,
        channels: &[String],
    ) -> Result<Step, EndTurn> {
        self.report.bytes += answer.body.len();
        let mut rows = match read_rows(answer.body, channels.len()).await {
            Ok(rows) => rows,
            Err(error) => {
                self.record_failure(context, &error.into()).await?;
                return Ok(Step::Done);
            }
        };
        let unreadable = rows.flaws.count;
        let future = hold_back_the_future(&mut rows, self.forwarder.world.now());
        // Without an overlap these are the new rows. With an overlap, some of them may be known.
        let beyond = rows.rows.iter().filter(|row| plan.is_beyond(row.stamp)).count();
        let newest = rows.rows.last().map(|row| row.stamp).filter(|_| beyond > 0);
        rows.rows.retain(|row| plan.is_new(&self.committed.cursor, row.stamp));
        self.report.bad_rows += rows.flaws.count;

        if !rows.rows.is_empty() {
            if self.record_and_send(context, channels, &rows, plan).await? == Step::Done {
                return Ok(Step::Done);
            }
        } else if self.is_news(plan, unreadable, future, &rows.flaws) {
            self.record_bad_rows(context, &rows.flaws).await?;
            self.memory.future = future.max(self.memory.future);
            self.memory.flaws = Some(rows.flaws);
        } else {
            self.record_nothing(context, &rows.flaws).await?;
        }
        Ok(if self.note_window(plan, newest, beyond) { Step::GoOn } else { Step::Done })
    }

    /// Whether unusable rows are a failure now. Rows from the future fail once. Unreadable rows fail each time,
    /// because a logger may send nothing else; with an overlap they fail once, because it returns the same rows each
    /// time. An unusable youngest row always fails, because recording this failure gives the cursor its beginning.
    fn is_news(&self, plan: &Plan, unreadable: usize, future: Option<Stamp>, flaws: &Flaws) -> bool {
        if plan.window.is_none() && flaws.count > 0 {
            return true;
        }
        let is_known = self.forwarder.overlap.is_some() && self.memory.flaws.as_ref() == Some(flaws);
        self.memory.future < future || (unreadable > 0 && !is_known)
    }

    /// Remembers what the answer says about the next window. Returns whether there is more to request now.
    fn note_window(&mut self, plan: &Plan, newest: Option<Stamp>, beyond: usize) -> bool {
        let Some(window) = plan.window else { return false };
        let is_open = window.until.is_none();
        match newest {
            Some(newest) => {
                self.memory.search.had_rows(plan.from, newest, window, beyond);
                self.memory.swept = Some(newest).filter(|_| !is_open && self.forwarder.overlap.is_some());
            }
            None => {
                self.memory.search.was_empty(window);
                if is_open {
                    self.memory.swept = None;
                }
            }
        }
        !is_open
    }
}

/// The rows of an answer, in the order of their stamps.
pub async fn read_rows(body: Bytes, channels: usize) -> Result<Rows, WireError> {
    let read = move |body| {
        let mut rows = Rows::read(body, channels)?;
        rows.sort();
        Ok(rows)
    };
    blocking::run(body.len(), move || read(body)).await
}

/// Removes the rows that are ahead of the clock. They stay in the backend and are requested again until their time
/// has come. Returns the stamp of the last of them.
fn hold_back_the_future(rows: &mut Rows, now: DateTime<Utc>) -> Option<Stamp> {
    let latest = Stamp::from_time(now + CLOCK_TOLERANCE);
    let future = rows.rows.split_off(rows.rows.partition_point(|row| row.stamp <= latest));
    for row in &future {
        rows.flaws.add("a stamp in the future, kept for later", &row.stamp.rfc3339());
    }
    future.last().map(|row| row.stamp)
}
