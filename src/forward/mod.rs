//! One site: what waits is sent, the backend is asked, its rows are recorded, sent, and marked when acknowledged.
//!
//! What must hold, wherever this is cut, and whoever else polls the same site:
//! - A row is recorded before it is sent; the cursor moves only in the transaction that records the rows behind it.
//! - `forwarded` is written only after the hub acknowledged exactly that message.
//! - A site's messages leave in the order of their rows; what waits goes first.

pub mod record;
pub mod source;
pub mod split;

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::{
    clock::Clock,
    config::rapidm2m::{Selection, StartFrom},
    hub::{SendError, Sender},
    ledger::{Committed, Cursor, Fault, Ledger, LedgerError, MAX_BATCH_POLLS, Outcome, Poll, SiteKey},
    rapidm2m::{
        FetchError, Rows, Stamp,
        client::{Answer, MAX_BODY, Range, RowsQuery},
        window::{SOFT_BODY_LIMIT, Search, Window},
        wire::Flaws,
    },
};

use record::{Asked, MAX_UNFORWARDED, Rest};
use source::Source;
use split::{Heading, Splitter};

/// A row may be this far ahead of our clock. One that is further ahead waits in the backend: would the cursor follow it,
/// the rows before it could never be told from old ones.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(60);
/// How long a site's channels are remembered when they come from its blueprint.
const BLUEPRINT_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Records that are read, sent and marked at once when a backlog is worked off.
const RESEND_CHUNK: usize = 8;
/// How often a mark is tried again when another poller writes in between.
const MARK_ATTEMPTS: usize = 5;
/// Windows that may prove too large for one that fits.
const NARROWINGS: usize = 60;

/// Everything that polling a site takes.
pub struct Forwarder {
    pub source: Source,
    pub ledger: Ledger,
    pub sender: Sender,
    pub clock: Clock,
    pub channels: Selection,
    pub histdata: u8,
    pub start_from: StartFrom,
    pub record_empty_polls: bool,
}

/// What is remembered of a site between polls. Forgetting it costs time, never data.
#[derive(Debug, Default)]
pub struct SiteMemory {
    /// The cursor as this process last wrote or read it. `None` while it is in use, and after every doubt.
    committed: Option<Committed>,
    /// Polls whose messages the hub has acknowledged, but which could not be marked.
    acknowledged: HashSet<String>,
    search: Search,
    channels: Option<(Instant, Vec<String>)>,
    /// Whether this process has tried the site at all.
    tried: bool,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nothing new is asked for after this.
    pub ask_until: Instant,
    /// What waits from earlier turns is sent until here, so that a slow hub does not keep the backend from being asked.
    pub resend_until: Instant,
    /// No acknowledgement is waited for after this.
    pub send_until: Instant,
}

/// What polling a site came to.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: usize,
    pub bytes: usize,
    pub rows_recorded: usize,
    pub messages_forwarded: usize,
    pub rows_forwarded: usize,
    pub messages_rejected: usize,
    /// Rows that could not be used.
    pub bad_rows: usize,
    /// Messages that wait for the hub now.
    pub waiting: usize,
    /// The backend has more, the deadline came first.
    pub is_behind: bool,
    /// Another poller was faster; nothing was written.
    pub lost_race: bool,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// One thing that went wrong with a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: String,
    pub text: String,
    /// It went wrong before, is logged, and the site is left alone because of it.
    pub is_known: bool,
}

impl Failure {
    fn new(kind: &str, text: impl ToString) -> Self {
        Self { kind: kind.to_owned(), text: text.to_string(), is_known: false }
    }
}

/// Why a site's turn ends early. What it says is in the report already.
struct Stop;

