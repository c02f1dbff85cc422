//! The gate in front of a backend. All requests with one user's credentials pass it, so that they are polite together:
//! a refused login, a request to slow down and an outage stop everybody, few requests try whether it is over, and there are
//! never more requests in a second, or in flight, than the backend bears.

mod refusals;
mod shares;
mod trust;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::FetchError;
use crate::support::{
    adaptive::Adaptive,
    backoff::{Backoff, Policy},
    kind::Kind,
    slots::{Slot, Slots},
};
pub use refusals::Refusals;
pub use shares::Share;
use shares::Shares;
use trust::{Step, Trust};

/// How many requests are in flight at first, and at least.
const FIRST: usize = 16;
const LOWEST: usize = 12;
/// So much of a second's requests may be made at once.
const BURST: f64 = 0.05;
/// So much of the rate is used, since requests come closer together on the way.
const USED: f64 = 0.95;
/// The waits if the backend asks to slow down and does not say for how long.
const SLOW_DOWN: Policy = Policy::jittered(Duration::from_secs(1), Duration::from_secs(5 * 60));
/// The waits while the backend does not answer. The next run tries again at once.
const AWAY: Policy = Policy::jittered(Duration::from_secs(1), Duration::from_secs(30));
/// Nobody waits for longer than this, or after so many failures in a row: the run goes on without the backend.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const MOST_FAILURES: u32 = 4;
/// So many failures in a row, with no answer in between, mean that the backend is away.
const STRIKES: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests_per_second: u32,
    /// The most requests in flight.
    pub concurrency: usize,
}

pub struct Gate {
    requests_per_second: u32,
    slots: Slots,
    state: Mutex<State>,
    /// The state has changed: whoever waits looks again.
    changed: Notify,
    slow_down: Backoff<(), FetchError>,
    away: Backoff<(), FetchError>,
}

#[derive(Debug)]
struct State {
    trust: Trust,
    /// When the requests so far are used up at the rate that is allowed.
    used_until: Option<Instant>,
    shares: Shares,
    /// Failures since the last answer.
    strikes: u32,
    last_answer: Option<Instant>,
}

/// A request that was let through.
pub struct Pass<'a> {
    gate: &'a Gate,
    /// `None` when it was let go, or is judged.
    slot: Option<Slot<'a>>,
    began: Instant,
    is_judged: bool,
}

impl Gate {
    /// `credentials` stands for them in [`Refusals`]; it must not tell what they are.
    #[must_use]
    pub fn new(limits: Limits, credentials: String) -> Self {
        Self {
            requests_per_second: limits.requests_per_second.max(1),
            slots: Slots::new(Adaptive::new(FIRST, LOWEST, limits.concurrency)),
            state: Mutex::new(State {
                trust: Trust::new(credentials),
                used_until: None,
                shares: Shares::default(),
                strikes: 0,
                last_answer: None,
            }),
            changed: Notify::new(),
            slow_down: Backoff::new(SLOW_DOWN),
            away: Backoff::new(AWAY),
        }
    }

    /// A run begins: one request tries first whether the backend (still) takes the credentials.
    pub fn begin_run(&self) {
        self.away.forget();
        let mut state = self.state();
        state.trust.doubt();
        state.strikes = 0;
    }

    /// Another process has just found out that the backend takes these credentials: what this one knows is older.
    pub fn vouched(&self, credentials: &str) {
        self.state().trust.vouched(credentials);
        self.changed.notify_waiters();
    }

