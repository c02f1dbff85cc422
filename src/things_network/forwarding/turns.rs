//! Keeps one device's messages in the order in which they came from the queue: only one leaves at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::iot_hub::devices::Owner;

/// The messages that have a turn, and those that wait for one. Only busy devices take room.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<Owner, Arc<tokio::sync::Mutex<()>>>>);

/// A turn. The next one begins when it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    owner: &'a Owner,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the messages that came earlier.
    pub async fn take<'a>(&'a self, owner: &'a Owner) -> Turn<'a> {
        let lock = self.lock().entry(owner.clone()).or_default().clone();
        // Created before the wait, so that a caller that stops waiting leaves nothing behind.
        let mut turn = Turn { turns: self, owner, guard: None };
        // tokio's locks are fair.
        turn.guard = Some(lock.lock_owned().await);
        turn
    }

    /// A turn, if no message of the device has one or waits for one.
    pub fn take_free<'a>(&'a self, owner: &'a Owner) -> Option<Turn<'a>> {
        let mut turns = self.lock();
        if turns.contains_key(owner) {
            return None;
        }
        let lock = turns.entry(owner.clone()).or_default().clone();
        Some(Turn { turns: self, owner, guard: lock.try_lock_owned().ok() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Owner, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut turns = self.turns.lock();
        // Only the map holds the lock: each waiting caller holds another reference.
        if turns.get(self.owner).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            turns.remove(self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    fn owner(device: &str) -> Owner {
        Owner::things_network("app", device, device)
    }

    #[tokio::test]
    async fn turns_come_in_order_and_leave_nothing_behind() {
        let (turns, one, other) = (Turns::default(), owner("one"), owner("other"));
        let first = turns.take(&one).await;
        assert!(turns.take(&other).now_or_never().is_some(), "devices do not wait for each other");
        let mut second = Box::pin(turns.take(&one));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.take(&one));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "the second comes before the third");
        let second = second.now_or_never().expect("its turn");
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn a_free_turn_is_one_that_nobody_waits_for() {
        let (turns, one) = (Turns::default(), owner("one"));
        let first = turns.take_free(&one).expect("free");
        assert!(turns.take_free(&one).is_none());
        let second = Box::pin(turns.take(&one));
        drop(first);
        drop(second.await);
        assert!(turns.take_free(&one).is_some());
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_nothing_behind() {
        let (turns, one) = (Turns::default(), owner("one"));
        let first = turns.take(&one).await;
        assert!(timeout(Duration::from_secs(1), turns.take(&one)).await.is_err());
        drop(first);
        assert!(turns.lock().is_empty());
    }
}
