//! Carries out the turns of sites side by side, within the time that they have.

use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Polling, Summary, Time,
    order::{Due, InTurn},
    sites::Task,
};
use crate::{
    rapidm2m::{
        Site, Stamp,
        backfill::Run,
        ledger::{Cursor, SiteKey},
        polling::{Failure, Limits, Report, SiteMemory},
    },
    support::{
        ending,
        kind::Kind,
        panics,
        progress::{Progress, Step},
    },
};

/// How many of the sites that hang or fail are polled at once, so that they hold nobody up.
pub(super) const SLOW_LANE: usize = 8;
/// How many sites wait for the registration of their devices at once.
const PROVISIONING_CONCURRENCY: usize = 64;
/// How often a cursor is read again even if this process wrote nothing in between: the operator may have put messages
/// back.
const CURSOR_HOLDS: Duration = Duration::from_secs(10 * 60);
/// A backfill whose messages nobody has sent for this long is no one's any more: the command gives up after some minutes.
const ABANDONED: TimeDelta = TimeDelta::hours(1);

/// Why a site's turn has no result.
enum Unfinished {
    /// The process ends. That is no failure.
    Left,
    CutOff,
    NotReached,
}

impl Polling {
    /// All these turns. Those of sites that hang or fail have slots of their own.
    pub(super) async fn take_turns(
        &self,
        turns: Vec<InTurn>,
        time: Time,
        summary: &mut Summary,
        progress: &mut Progress,
    ) {
        progress.step = Step::Sites { done: 0, total: turns.len() };
        let (healthy, slow): (Vec<_>, Vec<_>) = turns.into_iter().partition(|turn| !turn.is_slow);
        let start = |limits| move |turn| self.begin(turn, limits, time.deadline);
        let healthy = futures::stream::iter(healthy).map(start(time.limits)).buffer_unordered(self.options.concurrency);
        let slow = futures::stream::iter(slow).map(start(time.for_slow())).buffer_unordered(SLOW_LANE);
        let mut turns = futures::stream::select(healthy, slow);
        let mut provisioning = Vec::new();
        while let Some((site, report)) = turns.next().await {
            match report {
                Ok(report) if report.is_provisioning => {
                    provisioning.push((site, report));
                    continue;
                }
                Ok(report) => {
                    let is_held = report.held.is_some();
                    summary.add(site.name, report, self.forwarder.world.clock.now());
                    if is_held {
                        self.note_refusals().await;
                    }
                }
                Err(Unfinished::Left) => summary.left += 1,
                Err(unfinished) => {
                    let what = if let Unfinished::CutOff = unfinished { "was cut off" } else { "was not reached" };
                    let text = match time.ends_with_run {
                        true => format!("{what} before the next run, which has it again"),
                        false => {
                            let seconds = self.options.timeout.as_secs();
                            format!("{what} within PollTimeoutSeconds={seconds}; it comes first next time")
                        }
                    };
                    summary.failures.push((site.name, Failure { kind: Kind::Deadline, text, is_known: false }));
                }
            }
            progress.one_site_done();
        }
        drop(turns);
        self.note_refusals().await;
        self.send_when_provisioned(provisioning, time.limits, time.deadline, summary, progress).await;
    }

    /// A site's turn, or why it has no result.
    async fn begin(&self, turn: InTurn, limits: Limits, deadline: Instant) -> (Site, Result<Report, Unfinished>) {
        let InTurn { due: Due { mut task, site, has_waiting }, memory, is_slow, .. } = turn;
        if self.ending.has_begun() {
            return (site, Err(Unfinished::Left));
        }
        // Other invocations of this process may have turns, too.
        let places = if is_slow { &self.slow_places } else { &self.places };
        let Ok(Ok(_place)) = tokio::time::timeout_at(limits.ask_until, places.acquire()).await else {
            return (site, Err(Unfinished::NotReached));
        };
        if Instant::now() >= limits.ask_until {
            return (site, Err(Unfinished::NotReached));
        }
        // Nobody can be asked, but what waits can be sent.
        let held = self.gate().filter(|_| task == Task::Poll).and_then(|gate| gate.closed(limits.ask_until));
        if held.is_some() {
            task = match () {
                () if has_waiting => Task::Send,
                () if self.is_mark_due(&site) => Task::Mark,
                () => return (site, Ok(Report { held, ..Report::default() })),
            };
        }
        let span = tracing::error_span!("site", site.name = site.name);
        let turn = self.caught(&site, self.turn(task, &site, &memory, limits)).instrument(span);
        let report = tokio::select! {
            turn = tokio::time::timeout_at(deadline, turn) => turn.map_err(|_| Unfinished::CutOff),
            () = self.ending.after(ending::WORKING) => Err(Unfinished::Left),
        };
        (site, report.map(|report| Report { held: report.held.or(held), ..report }))
    }

