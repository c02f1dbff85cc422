//! What the model knows of a poller in its turn, and what a poller may write, knowing that.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use iothub_connector::{
    forward::record,
    ledger::{Fault, Outcome, Poll},
};

use crate::{
    backend,
    hub::Hub,
    poller::Write,
    rules::{Rule, Violation},
    store::Store,
    text::Known,
};

/// What the model knows of a poller in its turn, for the rules.
#[derive(Clone, Default, Hash)]
pub struct Facts {
    /// Something was made to go wrong in this turn.
    pub had_fault: bool,
    /// It was told that a transaction came too late, and has not looked yet whose fault that was.
    pub refused: Refused,
    /// It was told that another poller was faster, and it was true.
    pub lost_race: bool,
    /// What the backend really answered last: the rows that are known to whoever says that nothing was new, or the kind of
    /// the error.
    pub backend: Option<Result<Vec<usize>, &'static str>>,
    /// Kinds of errors of the backend in this turn.
    pub errors: Vec<&'static str>,
    /// An error that is not recorded yet.
    pub owes_record: Option<&'static str>,
}

/// A transaction that was refused. It follows from what the poller remembers and has heard; what else matters of it is in
/// [`Refused::stands`].
#[derive(Clone, Default)]
pub struct Refused(pub Option<Arc<Known<Write>>>);

impl Hash for Refused {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.is_some().hash(hasher);
    }
}

impl Refused {
    /// The record by which it is looked for.
    pub fn record(&self) -> Option<&Poll> {
        let write = self.0.as_ref()?;
        record::witness(&write.created, &write.replaced)
    }

    /// Whether the record is in the ledger as it wanted it, and the cursor too: what a poller will find. Of one whose record is
    /// not, nobody looks at the cursor.
    pub fn stands(&self, store: &Store) -> [bool; 2] {
        let Some(write) = &self.0 else { return [false; 2] };
        let has_record =
            self.record().is_none_or(|poll| store.poll(&poll.id).is_some_and(|found| record::is_same(found, poll)));
        [has_record, has_record && write.cursor == store.committed().cursor]
    }
}

impl Facts {
    /// It is told that a transaction came too late. Whose fault that was it can find out, or not.
    pub fn is_refused(&mut self, write: &Arc<Known<Write>>) {
        let can_tell = write.replaced.is_empty() || record::witness(&write.created, &write.replaced).is_some();
        self.refused = Refused(can_tell.then(|| write.clone()));
        self.lost_race |= !can_tell;
    }

    /// After a refusal it looks for one of the records: its own, or another poller's, or none.
    pub fn sees_record(&mut self, store: &Store) {
        let [has_record, _] = self.refused.stands(store);
        if self.refused.0.is_some() && !has_record {
            self.lost_race = true;
            self.refused = Refused::default();
        }
    }

    /// Then it reads the cursor: what it wrote, or what another poller has written since.
    pub fn sees_cursor(&mut self, store: &Store) {
        let [_, has_cursor] = self.refused.stands(store);
        self.lost_race |= self.refused.0.is_some() && !has_cursor;
        self.refused = Refused::default();
    }

    /// What a poller records must be true, as far as it can know.
    pub fn check_created(&mut self, write: &Write) -> Result<(), Violation> {
        for poll in &write.created {
            let newest = write.cursor.last_value_from;
            let is_known = |row: &usize| match &write.cursor.recorded {
                Some(list) => !list.lacks(backend::stamp(*row)),
                None => newest.is_some_and(|newest| newest >= backend::stamp(*row).time()),
            };
            let is_true = match (poll.outcome, &self.backend) {
                (Outcome::Empty, Some(Ok(rows))) => rows.iter().all(is_known),
                (Outcome::Pending, Some(Ok(_))) => true,
                (Outcome::Failed, Some(Err(kind))) => {
                    self.owes_record = None;
                    let is_told = |fault: &Option<Fault>| fault.as_ref().is_some_and(|fault| fault.kind == *kind);
                    is_told(&poll.error) && is_told(&write.cursor.last_error)
                }
                // The note in place of a record that could not be read.
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

/// What a poller marks must be what the hub told it.
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
