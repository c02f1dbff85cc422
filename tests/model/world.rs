//! The world around the pollers, and what it makes of a question once it is decided how that ends.

use std::{collections::BTreeSet, sync::Arc};

use iothub_connector::{
    cosmos::Failure,
    delivery::DeliveryError,
    hub::{Message, SendError},
    ledger::{Committed, Fault, LedgerError, Outcome as RecordOutcome, Poll},
};

use crate::{
    backend,
    hub::{Hub, check_sent},
    outcomes::{Outcome, Rest},
    poller::{Answer, Question, Write},
    rules::{Rule, Violation},
    scope::{Budget, Sabotage, Scope},
    store::Store,
    text::Known,
};

#[derive(Clone)]
pub struct World {
    pub scope: Scope,
    pub left: Budget,
    /// Batches of rows that have not appeared yet.
    pub batches: &'static [usize],
    /// Rows in the backend.
    pub produced: usize,
    pub store: Store,
    pub hub: Hub,
    pub turns: u32,
    /// Since the model began.
    pub seconds: i64,
}

/// What the model knows of a poller in its turn, for the rules.
#[derive(Clone, Default, Hash)]
pub struct Facts {
    /// Something was made to go wrong in this turn.
    pub had_fault: bool,
    /// It was told that another poller was faster, and it was true.
    pub lost_race: bool,
    /// What the backend really answered last: how many rows there were, or the kind of the error.
    pub backend: Option<Result<usize, &'static str>>,
    /// Kinds of errors of the backend in this turn.
    pub errors: Vec<&'static str>,
    /// An error that is not recorded yet.
    pub owes_record: Option<&'static str>,
}

