//! What the host asks of a storage account. It asks again as the Azure SDK does. A queue's listener ends the host if that
//! is in vain.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::lifetime::Lifetime;
use crate::queues::{Error, Message, Queue, Result, Taken};

/// How often a request is tried, the first time included.
const TRIES: u32 = 6;

pub enum Operation<'a> {
    /// Takes this many messages, which are then invisible for this long.
    Take(usize, Duration),
    /// Makes a message invisible for this long.
    Hide(&'a Taken, Duration),
    Delete(&'a Taken),
    /// Puts a copy into another queue.
    Copy(&'a Queue, &'a Message),
}

/// Repeats what the account does not answer, unless the host stops. Returns the result of the last try.
pub async fn persistently<T, F>(mut pause: Duration, lifetime: &Lifetime, attempt: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut result = attempt().await;
    for _ in 1..TRIES {
        let Err(Error::Away(problem)) = &result else { break };
        tracing::debug!(problem, "asked again after {pause:?}");
        tokio::select! {
            () = sleep(pause) => pause *= 2,
            () = lifetime.stopping.cancelled() => break,
        }
        result = attempt().await;
    }
    result
}

/// A queue, and how its listener uses it.
pub struct Operations {
    pub queue: Arc<Queue>,
    /// The first pause before a request is repeated. Each later one is twice as long.
    pub retry_after: Duration,
    pub lifetime: Lifetime,
}

impl Operations {
    /// Repeats the operation while the account does not answer. The result has the messages that were taken, or the
    /// message with its new receipt.
    ///
    /// # Errors
    /// That of the last try. The extension handles the absence of a queue or message and errors of the service. Any
    /// other error is an unhandled exception: then the host ends.
    pub async fn run(&self, operation: Operation<'_>) -> Result<Vec<Taken>> {
        let result = persistently(self.retry_after, &self.lifetime, || self.attempt(&operation)).await;
        if self.lifetime.stopping.is_cancelled() && matches!(result, Err(Error::Away(_))) {
            return result;
        }
        if let Err(Error::Away(problem) | Error::Refused(problem)) = &result {
            self.lifetime.fail(format!("the host ends because queue {} cannot be used: {problem}", self.queue.name()));
        }
        result
    }

    async fn attempt(&self, operation: &Operation<'_>) -> Result<Vec<Taken>> {
        match *operation {
            Operation::Take(most, hidden) => self.queue.take(most, hidden).await,
            Operation::Hide(taken, hidden) => {
                let mut taken = taken.clone();
                self.queue.update(&mut taken, hidden).await?;
                Ok(vec![taken])
            }
            Operation::Delete(taken) => self.queue.delete(taken).await.map(|()| Vec::new()),
            Operation::Copy(to, message) => to.put_copy(message).await.map(|()| Vec::new()),
        }
    }
}
