//! Records what the model knows about a poller's turn, and checks what the poller may write.

use std::collections::BTreeSet;

use iothub_connector::rapidm2m::ledger::{Fault, Outcome};

use crate::{
    backend,
    hub::Hub,
    poller::Write,
    rules::{Rule, Violation},
};

/// What the model knows about a poller's turn, for the rules.
#[derive(Clone, Default, Hash)]
pub struct Facts {
    /// The model caused a fault in this turn.
    pub had_fault: bool,
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

impl Facts {
    /// Checks that a new record is true, as far as the poller can know.
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