impl World {
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            left: scope.budget,
            batches: scope.batches,
            produced: 0,
            store: Store::default(),
            hub: Hub::default(),
            turns: 0,
            seconds: 0,
        }
    }

    fn breaks(&self, sabotage: Sabotage) -> bool {
        self.scope.sabotage == Some(sabotage)
    }

    /// What a poller wants, as it reaches the world; checks what may be wanted.
    pub fn hear(
        &self,
        mut question: Question,
        facts: &mut Facts,
        acknowledged: &BTreeSet<String>,
    ) -> Result<Question, Violation> {
        match &mut question {
            Question::Send(messages) => {
                if self.breaks(Sabotage::ChangesBodies) {
                    for message in &mut *messages {
                        message.body = [&message.body[..], &vec![b' '; self.turns as usize]].concat().into();
                    }
                }
                check_sent(messages, &self.store)?;
            }
            Question::Rows(_) => {
                // Of several pollers each knows but its own cursor.
                let is_full = self.scope.pollers == 1 && self.store.waiting() >= 100;
                Rule::LimitHeeded
                    .check(!is_full, || format!("the backend is asked while {} messages wait", self.store.waiting()))?;
            }
            Question::Commit(write) => {
                check_created(write, facts)?;
                self.check_marks(write, acknowledged)?;
            }
            Question::Cursor | Question::Record(_) => {}
        }
        Ok(question)
    }

    /// What a poller marks must be what the hub told it.
    fn check_marks(&self, write: &Write, acknowledged: &BTreeSet<String>) -> Result<(), Violation> {
        for poll in &write.replaced {
            let id = poll.message_id.as_deref().unwrap_or_default();
            let (rule, is_true) = match poll.outcome {
                RecordOutcome::Forwarded => (Rule::ForwardedMeansAcknowledged, acknowledged.contains(id)),
                RecordOutcome::Rejected => (Rule::InOrder, self.hub.refused.contains(id)),
                _ => (Rule::QueueIsThePending, false),
            };
            rule.check(is_true, || format!("a record is marked {:?}, the hub never said so", poll.outcome))?;
        }
        Ok(())
    }

    /// Does to the world what `outcome` says, and returns what the poller hears of it.
    pub fn answer(
        &mut self,
        question: &Question,
        outcome: Outcome,
        facts: &mut Facts,
        acknowledged: &mut BTreeSet<String>,
    ) -> Result<Answer, Violation> {
        if outcome.is_fault() {
            self.left.faults = self.left.faults.saturating_sub(1);
            facts.had_fault = true;
        }
        Ok(match question {
            Question::Cursor => Answer::Cursor(match outcome {
                Outcome::Fails => Err(away()),
                Outcome::Lags => Ok(match &self.store.previous {
                    Some(previous) => Committed::clone(previous),
                    None => self.store.committed(),
                }),
                _ => {
                    let mut committed = self.store.committed();
                    if self.breaks(Sabotage::HidesWaiting) {
                        committed.cursor.unforwarded.pop();
                    }
                    Ok(committed)
                }
            }),
            Question::Record(id) => Answer::Record(match outcome {
                Outcome::Fails => Err(away()),
                Outcome::Lags => Ok(None),
                _ => Ok(self.store.record(id).map(|record| Poll::clone(&record.poll))),
            }),
            Question::Rows(range) => match outcome {
                Outcome::Trouble(trouble) => {
                    facts.backend = Some(Err(trouble.kind()));
                    facts.errors.push(trouble.kind());
                    facts.owes_record = Some(trouble.kind());
                    let hidden = Ok(b"[]"[..].into());
                    Answer::Rows(if self.breaks(Sabotage::HidesErrors) { hidden } else { backend::answer_in(trouble) })
                }
                _ => {
                    let rows = backend::within(*range, self.produced);
                    facts.backend = Some(Ok(rows.end));
                    Answer::Rows(backend::answer(rows, self.scope.most_rows))
                }
            },
            Question::Commit(write) => Answer::Commit(self.commit(write, outcome, facts)?),
            Question::Send(messages) => {
                let (count, sent) = self.send(messages, outcome)?;
                let ids = messages[..count].iter().map(|message| message.id.clone());
                acknowledged.extend(ids.filter(|id| self.hub.arrived.contains(id)));
                Answer::Sent(count, sent)
            }
        })
    }

    fn commit(
        &mut self,
        write: &Arc<Known<Write>>,
        outcome: Outcome,
        facts: &mut Facts,
    ) -> Result<Result<String, LedgerError>, Violation> {
        let mut write = write.clone();
        if self.breaks(Sabotage::HidesWaiting) {
            let mut whole = Write::clone(&write);
            whole.cursor.unforwarded.extend(self.store.committed().cursor.unforwarded.pop());
            write = Arc::new(whole.into());
        }
        let write = &write;
        match outcome {
            Outcome::Fails => return Ok(Err(in_doubt())),
            Outcome::LandsLater => {
                self.store.on_its_way = Some(write.clone());
                return Ok(Err(in_doubt()));
            }
            Outcome::AnswerLost => {
                self.store.apply(write, self.scope.sabotage)?;
                return Ok(Err(in_doubt()));
            }
            Outcome::ToldAsConflict => {
                self.store.apply(write, self.scope.sabotage)?;
                return Ok(Err(LedgerError::Conflict));
            }
            _ => {}
        }
        if !self.store.takes(write) && !self.breaks(Sabotage::IgnoresIfMatch) {
            facts.lost_race = true;
            let hides = self.breaks(Sabotage::HidesConflicts);
            return Ok(Err(if hides { in_doubt() } else { LedgerError::Conflict }));
        }
        if self.breaks(Sabotage::CommitsLater) {
            self.store.on_its_way = Some(write.clone());
            return Ok(Ok("@promised;".into()));
        }
        Ok(Ok(self.store.apply(write, self.scope.sabotage)?))
    }

    /// How many messages are acknowledged, and why not all.
    fn send(
        &mut self,
        messages: &[Message],
        outcome: Outcome,
    ) -> Result<(usize, Result<(), DeliveryError>), Violation> {
        let refused = messages.iter().position(|message| self.hub.refused.contains(&message.id));
        let (count, ended) = match outcome {
            Outcome::Sends { acknowledged, rest } => (acknowledged, Some(rest)),
            Outcome::Refuses(place) => {
                self.hub.refused.insert(messages[place].id.clone());
                (place, None)
            }
            _ => (refused.unwrap_or(messages.len()), None),
        };
        let mut taken: Vec<_> = messages[..count].iter().map(|message| message.id.as_str()).collect();
        if self.breaks(Sabotage::SwapsMessages) {
            taken.reverse();
        }
        if self.breaks(Sabotage::AcknowledgesNothing) {
            taken.clear();
        }
        for id in taken {
            self.hub.take(id, &self.store)?;
        }
        let cut: Result<(), DeliveryError> = Err(SendError::Cut.into());
        Ok(match ended {
            None if count == messages.len() => (count, Ok(())),
            None => (count, Err(SendError::Rejected { status: 400, text: String::new() }.into())),
            Some(Rest::Lost) => (count, cut),
            Some(Rest::OneArrives) => {
                self.hub.take(&messages[count].id, &self.store)?;
                (count, cut)
            }
            Some(Rest::ArrivesLater) => {
                self.hub.on_their_way = messages[count..].iter().map(|message| message.id.clone()).collect();
                (count, Err(SendError::TimedOut.into()))
            }
        })
    }
}

/// What a poller records must be true, as far as it can know.
fn check_created(write: &Write, facts: &mut Facts) -> Result<(), Violation> {
    for poll in &write.created {
        let newest = write.cursor.last_value_from;
        let is_true = match (poll.outcome, facts.backend) {
            (RecordOutcome::Empty, Some(Ok(rows))) => {
                rows == 0 || newest.is_some_and(|newest| newest >= backend::stamp(rows - 1).time())
            }
            (RecordOutcome::Pending, Some(Ok(_))) => true,
            (RecordOutcome::Failed, Some(Err(kind))) => {
                facts.owes_record = None;
                let is_told = |fault: &Option<Fault>| fault.as_ref().is_some_and(|fault| fault.kind == kind);
                is_told(&poll.error) && is_told(&write.cursor.last_error)
            }
            // The note in place of a record that could not be read.
            (RecordOutcome::Rejected, _) => true,
            _ => false,
        };
        Rule::FailureIsNotEmpty.check(is_true, || {
            format!("{:?} is recorded ({:?}), the backend answered {:?}", poll.outcome, poll.error, facts.backend)
        })?;
    }
    Ok(())
}

fn away() -> LedgerError {
    Failure::Unreachable("the model's ledger".into()).into()
}

fn in_doubt() -> LedgerError {
    Failure::Timeout.into()
}
