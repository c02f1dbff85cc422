//! Opens the three queues of uplinks, or of sites, and counts the messages in them.

use futures::future::try_join3;
use serde::Serialize;

use super::{Account, Queue, QueueError};
use crate::support::http_client::HttpClient;

/// The queues' suffixes, as function.json and the Functions host have them.
const REJECTED: &str = "rejected";
const POISON: &str = "poison";

/// The queue between two functions, and the two queues of messages that were not forwarded.
pub struct UplinkQueues {
    pub uplinks: Queue,
    pub rejected: Queue,
    pub poison: Queue,
}

/// The approximate number of messages in each queue, including those that are invisible at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lengths {
    pub waiting: u64,
    pub rejected: u64,
    pub poison: u64,
}

impl UplinkQueues {
    /// The queues that belong to `UplinkQueueName`, or to `PollQueueName`. Does not connect.
    #[must_use]
    pub fn new(account: &Account, uplinks: &str, http: &HttpClient) -> Self {
        let queue = |name: &str| Queue::new(account, name, http.clone());
        let beside = |suffix| queue(&format!("{uplinks}-{suffix}"));
        Self { uplinks: queue(uplinks), rejected: beside(REJECTED), poison: beside(POISON) }
    }

    /// # Errors
    /// See [`QueueError`]. A queue that does not exist yet counts as empty.
    pub async fn lengths(&self) -> Result<Lengths, QueueError> {
        let (waiting, rejected, poison) =
            try_join3(self.uplinks.length(), self.rejected.length(), self.poison.length()).await?;
        Ok(Lengths { waiting, rejected, poison })
    }
}
