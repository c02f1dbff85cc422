//! Polls all sites of a customer once per run. The sites that have waited longest come first.

mod hint;
mod lag;
mod sites;
mod summary;
mod told;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use futures::StreamExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

pub use self::summary::Summary;
use self::{
    hint::{Asked, Hint},
    lag::Lags,
    sites::{Plan, Sites, Task},
    told::Told,
};

use crate::{
    iot_hub::delivery::Identities,
    rapidm2m::{
        Selection, Site, Stamp,
        backfill::Run,
        directory::Directory,
        gate::Gate,
        ledger::{ALL_SITES, Cursor, SiteKey},
        polling::{Failure, Forwarder, Limits, Report, SiteMemory, record},
    },
    support::progress::{Progress, Step},
    support::{
        backoff::Backoff,
        ending::{self, Ending},
        kind::Kind,
        meter::Readings,
        panics,
    },
};

/// The function's name: that of host.json's folder, and the one in the log.
const NAME: &str = "rapidM2MForwarding";
/// Fractions of the invocation's time by which each step must have ended: listing the sites, sending pending
/// messages, requesting rows, sending new messages. The remaining time is for marking acknowledged messages.
const LISTING: f64 = 0.25;
const RESENDING: f64 = 0.4;
const ASKING: f64 = 0.8;
const SENDING: f64 = 0.9;
/// Fractions of that time that the backend may take for an answer: a site that answered last time, and one that did not.
const ANSWER: f64 = 0.2;
const SLOW_ANSWER: f64 = 0.4;
/// It may take this long in any case.
const SHORTEST_ANSWER: Duration = Duration::from_secs(5);
/// How many of the sites that hang or fail are polled at once, so that they hold nobody up.
const SLOW_LANE: usize = 8;
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

/// Which sites are polled, and how.
pub struct Options {
    pub customer: String,
    pub sites: Selection,
    /// How many sites are polled at once.
    pub concurrency: usize,
    /// How long an invocation may take.
    pub timeout: Duration,
    /// How many sites may be at fault, in per cent, before a run is a failure.
    pub failed_sites_threshold: u64,
    /// After this a site is asked although the list tells no new contact; `None`: each site in each run.
    pub sweep: Option<Duration>,
}

/// Polls the sites of one customer.
pub struct Polling {
    pub forwarder: Forwarder,
    pub options: Options,
    ending: Ending,
    memory: Mutex<Memory>,
    /// Why the list of sites is not requested, and until when. A restart forgets it.
    listing: Backoff<(), Failure>,
}

#[derive(Default)]
struct Memory {
    invocations: u64,
    sites: Sites,
    /// By the place of their documents.
    entries: HashMap<String, SiteEntry>,
    told: Told,
    /// The list's contacts have turned out to announce not all new rows.
    is_hint_wrong: bool,
    /// When the lagging sites were last logged one by one.
    lags_told: Option<Instant>,
}

#[derive(Default)]
struct SiteEntry {
    /// The invocation of the site's last turn. The site that has waited longest comes first.
    last_turn: u64,
    /// The backend gave no answer for it in its last turn.
    is_slow: bool,
    asked: Asked,
    memory: Arc<tokio::sync::Mutex<SiteMemory>>,
    /// When to read the cursor again.
    cursor_holds_until: Option<Instant>,
    /// Since when an acknowledged message is not marked.
    unmarked_since: Option<Instant>,
}

impl SiteEntry {
    fn is_mark_due(&self, within: Option<Duration>) -> bool {
        self.unmarked_since.is_some_and(|since| within.is_none_or(|within| since.elapsed() >= within))
    }
}

/// A site in the order of a run.
struct InTurn {
    last_turn: u64,
    is_slow: bool,
    task: Task,
    site: Site,
    memory: Arc<tokio::sync::Mutex<SiteMemory>>,
}

impl Polling {
    #[must_use]
    pub fn new(forwarder: Forwarder, options: Options, ending: Ending) -> Self {
        let (memory, listing) = (Mutex::default(), Backoff::new(record::BACK_OFF));
        Self { forwarder, options, ending, memory, listing }
    }

    /// One run over all sites. The sites that have waited longest come first.
    pub async fn run(&self) -> Summary {
        let mut progress = Progress::of(NAME);
        let summary = self.run_all(&mut progress).await;
        progress.end();
        summary
    }