    /// Gives a second turn to the sites whose devices were not yet registered when they were polled.
    async fn send_when_provisioned(
        &self,
        sites: Vec<(Site, Report)>,
        limits: Limits,
        deadline: Instant,
        summary: &mut Summary,
        progress: &mut Progress,
    ) {
        let limits = Limits { resend_until: limits.send_until, provision_until: limits.send_until, ..limits };
        let turns = futures::stream::iter(sites).map(|(site, mut report)| async move {
            let memory = self.memory().entries.entry(site.key.site.clone()).or_default().memory();
            let span = tracing::error_span!("site", site.name = site.name);
            let turn = async {
                let mut memory = memory.lock().await;
                self.forwarder.send_site(&site, &mut memory, limits).await
            };
            let turn = self.caught(&site, turn).instrument(span);
            // If this turn is cut off, the result of the first turn still counts.
            tokio::select! {
                sent = tokio::time::timeout_at(deadline, turn) => {
                    if let Ok(sent) = sent {
                        report.add_sent(sent);
                    }
                }
                () = self.ending.after(ending::WORKING) => {}
            }
            (site, report)
        });
        let mut turns = turns.buffer_unordered(PROVISIONING_CONCURRENCY);
        while let Some((site, report)) = turns.next().await {
            summary.add(site.name, report, self.forwarder.world.clock.now());
            progress.one_site_done();
        }
    }

    /// Sends what waits of backfills that nobody goes on with.
    pub(super) async fn send_backfills(&self, limits: Limits, summary: &mut Summary) {
        let clock = self.forwarder.world.clock.now();
        let before = clock - ABANDONED;
        let abandoned: Vec<_> = match self.memory().sites.directory() {
            Some(directory) => {
                let abandoned = |cursor: Cursor| Some((cursor.abandoned(before)?, cursor));
                std::mem::take(&mut directory.backfills).into_iter().filter_map(abandoned).collect()
            }
            None => return,
        };
        for (range, cursor) in abandoned {
            if Instant::now() >= limits.send_until || self.ending.has_begun() {
                // They come again when the cursors are read again.
                return;
            }
            let key = SiteKey { customer: cursor.customer.clone(), site: cursor.site.clone() };
            let site = Site { name: cursor.name().to_owned(), uid: cursor.site_uid.clone(), ..Site::of_key(key) };
            let span = tracing::error_span!("site", site.name = site.name);
            let mut run = Run::new(range);
            let sent = Box::pin(self.forwarder.send_backfill(&site, &mut run, limits));
            let report = sent.instrument(span).await;
            tracing::info!(
                site.name = site.name,
                messages.forwarded = report.messages_forwarded,
                messages.waiting = report.waiting,
                "messages of the backfill from {} to {} were waiting, and nobody went on with it; its other rows are fetched when \
                 it is run again",
                Stamp::from_time(range.from).rfc3339(),
                Stamp::from_time(range.until).rfc3339()
            );
            // How far the site itself has come is another matter.
            summary.add(site.name, Report { newest: None, ..report }, clock);
        }
    }

    async fn turn(&self, task: Task, site: &Site, memory: &tokio::sync::Mutex<SiteMemory>, limits: Limits) -> Report {
        let place = &site.key.site;
        // An overlapping invocation may be serving the same site. Let it finish first.
        let mut memory = memory.lock().await;
        // Another instance may have polled it since. If there are no others and each run writes to the cursor, a conflict reveals
        // that it was changed.
        if self.options.queue.is_some() || !self.forwarder.record_empty_polls && self.cursor_is_old(place) {
            memory.forget_cursor();
        }
        let report = match task {
            // Boxed: these futures are large, and this one would have room for all of them.
            Task::Poll => Box::pin(self.forwarder.poll_site(site, &mut memory, limits)).await,
            Task::Send => Box::pin(self.forwarder.send_site(site, &mut memory, limits)).await,
            Task::Mark => Box::pin(self.forwarder.mark_site(site, &mut memory, limits)).await,
            Task::Leave => Box::pin(self.forwarder.leave_site(site, &mut memory, limits)).await,
        };
        self.had_its_turn(task, site, &report);
        report
    }

