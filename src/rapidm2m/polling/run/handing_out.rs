//! Puts the sites of a run into the queue of `PollQueueName`, in batches, for as many instances as Azure starts for them.
//! There are no leases: if two instances poll one site, its cursor decides (`If-Match`).
//!
//! What cannot be handed out, the run polls itself, as without the setting. So does a run in which the backend or Cosmos DB
//! did not answer: one process finds out whether they do again, and says so once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{
    Polling, Summary,
    batch::{Run, Text},
    order::Due,
};
use crate::{
    queue::{Queue, QueueError},
    rapidm2m::{
        gate::{Gate, Share},
        ledger::{ALL_SITES, Changes},
        polling::{Failure, Report},
    },
    support::kind::Kind,
};

/// How many batches are put at once.
const PUT_AT_ONCE: usize = 32;
/// A batch that nobody has taken is in the queue for so much longer than it is worth something, so that whoever takes it says
/// that it is dropped. A message whose instance was killed is hidden for as long.
const SPARE_LIFE: Duration = Duration::from_secs(10 * 60);
/// Runs are so far apart, if the host does not say it.
const LONGEST_UNTOLD: Duration = Duration::from_secs(60);
const SHORTEST_UNTOLD: Duration = Duration::from_secs(10);
/// A batch is for one run, even if that is once a day.
const LONGEST_VALID: Duration = Duration::from_secs(60 * 60);

/// The queue between the timer and the instances.
pub struct PollQueue {
    pub queue: Queue,
    /// How many sites a batch has at most.
    pub batch_sites: usize,
}

/// What a process remembers of the queue.
#[derive(Clone, Copy, Default)]
pub struct QueueMemory {
    /// When the last run began here.
    last_run: Option<Instant>,
    /// How many batches it has put.
    last_put: usize,
    /// Of so many runs the batches are worth something at the same time.
    valid_runs: usize,
    /// The log says that the queue is away.
    is_away: bool,
}

/// What is left for the run itself.
pub struct Rest<'a> {
    pub due: Vec<Due>,
    /// The part of the backend's rate that the batches leave to it.
    pub _share: Option<Share<'a>>,
}

impl Polling {
    /// How long the batches of a run are worth something: until the next run. `told` is the time between two runs, if the host
    /// says it.
    pub(super) fn validity(&self, told: Option<Duration>, now: Instant) -> Duration {
        let queue = &mut self.memory().queue;
        let since = queue.last_run.replace(now).map_or(LONGEST_UNTOLD, |last| now - last);
        let valid = told.unwrap_or(since.clamp(SHORTEST_UNTOLD, LONGEST_UNTOLD)).min(LONGEST_VALID);
        queue.valid_runs = if told.is_some() { 1 } else { (valid.as_secs_f64() / since.as_secs_f64()).ceil() as usize };
        valid
    }

