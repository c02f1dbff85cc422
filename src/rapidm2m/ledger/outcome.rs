//! The state of a record.

use serde::{Deserialize, Serialize};

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The backend has no row newer than the cursor.
    Empty,
    /// The rows are recorded, the hub has not acknowledged them yet.
    Pending,
    /// The hub has acknowledged exactly this message.
    Forwarded,
    /// The hub will never take this message.
    Rejected,
    /// The backend gave no usable answer.
    Failed,
}
