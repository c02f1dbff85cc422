//! The queues that the app's functions are bound to. The host emulates a storage account for bindings that name none.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::{
    function::{Function, QueueBinding, Trigger},
    outputs::Output,
};
use crate::{
    queues::{self, Counts, Encoding, Error, Message, Queue, Requests, StorageAccount},
    storage,
};

/// A queue's unprocessed messages end up in the queue with this suffix.
const POISON_SUFFIX: &str = "-poison";
/// How often a queue is asked until it is empty.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// All bound queues, and the poison queues of those that trigger functions.
#[derive(Default)]
pub struct QueueSet {
    entries: Vec<Entry>,
    /// The emulated account, if a binding or a timer needs it.
    own: Option<Own>,
}

struct Own {
    emulator: storage::Emulator,
    account: StorageAccount,
}

/// A bound queue.
pub struct Entry {
    account: StorageAccount,
    pub queue: Arc<Queue>,
    is_trigger: bool,
    /// The emulated account, if the queue is in it. It is looked into directly.
    own: Option<Arc<storage::Queues>>,
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
    /// In the future while the message is being processed. `None` in another account's queue.
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
    /// `needs_own`: the emulated account is needed, whatever the bindings say.
    ///
    /// # Errors
    /// An account's HTTP client cannot be made, or the emulated account cannot start.
    pub async fn open(functions: &[Function], encoding: Encoding, needs_own: bool) -> anyhow::Result<Self> {
        let mut set = Self::default();
        if needs_own || functions.iter().flat_map(bindings).any(|binding| binding.account.is_none()) {
            let emulator = storage::start(storage::Options::default()).await?;
            let account = StorageAccount::parse(&emulator.ready().connection).map_err(anyhow::Error::msg)?;
            set.own = Some(Own { emulator, account });
        }
        for function in functions {
            if let Trigger::Queue(binding) = &function.trigger {
                set.add(binding, &binding.queue, encoding, true)?;
                if let Some(poison) = poison_of(&binding.queue) {
                    set.add(binding, &poison, encoding, false)?;
                }
            }
            for binding in &function.queue_outputs {
                set.add(binding, &binding.queue, encoding, false)?;
            }
        }
        set.entries.sort_by(|one, other| one.queue.name().cmp(other.queue.name()));
        Ok(set)
    }

    /// The settings that bindings name and that the app does not have, with the emulated account's connection string.
    pub fn settings(&self, functions: &[Function]) -> BTreeMap<String, String> {
        let Some(own) = &self.own else { return BTreeMap::new() };
        let bindings = functions.iter().flat_map(bindings).filter(|binding| binding.account.is_none());
        bindings.map(|binding| (binding.setting.clone(), own.emulator.ready().connection.clone())).collect()
    }

    /// All requests to the accounts since the start.
    pub fn requests(&self) -> Requests {
        self.entries
            .iter()
            .map(|entry| entry.queue.requests())
            .fold(Requests::default(), |sum, one| Requests { all: sum.all + one.all, failed: sum.failed + one.failed })
    }

    /// The control endpoint of the emulated account.
    pub fn control(&self) -> Option<String> {
        self.own.as_ref().map(|own| own.emulator.ready().control.clone())
    }

    pub fn own_account(&self) -> Option<&StorageAccount> {
        self.own.as_ref().map(|own| &own.account)
    }

    fn add(&mut self, of: &QueueBinding, name: &str, encoding: Encoding, is_trigger: bool) -> anyhow::Result<()> {
        let account = self.account(of).clone();
        match self.entries.iter_mut().find(|entry| entry.account == account && entry.queue.name() == name) {
            Some(entry) => entry.is_trigger |= is_trigger,
            None => {
                let queue = Arc::new(Queue::open(&account, name, encoding)?);
                let own = self.own.as_ref().filter(|own| own.account == account).map(|own| own.emulator.queues());
                self.entries.push(Entry { account, queue, is_trigger, own });
            }
        }
        Ok(())
    }

    fn account<'a>(&'a self, of: &'a QueueBinding) -> &'a StorageAccount {
        let own = || &self.own.as_ref().expect("it is started if a binding has no account").account;
        of.account.as_ref().unwrap_or_else(own)
    }

    /// The queue of a binding, and the poison queue of its messages.
    pub fn of_trigger(&self, binding: &QueueBinding) -> (Arc<Queue>, Option<Arc<Queue>>) {
        let poison = poison_of(&binding.queue).map(|name| self.bound(binding, &name));
        (self.bound(binding, &binding.queue), poison)
    }

    pub fn outputs(&self, bindings: Vec<QueueBinding>) -> Vec<Output> {
        let output = |binding: QueueBinding| {
            let queue = self.bound(&binding, &binding.queue);
            Output { binding: binding.binding, queue }
        };
        bindings.into_iter().map(output).collect()
    }

    fn bound(&self, of: &QueueBinding, name: &str) -> Arc<Queue> {
        let account = self.account(of);
        let found = self.entries.iter().find(|entry| entry.account == *account && entry.queue.name() == name);
        found.expect("the queues of all bindings are open").queue.clone()
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.queue.name() == name)
    }

    /// The URL of each queue.
    pub fn urls(&self) -> BTreeMap<String, String> {
        self.entries.iter().map(|entry| (entry.queue.name().to_owned(), entry.queue.url())).collect()
    }

    pub async fn summaries(&self) -> queues::Result<Vec<QueueSummary>> {
        let mut summaries = Vec::new();
        for entry in &self.entries {
            let Counts { visible, invisible } = entry.counts().await?;
            summaries.push(QueueSummary { name: entry.queue.name().to_owned(), visible, invisible });
        }
        Ok(summaries)
    }

    /// Waits until no queue that triggers a function has a message. `false` if the time is over first.
    pub async fn are_empty_within(&self, time: Duration) -> queues::Result<bool> {
        let triggers: Vec<_> = self.entries.iter().filter(|entry| entry.is_trigger).collect();
        within(time, async {
            // A message may move from a queue not yet checked to one already checked. So check as often as there are
            // queues.
            for _ in &triggers {
                for entry in &triggers {
                    entry.becomes_empty().await?;
                }
            }
            Ok(())
        })
        .await
    }
}

impl Entry {
    /// The messages, ordered by visibility time: all of them in the emulated account, up to 32 visible ones in another.
    pub async fn messages(&self) -> queues::Result<Vec<Message>> {
        let Some(own) = &self.own else { return self.queue.peek().await };
        let decoded = |message: Message| {
            let text = String::from_utf8_lossy(&message.content).into_owned();
            let content = self.queue.encoding().decode(&text);
            let is_undecodable = content.is_none();
            Message { content: content.unwrap_or_else(|| text.into()), is_undecodable, ..message }
        };
        Ok(own.all(self.queue.name()).into_iter().map(decoded).collect())
    }

    async fn counts(&self) -> queues::Result<Counts> {
        match &self.own {
            Some(own) => Ok(own.counts(self.queue.name())),
            None => self.queue.counts().await,
        }
    }

    async fn becomes_empty(&self) -> queues::Result<()> {
        while self.counts().await? != Counts::default() {
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until the queue has no message, visible or not. `false` if the time is over first.
    pub async fn is_empty_within(&self, time: Duration) -> queues::Result<bool> {
        within(time, self.becomes_empty()).await
    }
}

fn bindings(function: &Function) -> impl Iterator<Item = &QueueBinding> {
    let trigger = if let Trigger::Queue(binding) = &function.trigger { Some(binding) } else { None };
    trigger.into_iter().chain(&function.queue_outputs)
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
