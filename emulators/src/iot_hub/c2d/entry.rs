//! One message to a device, from its arrival to its end.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::message::Message;

/// Deliveries after which a message is given up.
pub const MAX_DELIVERIES: u32 = 10;

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

/// A message in the queue, or what is remembered of it.
pub struct Entry {
    pub message: Arc<Message>,
    pub sequence: u64,
    pub enqueued_at: DateTime<Utc>,
    pub expires: Instant,
    pub stage: Stage,
    pub lock: Option<Lock>,
    pub packet_id: Option<u16>,
    pub delivery_count: u32,
    pub abandoned_count: u32,
}

pub struct Lock {
    pub token: String,
    pub until: Instant,
    /// The number of the MQTT connection that holds it.
    pub holder: Option<u64>,
}

impl Entry {
    /// Whether the message may still be delivered.
    pub fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Enqueued | Stage::Locked)
    }

    /// Ends the lock without a result.
    pub fn unlock(&mut self) {
        if self.delivery_count >= MAX_DELIVERIES {
            self.finish(Stage::DeadLettered);
        } else {
            (self.lock, self.stage) = (None, Stage::Enqueued);
        }
    }

    /// Ends the message's stay.
    pub fn finish(&mut self, stage: Stage) {
        (self.lock, self.packet_id, self.stage) = (None, None, stage);
    }

    /// What the control endpoint tells.
    pub fn status(&self) -> Status {
        Status {
            message_id: self.message.id().to_owned(),
            sequence_number: self.sequence,
            state: self.stage,
            delivery_count: self.delivery_count,
            abandoned_count: self.abandoned_count,
        }
    }

    /// Whether an MQTT connection has the message and has not acknowledged it yet.
    pub fn is_held_by(&self, holder: u64) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.holder == Some(holder))
    }
}
