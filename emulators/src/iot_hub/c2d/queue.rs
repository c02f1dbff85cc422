//! The messages that wait for one device. Does no I/O; its clock is set from outside ([`Queue::advance`]).
//!
//! A message is enqueued, then locked when it is delivered. Who holds the lock completes, rejects or abandons it; a lock
//! that is not used in time is as good as abandoned. What was delivered too often, or waited too long, is dead.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::message::Message;

/// Messages that may wait for a device.
const MAX_WAITING: usize = 50;

/// Deliveries after which a message is given up.
const MAX_DELIVERIES: u32 = 10;

/// How long a delivered message is locked.
const LOCK: Duration = Duration::from_secs(60);

/// How long a message waits that does not say.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// Messages remembered after their end; the oldest are forgotten.
const MAX_FINISHED: usize = 1000;

/// Where a message has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Enqueued,
    Locked,
    Completed,
    Rejected,
    /// Delivered too often.
    DeadLettered,
    /// Waited too long.
    Expired,
    /// The device connected with a clean session.
    Dropped,
}

/// What the holder of a lock does with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    Reject,
    Abandon,
}

/// There is no such lock, or not any more.
#[derive(Debug, PartialEq, Eq)]
pub struct LockLost;

/// Too many messages wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// A message on its way to the device, locked.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub token: String,
    pub message: Arc<Message>,
    pub sequence: u64,
    pub enqueued_at: DateTime<Utc>,
    /// This one included.
    pub delivery_count: u32,
    /// MQTT's, the same each time; 0 if no MQTT connection holds the lock.
    pub packet_id: u16,
    /// Whether it was sent under this packet id before.
    pub dup: bool,
}

/// What the control endpoint tells of a message, as JSON with camelCase names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub message_id: String,
    pub sequence_number: u64,
    pub state: Stage,
    pub delivery_count: u32,
    pub abandoned_count: u32,
}

pub struct Queue {
    now: Instant,
    version: u64,
    next_sequence: u64,
    entries: VecDeque<Entry>,
}

struct Entry {
    message: Arc<Message>,
    sequence: u64,
    enqueued_at: DateTime<Utc>,
    expires: Instant,
    stage: Stage,
    lock: Option<Lock>,
    packet_id: Option<u16>,
    delivery_count: u32,
    abandoned_count: u32,
}

struct Lock {
    token: String,
    until: Instant,
    /// The number of the MQTT connection that holds it.
    holder: Option<u64>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { now: Instant::now(), version: 0, next_sequence: 1, entries: VecDeque::new() }
    }
}

