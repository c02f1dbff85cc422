//! How large a space is tried, and what of the world is broken on purpose.

use iothub_connector::ledger::{Cursor, Recorded};

/// The bounds of a space. What is not bounded here may happen any number of times: turns, empty polls, lost races.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub pollers: usize,
    /// Messages that are recorded and wait when it begins, of one row each: the first ones that are in no batch.
    pub backlog: usize,
    /// Rows appear in the backend in these batches, each at any moment; with an overlap also in any order, which makes rows
    /// late. Without one a row's number is its place.
    pub batches: &'static [&'static [usize]],
    /// How far late rows are looked for, in seconds: as many rows.
    pub overlap: Option<u8>,
    pub budget: Budget,
    /// An answer with more rows than this is too large: the poller asks for less, several times in a turn.
    pub most_rows: usize,
    /// What the backend may answer instead of rows.
    pub troubles: &'static [Trouble],
    /// The faults are that the hub takes nothing, from the beginning, and nothing else goes wrong.
    pub hub_is_away: bool,
    pub sabotage: Option<Sabotage>,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Errors of the backend and the ledger, stale reads, commits in doubt or told as conflicts, failed and refused messages.
    pub faults: u8,
    /// Ends of a process, or of a turn, anywhere.
    pub crashes: u8,
    /// Turns that begin when the time for asking is over.
    pub late_turns: u8,
    /// Pauses that outlast what the backend asks for.
    pub pauses: u8,
}

impl Budget {
    pub const NONE: Self = Self { faults: 0, crashes: 0, late_turns: 0, pauses: 0 };
}

/// What the backend answers instead of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Status,
    Html,
    BadRows,
    Throttled,
    Unauthorized,
}

impl Trouble {
    /// What the record and the report must call it.
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

/// A world that breaks a promise on which a rule rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A commit is answered before it is applied.
    CommitsLater,
    /// The cursor is written, the records are not.
    CursorWithoutRecords,
    /// Messages are acknowledged and thrown away.
    AcknowledgesNothing,
    /// A message has other bytes each time it is sent.
    ChangesBodies,
    /// Messages that are sent together arrive in reverse.
    SwapsMessages,
    /// The cursor's ETag is not looked at.
    IgnoresIfMatch,
    /// A conflict is told as some other error.
    HidesConflicts,
    /// An error of the backend is told as an answer without rows.
    HidesErrors,
    /// The cursor is read without the last id that waits (which is put back when it is written).
    HidesWaiting,
    /// The cursor is written without its list of recorded rows.
    DropsList,
    /// The cursor is read without its list of recorded rows.
    HidesList,
    /// The cursor is read with a list that knows of nothing recorded.
    EmptiesList,
}

impl Sabotage {
    /// What a reader is told instead of the cursor.
    pub fn falsify(self, cursor: &mut Cursor) {
        match self {
            Self::HidesWaiting => drop(cursor.unforwarded.pop()),
            Self::HidesList => cursor.recorded = None,
            Self::EmptiesList => {
                cursor.recorded = cursor.recorded.take().map(|list| Recorded::starting(list.since()));
            }
            _ => {}
        }
    }
}
