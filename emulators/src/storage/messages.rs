//! The messages of one queue. They have no clock: the caller passes the time.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::queues::{Counts, Error, Message, Result, Taken, guid};

/// The service's time for a message that never expires.
const NEVER: DateTime<Utc> = DateTime::from_timestamp_secs(253_402_300_799).expect("a time of the year 9999");

/// The messages of a queue. The cost of an operation depends on the messages that it touches, not on the queue's
/// length.
#[derive(Default)]
pub struct Messages {
    entries: HashMap<u64, Entry>,
    /// By expiry, then by insertion.
    expiry: BTreeSet<(DateTime<Utc>, u64)>,
    /// Order of delivery: by visibility time, then by insertion.
    order: BTreeSet<(DateTime<Utc>, u64)>,
    numbers: HashMap<String, u64>,
    last_number: u64,
}

struct Entry {
    id: String,
    content: Bytes,
    inserted: DateTime<Utc>,
    expires: DateTime<Utc>,
    next_visible: DateTime<Utc>,
    dequeue_count: u64,
    /// Empty before the first take.
    receipt: String,
}

/// A message to put.
pub struct New {
    /// The stored text.
    pub content: Bytes,
    /// `None`: it never expires.
    pub time_to_live: Option<Duration>,
    /// It becomes visible after this time.
    pub hidden: Duration,
}

impl Messages {
    pub fn put(&mut self, New { content, time_to_live, hidden }: New, now: DateTime<Utc>) {
        self.last_number += 1;
        let (id, number) = (guid(), self.last_number);
        let (expires, next_visible) = (time_to_live.map_or(NEVER, |time| now + time), now + hidden);
        self.numbers.insert(id.clone(), number);
        self.order.insert((next_visible, number));
        self.expiry.insert((expires, number));
        let entry =
            Entry { id, content, inserted: now, expires, next_visible, dequeue_count: 0, receipt: String::new() };
        self.entries.insert(number, entry);
    }

    pub fn take(&mut self, most: usize, invisible_for: Duration, now: DateTime<Utc>) -> Vec<Taken> {
        self.drop_expired(now);
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(&(next_visible, number)) = self.order.first().filter(|first| first.0 <= now)
        {
            self.order.remove(&(next_visible, number));
            let entry = self.entries.get_mut(&number).expect("what is in the order has an entry");
            entry.dequeue_count += 1;
            entry.hide(now + invisible_for);
            taken.push(Taken { message: entry.message(), receipt: entry.receipt.clone() });
        }
        // Inserted only now: a message that is hidden for no time at all must not be taken twice.
        for taken in &taken {
            let number = self.numbers[&taken.message.id];
            self.order.insert((self.entries[&number].next_visible, number));
        }
        taken
    }

    pub fn update(&mut self, taken: &mut Taken, invisible_for: Duration, now: DateTime<Utc>) -> Result<()> {
        let number = self.number_of(taken, now)?;
        let entry = self.entries.get_mut(&number).ok_or(Error::NotYours)?;
        self.order.remove(&(entry.next_visible, number));
        entry.hide(now + invisible_for);
        self.order.insert((entry.next_visible, number));
        *taken = Taken { message: entry.message(), receipt: entry.receipt.clone() };
        Ok(())
    }

    pub fn delete(&mut self, taken: &Taken, now: DateTime<Utc>) -> Result<()> {
        let number = self.number_of(taken, now)?;
        self.remove(number);
        Ok(())
    }

    /// All messages, ordered by visibility time.
    pub fn all(&mut self, now: DateTime<Utc>) -> Vec<Message> {
        self.drop_expired(now);
        self.order.iter().map(|(_, number)| self.entries[number].message()).collect()
    }

    pub fn counts(&mut self, now: DateTime<Utc>) -> Counts {
        self.drop_expired(now);
        let visible = self.order.range(..=(now, u64::MAX)).count();
        Counts { visible, invisible: self.order.len() - visible }
    }

    /// The message's number, unless another caller has taken it since.
    fn number_of(&mut self, taken: &Taken, now: DateTime<Utc>) -> Result<u64> {
        self.drop_expired(now);
        let number = *self.numbers.get(&taken.message.id).ok_or(Error::NotYours)?;
        if self.entries[&number].receipt == taken.receipt { Ok(number) } else { Err(Error::NotYours) }
    }

