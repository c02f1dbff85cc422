//! Decides what to request from the backend next, and which rows of its answer are new. Pure.

use super::SiteMemory;
use crate::rapidm2m::{
    Stamp, StartFrom,
    client::Range,
    ledger::{Cursor, Recorded},
    window::{Search, Window},
};

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

    /// Whether a row is still to be recorded.
    pub fn is_new(&self, cursor: &Cursor, stamp: Stamp) -> bool {
        match &cursor.recorded {
            Some(recorded) => recorded.lacks(stamp),
            None => self.newer_than.is_none_or(|newest| stamp > newest),
        }
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