    /// Puts these sites into the queue. What cannot be put is returned.
    pub(super) async fn hand_out(
        &self,
        mut due: Vec<Due>,
        began: DateTime<Utc>,
        valid: Duration,
        begins: bool,
        put_until: Instant,
        summary: &mut Summary,
    ) -> Rest<'_> {
        let Some(poll_queue) = &self.options.queue else { return Rest { due, _share: None } };
        let batches_at_least = due.len().div_ceil(poll_queue.batch_sites);
        if self.nobody_takes(poll_queue, batches_at_least, put_until, summary).await {
            return Rest { due, _share: None };
        }
        // No site is always among the last, and sites at fault are not all in one batch.
        fastrand::shuffle(&mut due);
        let gate = self.gate();
        let run = Run {
            customer: self.options.customer.clone(),
            began,
            until: began + TimeDelta::from_std(valid).unwrap_or(TimeDelta::MAX),
            requests_per_second: gate.map_or(0.0, Gate::requests_per_second),
            credentials: gate.map(Gate::credentials).unwrap_or_default(),
            begins,
            quiet: summary.quiet,
        };
        let rate = run.requests_per_second;
        let total = due.len();
        let mut batches = run.batches(due, poll_queue.batch_sites);
        let (mut rest, mut failed) = (Vec::new(), None);
        {
            let put = |batch: Text| async move {
                let put = timeout_at(put_until, poll_queue.queue.put_for(&batch.text, valid + SPARE_LIFE)).await;
                let late = |_| Err(QueueError::Late { queue: poll_queue.queue.name().to_owned() });
                (batch.due, put.unwrap_or_else(late))
            };
            let mut puts = futures::stream::iter(batches.by_ref()).map(put).buffer_unordered(PUT_AT_ONCE);
            while let Some((due, result)) = puts.next().await {
                match result {
                    Ok(()) => {
                        summary.batches_put += 1;
                        summary.sites_put += due.len();
                        self.note_handed_out(&due);
                        self.note_lags(&due, summary);
                    }
                    Err(error) => {
                        failed.get_or_insert(error);
                        rest.extend(due);
                    }
                }
            }
        }
        rest.append(&mut batches.too_long);
        self.memory().queue.last_put = summary.batches_put;
        if total > 0 {
            self.tell_queue(failed.as_ref(), rest.len());
        }
        let share = gate.filter(|_| summary.batches_put > 0);
        let share = share.map(|gate| gate.share(rate * rest.len() as f64 / total as f64));
        Rest { due: rest, _share: share }
    }

    /// Whether so many batches of earlier runs are in the queue that nobody takes them. It is a failure, since only a person
    /// can change that.
    async fn nobody_takes(
        &self,
        PollQueue { queue, .. }: &PollQueue,
        batches: usize,
        until: Instant,
        summary: &mut Summary,
    ) -> bool {
        // If the queue is away, putting will say so.
        let Ok(Ok(waiting)) = timeout_at(until, queue.length()).await else { return false };
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        summary.batches_waiting = waiting;
        let QueueMemory { last_put, valid_runs, .. } = self.memory().queue;
        // Those of one more run may be worked on, or are about to be dropped, which takes no time.
        if waiting <= batches.max(last_put).max(1).saturating_mul(valid_runs.saturating_add(1)) {
            return false;
        }
        let text = format!(
            "{waiting} batches of earlier runs are in the queue {}, so no instance takes them, and this run polls the sites \
             itself: is the function rapidM2MSites enabled, and does it run?",
            queue.name()
        );
        summary.failures.push((ALL_SITES.to_owned(), Failure { kind: Kind::BatchesNotTaken, text, is_known: false }));
        true
    }

    /// Says once that the queue is away, and once that it is back.
    fn tell_queue(&self, failed: Option<&QueueError>, rest: usize) {
        let was_away = std::mem::replace(&mut self.memory().queue.is_away, failed.is_some());
        match failed {
            Some(error) if !was_away => tracing::warn!(
                failure.kind = Kind::QueueUnusable.as_str(),
                "{rest} sites cannot be handed out to other instances (PollQueueName), so the runs poll them themselves until it \
                 works: {error}"
            ),
            None if was_away => tracing::info!("sites are handed out to other instances again (PollQueueName)"),
            _ => {}
        }
    }

    fn note_handed_out(&self, due: &[Due]) {
        let Some(sweep) = self.options.sweep else { return };
        let (mut memory, now) = (self.memory(), Instant::now());
        for Due { site, .. } in due {
            let entry = memory.entries.entry(site.key.site.clone()).or_default();
            entry.asked.hand_out(site, sweep, fastrand::f64(), now);
        }
    }

    /// How far the sites are behind, as their cursors say. Each of the instances knows some of them only.
    fn note_lags(&self, due: &[Due], summary: &mut Summary) {
        let now = self.forwarder.world.clock.now();
        let mut memory = self.memory();
        let Some(directory) = memory.sites.directory() else { return };
        for Due { site, .. } in due {
            if let Some(known) = directory.at(&site.key.site) {
                let report = Report { newest: known.newest, waiting: known.waiting, ..Report::default() };
                summary.lags.add(&site.name, &report, now);
            }
        }
    }

    /// Takes over what other instances have written into cursors.
    ///
    /// # Errors
    /// Cosmos DB cannot be read.
    pub(super) async fn learn_changes(&self) -> Result<(), Failure> {
        let Some(as_of) = self.memory().sites.directory().map(|directory| directory.as_of) else { return Ok(()) };
        let changes = self.forwarder.world.changes(&self.options.customer, as_of).await;
        let Changes { known, refused_logins, as_of } = changes.map_err(|error| Failure {
            text: format!("reading which cursors have changed: {error}"),
            kind: error.kind(),
            is_known: false,
        })?;
        if let (Some(refusals), Some(gate)) = (refused_logins, self.gate()) {
            gate.learn(refusals, self.forwarder.world.clock.now());
        }
        let (mut memory, now) = (self.memory(), Instant::now());
        let memory = &mut *memory;
        let Some(directory) = memory.sites.directory() else { return Ok(()) };
        directory.as_of = as_of;
        for known in known {
            if let (Some(sweep), Some(entry)) = (self.options.sweep, memory.entries.get_mut(&known.place)) {
                entry.asked.learn(&known, sweep, fastrand::f64(), now);
            }
            directory.update(known);
        }
        Ok(())
    }
}
