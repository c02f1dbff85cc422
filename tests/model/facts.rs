//! Records what the model knows about a poller's turn, and checks what the poller may write.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use iothub_connector::rapidm2m::{
    ledger::{Cursor, Fault, Outcome, Poll, Seen},
    polling::{Failure, Report, record},
};

use crate::{
    backend::{Row, stamp},
    corrections::seen,
    hub::Hub,
    poller::Write,
    rules::{Rule, Violation},
    store::Store,
    text::Known,
    unusable,
};

/// What the model knows about a poller's turn, for the rules.
#[derive(Clone, Default, Hash)]
pub struct Facts {
    /// The model caused a fault in this turn.
    pub had_fault: bool,
    /// A transaction that was refused, until the poller knows why.
    pub refused: Refused,
    /// The poller was told that another poller was faster, and that was true.
    pub lost_race: bool,
    /// The backend's real last answer: the rows that must be known if the poller says that nothing is new, or the kind
    /// of the error.
    pub backend: Option<Result<Vec<Row>, &'static str>>,
    /// The kinds of the backend's errors in this turn, and of a poll that brought nothing new but unusable rows.
    pub errors: Vec<&'static str>,
    /// An error that is not recorded yet.
    pub owes_record: Option<&'static str>,
}

/// A refused transaction. It follows from what the poller remembers and has heard, so only its presence is hashed; what else
/// makes states different is [`Refused::stands`].
#[derive(Clone, Default)]
pub struct Refused(pub Option<Arc<Known<Write>>>);

impl Hash for Refused {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.is_some().hash(hasher);
    }
}

impl Refused {
    /// The record by which the poller recognises it.
    pub fn record(&self) -> Option<&Poll> {
        let write = self.0.as_ref()?;
        record::witness(&write.created, &write.replaced)
    }

    /// Whether the ledger has the record as it was written, and then also the cursor. If the record is not there, the poller
    /// does not compare the cursors.
    pub fn stands(&self, store: &Store) -> [bool; 2] {
        let Some(write) = &self.0 else { return [false; 2] };
        let has_record =
            self.record().is_none_or(|poll| store.poll(&poll.id).is_some_and(|found| record::is_same(found, poll)));
        [has_record, has_record && write.cursor.is_like(&store.committed().cursor)]
    }
}

impl Facts {
    /// The poller is told that a transaction was refused. It can find out why, unless two pollers write the same.
    pub fn is_refused(&mut self, write: &Arc<Known<Write>>) {
        let can_tell = write.replaced.is_empty() || record::witness(&write.created, &write.replaced).is_some();
        self.refused = Refused(can_tell.then(|| write.clone()));
        self.lost_race |= !can_tell;
    }

    /// After a refusal the poller first looks for one of its records.
    pub fn sees_record(&mut self, store: &Store) {
        let [has_record, _] = self.refused.stands(store);
        if self.refused.0.is_some() && !has_record {
            self.lost_race = true;
            self.refused = Refused::default();
        }
    }

    /// Then it reads the cursor, which another poller may have changed since.
    pub fn sees_cursor(&mut self, store: &Store) {
        let [_, has_cursor] = self.refused.stands(store);
        self.lost_race |= self.refused.0.is_some() && !has_cursor;
        self.refused = Refused::default();
    }

    /// Checks that a new record is true, as far as the poller can know.
    pub fn check_created(&mut self, write: &Write) -> Result<(), Violation> {
        for poll in &write.created {
            let is_known = |row: &Row| is_known(&write.cursor, *row);
            let is_true = match (poll.outcome, &self.backend) {
                (Outcome::Empty, Some(Ok(rows))) => rows.iter().all(is_known),
                (Outcome::Pending, Some(Ok(_))) => true,
                // The cursor kept it: the store compares the two.
                (Outcome::Forwarded, _) => true,
                (Outcome::Failed, Some(Err(kind))) => {
                    self.owes_record = None;
                    let is_told =
                        |fault: &Option<Fault>| fault.as_ref().is_some_and(|fault| fault.kind.as_str() == *kind);
                    is_told(&poll.error) && is_told(&write.cursor.last_error)
                }
                // Nothing new but unusable rows.
                (Outcome::Failed, Some(Ok(rows))) => {
                    self.errors.push("bad_rows");
                    let is_told = |fault: &Fault| fault.kind.as_str() == "bad_rows";
                    poll.error.as_ref().is_some_and(is_told) && rows.iter().all(is_known)
                }
                // The note that replaces a record that could not be read.
                (Outcome::Rejected, _) => true,
                _ => false,
            };
            Rule::FailureIsNotEmpty.check(is_true, || {
                format!("{:?} is recorded ({:?}), the backend answered {:?}", poll.outcome, poll.error, self.backend)
            })?;
        }
        Ok(())
    }
}

/// Whether a cursor says that a row needs no attention any more.
fn is_known(cursor: &Cursor, row: Row) -> bool {
    match &cursor.recorded {
        Some(list) if row.is_usable() => seen(list, row) == Seen::Known,
        Some(list) => unusable::is_told(list, row.number),
        None => cursor.last_value_from.is_some_and(|newest| newest >= stamp(row.number).time()),
    }
}

/// Checks that a report tells what happened, and nothing else.
pub fn check_report(report: &Report, facts: &Facts) -> Result<(), Violation> {
    let told: Vec<_> = report.failures.iter().filter(|failure| !failure.is_known).collect();
    if !facts.had_fault {
        let rule = if facts.lost_race { Rule::LoserWritesNothing } else { Rule::OneTurnSettles };
        let is_right = |failure: &&Failure| facts.errors.contains(&failure.kind.as_str());
        rule.check(told.iter().all(is_right), || format!("a turn in which nothing went wrong reports {told:?}"))?;
        Rule::LoserWritesNothing.check(report.lost_race == facts.lost_race, || {
            format!("the race was lost: {}, the report says {}", facts.lost_race, report.lost_race)
        })?;
    }
    // Nothing in the model deletes records. A record that a read has not found yet is not lost.
    Rule::LoserWritesNothing.check(told.iter().all(|failure| failure.kind.as_str() != "record_lost"), || {
        format!("a record that is there is told to be lost: {told:?}")
    })?;
    for kind in &facts.errors {
        Rule::FailureIsNotEmpty.check(told.iter().any(|failure| failure.kind.as_str() == *kind), || {
            format!("the backend's error {kind} is not in the report: {told:?}")
        })?;
    }
    Rule::FailureIsNotEmpty.check(facts.owes_record.is_none(), || {
        format!("no record of the backend's error {:?} was written or tried", facts.owes_record)
    })
}

/// Checks that the poller marks only what the hub reported.
pub fn check_marks(write: &Write, acknowledged: &BTreeSet<String>, hub: &Hub) -> Result<(), Violation> {
    // A record that the cursor kept becomes a document. (A note has no message.)
    let kept = write.created.iter().filter(|poll| poll.outcome != Outcome::Pending && poll.message_id.is_some());
    for poll in write.replaced.iter().chain(kept) {
        let id = poll.message_id.as_deref().unwrap_or_default();
        let (rule, is_true) = match poll.outcome {
            Outcome::Forwarded => (Rule::ForwardedMeansAcknowledged, acknowledged.contains(id)),
            Outcome::Rejected => (Rule::InOrder, hub.refused.contains(id)),
            _ => (Rule::QueueIsThePending, false),
        };
        rule.check(is_true, || format!("a record is marked {:?}, the hub never said so", poll.outcome))?;
    }
    Ok(())
}
