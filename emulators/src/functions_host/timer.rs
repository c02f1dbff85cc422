//! Runs the timer functions.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::sleep;

use super::{
    envelope::{self, ScheduleStatus},
    events::InvocationFinished,
    function::TimerTrigger,
    invoke::{Callee, Invoker},
};

/// Longest sleep before the clock is read again: it may have been set, or the machine may have slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// A timer function and its state.
pub struct Timer {
    pub function: Callee,
    trigger: TimerTrigger,
    /// `None` if the schedule is not monitored.
    status: Mutex<Option<ScheduleStatus>>,
    invoker: Arc<Invoker>,
}

impl Timer {
    pub fn new(function: Callee, trigger: TimerTrigger, invoker: Arc<Invoker>) -> Self {
        let now = Utc::now();
        let next = trigger.schedule.next(now).filter(|_| trigger.monitored);
        let status = next.map(|next| ScheduleStatus { last: None, next, updated: Some(now) });
        Self { function, trigger, status: Mutex::new(status), invoker }
    }

    /// Runs the function whenever it is due. Runs never overlap. The next run is the first one after the start of the
    /// last one. So if a run takes longer than the interval, the next one follows at once.
    pub async fn run(self: Arc<Self>, run_at_start: bool) {
        let mut started = Utc::now();
        if run_at_start {
            self.pretend_that_a_run_was_missed(started);
            self.tick(started, true).await;
        } else if self.trigger.run_on_startup {
            self.tick(started, false).await;
        }
        while let Some(next) = self.trigger.schedule.next(started) {
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.invoker.lifetime.stopping.cancelled() => return,
            }
            started = Utc::now().max(next);
            self.tick(started, false).await;
        }
        tracing::warn!(function = self.function.name, "the schedule has come to its end");
    }

    /// Invokes the function once, outside its schedule.
    pub async fn invoke(&self, input: Option<&str>) -> InvocationFinished {
        let status = *self.status.lock().expect("no panic while locked");
        self.call(status, false, input).await
    }

    async fn call(&self, status: Option<ScheduleStatus>, past_due: bool, input: Option<&str>) -> InvocationFinished {
        let envelope = envelope::timer(&self.function.name, &self.trigger, status, past_due, input, Utc::now());
        self.invoker.call(&self.function, envelope.to_string()).await.0
    }

    /// A run with its retries. Even a failed run advances the status.
    async fn tick(&self, started: DateTime<Utc>, past_due: bool) {
        for attempt in 0.. {
            let status = *self.status.lock().expect("no panic while locked");
            // Before its first run the host tells the function of no update, although it has stored one.
            let told = status.map(|status| ScheduleStatus { updated: status.updated.and(status.last), ..status });
            let finished = self.call(told, past_due, None).await;
            if let Some(error) = finished.error {
                tracing::warn!(function = self.function.name, attempt, error, "the run failed");
            }
            if finished.succeeded {
                break;
            }
            let Some(pause) = self.trigger.retry.and_then(|retry| retry.pause(attempt, fastrand::f64())) else { break };
            sleep(pause).await;
        }
        if let Some(status) = &mut *self.status.lock().expect("no panic while locked") {
            let next = self.trigger.schedule.next(started).unwrap_or(status.next);
            *status = ScheduleStatus { last: Some(started), next, updated: Some(started) };
        }
    }

    fn pretend_that_a_run_was_missed(&self, now: DateTime<Utc>) {
        let schedule = &self.trigger.schedule;
        let missed = schedule.previous(now);
        let last = missed.and_then(|missed| schedule.previous(missed));
        if let (Some(status), Some(next), Some(last)) =
            (&mut *self.status.lock().expect("no panic while locked"), missed, last)
        {
            *status = ScheduleStatus { last: Some(last), next, updated: Some(last) };
        }
    }
}

async fn sleep_until(time: DateTime<Utc>) {
    while let Some(left) = (time - Utc::now()).to_std().ok().filter(|left| !left.is_zero()) {
        sleep(left.min(LONGEST_SLEEP)).await;
    }
}
