//! Decides what to request from the backend next, and which rows of its answer are new or changed. Pure.

use std::hash::Hasher as _;

use fnv::FnvHasher;

use super::SiteMemory;
use crate::rapidm2m::{
    Rows, Stamp, StartFrom,
    client::Range,
    ledger::{Cursor, Recorded, Seen, Stamped},
    window::{Search, Window},
};

/// What is to be recorded of an answer.
pub struct SortedOut {
    /// Its stamps, in order, with the hashes of their values.
    pub stamps: Vec<Stamped>,
    /// A hash of the channels.
    pub channels: u32,
    /// How many rows have changed values. They are the first ones.
    pub changed: usize,
    /// Stamps of rows that cannot be used.
    pub unusable: Vec<Stamp>,
}

impl SortedOut {
    /// The stamps of some rows, up to a stamp.
    pub fn of(&self, rows: &[crate::rapidm2m::Row], up_to: Option<Stamp>) -> Vec<Stamped> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Vec::new() };
        let from = self.stamps.partition_point(|group| group.stamp < first.stamp);
        let until = self.stamps.partition_point(|group| group.stamp <= last.stamp && Some(group.stamp) <= up_to);
        let mut rows = rows.iter().peekable();
        let is_there = |group: &&Stamped| {
            while rows.next_if(|row| row.stamp < group.stamp).is_some() {}
            rows.peek().is_some_and(|row| row.stamp == group.stamp)
        };
        self.stamps.get(from..until).unwrap_or_default().iter().filter(is_there).copied().collect()
    }
}

/// The stamps of rows, which must be in order.
fn stamps(rows: &Rows) -> Vec<Stamped> {
    let mut stamps: Vec<Stamped> = Vec::with_capacity(rows.rows.len());
    for row in &rows.rows {
        let values = rows.values(row).map(|value| value.unwrap_or("null"));
        match stamps.last_mut() {
            // The order of rows with one stamp is that of the backend, which may change.
            Some(last) if last.stamp == row.stamp => last.hash = last.hash.wrapping_add(hash_of(values)),
            _ => stamps.push(Stamped { stamp: row.stamp, hash: hash_of(values) }),
        }
    }
    stamps
}

/// A hash that is the same in all versions, since it is stored.
fn hash_of(texts: impl IntoIterator<Item = impl AsRef<str>>) -> u32 {
    let mut hasher = FnvHasher::default();
    for text in texts {
        hasher.write(text.as_ref().as_bytes());
        hasher.write_u8(0);
    }
    let hash = hasher.finish();
    (hash ^ (hash >> 32)) as u32
}

/// One request.
pub struct Plan {
    pub range: Range,
    pub from: Stamp,
    pub window: Option<Window>,
    /// Rows up to this stamp are known, unless the cursor has a more exact list.
    newer_than: Option<Stamp>,
}

impl Plan {
    pub fn new(cursor: &Cursor, start_from: StartFrom, memory: &SiteMemory, now: Stamp) -> Self {
        let search = &memory.search;
        let newest = cursor.last_value_from.map(Stamp::from_time);
        match (newest, &cursor.recorded) {
            (Some(newest), None) => Self::window(search, newest, Some(newest), now),
            // Begin where rows may still arrive late. If one answer does not hold all rows since then, begin where
            // the last one ended.
            (Some(newest), Some(recorded)) => {
                let from = memory.swept.map_or(recorded.since(), |swept| swept.max(recorded.since()));
                Self::window(search, from, Some(newest), now)
            }
            (None, _) => Self::first(cursor, start_from, search, now),
        }
    }

    fn first(cursor: &Cursor, start_from: StartFrom, search: &Search, now: Stamp) -> Self {
        match start_from {
            // An earlier request found nothing. So every row that comes now is new, however many they are and however
            // late.
            StartFrom::Youngest if cursor.scanned_until.is_some() => Self::window(search, Stamp::BEGINNING, None, now),
            StartFrom::Youngest => {
                Self { range: Range::Youngest, from: Stamp::BEGINNING, window: None, newer_than: None }
            }
            StartFrom::All => Self::window(search, Stamp::BEGINNING, None, now),
            StartFrom::At(time) => {
                // The window may or may not include its bound. Request a little more; keep only the intended rows.
                let before = Stamp::from_time(time).shifted(-1);
                Self::window(search, before, Some(before), now)
            }
        }
    }

    fn window(search: &Search, from: Stamp, newer_than: Option<Stamp>, now: Stamp) -> Self {
        let window = search.next(from, now);
        Self { range: Range::Window { from, until: window.until }, from, window: Some(window), newer_than }
    }

    /// Keeps the rows that are still to be recorded: those with changed values first, then the new ones. The rows must be
    /// in the order of their stamps.
    pub fn sort_out(&self, rows: &mut Rows, cursor: &Cursor, channels: &[String]) -> SortedOut {
        let Some(recorded) = &cursor.recorded else {
            rows.rows.retain(|row| self.newer_than.is_none_or(|newest| row.stamp > newest));
            let unusable = rows.flaws.stamps.clone();
            return SortedOut { stamps: stamps(rows), channels: hash_of(channels), changed: 0, unusable };
        };
        let (mut stamps, channels) = (stamps(rows), hash_of(channels));
        let mut seen = recorded.see(&stamps, channels);
        let mut groups = stamps.iter().zip(&seen).peekable();
        let mut changed = Vec::new();
        rows.rows.retain(|row| {
            while groups.next_if(|(group, _)| group.stamp < row.stamp).is_some() {}
            let seen = groups.peek().map_or(Seen::Known, |(_, seen)| **seen);
            if seen == Seen::Changed {
                changed.push(row.clone());
            }
            seen == Seen::New
        });
        let count = changed.len();
        if count > 0 {
            rows.rows.splice(0..0, changed);
        }
        let mut seen = seen.drain(..);
        stamps.retain(|_| seen.next() != Some(Seen::Known));
        SortedOut { stamps, channels, changed: count, unusable: rows.flaws.stamps.clone() }
    }

    /// Whether the request has no end, so that its answer holds all that the backend has.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.window.is_some_and(|window| window.until.is_none())
    }

    /// Whether a row is newer than the beginning of the window. Only such rows say how dense rows are.
    pub fn is_beyond(&self, stamp: Stamp) -> bool {
        self.newer_than.is_none() || stamp > self.from
    }

    /// What is known of late rows when the first rows are recorded. Late rows count from the user's start time on.
    pub fn first_recorded(&self, oldest: Stamp) -> Recorded {
        let since = match (self.newer_than, &self.range) {
            (Some(before), _) => before.shifted(1),
            (None, Range::Youngest) => oldest,
            (None, Range::Window { from, .. }) => oldest.min(*from),
        };
        Recorded::starting(since)
    }
}
