//! The queues that the app's functions are bound to. They live as long as the host, even if the handler dies.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    function::{Function, QueueBinding, Trigger},
    outputs::Output,
};
use crate::queues::{self, Account, Encoding, Error, Message, Queue};

/// A queue's unprocessed messages end up in the queue with this suffix.
const POISON_SUFFIX: &str = "-poison";

/// All bound queues, and the poison queues of those that trigger functions.
#[derive(Default)]
pub struct QueueSet(Vec<Entry>);

struct Entry {
    account: Account,
    queue: Arc<Queue>,
    is_trigger: bool,
}

/// A queue and its number of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueSummary {
    pub name: String,
    pub visible: usize,
    pub invisible: usize,
}

/// A decoded message in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueMessage {
    pub id: String,
    pub text: String,
    /// How often it was taken.
    pub dequeue_count: u64,
    pub insertion_time: DateTime<Utc>,
    pub expiration_time: DateTime<Utc>,
    /// In the future while the message is being processed. `None` in an account's queue.
    pub next_visible_time: Option<DateTime<Utc>>,
}

impl From<Message> for QueueMessage {
    fn from(message: Message) -> Self {
        Self {
            text: String::from_utf8_lossy(&message.content).into_owned(),
            id: message.id,
            dequeue_count: message.dequeue_count,
            insertion_time: message.inserted,
            expiration_time: message.expires,
            next_visible_time: message.next_visible,
        }
    }
}

impl QueueSet {
    /// # Errors
    /// The HTTP client for an account cannot be made.
    pub fn open(functions: &[Function], encoding: Encoding) -> anyhow::Result<Self> {
        let mut set = Self::default();
        for function in functions {
            if let Trigger::Queue(binding) = &function.trigger {
                set.add(&binding.account, &binding.queue, encoding, true)?;
                if let Some(poison) = poison_of(&binding.queue) {
                    set.add(&binding.account, &poison, encoding, false)?;
                }
            }
            for binding in &function.queue_outputs {
                set.add(&binding.account, &binding.queue, encoding, false)?;
            }
        }
        set.0.sort_by(|one, other| one.queue.name().cmp(other.queue.name()));
        Ok(set)
    }

    fn add(&mut self, account: &Account, name: &str, encoding: Encoding, is_trigger: bool) -> anyhow::Result<()> {
        let known = self.0.iter_mut().find(|entry| entry.account == *account && entry.queue.name() == name);
        match known {
            Some(entry) => entry.is_trigger |= is_trigger,
            None => {
                let queue = Arc::new(Queue::open(account, name, encoding)?);
                self.0.push(Entry { account: account.clone(), queue, is_trigger });
            }
        }
        Ok(())
    }

    /// The queue of a binding, and the poison queue of its messages.
    pub fn of_trigger(&self, binding: &QueueBinding) -> (Arc<Queue>, Option<Arc<Queue>>) {
        let poison = poison_of(&binding.queue).map(|name| self.bound(&binding.account, &name));
        (self.bound(&binding.account, &binding.queue), poison)
    }

    pub fn outputs(&self, bindings: Vec<QueueBinding>) -> Vec<Output> {
        let output = |binding: QueueBinding| {
            let queue = self.bound(&binding.account, &binding.queue);
            Output { binding: binding.binding, queue }
        };
        bindings.into_iter().map(output).collect()
    }

    fn bound(&self, account: &Account, name: &str) -> Arc<Queue> {
        let found = self.0.iter().find(|entry| entry.account == *account && entry.queue.name() == name);
        found.expect("the queues of all bindings are open").queue.clone()
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Queue>> {
        self.0.iter().map(|entry| &entry.queue).find(|queue| queue.name() == name)
    }

    /// Where each queue is: `memory`, or its URL.
    pub fn locations(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|entry| (entry.queue.name().to_owned(), entry.queue.location())).collect()
    }

    pub async fn summaries(&self) -> queues::Result<Vec<QueueSummary>> {
        let mut summaries = Vec::new();
        for Entry { queue, .. } in &self.0 {
            let counts = queue.counts().await?;
            let (visible, invisible) = (counts.visible, counts.invisible);
            summaries.push(QueueSummary { name: queue.name().to_owned(), visible, invisible });
        }
        Ok(summaries)
    }

    /// Waits until no queue that triggers a function has a message. `false` if the time is over first.
    pub async fn are_empty_within(&self, time: Duration) -> queues::Result<bool> {
        let triggers: Vec<_> = self.0.iter().filter(|entry| entry.is_trigger).map(|entry| &entry.queue).collect();
        within(time, async {
            // A message may move from a queue not yet checked to one already checked. So check as often as there are
            // queues.
            for _ in &triggers {
                for queue in &triggers {
                    queue.becomes_empty().await?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Waits until the queue is empty. `false` if the time is over first.
pub async fn is_empty_within(queue: &Queue, time: Duration) -> queues::Result<bool> {
    within(time, queue.becomes_empty()).await
}

async fn within(time: Duration, wait: impl Future<Output = queues::Result<()>>) -> Result<bool, Error> {
    match timeout(time, wait).await {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// The name of a queue's poison queue. A poison queue has none, nor has a queue whose name leaves no room for the
/// suffix.
fn poison_of(name: &str) -> Option<String> {
    let poison = format!("{name}{POISON_SUFFIX}");
    (!name.ends_with(POISON_SUFFIX) && queues::check_name(&poison).is_ok()).then_some(poison)
}
