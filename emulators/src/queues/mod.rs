//! Storage queues, either in memory or in an Azure Storage account (Azure's own or Azurite's).
//!
//! Both behave like the service: a taken message is invisible for a while. It comes back unless it is deleted with the
//! pop receipt of that take. <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>

mod account;
mod encoding;
mod guid;
mod memory;
mod name;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    pin::pin,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::{sync::Notify, time::sleep};

pub use self::{
    account::{Account, StorageAccount},
    encoding::Encoding,
    guid::guid,
    name::check as check_name,
};

/// The most messages that one take or one peek returns.
pub const LARGEST_BATCH: usize = 32;
/// Largest message as stored, in bytes.
pub const LARGEST_MESSAGE: usize = 64 * 1024;
/// How long a message is kept.
const TIME_TO_LIVE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often an account is polled until a queue is empty.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// A message in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// A GUID.
    pub id: String,
    /// Decoded.
    pub content: Bytes,
    /// The stored text is not in the queue's encoding; `content` is that text.
    pub is_undecodable: bool,
    pub inserted: DateTime<Utc>,
    pub expires: DateTime<Utc>,
    /// `None` if the message was only peeked at in an account.
    pub next_visible: Option<DateTime<Utc>>,
    /// How often it was taken.
    pub dequeue_count: u64,
}

/// A taken message, with the receipt that deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub message: Message,
    pub receipt: String,
}

/// Numbers of messages in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub visible: usize,
    pub invisible: usize,
}

/// Why an operation on a queue failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The encoded message has this many bytes.
    TooLarge(usize),
    /// The message was deleted, has expired, or was taken by another caller meanwhile.
    NotYours,
    /// The account's answer, or the reason for having none.
    Storage(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(formatter, "the message has {bytes} bytes when encoded; {LARGEST_MESSAGE} are allowed")
            }
            Self::NotYours => formatter.write_str("the message is gone, or somebody else has taken it meanwhile"),
            Self::Storage(problem) => formatter.write_str(problem),
        }
    }
}

impl std::error::Error for Error {}

/// A queue. The first message creates it.
pub struct Queue {
    name: String,
    encoding: Encoding,
    place: Place,
    added: Notify,
    removed: Notify,
}

enum Place {
    Memory(Mutex<memory::Messages>),
    Account(storage::Client),
}

impl Queue {
    /// # Errors
    /// The HTTP client for an account cannot be made.
    pub fn open(account: &Account, name: &str, encoding: Encoding) -> anyhow::Result<Self> {
        let place = match account {
            Account::Memory => Place::Memory(Mutex::default()),
            Account::Storage(account) => Place::Account(storage::Client::new(account, name, encoding)?),
        };
        Ok(Self { name: name.to_owned(), encoding, place, added: Notify::new(), removed: Notify::new() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is: `memory`, or its URL.
    pub fn location(&self) -> String {
        match &self.place {
            Place::Memory(_) => "memory".to_owned(),
            Place::Account(client) => client.url().to_string(),
        }
    }

    /// Adds a message and wakes the waiter in [`added`](Self::added).
    pub async fn put(&self, content: Bytes) -> Result<()> {
        let bytes = self.encoding.length(&content);
        if bytes > LARGEST_MESSAGE {
            return Err(Error::TooLarge(bytes));
        }
        match &self.place {
            Place::Memory(messages) => locked(messages).put(content, false, Utc::now()),
            Place::Account(client) => client.put(&self.encoding.encode(&content)).await?,
        }
        self.added.notify_one();
        Ok(())
    }

    /// Adds a copy of another queue's message, even an undecodable one.
    pub async fn put_copy(&self, message: &Message) -> Result<()> {
        if !message.is_undecodable {
            return self.put(message.content.clone()).await;
        }
        match &self.place {
            Place::Memory(messages) => locked(messages).put(message.content.clone(), true, Utc::now()),
            Place::Account(client) => client.put(&String::from_utf8_lossy(&message.content)).await?,
        }
        self.added.notify_one();
        Ok(())
    }

    /// Takes up to `most` messages, which are then invisible for a while.
    pub async fn take(&self, most: usize, invisible_for: Duration) -> Result<Vec<Taken>> {
        match &self.place {
            Place::Memory(messages) => Ok(locked(messages).take(most, invisible_for, Utc::now())),
            Place::Account(client) => client.take(most, invisible_for).await,
        }
    }

    /// Makes a taken message invisible for this long from now. Its former receipt becomes invalid.
    pub async fn update(&self, taken: &mut Taken, invisible_for: Duration) -> Result<()> {
        match &self.place {
            Place::Memory(messages) => locked(messages).update(taken, invisible_for, Utc::now()),
            Place::Account(client) => client.update(taken, invisible_for).await,
        }
    }

    pub async fn delete(&self, taken: &Taken) -> Result<()> {
        match &self.place {
            Place::Memory(messages) => locked(messages).delete(taken, Utc::now())?,
            Place::Account(client) => client.delete(taken).await?,
        }
        self.removed.notify_waiters();
        Ok(())
    }

    /// The messages, ordered by visibility time: all of them in memory, up to [`LARGEST_BATCH`] visible ones in an
    /// account.
    pub async fn peek(&self) -> Result<Vec<Message>> {
        match &self.place {
            Place::Memory(messages) => Ok(locked(messages).all(Utc::now())),
            Place::Account(client) => client.peek().await,
        }
    }

    /// The numbers of messages. For an account, `visible` counts up to [`LARGEST_BATCH`], and the sum is approximate.
    pub async fn counts(&self) -> Result<Counts> {
        match &self.place {
            Place::Memory(messages) => Ok(locked(messages).counts(Utc::now())),
            Place::Account(client) => {
                let (visible, all) = (client.peek().await?.len(), client.count().await?);
                Ok(Counts { visible, invisible: all.saturating_sub(visible) })
            }
        }
    }

    pub async fn is_empty(&self) -> Result<bool> {
        match &self.place {
            Place::Memory(messages) => Ok(locked(messages).is_empty(Utc::now())),
            Place::Account(client) => Ok(client.count().await? == 0),
        }
    }

    /// Waits until the queue has no message, visible or not.
    pub async fn becomes_empty(&self) -> Result<()> {
        loop {
            let mut removed = pin!(self.removed.notified());
            removed.as_mut().enable();
            if self.is_empty().await? {
                return Ok(());
            }
            match &self.place {
                Place::Memory(_) => removed.await,
                Place::Account(_) => sleep(ASK_EVERY).await,
            }
        }
    }

    /// Waits until this process has put a message since the last call. Only for one waiter.
    pub async fn added(&self) {
        self.added.notified().await;
    }
}

fn locked(messages: &Mutex<memory::Messages>) -> MutexGuard<'_, memory::Messages> {
    messages.lock().expect("no panic while locked")
}
