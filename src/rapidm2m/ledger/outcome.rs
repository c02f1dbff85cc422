//! Defines the states of a record, which users see and query.

use serde::{Deserialize, Serialize};

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The backend has no row newer than the cursor.
    Empty,
    /// The rows are recorded, but the hub has not acknowledged them yet.
    Pending,
    /// The hub has acknowledged exactly this message.
    Forwarded,
    /// The hub can never accept the message, its record is unusable, or the operator dropped it. It is not sent.
    Rejected,
    /// The backend gave no usable answer.
    Failed,
}