impl Forwarder {
    /// One turn for one site.
    pub async fn poll_site(&self, key: &SiteKey, memory: &mut SiteMemory, limits: Limits) -> Report {
        let mut report = Report::default();
        // Taken out: if this future is dropped half-way, the cursor is read again.
        let committed = match memory.committed.take() {
            Some(committed) => committed,
            None => match self.ledger.cursor(key).await {
                Ok(committed) => committed,
                Err(error) => {
                    report.failures.push(Failure::new(error.kind(), error));
                    return report;
                }
            },
        };
        memory.acknowledged.retain(|id| committed.cursor.unforwarded.contains(id));
        let mut turn = Turn { forwarder: self, key, memory, committed, report, limits, can_send: true };
        let ended = turn.run().await;
        let Turn { committed, mut report, .. } = turn;
        report.waiting = committed.cursor.unforwarded.len();
        if ended.is_ok() {
            memory.committed = Some(committed);
        }
        report
    }

    /// Records under the site `*` that the sites of a customer could not be listed, or (once) that they can again.
    /// A ledger that is away will be reported by the sites themselves.
    pub async fn record_listing(&self, key: &SiteKey, listed: Result<(), &FetchError>, took: Duration) {
        let now = Instant::now();
        let limits = Limits { ask_until: now, resend_until: now, send_until: now };
        let Ok(committed) = self.ledger.cursor(key).await else { return };
        let (mut memory, report) = (SiteMemory::default(), Report::default());
        let mut turn = Turn { forwarder: self, key, memory: &mut memory, committed, report, limits, can_send: false };
        let request = crate::ledger::Request { path: "sites".into(), ..Default::default() };
        let mut asked = Asked { key: key.clone(), at: self.clock.now(), request, status: Some(200), bytes: 0, took };
        let _recorded = match listed {
            Ok(()) if turn.committed.cursor.last_error.is_none() => Ok(()),
            Ok(()) => turn.record_nothing(&asked).await,
            Err(error) => {
                asked.status = error.status();
                turn.record_failure(&asked, error).await
            }
        };
    }
}

struct Turn<'a> {
    forwarder: &'a Forwarder,
    key: &'a SiteKey,
    memory: &'a mut SiteMemory,
    committed: Committed,
    report: Report,
    limits: Limits,
    /// Not after the hub failed once: what comes later must not overtake what waits.
    can_send: bool,
}