    /// Runs a site's turn. A panic ends only this turn, and discards what is remembered of the site.
    async fn caught(&self, site: &Site, turn: impl Future<Output = Report>) -> Report {
        // Boxed: the future of a turn is large, and each layer around it would contain it again.
        panics::caught(Box::pin(turn)).await.unwrap_or_else(|text| {
            if let Some(entry) = self.memory().entries.get_mut(&site.key.site) {
                entry.memory = None;
            }
            // The panic hook has already logged it.
            let failure = Failure { kind: Kind::Panic, text, is_known: true };
            Report { failures: vec![failure], ..Report::default() }
        })
    }

    fn is_mark_due(&self, site: &Site) -> bool {
        let memory = self.memory();
        memory.entries.get(&site.key.site).is_some_and(|entry| entry.is_mark_due(self.forwarder.mark_within))
    }

    /// Marks what the hub has acknowledged, at the end of the process. What is left is sent again under the same id.
    pub async fn mark_what_is_acknowledged(&self) {
        let sites: Vec<_> = {
            let mut memory = self.memory();
            let unmarked = memory.entries.iter_mut().filter(|(_, entry)| entry.unmarked_since.is_some());
            unmarked.map(|(place, entry)| (place.clone(), entry.memory())).collect()
        };
        let marked =
            futures::stream::iter(sites).for_each_concurrent(self.options.concurrency, async |(place, memory)| {
                let site = Site::of_key(SiteKey { customer: self.options.customer.clone(), site: place });
                let mut memory = memory.lock().await;
                // Boxed: the future of a turn is large.
                let report = Box::pin(self.forwarder.mark_site(&site, &mut memory, Limits::now())).await;
                for failure in report.failures {
                    let kind = failure.kind.as_str();
                    tracing::debug!(site.name = site.name, failure.kind = kind, "not marked: {}", failure.text);
                }
            });
        if tokio::time::timeout(ending::MARKING, marked).await.is_err() {
            tracing::warn!(
                "not all forwarded messages could be marked before the end: the next start sends those again, under the same ids"
            );
        }
    }

    /// Whether to read the site's cursor again. The time is random, so that not all sites do so in one run.
    fn cursor_is_old(&self, place: &str) -> bool {
        let (mut memory, now) = (self.memory(), Instant::now());
        let Some(entry) = memory.entries.get_mut(place) else { return false };
        let is_old = entry.cursor_holds_until.is_some_and(|until| now >= until);
        if is_old || entry.cursor_holds_until.is_none() {
            entry.cursor_holds_until = Some(now + CURSOR_HOLDS.mul_f64(0.5 + fastrand::f64() / 2.0));
        }
        is_old
    }

    fn had_its_turn(&self, task: Task, site: &Site, report: &Report) {
        let mut memory = self.memory();
        let now = memory.invocations;
        if let Some(entry) = memory.entries.get_mut(&site.key.site)
            && report.held.is_none()
        {
            entry.last_turn = now;
            entry.had_turn = Some(Instant::now());
            entry.unmarked_since = entry.unmarked_since.or(entry.had_turn).filter(|_| report.is_unmarked);
            if task == Task::Poll {
                if let Some(sweep) = self.options.sweep {
                    entry.asked.note(site, report, sweep, fastrand::f64(), Instant::now());
                }
                entry.is_slow = report.failures.iter().any(|failure| failure.kind.is_no_answer());
            }
        }
        if report.failures.iter().any(|failure| failure.kind == Kind::SiteMixedUp) {
            return memory.sites.expire();
        }
        let Some(directory) = memory.sites.directory().filter(|_| report.has_cursor) else { return };
        match task {
            Task::Poll => directory.learn(site, report.waiting),
            Task::Send | Task::Mark => directory.set_waiting(&site.key.site, report.waiting),
            // A note that could not be written is written in the next run.
            Task::Leave if report.failures.is_empty() && !report.lost_race => directory.set_gone(&site.key.site),
            Task::Leave => {}
        }
    }
}
