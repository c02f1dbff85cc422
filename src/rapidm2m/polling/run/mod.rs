//! Polls all sites of a customer once per run. The sites that have waited longest come first.

//!
//! | Module | |
//! |---|---|
//! | `sites` | the sites of a run |
//! | `hint`, `order` | which of them may have news, and which comes first |
//! | `turns` | their turns, side by side |
//! | `batch`, `handing_out` | or batches of them for the queue of `PollQueueName` |
//! | `batch_run` | the run of a batch, in the instance that has taken it |
//! | `summary`, `told`, `lag` | the result, and what a person is told of it |

mod batch;
mod batch_run;
mod handing_out;
mod hint;
mod lag;
mod order;
mod sites;
mod summary;
mod told;
mod turns;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{sync::Semaphore, time::Instant};

use self::{
    batch_run::DroppedBatches,
    handing_out::{QueueMemory, Rest},
    hint::Asked,
    lag::Lags,
    sites::{Plan, Sites, Task},
    summary::Function,
    told::Told,
};
pub use self::{batch_run::Outcome, handing_out::PollQueue, summary::Summary};

use crate::{
    iot_hub::delivery::Identities,
    rapidm2m::{
        Selection,
        gate::Gate,
        ledger::ALL_SITES,
        polling::{Failure, Forwarder, Limits, SiteMemory, record},
    },
    support::{backoff::Backoff, ending::Ending, meter::Readings, progress::Progress},
};

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
    /// Through it sites are handed out to other instances.
    pub queue: Option<PollQueue>,
}

/// Polls the sites of one customer.
pub struct Polling {
    pub forwarder: Forwarder,
    pub options: Options,
    ending: Ending,
    memory: Mutex<Memory>,
    /// Why the list of sites is not requested, and until when. A restart forgets it.
    listing: Backoff<(), Failure>,
    /// How many sites are polled at once by all invocations of this process; of these, those that hang or fail.
    places: Semaphore,
    slow_places: Semaphore,
    dropped: DroppedBatches,
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
    /// That is to be noted, for people and for the next process.
    notes_wrong_hint: bool,
    /// When the lagging sites were last logged one by one.
    lags_told: Option<Instant>,
    queue: QueueMemory,
    /// When the newest run began of which this process had a batch.
    newest_run: Option<DateTime<Utc>>,
    /// When unused memories were last given up.
    forgot: Option<Instant>,
}

#[derive(Default)]
struct SiteEntry {
    /// The invocation of the site's last turn. The site that has waited longest comes first.
    last_turn: u64,
    /// The backend gave no answer for it in its last turn.
    is_slow: bool,
    asked: Asked,
    /// `None` until its first turn here.
    memory: Option<Arc<tokio::sync::Mutex<SiteMemory>>>,
    /// When to read the cursor again.
    cursor_holds_until: Option<Instant>,
    had_turn: Option<Instant>,
    /// Since when an acknowledged message is not marked.
    unmarked_since: Option<Instant>,
}

impl SiteEntry {
    fn memory(&mut self) -> Arc<tokio::sync::Mutex<SiteMemory>> {
        self.memory.get_or_insert_default().clone()
    }

    fn is_mark_due(&self, within: Option<Duration>) -> bool {
        self.unmarked_since.is_some_and(|since| within.is_none_or(|within| since.elapsed() >= within))
    }
}

/// The time that the turns of a run have.
#[derive(Clone, Copy)]
struct Time {
    /// Until all of it is over.
    whole: Duration,
    limits: Limits,
    deadline: Instant,
    /// The next run comes before `whole` is over: then it has the sites.
    ends_with_run: bool,
}

impl Time {
    fn new(started: Instant, whole: Duration) -> Self {
        let limits = Limits {
            // All sites are polled and recorded before any of them waits for a registration.
            provision_until: started,
            ask_until: started + whole.mul_f64(ASKING),
            answer: whole.mul_f64(ANSWER).max(SHORTEST_ANSWER),
            resend_until: started + whole.mul_f64(RESENDING),
            send_until: started + whole.mul_f64(SENDING),
            begins: true,
        };
        Self { whole, limits, deadline: started + whole, ends_with_run: false }
    }

