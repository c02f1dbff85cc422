//! What to ask the backend for next, and which rows of its answer are new. Pure.

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
    /// Rows up to this are known, where the cursor does not say it better.
    newer_than: Option<Stamp>,
}

impl Plan {
    pub fn new(cursor: &Cursor, start_from: StartFrom, memory: &SiteMemory, now: Stamp) -> Self {
        let search = &memory.search;
        let newest = cursor.last_value_from.map(Stamp::from_time);
        match (newest, &cursor.recorded) {
            (Some(newest), None) => Self::window(search, newest, Some(newest), now),
            // From where rows may still be late; or, if one answer does not hold all since then, from where the last one ended.
            (Some(newest), Some(recorded)) => {
                let from = memory.swept.map_or(recorded.since(), |swept| swept.max(recorded.since()));
                Self::window(search, from, Some(newest), now)
            }
            (None, _) => Self::first(cursor, start_from, search, now),
        }
    }

    fn first(cursor: &Cursor, start_from: StartFrom, search: &Search, now: Stamp) -> Self {
        match start_from {
            // Asked before and there was nothing: whatever comes now is new, however many rows and however late.
            StartFrom::Youngest if cursor.scanned_until.is_some() => Self::window(search, Stamp::BEGINNING, None, now),
            StartFrom::Youngest => {
                Self { range: Range::Youngest, from: Stamp::BEGINNING, window: None, newer_than: None }
            }
            StartFrom::All => Self::window(search, Stamp::BEGINNING, None, now),
            StartFrom::At(time) => {
                // The bound itself may or may not be part of the window: ask for a little more, keep what was meant.
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

    /// Whether a row lies behind the beginning of the window: only such rows say anything about how dense rows are.
    pub fn is_beyond(&self, stamp: Stamp) -> bool {
        self.newer_than.is_none() || stamp > self.from
    }

    /// What is known of late rows when the first ones are recorded: where the user begins, there begins what can be late.
    pub fn first_recorded(&self, oldest: Stamp) -> Recorded {
        let since = match (self.newer_than, &self.range) {
            (Some(before), _) => before.shifted(1),
            (None, Range::Youngest) => oldest,
            (None, Range::Window { from, .. }) => oldest.min(*from),
        };
        Recorded::starting(since)
    }
}