impl Turn<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        self.send_what_waits().await?;
        if self.is_left_alone() {
            return Ok(());
        }
        self.memory.tried = true;
        let Some(channels) = self.channels().await? else { return Ok(()) };
        while self.committed.cursor.unforwarded.len() < MAX_UNFORWARDED {
            if Instant::now() >= self.limits.ask_until {
                self.report.is_behind = true;
                return Ok(());
            }
            if !self.poll(&channels).await? {
                return Ok(());
            }
        }
        // The hub has taken nothing for so long that the site is not asked any more.
        self.report.is_behind = true;
        Ok(())
    }

    /// Works off the backlog, oldest first, until it is empty or the hub fails.
    async fn send_what_waits(&mut self) -> Result<(), Stop> {
        while self.can_send && !self.committed.cursor.unforwarded.is_empty() {
            let ids: Vec<_> = self.committed.cursor.unforwarded.iter().take(RESEND_CHUNK).cloned().collect();
            let mut polls = Vec::with_capacity(ids.len());
            let (mut size, mut lost) = (0, None);
            for id in ids {
                match self.forwarder.ledger.poll(self.key, &id).await {
                    Ok(Some(poll)) if record::fits(&mut size, &poll) => polls.push(poll),
                    Ok(Some(_)) => break,
                    Ok(None) => {
                        lost = Some(id);
                        break;
                    }
                    Err(error) => return self.ledger_failed(&error),
                }
            }
            // What stands before a lost record goes first; the lost one is then the first of the next round.
            match lost {
                Some(id) if polls.is_empty() => self.forget(&id).await?,
                _ => self.send_and_mark(polls, self.limits.resend_until).await?,
            }
        }
        Ok(())
    }

    /// Takes a poll whose record is gone out of the queue: somebody has deleted it. A note takes its place, which also makes
    /// sure: if the record was only not yet visible where it was read, the transaction fails and it is looked for again.
    async fn forget(&mut self, id: &str) -> Result<(), Stop> {
        let text = format!("the record {id} of a message that waited is gone from the ledger: its rows cannot be sent");
        let fault = Fault { kind: "record_lost".into(), text };
        self.report.failures.push(Failure::new(&fault.kind, &fault.text));
        let note = record::lost_poll(self.key, id, fault, self.forwarder.clock.now());
        let mut cursor = self.committed.cursor.clone();
        cursor.unforwarded.retain(|waiting| waiting != id);
        self.commit(&[note], &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// Whether the site is to be left alone for now; says so in the report.
    fn is_left_alone(&mut self) -> bool {
        let cursor = &self.committed.cursor;
        let Some(until) = cursor.not_before.filter(|until| self.forwarder.clock.now() < *until) else { return false };
        let error = cursor.last_error.clone().unwrap_or_else(|| Fault { kind: "rest".into(), text: String::new() });
        // Whoever mended the settings restarts the app: do not make them wait for an hour.
        if !self.memory.tried && matches!(error.kind.as_str(), "unauthorized" | "forbidden" | "not_found") {
            return false;
        }
        let text = format!("left alone until {}, after {}", Stamp::from_time(until).rfc3339(), error.text);
        self.report.failures.push(Failure { kind: error.kind, text, is_known: true });
        true
    }

    /// The channels to select: named, or from the blueprint. `None` after a failure, which is recorded.
    async fn channels(&mut self) -> Result<Option<Vec<String>>, Stop> {
        let forwarder = self.forwarder;
        if let Selection::Named(channels) = &forwarder.channels {
            return Ok(Some(channels.clone()));
        }
        if let Some((_, channels)) = self.memory.channels.as_ref().filter(|(at, _)| at.elapsed() < BLUEPRINT_LIFETIME) {
            return Ok(Some(channels.clone()));
        }
        let (at, started) = (forwarder.clock.now(), Instant::now());
        self.report.requests += 1;
        let limit = self.request_limit();
        let found = forwarder.source.channels(&self.key.customer, &self.key.site, forwarder.histdata, limit).await;
        match found {
            Ok(channels) => {
                self.memory.channels = Some((Instant::now(), channels.clone()));
                Ok(Some(channels))
            }
            Err(error) => {
                let request = crate::ledger::Request { path: "blueprint".into(), ..Default::default() };
                let asked = Asked {
                    key: self.key.clone(),
                    at,
                    request,
                    status: error.status(),
                    bytes: 0,
                    took: started.elapsed(),
                };
                self.record_failure(&asked, &error).await?;
                Ok(None)
            }
        }
    }

    fn request_limit(&self) -> Duration {
        self.limits.ask_until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Asks for one window and deals with the answer. Returns whether there is more to ask for now.
    async fn poll(&mut self, channels: &[String]) -> Result<bool, Stop> {
        let forwarder = self.forwarder;
        let mut force = false;
        for _ in 0..NARROWINGS {
            let at = forwarder.clock.now();
            let now = Stamp::from_time(at);
            let plan = plan(&self.committed.cursor, forwarder.start_from, &self.memory.search, now);
            let query = RowsQuery {
                customer: &self.key.customer,
                site: &self.key.site,
                histdata: forwarder.histdata,
                channels,
                range: plan.range,
            };
            let narrowable = plan.window.filter(|window| window.can_narrow && !force);
            let limit = if narrowable.is_some() { SOFT_BODY_LIMIT } else { MAX_BODY };
            let started = Instant::now();
            let answer = forwarder.source.rows(&query, limit, self.request_limit()).await;
            self.report.requests += 1;
            let mut asked = Asked {
                key: self.key.clone(),
                at,
                request: Asked::request(&query),
                status: None,
                bytes: 0,
                took: started.elapsed(),
            };
            match (answer, narrowable) {
                (Ok(answer), _) => {
                    asked.status = Some(answer.status);
                    asked.bytes = answer.body.len();
                    return self.take_answer(&asked, &plan, &answer, channels).await;
                }
                (Err(FetchError::TooLarge { prefix, .. }), Some(window)) => {
                    self.report.bytes += prefix.len();
                    let rows = Rows::read_prefix(&prefix, channels.len());
                    let stamps: Vec<_> = rows.rows.iter().map(|row| row.stamp).collect();
                    force = !self.memory.search.narrow(plan.from, window, now, &stamps);
                    tracing::debug!(site = %self.key.site, rows = stamps.len(), force, "a window was too large");
                    if Instant::now() >= self.limits.ask_until {
                        self.report.is_behind = true;
                        return Ok(false);
                    }
                }
                (Err(error), _) => {
                    asked.status = error.status();
                    self.record_failure(&asked, &error).await?;
                    return Ok(false);
                }
            }
        }
        self.report.is_behind = true;
        Ok(false)
    }

    async fn take_answer(
        &mut self,
        asked: &Asked,
        plan: &Plan,
        answer: &Answer,
        channels: &[String],
    ) -> Result<bool, Stop> {
        self.report.bytes += answer.body.len();
        let mut rows = match Rows::read(&answer.body, channels.len()) {
            Ok(rows) => rows,
            Err(error) => {
                self.record_failure(asked, &error.into()).await?;
                return Ok(false);
            }
        };
        rows.sort();
        hold_back_the_future(&mut rows, self.forwarder.clock.now());
        rows.rows.retain(|row| plan.newer_than.is_none_or(|newest| row.stamp > newest));
        self.report.bad_rows += rows.flaws.count;

        let more = plan.window.is_some_and(|window| window.until.is_some());
        if !rows.rows.is_empty() {
            let all = self.record_and_send(asked, channels, &rows).await?;
            if let (Some(window), Some(newest), true) = (plan.window, rows.rows.last(), all) {
                self.memory.search.had_rows(plan.from, newest.stamp, window, rows.rows.len());
            }
            return Ok(more && all);
        }
        if let Some(window) = plan.window {
            self.memory.search.was_empty(window);
        }
        if rows.flaws.count > 0 {
            self.record_bad_rows(asked, &rows.flaws).await?;
            return Ok(more);
        }
        self.record_nothing(asked).await?;
        Ok(more)
    }

    /// Records rows and sends them, transaction by transaction. Returns whether all were recorded.
    async fn record_and_send(&mut self, asked: &Asked, channels: &[String], rows: &Rows<'_>) -> Result<bool, Stop> {
        let begin = self.committed.cursor.last_value_from;
        let heading = Heading { key: self.key, begin, end: asked.at, channels };
        let mut parts = Splitter::new(&heading, rows, record::max_body(self.key)).enumerate().peekable();
        let mut carried: Option<Poll> = None;
        let history = self.forwarder.ledger.history_seconds();
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
            let cursor = record::advanced(&self.committed.cursor, &polls, asked.scanned_until());
            self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))?;
            self.report.rows_recorded += polls.iter().map(|poll| poll.result.rows).sum::<usize>();
            for poll in polls.iter().filter(|poll| poll.outcome == Outcome::Rejected) {
                self.report.messages_rejected += 1;
                let why = poll.error.as_ref().map_or("", |fault| fault.text.as_str());
                tracing::error!(site = %self.key.site, poll = %poll.id, "a message is rejected: {why}");
            }
            if self.can_send {
                polls.retain(|poll| poll.outcome == Outcome::Pending);
                self.send_and_mark(polls, self.limits.send_until).await?;
            }
        }
        Ok(true)
    }

    /// Sends records, in order, and marks those that are acknowledged. After the hub's first failure nothing more is sent.
    async fn send_and_mark(&mut self, mut polls: Vec<Poll>, until: Instant) -> Result<(), Stop> {
        if polls.is_empty() {
            return Ok(());
        }
        // What was acknowledged in an earlier turn stands at the front, by the order in which messages leave.
        let known = polls.iter().take_while(|poll| self.memory.acknowledged.contains(&poll.id)).count();
        let messages: Vec<_> = polls[known..].iter().map_while(record::message).collect();
        let readable = messages.len();
        let (sent, outcome) = self.forwarder.sender.send_in_order(&messages, until).await;
        drop(messages);
        let now = self.forwarder.clock.now();
        let history = self.forwarder.ledger.history_seconds();
        let mut finished = known + sent;
        for poll in &mut polls[..finished] {
            record::set_forwarded(poll, now, history);
            self.memory.acknowledged.insert(poll.id.clone());
        }
        self.report.messages_forwarded += finished;
        self.report.rows_forwarded += polls[..finished].iter().map(|poll| poll.result.rows).sum::<usize>();
        match outcome {
            Ok(()) if readable == polls.len() - known => {}
            Ok(()) => {
                // Only somebody else's edit can make a waiting record that has no message.
                let fault = Fault { kind: "no_message".into(), text: "the record holds no message to send".into() };
                self.reject(&mut polls[finished], fault, history);
                finished += 1;
            }
            Err(error @ SendError::TooLarge { .. }) => {
                let fault = Fault { kind: error.kind().into(), text: error.to_string() };
                self.reject(&mut polls[finished], fault, history);
                finished += 1;
            }
            // The hub keeps up, the time is over: the next tick goes on.
            Err(SendError::TimedOut) if self.report.messages_forwarded > 0 => {
                self.can_send = false;
                self.report.is_behind = true;
            }
            Err(error) => {
                self.can_send = false;
                self.report.failures.push(Failure::new(error.kind(), error));
            }
        }
        polls.truncate(finished);
        self.mark(&polls).await
    }

    fn reject(&mut self, poll: &mut Poll, fault: Fault, history: Option<u32>) {
        tracing::error!(site = %self.key.site, poll = %poll.id, "a message is rejected: {}", fault.text);
        record::set_rejected(poll, fault, history);
        self.report.messages_rejected += 1;
    }

    /// Writes finished records and takes them out of the queue.
    async fn mark(&mut self, finished: &[Poll]) -> Result<(), Stop> {
        let mut lost_race = false;
        for _ in 0..MARK_ATTEMPTS {
            let queue = &self.committed.cursor.unforwarded;
            let finished: Vec<_> = finished.iter().filter(|poll| queue.contains(&poll.id)).cloned().collect();
            if finished.is_empty() {
                break;
            }
            let mut cursor = self.committed.cursor.clone();
            cursor.unforwarded.retain(|id| !finished.iter().any(|poll| poll.id == *id));
            match self.commit(&[], &finished, cursor).await {
                Ok(()) => {
                    for poll in &finished {
                        self.memory.acknowledged.remove(&poll.id);
                    }
                    break;
                }
                // Another poller has written to the site since: what it left of our queue is still ours to mark.
                Err(LedgerError::Conflict) => {
                    lost_race = true;
                    match self.forwarder.ledger.cursor(self.key).await {
                        Ok(committed) => self.committed = committed,
                        Err(error) => return self.ledger_failed(&error),
                    }
                }
                Err(error) => return self.ledger_failed(&error),
            }
        }
        if lost_race {
            // The rest of the answer in hand was planned from a cursor that is history: the other poller goes on from its own.
            self.report.lost_race = true;
            return Err(Stop);
        }
        Ok(())
    }

    /// A poll without new rows.
    async fn record_nothing(&mut self, asked: &Asked) -> Result<(), Stop> {
        let cursor = &self.committed.cursor;
        let news = cursor.scanned_until.is_none() || cursor.last_error.is_some();
        if !self.forwarder.record_empty_polls && !news {
            return Ok(());
        }
        let mut polls = Vec::new();
        if self.forwarder.record_empty_polls {
            polls.push(record::empty_poll(asked, cursor, self.forwarder.ledger.history_seconds()));
        }
        let cursor = record::advanced(cursor, &[], asked.scanned_until());
        self.commit(&polls, &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// A poll that brought rows, none of which can be used now. It must not look like "no data".
    async fn record_bad_rows(&mut self, asked: &Asked, flaws: &Flaws) -> Result<(), Stop> {
        let (reason, _) = flaws.first.first().cloned().unwrap_or_default();
        let text = format!(
            "{} of the answer's rows cannot be used, none of the others is new; the first: {reason}",
            flaws.count
        );
        let fault = Fault { kind: "bad_rows".into(), text };
        if asked.request.from.is_none() && self.committed.cursor.last_value_from.is_none() {
            // The youngest row is of no use, and might be the youngest for years: begin with what comes after now.
            self.committed.cursor.last_value_from = Some(asked.at);
        }
        self.write_failure(asked, fault, Rest::None, Some(flaws)).await
    }

    async fn record_failure(&mut self, asked: &Asked, error: &FetchError) -> Result<(), Stop> {
        let fault = Fault { kind: error.kind().into(), text: error.to_string() };
        self.write_failure(asked, fault, Rest::after(error), None).await
    }

    async fn write_failure(
        &mut self,
        asked: &Asked,
        fault: Fault,
        rest: Rest,
        flaws: Option<&Flaws>,
    ) -> Result<(), Stop> {
        self.report.failures.push(Failure::new(&fault.kind, &fault.text));
        let history = self.forwarder.ledger.history_seconds();
        let mut poll = record::failed_poll(asked, fault.clone(), &self.committed.cursor, history);
        poll.result.bad_rows = flaws.and_then(record::bad_rows);
        let cursor = record::set_back(&self.committed.cursor, fault, rest, self.forwarder.clock.now());
        self.commit(&[poll], &[], cursor).await.map_err(|error| self.stop(&error))
    }

    async fn commit(&mut self, created: &[Poll], replaced: &[Poll], cursor: Cursor) -> Result<(), LedgerError> {
        let etag = self.committed.etag.as_deref();
        let etag = self.forwarder.ledger.commit(self.key, created, replaced, &cursor, etag).await?;
        self.committed = Committed { cursor, etag: Some(etag) };
        Ok(())
    }

    /// The end of the turn, and why. A lost race is no failure.
    fn stop(&mut self, error: &LedgerError) -> Stop {
        if matches!(error, LedgerError::Conflict) {
            tracing::debug!(site = %self.key.site, "another poller was faster");
            self.report.lost_race = true;
        } else {
            self.report.failures.push(Failure::new(error.kind(), error));
        }
        Stop
    }

    fn ledger_failed(&mut self, error: &LedgerError) -> Result<(), Stop> {
        Err(self.stop(error))
    }
}

/// What to ask for next.
struct Plan {
    range: Range,
    from: Stamp,
    window: Option<Window>,
    /// Rows up to this are known.
    newer_than: Option<Stamp>,
}

fn plan(cursor: &Cursor, start_from: StartFrom, search: &Search, now: Stamp) -> Plan {
    let from_window = |from: Stamp, newer_than: Option<Stamp>| {
        let window = search.next(from, now);
        Plan { range: Range::Window { from, until: window.until }, from, window: Some(window), newer_than }
    };
    if let Some(newest) = cursor.last_value_from.map(Stamp::from_time) {
        return from_window(newest, Some(newest));
    }
    match start_from {
        // Asked before and there was nothing: whatever comes now is new, however many rows and however late.
        StartFrom::Youngest if cursor.scanned_until.is_some() => from_window(Stamp::BEGINNING, None),
        StartFrom::Youngest => Plan { range: Range::Youngest, from: Stamp::BEGINNING, window: None, newer_than: None },
        StartFrom::All => from_window(Stamp::BEGINNING, None),
        StartFrom::At(time) => {
            // The bound itself may or may not be part of the window: ask for a little more, keep what was meant.
            let before = Stamp::from_time(time).shifted(-1);
            from_window(before, Some(before))
        }
    }
}

/// Leaves rows that are ahead of the clock where they are: they are asked for again until their time has come.
fn hold_back_the_future(rows: &mut Rows<'_>, now: DateTime<Utc>) {
    let latest = Stamp::from_time(now + CLOCK_TOLERANCE);
    let future = rows.rows.partition_point(|row| row.stamp <= latest);
    for row in rows.rows.split_off(future) {
        rows.flaws.add("a stamp in the future, kept for later", &row.stamp.rfc3339());
    }
}
