//! Decides within a site's turn what to request next, and handles each answer.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::{
    Failure, Forwarder, Limits, Report, SiteMemory,
    identity::{self, News, Taken},
    plan::{Plan, SortedOut},
    record::{self, MAX_UNFORWARDED, PollContext},
    world::World,
};
use crate::{
    rapidm2m::{
        FetchError, Row, Rows, Selection, Site, Stamp,
        client::{Answer, Limit, MAX_BODY, Range, RowsQuery},
        ledger::{BackfillRange, Committed, Fault},
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
    pub site: &'a Site,
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
        self.poll_what_is_due().await?;
        self.mark_what_is_due().await
    }

    async fn poll_what_is_due(&mut self) -> Result<(), EndTurn> {
        self.identify().await?;
        self.send_what_waits(self.limits.resend_until).await?;
        if self.is_left_alone() {
            // Such turns write nothing, so they would not notice that the operator put a message back.
            self.is_cursor_kept = false;
            return Ok(());
        }
        let has_waiting = self.waiting() > 0;
        if !self.can_send && has_waiting && !self.report.is_provisioning {
            // The backend keeps the rows. Once the hub takes them, they leave in full messages. The status page says why.
            let cursor = self.committed.cursor.clone();
            if cursor.activity.as_ref().is_some_and(|activity| activity.is_news) {
                self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))?;
            }
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
                let Report { failures, is_behind, held, .. } = &self.report;
                let is_well = failures.is_empty() && !is_behind && held.is_none();
                return if is_well { self.look_for_a_reset_clock(&channels).await } else { Ok(()) };
            }
        }
        // Too many messages are pending, so the site is not polled further.
        self.report.is_behind = true;
        Ok(())
    }

    /// Sends what waits, and marks it.
    pub async fn send(&mut self) -> Result<(), EndTurn> {
        self.send_what_waits(self.limits.send_until).await?;
        self.mark_what_is_acknowledged().await
    }

    /// Sends what waits, and writes into the cursor since when the backend does not list the site. Another process may
    /// have written that before.
    pub async fn leave(&mut self) -> Result<(), EndTurn> {
        self.send_what_waits(self.limits.send_until).await?;
        let mut cursor = self.committed.cursor.clone();
        if self.committed.etag.is_none() || cursor.gone_since.is_some() {
            return self.mark_what_is_acknowledged().await;
        }
        cursor.gone_since = Some(self.forwarder.world.now());
        self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))?;
        self.report.news.push(News::Gone { waiting: self.waiting() });
        Ok(())
    }

    /// Writes into the cursor what it does not know of the site.
    async fn identify(&mut self) -> Result<(), EndTurn> {
        let mut cursor = self.committed.cursor.clone();
        let news = match identity::update(&mut cursor, self.site, self.forwarder.histdata) {
            Ok(news) => news,
            Err(Taken { uid }) => {
                let text = format!(
                    "its documents in Cosmos DB are those of the site with the _uid {uid}: the next run looks again where its \
                     own are"
                );
                self.report.failures.push(Failure::new(Kind::SiteMixedUp, text));
                return Err(EndTurn);
            }
        };
        if news.iter().any(|news| matches!(news, News::Histdata(_))) {
            (self.memory.search, self.memory.swept) = Default::default();
            record::keep_recorded(&mut cursor, self.forwarder.overlap);
        }
        if news.is_empty() || self.committed.etag.is_none() {
            // A new cursor is written with the first rows.
            self.committed.cursor = cursor;
            return Ok(());
        }
        self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))?;
        self.report.news = news;
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
        let text = format!("not polled until {}, after {}", Stamp::from_time(until).rfc3339(), error.text);
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
        let found = forwarder.world.channels(self.site, forwarder.histdata, limit).await;
        match found {
            Ok(channels) => {
                self.memory.channels = Some((Instant::now(), channels.clone()));
                Ok(Some(channels))
            }
            Err(error @ FetchError::Held { .. }) => {
                self.report.requests -= 1;
                self.hold(error);
                Ok(None)
            }
            Err(error) => {
                let request = crate::rapidm2m::ledger::Request { path: "blueprint".into(), ..Default::default() };
                let context = PollContext {
                    site: self.site.clone(),
                    at,
                    request,
                    status: error.status(),
                    bytes: 0,
                    took: forwarder.world.elapsed(started),
                    backfill: self.committed.cursor.backfill_id(),
                    rows_ahead: 0,
                    correction: false,
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
        let (customer, site, histdata) = (&self.site.key.customer, self.site.path(), forwarder.histdata);
        let query = RowsQuery { customer, site, histdata, channels, range };
        let started = Instant::now();
        let answer = forwarder.world.rows(&query, max_body, self.request_limit()).await;
        self.report.requests += usize::from(!matches!(answer, Err(FetchError::Held { .. })));
        let context = PollContext {
            site: self.site.clone(),
            at,
            request: PollContext::request(&query),
            status: answer.as_ref().map_or_else(FetchError::status, |answer| Some(answer.status)),
            bytes: answer.as_ref().map_or(0, |answer| answer.body.len()),
            took: forwarder.world.elapsed(started),
            backfill: self.committed.cursor.backfill_id(),
            rows_ahead: 0,
            correction: false,
        };
        (context, answer)
    }

    fn request_limit(&self) -> Limit {
        Limit { until: self.limits.ask_until, answer: self.limits.answer }
    }

    /// No request was made, so there is nothing to record.
    pub fn hold(&mut self, error: FetchError) {
        self.report.held = Some(error);
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
                (Ok(answer), _) => return self.take_answer(context, &plan, answer, channels).await,
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
                (Err(error @ FetchError::Held { .. }), _) => {
                    self.hold(error);
                    return Ok(Step::Done);
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
        mut context: PollContext,
        plan: &Plan,
        answer: Answer,
        channels: &[String],
    ) -> Result<Step, EndTurn> {
        self.report.bytes += answer.body.len();
        let mut rows = match read_rows(answer.body, channels.len()).await {
            Ok(rows) => rows,
            Err(error) => {
                self.record_failure(&context, &error.into()).await?;
                return Ok(Step::Done);
            }
        };
        let ahead = hold_back_the_future(&mut rows, self.forwarder.world.now());
        context.rows_ahead = ahead.len();
        self.report.rows_ahead += ahead.len();
        // Without an overlap these are the new rows. With an overlap, some of them may be known.
        let beyond = rows.rows.iter().filter(|row| plan.is_beyond(row.stamp)).count();
        let newest = rows.rows.last().map(|row| row.stamp).filter(|_| beyond > 0);
        let mut sorted = plan.sort_out(&mut rows, &self.committed.cursor, channels);
        if !self.forwarder.corrections {
            self.leave_corrections(&mut rows, &mut sorted);
        }
        let told = Some(rows.flaws.clone()).filter(|flaws| flaws.count > 0);
        let has_new_flaws = self.has_new_flaws(&mut rows.flaws);
        let has_youngest = plan.window.is_some() || rows.flaws.count == 0 && ahead.is_empty();

        if !rows.rows.is_empty() {
            let step = self.record_and_send(&context, channels, &rows, &sorted, plan).await?;
            // Only what is recorded is told: after a lost race the next turn counts them.
            self.memory.flaws = told.or(self.memory.flaws.take());
            if step == Step::Done {
                return Ok(Step::Done);
            }
        } else if has_new_flaws {
            self.record_bad_rows(&context, &rows.flaws).await?;
            self.memory.flaws = told;
        } else {
            if !has_youngest {
                self.begin_now(&context);
            }
            self.record_nothing(&context).await?;
        }
        Ok(if self.note_window(plan, newest, beyond) { Step::GoOn } else { Step::Done })
    }

    /// Counts unusable rows that were not told before. Removes those that were.
    fn has_new_flaws(&mut self, flaws: &mut Flaws) -> bool {
        let are_same = self.memory.flaws.as_ref() == Some(flaws);
        let cursor = &mut self.committed.cursor;
        let stamped = match &mut cursor.recorded {
            Some(recorded) => recorded.note_unusable(&flaws.stamps),
            None => flaws.stamps.len(),
        };
        let new = if are_same { 0 } else { stamped + flaws.unstamped() };
        if new > 0 {
            self.report.bad_rows += new;
            cursor.activity.get_or_insert_default().unusable_rows += new as u64;
            flaws.count = new;
        } else if self.forwarder.overlap.is_some() {
            *flaws = Flaws::default();
        }
        // An overlap brings the same rows each time. Without one, a logger may send nothing else.
        flaws.count > 0
    }

    /// Counts the rows with changed values once, and does not forward them.
    fn leave_corrections(&mut self, rows: &mut Rows, sorted: &mut SortedOut) {
        let changed: Vec<_> = rows.rows.drain(..std::mem::take(&mut sorted.changed)).collect();
        if let Some(recorded) = &mut self.committed.cursor.recorded {
            let (stamps, since) = (sorted.of(&changed, changed.last().map(|row| row.stamp)), recorded.since());
            recorded.extend(&stamps, sorted.channels, since);
        }
        self.report.corrected_rows += changed.len();
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

/// Removes the rows that are ahead of the clock, and returns them. They stay in the backend and are requested again until
/// their time has come.
fn hold_back_the_future(rows: &mut Rows, now: DateTime<Utc>) -> Vec<Row> {
    let latest = Stamp::from_time(now + CLOCK_TOLERANCE);
    rows.rows.split_off(rows.rows.partition_point(|row| row.stamp <= latest))
}
