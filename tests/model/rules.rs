//! What must hold (`ARCHITECTURE.md`), as the model checks it.

use std::fmt;

/// One rule. The numbers 1 to 7 are those of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 1: a row is recorded before it is sent; the cursor moves only with the records behind it, each row in exactly one.
    RecordedBeforeSent,
    /// 2: `forwarded` is written by whom the hub acknowledged exactly that message.
    ForwardedMeansAcknowledged,
    /// 3: what is sent is what is recorded, byte for byte, however often.
    SameBytes,
    /// 4: messages arrive in the order of their rows; nothing overtakes what waits; `rejected` is what the hub refused.
    InOrder,
    /// 5: who lost a race has written nothing, and does not count it as a failure.
    LoserWritesNothing,
    /// 6: a failure is recorded as one, with its kind, or is in the report. It never looks like "no data".
    FailureIsNotEmpty,
    /// 7: with the limit's worth of messages waiting, the backend is not asked.
    LimitHeeded,
    /// `Unforwarded` holds the ids of the pending records, in their order.
    QueueIsThePending,
    /// With an overlap: a row that came within reach is in exactly one record, one that is older than the list in none.
    OnceWithinReach,
    /// With an overlap: the cursor's list says of each stamp since `Since` whether it is recorded.
    ListIsTheRecorded,
    /// Wherever everything stops: one undisturbed turn of a new poller forwards all rows and leaves nothing waiting.
    OneTurnSettles,
    /// Whatever the world answers.
    NoPanic,
}

/// A rule that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl Rule {
    /// # Errors
    /// `what`, unless `holds`.
    pub fn check(self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { Err(Violation { rule: self, what: what() }) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} does not hold: {}", self.rule, self.what)
    }
}
