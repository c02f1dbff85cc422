//! The lock that lets one host of all run a timer: a lease of a blob, as the WebJobs SDK has it (`SingletonListener`,
//! `BlobLeaseDistributedLockManager`).

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{lifetime::Lifetime, operation::persistently};
use crate::queues::{Container, Error, Result};

/// The longest lease that a storage account gives.
const LEASE: Duration = Duration::from_secs(60);
/// The pause after a failed renewal is half of the one before, but at least this.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

pub struct Lock {
    pub container: Arc<Container>,
    pub blob: String,
    /// How often the lease is renewed.
    pub renewed_every: Duration,
    /// The first pause before a request that got no answer is repeated.
    pub retry_after: Duration,
    pub lifetime: Lifetime,
}

impl Lock {
    /// One attempt. `None` if another host has it.
    pub async fn acquire(&self) -> Result<Option<String>> {
        self.container.acquire(&self.blob, LEASE).await
    }

    /// Renews the lease. Ends with the reason when that is impossible.
    pub async fn keep(&self, lease: &str) -> String {
        let mut pause = self.renewed_every;
        loop {
            sleep(pause).await;
            let renewed = || self.container.renew(&self.blob, lease);
            pause = match persistently(self.retry_after, &self.lifetime, renewed).await {
                Ok(()) => self.renewed_every,
                Err(Error::Storage(problem)) => {
                    tracing::warn!(self.blob, problem, "the lock was not renewed");
                    (pause / 2).max(SHORTEST_PAUSE)
                }
                Err(error) => return format!("the host ends because the lock {} cannot be kept: {error}", self.blob),
            };
        }
    }

    pub async fn release(&self, lease: &str) {
        if let Err(error) = self.container.release(&self.blob, lease).await {
            tracing::debug!(self.blob, %error, "the lock was not released");
        }
    }
}