    async fn run_all(&self, progress: &mut Progress) -> Summary {
        let started = Instant::now();
        let limits = Limits {
            // All sites are polled and recorded before any of them waits for a registration.
            provision_until: started,
            ask_until: started + self.options.timeout.mul_f64(ASKING),
            answer: self.options.timeout.mul_f64(ANSWER).max(SHORTEST_ANSWER),
            resend_until: started + self.options.timeout.mul_f64(RESENDING),
            send_until: started + self.options.timeout.mul_f64(SENDING),
            begins: true,
        };
        let deadline = started + self.options.timeout;
        self.forwarder.world.delivery.try_again();

        let mut summary = Summary {
            lags: Lags::new(&mut self.memory().lags_told),
            failed_sites_threshold: self.options.failed_sites_threshold,
            is_one_device: matches!(self.forwarder.world.delivery.identities, Identities::One(_)),
            ..Summary::default()
        };
        if let Some(gate) = self.gate() {
            gate.begin_run();
        }
        let was_closed = self.gate().is_some_and(|gate| gate.closed(limits.ask_until).is_some());
        let Plan { tasks, unread, begins, has_hints } = self.plan(&mut summary).await;
        self.note_refusals().await;
        let limits = Limits { begins, ..limits };
        summary.sites = tasks.iter().filter(|(task, _)| *task == Task::Poll).count();
        let turns = self.in_turn(tasks, has_hints, &mut summary);
        progress.step = Step::Sites { done: 0, total: turns.len() };
        let (healthy, slow): (Vec<_>, Vec<_>) = turns.into_iter().partition(|turn| !turn.is_slow);
        let slow_limits = Limits { answer: self.options.timeout.mul_f64(SLOW_ANSWER).max(SHORTEST_ANSWER), ..limits };
        let start = |limits| move |turn| self.begin(turn, limits, deadline);
        let healthy = futures::stream::iter(healthy).map(start(limits)).buffer_unordered(self.options.concurrency);
        let slow = futures::stream::iter(slow).map(start(slow_limits)).buffer_unordered(SLOW_LANE);
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
                    let text = format!(
                        "{what} within PollTimeoutSeconds={}; it comes first next time",
                        self.options.timeout.as_secs()
                    );
                    summary.failures.push((site.name, Failure { kind: Kind::Deadline, text, is_known: false }));
                }
            }
            progress.one_site_done();
        }
        drop(turns);
        self.note_refusals().await;
        self.send_when_provisioned(provisioning, limits, deadline, &mut summary, progress).await;
        // Boxed, as all that holds a whole turn: the compiler has a limit for futures in futures.
        Box::pin(self.send_backfills(limits, &mut summary)).await;
        // If the sites failed for the same reason, that says it.
        let is_told = |failure: &Failure| summary.failures.iter().any(|(_, other)| other.kind == failure.kind);
        let unread = unread.filter(|failure| !is_told(failure));
        summary.failures.extend(unread.map(|failure| (ALL_SITES.to_owned(), failure)));
        summary.tell_held(was_closed, self.forwarder.world.clock.now());
        summary.failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        let world = &self.forwarder.world;
        summary.readings = Readings { unconfirmed: world.delivery.sender.take_unconfirmed(), ..world.meters.take() };
        summary.took = started.elapsed();
        summary.log(&mut self.memory().told);
        summary
    }

    /// A site's turn, or why it has no result.
    async fn begin(&self, turn: InTurn, limits: Limits, deadline: Instant) -> (Site, Result<Report, Unfinished>) {
        let InTurn { mut task, site, memory, .. } = turn;
        if self.ending.has_begun() {
            return (site, Err(Unfinished::Left));
        }
        if Instant::now() >= limits.ask_until {
            return (site, Err(Unfinished::NotReached));
        }
        // Nobody can be asked, but what waits can be sent.
        let held = self.gate().filter(|_| task == Task::Poll).and_then(|gate| gate.closed(limits.ask_until));
        if held.is_some() {
            task = match () {
                () if self.has_waiting(&site) => Task::Send,
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
            let memory = self.memory().entries.entry(site.key.site.clone()).or_default().memory.clone();
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
    async fn send_backfills(&self, limits: Limits, summary: &mut Summary) {
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
        // If each run writes to the cursor, a conflict reveals that it was changed.
        if !self.forwarder.record_empty_polls && self.cursor_is_old(place) {
            memory.forget_cursor();
        }
        let report = match task {
            // Boxed: these futures are large, and this one would have room for all three.
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
                entry.memory = Arc::default();
            }
            // The panic hook has already logged it.
            let failure = Failure { kind: Kind::Panic, text, is_known: true };
            Report { failures: vec![failure], ..Report::default() }
        })
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks with the sites' memories, without the sites that can have no news. The sites that have waited longest come
    /// first.
    fn in_turn(&self, mut tasks: Vec<(Task, Site)>, has_hints: bool, summary: &mut Summary) -> Vec<InTurn> {
        let (now, clock) = (Instant::now(), self.forwarder.world.clock.now());
        let mark_within = self.forwarder.mark_within;
        let mut memory = self.memory();
        let memory = &mut *memory;
        memory.invocations += 1;
        let places: HashSet<_> = tasks.iter().map(|(_, site)| site.key.site.as_str()).collect();
        memory.entries.retain(|place, _| places.contains(place.as_str()));
        if has_hints
            && !memory.is_hint_wrong
            && let (Some(sweep), Some(directory)) = (self.options.sweep, memory.sites.directory())
        {
            for (_, site) in tasks.iter().filter(|(task, _)| *task == Task::Poll) {
                if let Some(known) = directory.at(&site.key.site) {
                    memory.entries.entry(site.key.site.clone()).or_insert_with(|| SiteEntry {
                        asked: Asked::of(known, sweep, fastrand::f64(), now),
                        ..SiteEntry::default()
                    });
                }
            }
        }
        if has_hints && !memory.is_hint_wrong {
            let hints: Vec<_> = tasks
                .iter()
                .map(|(task, site)| match memory.entries.get_mut(&site.key.site) {
                    Some(entry) if *task == Task::Poll => entry.asked.hint(site, now),
                    _ => Hint::Ask,
                })
                .collect();
            if let Some(wrong) = hints.iter().position(|hint| *hint == Hint::Wrong) {
                memory.is_hint_wrong = true;
                tracing::warn!(
                    site.name = tasks[wrong].1.name,
                    "the site had new rows, but the site list tells no new contact (device.stamp) of it: from now on each \
                     site is asked in each run, as with SweepMinutes=0"
                );
            } else {
                let directory = memory.sites.directory();
                let mut hints = hints.into_iter();
                tasks.retain_mut(|(task, site)| {
                    let has_waiting = |directory: &&mut Directory| directory.waiting(&site.key.site) > 0;
                    let Some(Hint::Quiet { newest }) = hints.next() else { return true };
                    if directory.as_ref().is_some_and(has_waiting) {
                        return true;
                    }
                    summary.quiet += 1;
                    if memory.entries.get(&site.key.site).is_some_and(|entry| entry.is_mark_due(mark_within)) {
                        *task = Task::Mark;
                        return true;
                    }
                    summary.lags.add(&site.name, &Report { newest, ..Report::default() }, clock);
                    false
                });
            }
        }
        let mut turns: Vec<_> = tasks
            .into_iter()
            .map(|(task, site)| {
                let entry = memory.entries.entry(site.key.site.clone()).or_default();
                let (last_turn, is_slow, memory) = (entry.last_turn, entry.is_slow, entry.memory.clone());
                InTurn { last_turn, is_slow, task, site, memory }
            })
            .collect();
        turns.sort_by_key(|turn| turn.last_turn);
        // If most of them gave no answer, it was the backend.
        if turns.iter().filter(|turn| turn.is_slow).count() * 2 > turns.len() {
            turns.iter_mut().for_each(|turn| turn.is_slow = false);
        }
        turns
    }

    fn gate(&self) -> Option<&Gate> {
        self.forwarder.world.source.gate()
    }

    /// Notes refused logins, so that a later process knows them.
    async fn note_refusals(&self) {
        if let Some(refusals) = self.gate().and_then(Gate::take_refusals)
            && let Err(error) = self.forwarder.note_refusals(&self.options.customer, refusals).await
        {
            tracing::warn!(
                failure.kind = error.kind().as_str(),
                "that the backend refuses the credentials cannot be noted, so a restart does not know it: {error}"
            );
        }
    }

    fn has_waiting(&self, site: &Site) -> bool {
        self.memory().sites.directory().is_some_and(|directory| directory.waiting(&site.key.site) > 0)
    }

    fn is_mark_due(&self, site: &Site) -> bool {
        let memory = self.memory();
        memory.entries.get(&site.key.site).is_some_and(|entry| entry.is_mark_due(self.forwarder.mark_within))
    }

    /// Marks what the hub has acknowledged, at the end of the process. What is left is sent again under the same id.
    pub async fn mark_what_is_acknowledged(&self) {
        let sites: Vec<_> = {
            let memory = self.memory();
            let unmarked = memory.entries.iter().filter(|(_, entry)| entry.unmarked_since.is_some());
            unmarked.map(|(place, entry)| (place.clone(), entry.memory.clone())).collect()
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
            entry.unmarked_since =
                if report.is_unmarked { entry.unmarked_since.or(Some(Instant::now())) } else { None };
            entry.last_turn = now;
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

#[cfg(test)]
mod tests;
