//! The direct lane: the webhook's own call sends the uplink, without the queue. It is for uplinks that can be sent at once;
//! all others take the queue, under the same message id.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use super::{Forwarding, message::Forwardable};
use crate::{
    iot_hub::devices::Owner,
    things_network::{queued::Queued, tally::Count},
};

/// A message that this process has put into the queue is taken from it within this time, by whichever process.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Devices with messages in the queue that are remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();

/// The devices whose messages may still be in the queue: a newer uplink must not overtake them.
pub struct Waiting(Mutex<LruCache<Owner, Messages>>);

struct Messages {
    count: u32,
    until: Instant,
}

impl Default for Waiting {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Waiting {
    /// A message of the device is put into the queue.
    fn queued(&self, owner: &Owner) {
        self.add(owner, 1, TAKEN_WITHIN);
    }

    /// A message of the device, which was taken from the queue, is put back for this time.
    pub fn put_back(&self, owner: &Owner, wait: Duration) {
        self.add(owner, 0, wait + TAKEN_WITHIN);
    }

    /// A message of the device has left the queue.
    pub fn done(&self, owner: &Owner) {
        let mut all = self.all();
        if let Some(messages) = all.get_mut(owner) {
            messages.count = messages.count.saturating_sub(1);
            if messages.count == 0 {
                all.pop(owner);
            }
        }
    }

    fn has(&self, owner: &Owner) -> bool {
        self.all().get(owner).is_some_and(|messages| Instant::now() < messages.until)
    }

    fn add(&self, owner: &Owner, count: u32, time: Duration) {
        let (mut all, now) = (self.all(), Instant::now());
        let messages = all.get_or_insert_mut(owner.clone(), || Messages { count: 0, until: now });
        // Another process may have taken those that were here before.
        let before = if now < messages.until { messages.count } else { 0 };
        *messages = Messages { count: (before + count).max(1), until: messages.until.max(now + time) };
    }

    fn all(&self) -> MutexGuard<'_, LruCache<Owner, Messages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarding {
    /// Whether the direct lane is on.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Sends an uplink at once, if that is possible. `text` is the queue message that takes its place if not. Returns whether
    /// the hub has acknowledged it. If not, the hub may have it all the same, and then gets it twice under one id.
    pub async fn send_directly(self: &Arc<Self>, text: &str) -> bool {
        let Some(limit) = self.direct else { return false };
        let deadline = Instant::now() + limit;
        let Ok(queued) = Queued::parse(text) else { return false };
        let Ok(forwardable) = Forwardable::read(&queued, self.clock.now(), &self.members) else { return false };
        // What is awaited is noted first.
        if forwardable.confirmed.is_some() && self.downlinks.awaits_confirmation() {
            return false;
        }
        let Ok((devices, owner)) = self.owner(&forwardable, &queued).await else { return false };
        let span = tracing::Span::current();
        span.record("application.id", &forwardable.application).record("end_device.id", &forwardable.device);
        let sent = async {
            // A device that is not known is looked up for its next uplink.
            let device = devices.known(&owner)?;
            let _turn = if self.waiting.has(&owner) { None } else { self.turns.take_free(&owner) }?;
            if self.ending.has_begun() || !self.sender.is_open(&device) {
                return None;
            }
            let messages = std::slice::from_ref(&forwardable.message);
            let (sent, _) = self.sender.send_in_order(&device, messages, deadline).await;
            (sent == 1).then_some(device)
        };
        let Some(device) = sent.await else {
            self.waiting.queued(&owner);
            return false;
        };
        self.activities.forwarded(&forwardable, self.clock.now());
        self.tally.count(Count::UplinksForwarded);
        if let Some(keys) = self.keys_of(&forwardable, &queued, &owner) {
            // The Things Stack gets its answer first.
            let forwarding = self.clone();
            self.downlinks.spawn(async move { forwarding.pass_on(&device, &keys).await });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_device_waits_until_its_messages_have_left_the_queue() {
        let (waiting, owner) = (Waiting::default(), Owner::things_network("app", "dev", "dev"));
        waiting.queued(&owner);
        waiting.queued(&owner);
        assert!(waiting.has(&owner) && !waiting.has(&Owner::things_network("app", "other", "other")));
        waiting.done(&owner);
        assert!(waiting.has(&owner));
        waiting.done(&owner);
        assert!(!waiting.has(&owner));

        // Another process took it.
        waiting.queued(&owner);
        tokio::time::advance(TAKEN_WITHIN).await;
        assert!(!waiting.has(&owner));
        waiting.put_back(&owner, TAKEN_WITHIN);
        tokio::time::advance(TAKEN_WITHIN).await;
        assert!(waiting.has(&owner));
        waiting.done(&owner);
        assert!(!waiting.has(&owner), "the old ones do not count any more");
    }
}
