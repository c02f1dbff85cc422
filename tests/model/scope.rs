//! Defines the size of a space, and which faults of the world are made on purpose.

use std::collections::BTreeSet;

use iothub_connector::rapidm2m::ledger::{Cursor, Recorded, Unforwarded};

use crate::{backend::Value, corrections, listing::Listing, unusable};

/// The bounds of a space. Anything that has no bound here may happen any number of times: turns, empty polls, lost
/// races.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub pollers: usize,
    /// The number of pending messages at the start, with one row each. Their rows are the first ones that are in no
    /// batch.
    pub backlog: usize,
    /// The rows appear in the backend in these batches, each at any moment. With an overlap the batches also come in
    /// any order, which makes rows late. Without an overlap the row numbers must follow the order of arrival.
    pub batches: &'static [&'static [usize]],
    /// Of the rows in batches, those that cannot be used.
    pub nonsense: &'static [usize],
    /// Rows get other values, one after the other, each at any moment when the row is there.
    pub changes: &'static [(usize, Value)],
    /// What later runs are told of the site, one after the other, each from any moment on.
    pub listings: &'static [Listing],
    /// How far back the poller looks for late rows, in seconds; that is the same number of rows.
    pub overlap: Option<u8>,
    pub budget: Budget,
    /// An answer with more rows than this is too large. The poller then requests shorter ranges, several times in a
    /// turn.
    pub most_rows: usize,
    /// The answers that the backend may give instead of rows.
    pub troubles: &'static [Trouble],
    /// The hub accepts nothing from the start, and nothing else goes wrong.
    pub hub_is_away: bool,
    /// A small record stays in the cursor until it is marked.
    pub keeps_records: bool,
    pub sabotage: Option<Sabotage>,
}

/// How often each thing may still go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Errors of the backend and the ledger, stale reads, commits in doubt or told as conflicts, failed and refused messages.
    pub faults: u8,
    /// Ends of a process or of a turn, at any point.
    pub crashes: u8,
    /// Turns that begin when the time for polling is already over.
    pub late_turns: u8,
    /// Pauses longer than the back-off that the backend requests.
    pub pauses: u8,
}

impl Scope {
    /// The rows that cannot be used at some time.
    pub fn unusable(&self) -> BTreeSet<usize> {
        let changes = self.changes.iter().filter(|(_, value)| *value == Value::Nonsense);
        self.nonsense.iter().copied().chain(changes.map(|(row, _)| *row)).collect()
    }
}

impl Budget {
    pub const NONE: Self = Self { faults: 0, crashes: 0, late_turns: 0, pauses: 0 };
}

/// An answer of the backend instead of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Status,
    Html,
    BadRows,
    Throttled,
    Unauthorized,
}

impl Trouble {
    /// Whether the site is left alone for a while.
    pub fn makes_back_off(self) -> bool {
        matches!(self, Self::Throttled | Self::Unauthorized)
    }

    /// The kind that the record and the report must contain.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Status => "http_status",
            Self::Html => "html",
            Self::BadRows => "bad_rows",
            Self::Throttled => "rate_limited",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// A world that breaks a promise that a rule depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A commit is answered before it is applied.
    CommitsLater,
    /// The cursor is written, the records are not.
    CursorWithoutRecords,
    /// Messages are acknowledged and discarded.
    AcknowledgesNothing,
    /// A message has different bytes each time it is sent.
    ChangesBodies,
    /// Messages that are sent together arrive in reverse order.
    SwapsMessages,
    /// The cursor's ETag is not checked.
    IgnoresIfMatch,
    /// A conflict is reported as another error.
    HidesConflicts,
    /// An error of the backend is reported as an answer without rows.
    HidesErrors,
    /// The cursor is read without its pending ids (which are put back, as the first ones, when the cursor is written).
    HidesWaiting,
    /// The cursor is written without its list of recorded rows.
    DropsList,
    /// The cursor is read without its list of recorded rows.
    HidesList,
    /// The cursor is read with an empty list of recorded rows.
    EmptiesList,
    /// The cursor is read without the values of the recorded rows.
    ForgetsValues,
    /// The cursor is read with another value of its newest row, if no message waits.
    MistakesValue,
    /// The cursor is read without its list of unusable rows.
    ForgetsUnusable,
    /// The backend leaves unusable rows out.
    HidesUnusable,
    /// Each run takes the site by its first name.
    HidesRenames,
    /// A record is read under the site's name of today.
    RenamesRecords,
    /// The cursor is read without the note that the site is gone.
    ForgetsGone,
    /// The cursor is written without the record that it keeps.
    DropsRecord,
    /// The cursor is read without the record that it keeps, and as if it kept none.
    HidesRecord,
    /// A field that is absent when the cursor is written keeps its value: that the site is gone stays in it.
    KeepsGone,
}

impl Sabotage {
    /// Changes the cursor that a reader gets.
    pub fn falsify(self, cursor: &mut Cursor) {
        match self {
            Self::HidesWaiting => cursor.unforwarded = Unforwarded::default(),
            Self::HidesRecord => {
                cursor.record = None;
                cursor.unforwarded = cursor.unforwarded.to_vec().into();
            }
            Self::HidesList => cursor.recorded = None,
            Self::ForgetsGone => cursor.gone_since = None,
            Self::ForgetsValues => corrections::forget_values(cursor),
            Self::MistakesValue => corrections::mistake_value(cursor),
            Self::ForgetsUnusable => unusable::forget(cursor),
            Self::EmptiesList => {
                cursor.recorded = cursor.recorded.take().map(|list| Recorded::starting(list.since()));
            }
            _ => {}
        }
    }
}
