//! Records what the model knows about a poller's turn, and checks what the poller may write.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use iothub_connector::rapidm2m::{
    ledger::{Fault, Outcome, Poll},
    polling::record,
};

use crate::{
    backend,
    hub::Hub,
    late::lacks,
    poller::Write,
    rules::{Rule, Violation},
    store::Store,
    text::Known,
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
    pub backend: Option<Result<Vec<usize>, &'static str>>,
    /// The kinds of the backend's errors in this turn.
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
        [has_record, has_record && write.cursor == store.committed().cursor]
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
            let newest = write.cursor.last_value_from;
            let is_known = |row: &usize| match &write.cursor.recorded {
                Some(list) => !lacks(list, *row),
                None => newest.is_some_and(|newest| newest >= backend::stamp(*row).time()),
            };
            let is_true = match (poll.outcome, &self.backend) {
                (Outcome::Empty, Some(Ok(rows))) => rows.iter().all(is_known),
                (Outcome::Pending, Some(Ok(_))) => true,
                (Outcome::Failed, Some(Err(kind))) => {
                    self.owes_record = None;
                    let is_told =
                        |fault: &Option<Fault>| fault.as_ref().is_some_and(|fault| fault.kind.as_str() == *kind);
                    is_told(&poll.error) && is_told(&write.cursor.last_error)
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

/// Checks that the poller marks only what the hub reported.
pub fn check_marks(write: &Write, acknowledged: &BTreeSet<String>, hub: &Hub) -> Result<(), Violation> {
    for poll in &write.replaced {
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
