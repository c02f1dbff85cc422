//! All queues of the account, and the service's clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::messages::Messages;
use crate::queues::{Counts, Message};

/// The queues by name. A queue exists from its creation on.
#[derive(Default)]
pub struct Queues(Mutex<State>);

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Messages>,
    ahead: TimeDelta,
}

impl Queues {
    /// Moves the service's clock: this much ahead of the machine's.
    pub(super) fn set_ahead(&self, ahead: TimeDelta) {
        self.state().ahead = ahead;
    }

    /// Creates a queue. `false` if it exists.
    pub(super) fn create(&self, name: &str) -> bool {
        let mut state = self.state();
        let is_new = !state.queues.contains_key(name);
        state.queues.entry(name.to_owned()).or_default();
        is_new
    }

    /// Works with a queue and the service's time. `None` if there is no such queue.
    pub(super) fn with<R>(&self, name: &str, work: impl FnOnce(&mut Messages, DateTime<Utc>) -> R) -> Option<R> {
        let mut state = self.state();
        let now = Utc::now() + state.ahead;
        state.queues.get_mut(name).map(|messages| work(messages, now))
    }

    /// All messages of a queue, ordered by visibility time. `content` is the stored text.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<Message> {
        self.with(name, Messages::all).unwrap_or_default()
    }

    #[must_use]
    pub fn counts(&self, name: &str) -> Counts {
        self.with(name, Messages::counts).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
