//! Runs a queue function as `QueueListener` and `QueueProcessor` of the WebJobs SDK do.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep},
};

use super::{
    envelope,
    events::{Event, Level, Stream, send},
    invoke::{Callee, Invoker},
    operation::{Operation, Operations},
    polling::Polling,
    queue_options::QueueOptions,
};
use crate::queues::{Error, Queue, Taken};

/// How long a message is invisible while it is processed. The time is renewed when half of it is over.
const INVISIBLE: Duration = Duration::from_secs(10 * 60);

/// A queue function and its queue.
pub struct Listener {
    pub function: Callee,
    /// Name of the trigger's binding.
    pub binding: String,
    pub queue: Operations,
    /// `None` if a failed message simply stays invisible.
    pub poison: Option<Arc<Queue>>,
    pub options: QueueOptions,
    pub invoker: Arc<Invoker>,
    /// Set when a call was cut. The handler may then be gone, and a message taken now would count as tried.
    pub is_suspicious: AtomicBool,
}

impl Listener {
    /// Takes messages and processes them until the host stops or the handler is gone for good.
    pub async fn run(self: Arc<Self>) {
        let mut processing = JoinSet::new();
        let mut polling = Polling::new(self.options.max_polling_interval);
        // An outage is told once.
        let (mut has_found, mut was_away) = (false, false);
        let stopping = &self.invoker.lifetime.stopping;
        while !stopping.is_cancelled() && self.handler_is_ready().await {
            match self.queue.run(Operation::Take(self.options.batch_size, INVISIBLE)).await {
                Ok(batch) if !batch.is_empty() => {
                    (has_found, was_away) = (true, false);
                    for taken in batch {
                        let listener = self.clone();
                        processing.spawn(async move { listener.process(taken).await });
                    }
                    while processing.len() > self.options.new_batch_threshold {
                        processing.join_next().await;
                    }
                }
                result => {
                    let is_away = result.is_err();
                    if let Err(error) = result
                        && !std::mem::replace(&mut was_away, true)
                    {
                        let to_do = "start Azurite, or correct the connection string of the storage account";
                        tracing::warn!("cannot take messages from queue {}: {error}: {to_do}", self.name());
                    }
                    was_away &= is_away;
                    let pause = polling.pause(std::mem::take(&mut has_found), fastrand::f64());
                    tokio::select! {
                        () = sleep(pause) => {}
                        // A function of this host has put a message into the queue.
                        () = self.queue.queue.added() => {}
                        () = stopping.cancelled() => {}
                    }
                }
            }
            while processing.try_join_next().is_some() {}
        }
        while processing.join_next().await.is_some() {}
    }

    fn name(&self) -> &str {
        self.queue.queue.name()
    }

    /// Waits for the handler. `false` if it is gone for good, or if the host stops.
    async fn handler_is_ready(&self) -> bool {
        let handler = &self.invoker.handler;
        let is_ready = async {
            if self.is_suspicious.swap(false, Ordering::Relaxed) {
                return handler.answers().await.is_ok();
            }
            handler.ready().await.is_ok()
        };
        tokio::select! {
            is_ready = is_ready => is_ready,
            () = self.invoker.lifetime.stopping.cancelled() => false,
        }
    }

    async fn process(&self, mut taken: Taken) {
        let has_been_tried = taken.message.dequeue_count > self.options.max_dequeue_count;
        let result = if has_been_tried {
            self.give_up(&taken).await
        } else if self.succeeds_with(&mut taken).await {
            self.queue.run(Operation::Delete(&taken)).await.map(drop)
        } else if taken.message.dequeue_count >= self.options.max_dequeue_count {
            self.give_up(&taken).await
        } else if self.poison.is_some() {
            self.queue.run(Operation::Hide(&taken, self.options.visibility_timeout)).await.map(drop)
        } else {
            Ok(())
        };
        match result {
            Ok(()) => {}
            // The message now belongs to another caller.
            Err(Error::NotYours) => {
                tracing::debug!(queue = self.name(), id = taken.message.id, "taken meanwhile")
            }
            Err(error) => {
                let (queue, id) = (self.name(), &taken.message.id);
                tracing::warn!(queue, id, %error, "the message will come again");
            }
        }
    }

    /// Calls the function and keeps the message invisible meanwhile.
    async fn succeeds_with(&self, taken: &mut Taken) -> bool {
        let content = taken.message.content.clone();
        let text = std::str::from_utf8(&content).ok().filter(|_| !taken.message.is_undecodable);
        let Some(text) = text else {
            // Each attempt fails before the handler is called.
            tracing::warn!(queue = self.name(), id = taken.message.id, "the message is not text in Base64");
            return false;
        };
        let envelope = envelope::queue(&self.function.name, &self.binding, taken, text, Utc::now());
        let mut call = pin!(self.invoker.call(&self.function, envelope));
        let mut renewal = interval_at(tokio::time::Instant::now() + INVISIBLE / 2, INVISIBLE / 2);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let finished = loop {
            tokio::select! {
                (finished, _) = &mut call => break finished,
                _ = renewal.tick() => {
                    match self.queue.run(Operation::Hide(taken, INVISIBLE)).await {
                        Ok(mut renewed) => *taken = renewed.remove(0),
                        Err(error) => {
                            let (queue, id) = (self.name(), &taken.message.id);
                            tracing::warn!(queue, id, %error, "cannot keep the message invisible");
                        }
                    }
                }
            }
        };
        if finished.succeeded {
            return true;
        }
        if finished.status.is_none() {
            self.is_suspicious.store(true, Ordering::Relaxed);
        }
        let (function, id, error) = (&self.function.name, &taken.message.id, finished.error.unwrap_or_default());
        tracing::debug!(function, id, attempt = taken.message.dequeue_count, error, "the message was not processed");
        false
    }

    /// Moves the message to the poison queue.
    async fn give_up(&self, taken: &Taken) -> Result<(), Error> {
        let Some(poison) = &self.poison else { return Ok(()) };
        self.queue.run(Operation::Copy(poison, &taken.message)).await?;
        let text = format!(
            "{}: message {} of queue {} was moved to {} after {} of {} attempts",
            self.function.name,
            taken.message.id,
            self.name(),
            poison.name(),
            taken.message.dequeue_count,
            self.options.max_dequeue_count,
        );
        tracing::warn!("{text}");
        send(&self.invoker.events, Event::Line { stream: Stream::Host, level: Level::Warning, text });
        self.queue.run(Operation::Delete(taken)).await.map(drop)
    }
}
