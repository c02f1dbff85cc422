//! Remembers downlinks that The Things Stack has accepted until their messages are completed: a message that the hub delivers
//! again must not become a second downlink. Over HTTPS a message has a sequence number; over MQTT it has none.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use crate::iot_hub::CloudMessage;

/// Downlinks that are remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Without a sequence number, an equal message is a repeat only for so long after the first was accepted: the hub's lock of a
/// minute, and the time in which a lost connection is noticed. Later it is another command, which must be sent.
const REPEATS_WITHIN: Duration = Duration::from_secs(150);

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Fetched,
    /// Over MQTT.
    Pushed,
}

/// Device, message id, and a hash of the body.
type Key = (String, Option<String>, u64);

pub struct Accepted(Mutex<LruCache<Key, Entry>>);

#[derive(Clone, Copy)]
struct Entry {
    sequence_number: Option<u64>,
    way: Way,
    at: Instant,
}

impl Default for Accepted {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Accepted {
    /// The message's downlink is accepted.
    pub fn put(&self, device: &str, message: &CloudMessage, way: Way) {
        self.all()
            .put(key(device, message), Entry { sequence_number: message.sequence_number, way, at: Instant::now() });
    }

    /// The message is settled: the hub does not deliver it again.
    pub fn settled(&self, device: &str, message: &CloudMessage) {
        self.all().pop(&key(device, message));
    }

    /// A message is pushed. If it is new, the hub is done with an equal one before it, also if this one is not handled now.
    pub fn comes(&self, device: &str, message: &CloudMessage) {
        if message.delivery_count <= 1 {
            let (mut all, key) = (self.all(), key(device, message));
            if all.peek(&key).is_some_and(|entry| entry.way == Way::Pushed) {
                all.pop(&key);
            }
        }
    }

    /// Whether this message's downlink was accepted before. Two commands may be alike in everything but the sequence number
    /// (a switch that is pressed twice). So without numbers, only a message counts that the hub has delivered before; or one
    /// with an id that was fetched, and which MQTT delivers for the first time: it counts its own deliveries only.
    ///
    /// An equal message that is new shows that the hub is done with the one before, as it delivers in order. That one is
    /// forgotten: when the new one comes again, it is still not accepted.
    pub fn is_repeat(&self, device: &str, message: &CloudMessage, way: Way) -> bool {
        let (mut all, key) = (self.all(), key(device, message));
        let Some(entry) = all.peek(&key).copied() else { return false };
        let is_first = message.delivery_count <= 1;
        let comes_another_way = entry.way == Way::Fetched && way == Way::Pushed && message.message_id.is_some();
        let is_repeat = match (entry.sequence_number, message.sequence_number) {
            (Some(before), Some(now)) => before == now,
            _ => entry.at.elapsed() <= REPEATS_WITHIN && (!is_first || comes_another_way),
        };
        if !is_repeat && entry.sequence_number.is_none() {
            all.pop(&key);
        }
        is_repeat
    }

    fn all(&self) -> MutexGuard<'_, LruCache<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(device: &str, message: &CloudMessage) -> Key {
    let mut hasher = DefaultHasher::new();
    (&message.body, &message.properties).hash(&mut hasher);
    (device.to_owned(), message.message_id.clone(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: Option<&str>, sequence_number: Option<u64>, delivery_count: u32) -> CloudMessage {
        let message_id = id.map(str::to_owned);
        CloudMessage { message_id, sequence_number, delivery_count, body: "on".into(), ..CloudMessage::default() }
    }

    #[test]
    fn a_message_that_comes_again_is_known_whatever_the_way() {
        use Way::{Fetched, Pushed};
        for (first, again, expected) in [
            ((Some("a"), Some(7), 1, Fetched), (Some("a"), Some(7), 2, Fetched), true),
            // A device that was deleted and created again, or two commands with one id.
            ((Some("a"), Some(7), 1, Fetched), (Some("a"), Some(8), 1, Fetched), false),
            ((None, Some(7), 1, Fetched), (None, Some(8), 2, Fetched), false),
            ((Some("a"), None, 1, Pushed), (Some("a"), None, 2, Pushed), true),
            ((None, None, 1, Pushed), (None, None, 2, Pushed), true),
            // A switch that is pressed twice.
            ((None, None, 1, Pushed), (None, None, 1, Pushed), false),
            ((Some("a"), None, 1, Pushed), (Some("a"), None, 1, Pushed), false),
            ((Some("a"), None, 1, Pushed), (Some("a"), Some(7), 2, Fetched), true),
            ((Some("a"), None, 1, Pushed), (Some("a"), Some(7), 1, Fetched), false),
            ((Some("a"), Some(7), 1, Fetched), (Some("a"), None, 1, Pushed), true),
            ((None, Some(7), 1, Fetched), (None, None, 1, Pushed), false),
            ((Some("a"), Some(7), 1, Fetched), (Some("b"), None, 2, Pushed), false),
        ] {
            let accepted = Accepted::default();
            accepted.put("d", &message(first.0, first.1, first.2), first.3);
            let again = (message(again.0, again.1, again.2), again.3);
            assert_eq!(accepted.is_repeat("d", &again.0, again.1), expected, "{first:?} {again:?}");
            assert!(!accepted.is_repeat("other", &again.0, again.1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_equal_command_of_later_is_another_one() {
        let accepted = Accepted::default();
        accepted.put("d", &message(None, None, 1), Way::Pushed);
        tokio::time::advance(REPEATS_WITHIN).await;
        assert!(accepted.is_repeat("d", &message(None, None, 2), Way::Pushed));
        tokio::time::advance(Duration::from_secs(1)).await;
        for (again, way) in [(message(None, None, 2), Way::Pushed), (message(None, Some(9), 2), Way::Fetched)] {
            assert!(!accepted.is_repeat("d", &again, way), "the hub has delivered it before, but it was not accepted");
        }
    }

    /// A switch is pressed twice, and the second press is not accepted at once: when it comes again, it is no repeat of the
    /// first.
    #[test]
    fn an_equal_command_that_comes_again_itself_is_sent() {
        use Way::{Fetched, Pushed};
        let again = [(message(None, None, 2), Pushed), (message(None, Some(8), 2), Fetched)];
        for second in [(message(None, None, 1), Pushed), (message(None, Some(8), 1), Fetched)] {
            for (again, way) in &again {
                let accepted = Accepted::default();
                accepted.put("d", &message(None, None, 1), Pushed);
                assert!(!accepted.is_repeat("d", &second.0, second.1));
                assert!(!accepted.is_repeat("d", again, *way), "{second:?} {again:?}");
            }
        }
    }

    #[test]
    fn what_is_settled_is_forgotten() {
        let (accepted, one) = (Accepted::default(), message(Some("a"), Some(7), 1));
        accepted.put("d", &one, Way::Fetched);
        accepted.settled("d", &one);
        assert!(!accepted.is_repeat("d", &one, Way::Fetched));
    }
}
