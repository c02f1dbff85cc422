//! The queues of uplinks, and how much is in them.

use futures::future::try_join3;
use serde::Serialize;

use super::{Account, Queue, QueueError};

/// Behind the name of the queue of uplinks, as function.json and the Functions host have them.
const REJECTED: &str = "rejected";
const POISON: &str = "poison";

/// The queue between the two functions, and the two for what was not forwarded.
pub struct UplinkQueues {
    pub uplinks: Queue,
    pub rejected: Queue,
    pub poison: Queue,
}

/// About how many messages are in each, those included that nobody sees for the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lengths {
    pub waiting: u64,
    pub rejected: u64,
    pub poison: u64,
}

impl UplinkQueues {
    /// Those of `UplinkQueueName`. Does not connect.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(account: &Account, uplinks: &str) -> Result<Self, QueueError> {
        let queue = |suffix| Queue::new(account, &format!("{uplinks}-{suffix}"));
        Ok(Self { uplinks: Queue::new(account, uplinks)?, rejected: queue(REJECTED)?, poison: queue(POISON)? })
    }

    /// # Errors
    /// See [`QueueError`]. A queue that is not there yet is empty.
    pub async fn lengths(&self) -> Result<Lengths, QueueError> {
        let (waiting, rejected, poison) =
            try_join3(self.uplinks.length(), self.rejected.length(), self.poison.length()).await?;
        Ok(Lengths { waiting, rejected, poison })
    }
}
