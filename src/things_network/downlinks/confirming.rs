//! Commands that are done only when the device has confirmed their downlinks (`ConfirmDownlinks`).
//!
//! The hub lets nobody keep a message for as long as a device needs to confirm: an hour is nothing for one of class A. So the message
//! goes back to the hub, uncompleted, and the container `devices` keeps what became of its downlink, for all processes. When the
//! device's confirmation comes, the message is fetched once more and completed, or rejected if The Things Stack gave up.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    iot_hub::{
        CloudMessage, Device,
        devices::{
            Store, StoreError,
            confirmations::{self, Confirmation, State},
        },
    },
    support::{clock::Clock, hex::hex},
};

use super::downlink::{Downlink, Operation};

/// How often a message is fetched whose downlink is not confirmed yet: each time is one of its ten deliveries.
pub const LOOK: Duration = Duration::from_secs(30 * 60);
/// Commands that are remembered: those that were accepted although that could not be noted, and results for those who wait.
const MOST: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The commands that wait for confirmation.
pub struct Confirming {
    store: Arc<Store>,
    clock: Clock,
    /// By document and message id.
    known: Mutex<LruCache<(String, String), State>>,
    /// Notified when a result comes.
    news: Notify,
}

/// A message whose downlink the device shall confirm.
pub struct Awaited {
    document: String,
    pub message_id: String,
    content: String,
}

impl Awaited {
    /// `None`: the message has no id, so that nothing can be told about it. What is posted is its content: properties that are not
    /// used may look different over MQTT and HTTPS.
    pub fn of(device: &Device, message: &CloudMessage, downlink: &Downlink) -> Option<Self> {
        let hash =
            Sha256::new_with_prefix(&downlink.body).chain_update([u8::from(downlink.operation == Operation::Replace)]);
        let content = hex(&hash.finalize()[..16]);
        Some(Self { document: confirmations::id(device), message_id: message.message_id.clone()?, content })
    }

    fn key(&self) -> (String, String) {
        (self.document.clone(), format!("{} {}", self.message_id, self.content))
    }
}

impl Confirming {
    pub fn new(store: Arc<Store>, clock: Clock) -> Self {
        Self { store, clock, known: Mutex::new(LruCache::new(MOST)), news: Notify::new() }
    }

    /// How far the command has come. If it is new, that it is about to be posted is noted.
    ///
    /// # Errors
    /// The container cannot be used.
    pub async fn begin(&self, awaited: &Awaited) -> Result<State, StoreError> {
        let now = self.clock.now();
        let begin = |document: &mut confirmations::Document| document.begin(&awaited.message_id, &awaited.content, now);
        let begun = self.store.change_confirmations(&awaited.document, begin).await?;
        let Some(state) = begun else {
            // What is remembered is about an earlier command with the same id and content, which is settled.
            self.known().pop(&awaited.key());
            return Ok(State::New);
        };
        Ok(self.keep(awaited, state))
    }

    /// The Things Stack has accepted its downlink.
    ///
    /// # Errors
    /// The container cannot be used.
    pub async fn accepted(&self, awaited: &Awaited) -> Result<State, StoreError> {
        self.keep(awaited, State::Accepted);
        let accepted =
            |document: &mut confirmations::Document| document.accepted(&awaited.message_id, &awaited.content);
        let state = self.store.change_confirmations(&awaited.document, accepted).await?;
        Ok(self.keep(awaited, state))
    }

    /// Waits for the result until `deadline`.
    pub async fn result(&self, awaited: &Awaited, deadline: Instant) -> Option<Confirmation> {
        let coming = async {
            loop {
                let mut news = std::pin::pin!(self.news.notified());
                // Before looking, so that none is missed.
                news.as_mut().enable();
                if let Some(State::Over(result)) = self.known().get(&awaited.key()).cloned() {
                    return result;
                }
                news.await;
            }
        };
        timeout_at(deadline, coming).await.ok()
    }

    /// The hub has the command no longer.
    pub async fn settled(&self, awaited: &Awaited) {
        self.known().pop(&awaited.key());
        let settled = |document: &mut confirmations::Document| document.settled(&awaited.message_id, &awaited.content);
        if let Err(error) = self.store.change_confirmations(&awaited.document, settled).await {
            tracing::debug!(
                message.id = awaited.message_id,
                "that a command is done is not noted, which matters only if its message id is used again: {error}"
            );
        }
    }

    /// The device has confirmed a command, or The Things Stack has given it up. Returns whether the command waits for that.
    ///
    /// # Errors
    /// The container cannot be used.
    pub async fn has_result(
        &self,
        device: &Device,
        message_id: &str,
        result: &Confirmation,
    ) -> Result<bool, StoreError> {
        let id = confirmations::id(device);
        let has_result = |document: &mut confirmations::Document| document.has_result(message_id, result.clone());
        let content = self.store.change_confirmations(&id, has_result).await?;
        if let Some(content) = &content {
            let awaited = Awaited { document: id, message_id: message_id.into(), content: content.clone() };
            self.keep(&awaited, State::Over(result.clone()));
            self.news.notify_waiters();
        }
        Ok(content.is_some())
    }

    /// Remembers the state. Returns it, or how much further it was before: the container may not have been told.
    fn keep(&self, awaited: &Awaited, state: State) -> State {
        let mut known = self.known();
        let kept = known.get_or_insert_mut(awaited.key(), || state.clone());
        if matches!((&kept, &state), (State::New, _) | (State::Accepted, State::Over(_))) {
            *kept = state;
        }
        kept.clone()
    }

    fn known(&self) -> MutexGuard<'_, LruCache<(String, String), State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
