//! One batch of sites out of the queue, in whichever instance has taken it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Polling, Summary, Time,
    batch::{Batch, Refused},
    sites::Task,
    summary::Function,
};
use crate::support::{kind::Kind, progress::Progress, reminder::Reminder};

/// A batch that has less time than this is too old: its requests would have to be given up.
const SHORTEST: Duration = Duration::from_secs(2);
/// What is remembered of a site that had no turn here for so long is forgotten: another instance has it, or nobody.
const FORGET_AFTER: Duration = Duration::from_secs(2 * 60 * 60);
const FORGET_EVERY: Duration = Duration::from_secs(10 * 60);

/// What became of a message of the queue.
pub enum Outcome {
    /// Its sites had their turns.
    Worked(Box<Summary>),
    /// It is worth nothing any more. The next run has its sites.
    Dropped,
    /// It is not a batch. Somebody may miss it.
    Foreign(Refused),
}

/// Batches that were dropped since a line told of it.
#[derive(Default)]
pub struct DroppedBatches {
    too_old: AtomicU64,
    sites: AtomicU64,
    reminder: Reminder,
    refused: Reminder,
}

impl Polling {
    /// Gives the sites of a batch their turns.
    pub async fn run_batch(&self, text: &str) -> Outcome {
        let started = Instant::now();
        let batch = match Batch::parse(text, &self.options.customer) {
            Ok(batch) => batch,
            Err(foreign @ Refused::Foreign(_)) => return Outcome::Foreign(foreign),
            Err(refused) => {
                if self.dropped.refused.is_due() {
                    tracing::error!(
                        failure.kind = Kind::BatchRefused.as_str(),
                        "a message of the queue of PollQueueName is dropped: {refused}"
                    );
                }
                return Outcome::Dropped;
            }
        };
        // A batch has the time of its run: so all that are worked on share the rate, and nobody lags further behind.
        let left = (batch.until - self.forwarder.world.clock.now()).to_std().unwrap_or_default();
        if left < SHORTEST {
            self.drop_old(&batch);
            return Outcome::Dropped;
        }
        let mut progress = Progress::of(Function::Batch.name());
        let summary = self.work(batch, started, left, &mut progress).await;
        progress.end();
        Outcome::Worked(Box::new(summary))
    }

    async fn work(&self, batch: Batch, started: Instant, left: Duration, progress: &mut Progress) -> Summary {
        let mut time = Time::new(started, self.options.timeout);
        time.ends_with_run = started + left < time.limits.ask_until;
        time.limits.ask_until = time.limits.ask_until.min(started + left);
        time.limits.begins = batch.begins;
        let mut summary = Summary {
            function: Function::Batch,
            sites: batch.due.iter().filter(|due| due.task == Task::Poll).count(),
            stands_for: Some(batch.stands_for),
            ..self.summary()
        };
        if self.is_first_of_run(&batch) {
            self.forwarder.world.delivery.try_again();
            if let Some(gate) = self.gate() {
                gate.begin_run();
                // The timer has just asked for the list.
                gate.vouched(&batch.credentials);
            }
        }
        let was_closed = self.gate().is_some_and(|gate| gate.closed(time.limits.ask_until).is_some());
        let share = self.gate().map(|gate| gate.share(batch.requests_per_second));
        self.take_turns(self.in_turn(batch.due), time, &mut summary, progress).await;
        drop(share);
        self.forget_unused();
        self.end(summary, was_closed, started)
    }

    fn is_first_of_run(&self, batch: &Batch) -> bool {
        let newest = &mut self.memory().newest_run;
        let is_first = newest.is_none_or(|newest| newest < batch.began);
        if is_first {
            *newest = Some(batch.began);
        }
        is_first
    }

    /// Says how many batches were dropped, once a minute.
    fn drop_old(&self, batch: &Batch) {
        let dropped = &self.dropped;
        dropped.too_old.fetch_add(1, Ordering::Relaxed);
        dropped.sites.fetch_add(batch.due.len() as u64, Ordering::Relaxed);
        if dropped.reminder.is_due() {
            let (batches, sites) =
                (dropped.too_old.swap(0, Ordering::Relaxed), dropped.sites.swap(0, Ordering::Relaxed));
            tracing::warn!(
                failure.kind = Kind::BatchTooOld.as_str(),
                batches.dropped = batches,
                sites.dropped = sites,
                "{batches} batches with {sites} sites were dropped, since a newer run has these sites: the instances do not keep up \
                 with the timer, or their clocks differ. Raise BackendRequestsPerSecond, PollBatchSites or the app's number of \
                 instances, or let the timer fire less often"
            );
        }
    }

    fn forget_unused(&self) {
        let (mut memory, now) = (self.memory(), Instant::now());
        if memory.forgot.is_some_and(|forgot| now - forgot < FORGET_EVERY) {
            return;
        }
        memory.forgot = Some(now);
        memory.entries.retain(|_, entry| entry.had_turn.is_none_or(|at| now - at < FORGET_AFTER));
    }
}