impl Queue {
    /// Changes with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Sets the clock: locks and messages whose time is over come to their end.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        self.unlock_if(|lock| lock.until <= now);
        for entry in &mut self.entries {
            if entry.stage == Stage::Enqueued && entry.expires <= now {
                entry.stage = Stage::Expired;
                self.version += 1;
            }
        }
        let mut finished = self.entries.iter().filter(|entry| !entry.is_waiting()).count();
        self.entries.retain(|entry| {
            let forget = finished > MAX_FINISHED && !entry.is_waiting();
            finished -= usize::from(forget);
            !forget
        });
    }

    /// When the clock should be set again at the latest.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.entries.iter().filter(|entry| entry.is_waiting());
        waiting.map(|entry| entry.lock.as_ref().map_or(entry.expires, |lock| lock.until)).min()
    }

    /// Takes in a message.
    pub fn enqueue(&mut self, message: Message) -> Result<(), Full> {
        if self.entries.iter().filter(|entry| entry.is_waiting()).count() >= MAX_WAITING {
            return Err(Full);
        }
        let expires = self.now + message.ttl.unwrap_or(DEFAULT_TTL);
        self.entries.push_back(Entry {
            message: Arc::new(message),
            sequence: self.next_sequence,
            enqueued_at: Utc::now(),
            expires,
            stage: Stage::Enqueued,
            lock: None,
            packet_id: None,
            delivery_count: 0,
            abandoned_count: 0,
        });
        self.next_sequence += 1;
        self.version += 1;
        Ok(())
    }

    /// Delivers the oldest message that is not locked. `holder` is the number of the MQTT connection, if it is one.
    pub fn lock(&mut self, holder: Option<u64>) -> Option<Delivery> {
        let taken: HashSet<u16> = self.entries.iter().filter_map(|entry| entry.packet_id).collect();
        let entry = self.entries.iter_mut().find(|entry| entry.stage == Stage::Enqueued)?;
        let dup = holder.is_some() && entry.packet_id.is_some();
        if holder.is_some() {
            let free = || (1..=u16::MAX).find(|id| !taken.contains(id));
            entry.packet_id = entry.packet_id.or_else(free);
        }
        let token = format!("{:032x}", fastrand::u128(..));
        entry.lock = Some(Lock { token: token.clone(), until: self.now + LOCK, holder });
        entry.stage = Stage::Locked;
        entry.delivery_count += 1;
        self.version += 1;
        Some(Delivery {
            token,
            message: Arc::clone(&entry.message),
            sequence: entry.sequence,
            enqueued_at: entry.enqueued_at,
            delivery_count: entry.delivery_count,
            packet_id: entry.packet_id.unwrap_or_default(),
            dup,
        })
    }

    /// Ends a lock.
    pub fn settle(&mut self, token: &str, outcome: Outcome) -> Result<(), LockLost> {
        let locked = |entry: &&mut Entry| entry.lock.as_ref().is_some_and(|lock| lock.token == token);
        let entry = self.entries.iter_mut().find(locked).ok_or(LockLost)?;
        match outcome {
            Outcome::Complete => entry.finish(Stage::Completed),
            Outcome::Reject => entry.finish(Stage::Rejected),
            Outcome::Abandon => {
                entry.abandoned_count += 1;
                entry.unlock();
            }
        }
        self.version += 1;
        Ok(())
    }

    /// Completes the message that an MQTT connection acknowledged.
    pub fn acknowledge(&mut self, packet_id: u16, holder: u64) -> Result<(), LockLost> {
        let held = |entry: &&Entry| {
            entry.packet_id == Some(packet_id) && entry.lock.as_ref().is_some_and(|lock| lock.holder == Some(holder))
        };
        let lock = self.entries.iter().find(held).and_then(|entry| entry.lock.as_ref()).ok_or(LockLost)?;
        let token = lock.token.clone();
        self.settle(&token, Outcome::Complete)
    }

    /// Messages an MQTT connection has not acknowledged yet.
    pub fn in_flight(&self, holder: u64) -> usize {
        self.entries.iter().filter(|entry| entry.lock.as_ref().is_some_and(|lock| lock.holder == Some(holder))).count()
    }

    /// Gives back what an MQTT connection held when it ended.
    pub fn release(&mut self, holder: u64) {
        self.unlock_if(|lock| lock.holder == Some(holder));
    }

    /// Ends every lock as if its time were over. Returns how many.
    pub fn unlock_all(&mut self) -> usize {
        self.unlock_if(|_| true)
    }

    /// Drops whatever waits: the device wants a clean session.
    pub fn drop_waiting(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_waiting()) {
            entry.finish(Stage::Dropped);
            self.version += 1;
        }
    }

    /// Forgets MQTT's packet ids: there is no session that knows them.
    pub fn forget_packet_ids(&mut self) {
        for entry in &mut self.entries {
            entry.packet_id = None;
        }
    }

    /// How many messages are at a stage.
    pub fn count(&self, stage: Stage) -> usize {
        self.entries.iter().filter(|entry| entry.stage == stage).count()
    }

    /// What became of the messages, oldest first.
    pub fn statuses(&self) -> Vec<Status> {
        let status = |entry: &Entry| Status {
            message_id: entry.message.id().to_owned(),
            sequence_number: entry.sequence,
            state: entry.stage,
            delivery_count: entry.delivery_count,
            abandoned_count: entry.abandoned_count,
        };
        self.entries.iter().map(status).collect()
    }

    fn unlock_if(&mut self, condition: impl Fn(&Lock) -> bool) -> usize {
        let mut unlocked = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.lock.as_ref().is_some_and(&condition)) {
            entry.unlock();
            unlocked += 1;
            self.version += 1;
        }
        unlocked
    }
}

impl Entry {
    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Enqueued | Stage::Locked)
    }

    fn unlock(&mut self) {
        self.lock = None;
        self.stage = if self.delivery_count >= MAX_DELIVERIES { Stage::DeadLettered } else { Stage::Enqueued };
        if self.stage == Stage::DeadLettered {
            self.packet_id = None;
        }
    }

    fn finish(&mut self, stage: Stage) {
        (self.lock, self.packet_id, self.stage) = (None, None, stage);
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