    fn drop_expired(&mut self, now: DateTime<Utc>) {
        while let Some(&(_, number)) = self.expiry.first().filter(|first| first.0 <= now) {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.order.remove(&(entry.next_visible, number));
            self.expiry.remove(&(entry.expires, number));
            self.numbers.remove(&entry.id);
        }
    }
}

impl Entry {
    fn hide(&mut self, until: DateTime<Utc>) {
        self.next_visible = until;
        self.receipt = BASE64_STANDARD.encode(fastrand::u64(..).to_be_bytes());
    }

    fn message(&self) -> Message {
        Message {
            id: self.id.clone(),
            content: self.content.clone(),
            is_undecodable: false,
            inserted: self.inserted,
            expires: self.expires,
            next_visible: Some(self.next_visible),
            dequeue_count: self.dequeue_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    fn start() -> DateTime<Utc> {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn new(text: &'static str) -> New {
        New { content: Bytes::from_static(text.as_bytes()), time_to_live: Some(WEEK), hidden: Duration::ZERO }
    }

    fn filled(texts: &[&'static str]) -> Messages {
        let mut messages = Messages::default();
        for text in texts {
            messages.put(new(text), start());
        }
        messages
    }

    fn texts(taken: &[Taken]) -> Vec<&str> {
        taken.iter().map(|taken| std::str::from_utf8(&taken.message.content).unwrap()).collect()
    }

    #[test]
    fn messages_come_in_order_and_again_when_their_time_is_over() {
        let mut queue = filled(&["a", "b", "c"]);
        assert_eq!(texts(&queue.take(2, MINUTE, start())), ["a", "b"]);
        assert_eq!(queue.counts(start()), Counts { visible: 1, invisible: 2 });
        assert_eq!(texts(&queue.take(2, 2 * MINUTE, start())), ["c"]);
        assert!(queue.take(2, MINUTE, start() + MINUTE / 2).is_empty());
        queue.put(new("d"), start() + MINUTE / 2);
        let again = queue.take(9, MINUTE, start() + MINUTE);
        assert_eq!(texts(&again), ["d", "a", "b"]);
        assert_eq!(again.iter().map(|taken| taken.message.dequeue_count).collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!(again[0].message.next_visible, Some(start() + 2 * MINUTE));
    }

    #[test]
    fn what_is_not_hidden_is_taken_once_at_a_time() {
        let mut queue = filled(&["a"]);
        assert_eq!(texts(&queue.take(9, Duration::ZERO, start())), ["a"]);
        assert_eq!(texts(&queue.take(9, Duration::ZERO, start())), ["a"]);
    }

    #[test]
    fn only_the_newest_receipt_counts() {
        let mut queue = filled(&["a"]);
        let first = queue.take(1, MINUTE, start()).remove(0);
        let mut second = queue.take(1, MINUTE, start() + MINUTE).remove(0);
        assert_eq!(queue.delete(&first, start()), Err(Error::NotYours));
        let before = second.clone();
        queue.update(&mut second, Duration::ZERO, start() + MINUTE).unwrap();
        assert_ne!(before.receipt, second.receipt);
        assert_eq!(second.message.dequeue_count, 2, "an update is not a take");
        assert_eq!(queue.update(&mut before.clone(), MINUTE, start() + MINUTE), Err(Error::NotYours));
        assert_eq!(queue.counts(start() + MINUTE), Counts { visible: 1, invisible: 0 });
        queue.delete(&second, start() + MINUTE).unwrap();
        assert_eq!(queue.counts(start()), Counts::default());
        assert_eq!(queue.delete(&second, start()), Err(Error::NotYours));
    }

    #[test]
    fn a_message_can_be_hidden_at_first_and_live_for_ever() {
        let mut queue = filled(&["a"]);
        queue.put(New { time_to_live: None, hidden: MINUTE, ..new("b") }, start());
        assert_eq!(texts(&queue.take(9, MINUTE, start())), ["a"]);
        let years = start() + 1000 * WEEK;
        let taken = queue.take(9, MINUTE, years);
        assert_eq!((texts(&taken), taken[0].message.expires), (vec!["b"], NEVER));
    }

    #[test]
    fn messages_live_for_seven_days() {
        let mut queue = filled(&["a"]);
        let taken = queue.take(1, 2 * WEEK, start()).remove(0);
        assert_eq!(taken.message.expires, start() + WEEK);
        queue.put(new("b"), start() + MINUTE);
        assert_eq!(queue.all(start() + WEEK).len(), 1);
        assert_eq!(queue.delete(&taken, start() + WEEK), Err(Error::NotYours));
    }
}