    /// Stands for the credentials.
    #[must_use]
    pub fn credentials(&self) -> String {
        self.state().trust.credentials().to_owned()
    }

    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.requests_per_second.into()
    }

    /// What the ledger has of refused logins. If this process had some itself, it knows better.
    pub fn restore(&self, refusals: Refusals, now: DateTime<Utc>) {
        self.state().trust.restore(refusals, now);
    }

    /// What other processes have noted of refused logins since.
    pub fn learn(&self, refusals: Refusals, now: DateTime<Utc>) {
        self.state().trust.learn(refusals, now);
    }

    /// The refused logins, if there are some that were not asked for yet.
    pub fn take_refusals(&self) -> Option<Refusals> {
        self.state().trust.take_news()
    }

    /// Why no request will be let through before `until`.
    #[must_use]
    pub fn closed(&self, until: Instant) -> Option<FetchError> {
        let (wait, error) = self.holding()?;
        let is_hopeless = wait > until.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        is_hopeless.then_some(error)
    }

    /// Waits until a request may be made.
    ///
    /// # Errors
    /// [`FetchError::Held`]: none may be made within `limit`.
    pub async fn enter(&self, limit: Duration) -> Result<Pass<'_>, FetchError> {
        let deadline = Instant::now() + limit;
        let is_over = || {
            let text =
                format!("there was no time left for a request (BackendRequestsPerSecond={})", self.requests_per_second);
            FetchError::Held { kind: Kind::Deadline, text, wait: Duration::ZERO }
        };
        let Ok(mut slot) = timeout_at(deadline, self.slots.slot()).await else { return Err(is_over()) };
        loop {
            // Before the look, so that no change in between is missed.
            let changed = self.changed.notified();
            if let Some(error) = self.closed(deadline) {
                return Err(error);
            }
            let step = match self.holding() {
                Some((wait, _)) => Step::WaitUntil(Instant::now() + wait),
                None => self.state().step(self.requests_per_second, deadline),
            };
            let look_again = match step {
                Step::Go { at, is_first } => {
                    sleep_until(at).await;
                    // Meanwhile another one may have been refused.
                    if self.holding().is_some() || !is_first && self.state().trust.is_doubt() {
                        continue;
                    }
                    slot.begin();
                    return Ok(Pass { gate: self, slot: Some(slot), began: Instant::now(), is_judged: false });
                }
                Step::WaitUntil(at) => at.min(deadline),
                Step::Never => return Err(is_over()),
            };
            // An error means only that nothing has changed meanwhile.
            let _ = timeout_at(look_again, changed).await;
            if Instant::now() >= deadline {
                return Err(self.holding().map_or_else(is_over, |(_, error)| error));
            }
        }
    }

    /// Why no request is let through now, and for how long.
    fn holding(&self) -> Option<(Duration, FetchError)> {
        if let Some((wait, error)) = self.state().trust.refused(Utc::now()) {
            return Some((wait, held(&error, wait)));
        }
        let failed = [&self.slow_down, &self.away].into_iter().find_map(|backoff| backoff.holding(&()))?;
        let wait = failed.left();
        let error = held(&failed.error, wait);
        Some((if failed.failures >= MOST_FAILURES { Duration::MAX } else { wait }, error))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a request may be made now, and if the rate has a place for it, when.
    fn step(&mut self, limit: u32, deadline: Instant) -> Step {
        let now = Instant::now();
        if let Some(until) = self.trust.others_try_until(now) {
            return Step::WaitUntil(until);
        }
        let per_second = self.shares.of(f64::from(limit));
        let interval = Duration::from_secs_f64(1.0 / (per_second * USED));
        let burst = interval.mul_f64((per_second * BURST).max(1.0));
        // Virtual scheduling (GCRA): each request uses the rate for an interval, and a burst may run ahead.
        let used_until = self.used_until.map_or(now, |until| until.max(now));
        let at = (used_until + interval).checked_sub(burst).unwrap_or(now).max(now);
        if at >= deadline {
            return Step::Never;
        }
        self.used_until = Some(used_until + interval);
        Step::Go { at, is_first: self.trust.tries(at) }
    }
}

impl Pass<'_> {
    /// The request takes long: others need not wait for its slot. A site may hang.
    pub fn let_go(&mut self) {
        self.slot = None;
    }

    /// Takes note of how the request ended.
    pub fn judge(mut self, error: Option<&FetchError>) {
        self.is_judged = true;
        let is_overload = error.is_some_and(|error| self.gate.failed(error, self.began));
        if error.is_none_or(|error| !error.is_of_backend()) {
            self.gate.answered();
        }
        if let Some(slot) = self.slot.take() {
            slot.end(is_overload);
        }
        self.gate.changed.notify_waiters();
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_judged {
            // Nobody learned how it ended: another one may try.
            self.gate.state().trust.nobody_tries();
            self.gate.changed.notify_waiters();
        }
    }
}

impl Gate {
    /// The backend has answered a request of this user.
    fn answered(&self) {
        let mut state = self.state();
        state.trust.accepted(Utc::now());
        state.strikes = 0;
        state.last_answer = Some(Instant::now());
        drop(state);
        self.slow_down.succeeded(&());
        self.away.succeeded(&());
    }

    /// Takes note of a failure of the backend as a whole. Whether it is overloaded.
    fn failed(&self, error: &FetchError, began: Instant) -> bool {
        if !error.is_of_backend() {
            return false;
        }
        let mut state = self.state();
        state.trust.nobody_tries();
        if error.is_refusal() {
            state.trust.refused_one(error, Utc::now());
            return false;
        }
        if let FetchError::RateLimited { retry_after, .. } = error {
            state.trust.doubt();
            drop(state);
            self.slow_down.failed((), error.clone(), *retry_after, began);
            return true;
        }
        // One site may hang or fail while the others do not.
        if state.last_answer.is_some_and(|answer| answer >= began) {
            return false;
        }
        state.strikes += 1;
        let is_away = state.strikes >= STRIKES || state.trust.is_doubt() && state.strikes >= 2;
        if is_away {
            state.trust.doubt();
            drop(state);
            self.away.failed((), error.clone(), None, began);
        }
        is_away
    }
}

fn held(error: &FetchError, wait: Duration) -> FetchError {
    FetchError::Held { kind: error.kind(), text: error.to_string(), wait }
}

#[cfg(test)]
mod tests;
