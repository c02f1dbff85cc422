//! Runs the timer functions.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::sleep;

use super::{
    envelope::{self, ScheduleStatus},
    events::{Event, InvocationFinished, Level, Stream, send},
    function::TimerTrigger,
    invoke::{Callee, Invoker},
    lock::Lock,
    monitor::Monitor,
};
use crate::queues;

/// Longest sleep before the clock is read again: it may have been set, or the machine may have slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// A timer function and its state.
pub struct Timer {
    pub function: Callee,
    pub trigger: TimerTrigger,
    pub lock: Lock,
    /// How often a host without the lock tries to get it.
    pub tried_every: Duration,
    /// `None` if the schedule is not monitored.
    pub monitor: Option<Monitor>,
    /// As this host has it; others have the stored one. `None` if the schedule is not monitored, and before the start.
    pub status: Mutex<Option<ScheduleStatus>>,
    pub invoker: Arc<Invoker>,
}

/// This host has the lock.
pub struct Held {
    lease: String,
    /// Whether a run was missed, as far as storage knows.
    is_past_due: bool,
}

impl Timer {
    /// Tries to get the lock. With it comes what storage knows of the last host's runs.
    ///
    /// # Errors
    /// The storage account does not answer, or refuses.
    pub async fn try_lock(&self) -> queues::Result<Option<Held>> {
        let Some(lease) = self.lock.acquire().await? else { return Ok(None) };
        let mut is_past_due = false;
        if let Some(monitor) = &self.monitor {
            let found = monitor.start(&self.trigger.schedule, Utc::now()).await;
            is_past_due = found.is_some_and(|(_, is_past_due)| is_past_due);
            *self.status() = found.map(|(status, _)| status);
        }
        Ok(Some(Held { lease, is_past_due }))
    }

    /// Runs the function while this host has the lock. `first` is the result of the first attempt to get it.
    pub async fn listen(self: Arc<Self>, first: queues::Result<Option<Held>>, run_at_start: bool) {
        let lifetime = &self.invoker.lifetime;
        let Some(Held { lease, is_past_due }) = self.becomes_ours(first).await else { return };
        let mut run = pin!(self.run(is_past_due, run_at_start));
        tokio::select! {
            () = &mut run => self.lock.release(&lease).await,
            _ = self.invoker.handler.gone() => self.lock.release(&lease).await,
            reason = self.lock.keep(&lease) => lifetime.fail(reason),
            () = lifetime.stopping.cancelled() => {
                // In this order in the real host, too: another host may run the function while the last run goes on.
                self.lock.release(&lease).await;
                run.await;
            }
        }
    }

    /// Tries until this host has the lock. `None` if it stops before.
    async fn becomes_ours(&self, first: queues::Result<Option<Held>>) -> Option<Held> {
        let name = &self.function.name;
        if let Err(error) = &first {
            let text = format!("The listener for function '{name}' was unable to start: {error}");
            send(&self.invoker.events, Event::Line { stream: Stream::Host, level: Level::Error, text });
            return None;
        }
        let mut attempt = first;
        loop {
            match attempt {
                Ok(Some(held)) => return Some(held),
                Ok(None) => tracing::debug!(function = name, "another host has the timer's lock"),
                Err(error) => tracing::warn!(function = name, %error, "the timer's lock cannot be asked for"),
            }
            tokio::select! {
                () = sleep(self.tried_every) => {}
                _ = self.invoker.handler.gone() => return None,
                () = self.invoker.lifetime.stopping.cancelled() => return None,
            }
            attempt = self.try_lock().await;
        }
    }

    /// Runs the function whenever it is due. Runs never overlap. The next run is the first one after the start of the
    /// last one. So if a run takes longer than the interval, the next one follows at once.
    async fn run(&self, is_past_due: bool, run_at_start: bool) {
        let mut started = Utc::now();
        let stored = self.status().map(|status| status.next);
        let mut next = stored.or_else(|| self.trigger.schedule.next(started));
        if run_at_start {
            self.pretend_that_a_run_was_missed(started);
            self.tick(started, true).await;
            next = self.trigger.schedule.next(started);
        } else if is_past_due || self.trigger.run_on_startup {
            self.tick(started, is_past_due).await;
            next = self.trigger.schedule.next(started);
        }
        while let Some(due) = next {
            tokio::select! {
                biased;
                () = self.invoker.lifetime.stopping.cancelled() => return,
                () = sleep_until(due) => {}
            }
            started = Utc::now().max(due);
            self.tick(started, false).await;
            next = self.trigger.schedule.next(started);
        }
        tracing::warn!(function = self.function.name, "the schedule has come to its end");
    }

    /// Invokes the function once, outside its schedule, in any host.
    pub async fn invoke(&self, input: Option<&str>) -> InvocationFinished {
        let status = match &self.monitor {
            Some(monitor) => monitor.status().await,
            None => None,
        };
        self.call(status, false, input).await
    }

    async fn call(&self, status: Option<ScheduleStatus>, past_due: bool, input: Option<&str>) -> InvocationFinished {
        let envelope = envelope::timer(&self.function.name, &self.trigger, status, past_due, input, Utc::now());
        self.invoker.call(&self.function, envelope.to_string()).await.0
    }

    /// A run with its retries. Even a failed run advances the status.
    async fn tick(&self, started: DateTime<Utc>, past_due: bool) {
        for attempt in 0.. {
            let status = *self.status();
            let finished = self.call(status, past_due, None).await;
            if let Some(error) = finished.error {
                tracing::warn!(function = self.function.name, attempt, error, "the run failed");
            }
            if finished.succeeded {
                break;
            }
            let Some(pause) = self.trigger.retry.and_then(|retry| retry.pause(attempt, fastrand::f64())) else { break };
            sleep(pause).await;
        }
        if let (Some(monitor), Some(next)) = (&self.monitor, self.trigger.schedule.next(started)) {
            let status = ScheduleStatus { last: Some(started), next, updated: Some(started) };
            *self.status() = Some(status);
            monitor.store(status).await;
        }
    }

    fn pretend_that_a_run_was_missed(&self, now: DateTime<Utc>) {
        let schedule = &self.trigger.schedule;
        let missed = schedule.previous(now);
        let last = missed.and_then(|missed| schedule.previous(missed));
        if let (Some(status), Some(next), Some(last)) = (&mut *self.status(), missed, last) {
            *status = ScheduleStatus { last: Some(last), next, updated: Some(last) };
        }
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Option<ScheduleStatus>> {
        self.status.lock().expect("no panic while locked")
    }
}

async fn sleep_until(time: DateTime<Utc>) {
    while let Some(left) = (time - Utc::now()).to_std().ok().filter(|left| !left.is_zero()) {
        sleep(left.min(LONGEST_SLEEP)).await;
    }
}
