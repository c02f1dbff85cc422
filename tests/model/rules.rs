//! Lists the rules that must hold (`ARCHITECTURE.md`), as the model checks them.

use std::fmt;

/// One rule. The numbers 1 to 7 are those of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 1: a row is recorded before it is sent. The cursor moves only together with the records of the rows before it,
    /// and each row is in exactly one record.
    RecordedBeforeSent,
    /// 2: a poller writes `forwarded` only if the hub has acknowledged exactly that message to it.
    ForwardedMeansAcknowledged,
    /// 3: what is sent is what is recorded, byte for byte, at every attempt.
    SameBytes,
    /// 4: messages arrive in the order of their rows. Nothing overtakes a pending message. `rejected` means that the
    /// hub refused it.
    InOrder,
    /// 5: a poller that lost a race has written nothing, and does not count that as a failure.
    LoserWritesNothing,
    /// 6: a failure is recorded as a failure with its kind, or is in the report. It never looks like "no data".
    FailureIsNotEmpty,
    /// 7: while the limit of pending messages is reached, the backend is not polled.
    LimitHeeded,
    /// `Unforwarded` holds the ids of the pending records, in their order.
    QueueIsThePending,
    /// With an overlap: a row that came within reach is in exactly one record; a row that is older than the list is in
    /// none.
    OnceWithinReach,
    /// With an overlap: the cursor's list says of each stamp since `Since` whether it is recorded.
    ListIsTheRecorded,
    /// With an overlap: a value that changed within reach is recorded once more, as a correction. A correction holds nothing
    /// else, and the last recorded value is the one that the backend has.
    CorrectedOnce,
    /// With an overlap: an unusable row is counted once, by records and cursor, and holds up no other row.
    CountedOnce,
    /// A message says what the site was called when its turn began, and the cursor says so since the same moment.
    NamesItsSite,
    /// A site that is not listed is not polled. The cursor says since when: in a transaction of its own, once until the
    /// site is polled again.
    GoneOnce,
    /// Wherever everything stops: one undisturbed turn of a new poller forwards all rows and leaves nothing pending.
    OneTurnSettles,
    /// The code does not panic, whatever the world answers.
    NoPanic,
}

/// A broken rule, and the details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl Rule {
    /// # Errors
    /// The violation, described by `what`, unless `holds` is true.
    pub fn check(self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { Err(Violation { rule: self, what: what() }) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} does not hold: {}", self.rule, self.what)
    }
}
