//! All queues of the account.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};

use super::{clock::Clock, messages::Messages};
use crate::queues::{Counts, Message};

/// The queues by name. A queue exists from its creation on.
pub struct Queues {
    queues: Mutex<BTreeMap<String, Messages>>,
    clock: Arc<Clock>,
}

impl Queues {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self { queues: Mutex::default(), clock }
    }

    /// Creates a queue. `false` if it exists.
    pub(super) fn create(&self, name: &str) -> bool {
        let mut queues = self.queues();
        let is_new = !queues.contains_key(name);
        queues.entry(name.to_owned()).or_default();
        is_new
    }

    /// Removes a queue with its messages.
    pub(super) fn remove(&self, name: &str) {
        self.queues().remove(name);
    }

    /// Works with a queue and the service's time. `None` if there is no such queue.
    pub(super) fn with<R>(&self, name: &str, work: impl FnOnce(&mut Messages, DateTime<Utc>) -> R) -> Option<R> {
        let mut queues = self.queues();
        let now = self.clock.now();
        queues.get_mut(name).map(|messages| work(messages, now))
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

    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Messages>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