    /// For sites that hang or fail.
    fn for_slow(self) -> Limits {
        Limits { answer: self.whole.mul_f64(SLOW_ANSWER).max(SHORTEST_ANSWER), ..self.limits }
    }
}

impl Polling {
    #[must_use]
    pub fn new(forwarder: Forwarder, options: Options, ending: Ending) -> Self {
        let (memory, listing) = (Mutex::default(), Backoff::new(record::BACK_OFF));
        let (places, slow_places) = (Semaphore::new(options.concurrency), Semaphore::new(turns::SLOW_LANE));
        let dropped = DroppedBatches::default();
        Self { forwarder, options, ending, memory, listing, places, slow_places, dropped }
    }

    /// One run over all sites. The sites that have waited longest come first. `interval` is the time between two runs, if the
    /// host says it.
    pub async fn run(&self, interval: Option<Duration>) -> Summary {
        let mut progress = Progress::of(Function::Timer.name());
        let summary = self.run_all(interval, &mut progress).await;
        progress.end();
        summary
    }

    async fn run_all(&self, interval: Option<Duration>, progress: &mut Progress) -> Summary {
        let (started, began) = (Instant::now(), self.forwarder.world.clock.now());
        let valid = self.validity(interval, started);
        let mut time = Time::new(started, self.options.timeout);
        self.forwarder.world.delivery.try_again();

        let mut summary = Summary { lags: Lags::new(&mut self.memory().lags_told), ..self.summary() };
        if let Some(gate) = self.gate() {
            gate.begin_run();
        }
        let was_closed = self.gate().is_some_and(|gate| gate.closed(time.limits.ask_until).is_some());
        let Plan { tasks, unread, begins, has_hints, can_be_handed_out } = self.plan(&mut summary).await;
        self.note_refusals().await;
        time.limits.begins = begins;
        summary.sites = tasks.iter().filter(|(task, _)| *task == Task::Poll).count();
        let due = self.with_news(tasks, has_hints, &mut summary);
        self.note_wrong_hint().await;
        let rest = if can_be_handed_out {
            self.hand_out(due, began, valid, begins, time.limits.resend_until, &mut summary).await
        } else {
            Rest { due, _share: None }
        };
        self.take_turns(self.in_turn(rest.due), time, &mut summary, progress).await;
        // Boxed, as all that holds a whole turn: the compiler has a limit for futures in futures.
        Box::pin(self.send_backfills(time.limits, &mut summary)).await;
        // If the sites failed for the same reason, that says it.
        let is_told = |failure: &Failure| summary.failures.iter().any(|(_, other)| other.kind == failure.kind);
        let unread = unread.filter(|failure| !is_told(failure));
        summary.failures.extend(unread.map(|failure| (ALL_SITES.to_owned(), failure)));
        self.end(summary, was_closed, started)
    }

    fn summary(&self) -> Summary {
        Summary {
            failed_sites_threshold: self.options.failed_sites_threshold,
            is_one_device: matches!(self.forwarder.world.delivery.identities, Identities::One(_)),
            ..Summary::default()
        }
    }

    /// Completes the summary, and logs it.
    fn end(&self, mut summary: Summary, was_closed: bool, started: Instant) -> Summary {
        let world = &self.forwarder.world;
        summary.tell_held(was_closed, world.clock.now());
        summary.failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        summary.readings = Readings { unconfirmed: world.delivery.sender.take_unconfirmed(), ..world.meters.take() };
        summary.took = started.elapsed();
        summary.log(&mut self.memory().told);
        summary
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> Option<&Gate> {
        self.forwarder.world.source.gate()
    }

    /// Notes that the list's contacts are wrong. What cannot be noted is found again by the next process.
    async fn note_wrong_hint(&self) {
        if std::mem::take(&mut self.memory().notes_wrong_hint)
            && let Err(error) = self.forwarder.note_wrong_contacts(&self.options.customer).await
        {
            let kind = error.kind();
            tracing::warn!(failure.kind = kind.as_str(), "that the contacts are wrong cannot be noted: {error}");
        }
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
}

#[cfg(test)]
mod tests;
