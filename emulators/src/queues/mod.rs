//! A client for the queues of an Azure Storage account, and for the blobs by which Functions hosts agree: Azure's own,
//! Azurite's, or the emulated one.
//!
//! A taken message is invisible for a while. It comes back unless it is deleted with the pop receipt of that take.
//! <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>

mod account;
mod encoding;
mod guid;
mod name;
mod storage;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;

pub use self::{
    account::StorageAccount, encoding::Encoding, guid::guid, name::check as check_name, storage::Container,
};

/// The most messages that one take or one peek returns.
pub const LARGEST_BATCH: usize = 32;
/// Largest message as stored, in bytes.
pub const LARGEST_MESSAGE: usize = 64 * 1024;

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

impl Message {
    /// A message of which only the id is known.
    #[must_use]
    pub fn with_id(id: &str) -> Self {
        let time = DateTime::UNIX_EPOCH;
        Self {
            id: id.to_owned(),
            content: Bytes::new(),
            is_undecodable: false,
            inserted: time,
            expires: time,
            next_visible: None,
            dequeue_count: 0,
        }
    }
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

/// Numbers of requests to an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub all: u64,
    /// Answered with a status of 400 or more, or not at all.
    pub failed: u64,
}

/// Why an operation on a queue failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The encoded message has this many bytes.
    TooLarge(usize),
    /// The message was deleted, has expired, or was taken by another caller meanwhile. Or the lease is another's.
    NotYours,
    /// The account does not answer.
    Away(String),
    /// The account refuses the request: it will refuse it again.
    Refused(String),
    /// Any other answer of the account.
    Storage(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(formatter, "the message has {bytes} bytes when encoded; {LARGEST_MESSAGE} are allowed")
            }
            Self::NotYours => formatter.write_str("it is gone, or somebody else has taken it meanwhile"),
            Self::Away(problem) | Self::Refused(problem) | Self::Storage(problem) => formatter.write_str(problem),
        }
    }
}

impl std::error::Error for Error {}

/// A queue. The first message creates it.
pub struct Queue {
    name: String,
    encoding: Encoding,
    client: storage::Client,
    added: Notify,
}

impl Queue {
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn open(account: &StorageAccount, name: &str, encoding: Encoding) -> anyhow::Result<Self> {
        let client = storage::Client::new(account, name, encoding)?;
        Ok(Self { name: name.to_owned(), encoding, client, added: Notify::new() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn url(&self) -> String {
        self.client.url().to_string()
    }

    /// All requests since the queue was opened.
    pub fn requests(&self) -> Requests {
        self.client.requests()
    }

    /// Adds a message and wakes the waiter in [`added`](Self::added).
    pub async fn put(&self, content: Bytes) -> Result<()> {
        let bytes = self.encoding.length(&content);
        if bytes > LARGEST_MESSAGE {
            return Err(Error::TooLarge(bytes));
        }
        self.client.put(&self.encoding.encode(&content)).await?;
        self.added.notify_one();
        Ok(())
    }

    /// Adds a copy of another queue's message, even an undecodable one.
    pub async fn put_copy(&self, message: &Message) -> Result<()> {
        if !message.is_undecodable {
            return self.put(message.content.clone()).await;
        }
        self.client.put(&String::from_utf8_lossy(&message.content)).await?;
        self.added.notify_one();
        Ok(())
    }

    /// Takes up to `most` messages, which are then invisible for a while.
    pub async fn take(&self, most: usize, invisible_for: Duration) -> Result<Vec<Taken>> {
        self.client.take(most, invisible_for).await
    }

    /// Makes a taken message invisible for this long from now. Its former receipt becomes invalid.
    pub async fn update(&self, taken: &mut Taken, invisible_for: Duration) -> Result<()> {
        self.client.update(taken, invisible_for).await
    }

    pub async fn delete(&self, taken: &Taken) -> Result<()> {
        self.client.delete(taken).await
    }

    /// Up to [`LARGEST_BATCH`] visible messages.
    pub async fn peek(&self) -> Result<Vec<Message>> {
        self.client.peek().await
    }

    /// The numbers of messages: `visible` counts up to [`LARGEST_BATCH`], and the sum is approximate.
    pub async fn counts(&self) -> Result<Counts> {
        let (visible, all) = (self.client.peek().await?.len(), self.client.count().await?);
        Ok(Counts { visible, invisible: all.saturating_sub(visible) })
    }

    /// Waits until this process has put a message since the last call. Only for one waiter.
    pub async fn added(&self) {
        self.added.notified().await;
    }
}
