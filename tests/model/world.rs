//! The world around the pollers: it applies the outcome of each question.

use std::{collections::BTreeSet, sync::Arc};

use iothub_connector::{
    cosmos::Failure,
    iot_hub::{Message, SendError, delivery::DeliveryError},
    rapidm2m::ledger::{Committed, LedgerError, Poll},
};

use crate::{
    backend,
    facts::{Facts, Refused, check_marks},
    hub::{Hub, check_sent},
    late,
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
    pub batches: Vec<&'static [usize]>,
    /// Rows in the backend.
    pub rows: BTreeSet<usize>,
    /// With an overlap: rows that came within reach and are not recorded.
    pub owed: BTreeSet<usize>,
    pub store: Store,
    pub hub: Hub,
    pub turns: u32,
    /// Seconds since the model began.
    pub seconds: i64,
}

impl World {
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            left: scope.budget,
            batches: scope.batches.to_vec(),
            rows: BTreeSet::new(),
            owed: BTreeSet::new(),
            store: Store::default(),
            hub: Hub::default(),
            turns: 0,
            seconds: 0,
        }
    }

    fn breaks(&self, sabotage: Sabotage) -> bool {
        self.scope.sabotage == Some(sabotage)
    }

    /// Takes a poller's question when it reaches the world, and checks that the poller may ask it.
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
                // With several pollers, each knows only its own cursor, so the limit is checked with one poller only.
                let is_full = self.scope.pollers == 1 && self.store.waiting() >= 100;
                Rule::LimitHeeded
                    .check(!is_full, || format!("the backend is asked while {} messages wait", self.store.waiting()))?;
            }
            Question::Commit(write) => {
                facts.check_created(write)?;
                check_marks(write, acknowledged, &self.hub)?;
            }
            Question::Cursor | Question::Record(_) => {}
        }
        Ok(question)
    }

    /// Applies `outcome` to the world and returns the poller's answer.
    pub fn answer(
        &mut self,
        question: &Question,
        outcome: Outcome,
        facts: &mut Facts,
        acknowledged: &mut BTreeSet<String>,
    ) -> Result<Answer, Violation> {
        if outcome.is_fault() {
            self.left.faults = self.left.faults.saturating_sub(1);
            // A conflict of the poller with itself must make no difference to the turn.
            facts.had_fault |= outcome != Outcome::ToldAsConflict;
            facts.refused = Refused::default();
        }
        Ok(match question {
            Question::Cursor => Answer::Cursor(match outcome {
                Outcome::Fails => Err(away()),
                Outcome::Lags => Ok(match &self.store.previous {
                    Some(previous) => Box::new(Committed::clone(previous)),
                    None => Box::new(self.store.committed()),
                }),
                _ => {
                    let mut committed = self.store.committed();
                    facts.sees_cursor(&self.store);
                    if let Some(sabotage) = self.scope.sabotage {
                        sabotage.falsify(&mut committed.cursor);
                    }
                    Ok(Box::new(committed))
                }
            }),
            Question::Record(id) => Answer::Record(match outcome {
                Outcome::Fails => Err(away()),
                Outcome::Lags => Ok(None),
                _ => {
                    facts.sees_record(&self.store);
                    Ok(self.store.poll(id).map(|poll| Box::new(Poll::clone(poll))))
                }
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
                    let rows = backend::within(*range, &self.rows);
                    let answer = backend::answer(&rows, self.scope.most_rows);
                    // The rows before a window are known, except late ones, which the next sweep finds.
                    let is_part = self.scope.overlap.is_some() && self.scope.most_rows < usize::MAX;
                    let known = if is_part { rows } else { backend::up_to_end(*range, &self.rows) };
                    facts.backend = Some(Ok(known));
                    Answer::Rows(answer)
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

    /// A batch of rows appears.
    pub fn produce(&mut self, batch: usize) {
        let batch = self.batches.remove(batch);
        self.owed.extend(late::within_reach(batch, &self.rows, self.scope.overlap));
        self.rows.extend(batch);
    }

    /// Applies a transaction; returns the cursor's new ETag.
    pub fn apply(&mut self, write: &Write) -> Result<String, Violation> {
        let etag = self.store.apply(write, &self.scope)?;
        late::settle_debts(&mut self.owed, &self.store)?;
        Ok(etag)
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
                self.apply(write)?;
                return Ok(Err(in_doubt()));
            }
            Outcome::ToldAsConflict => {
                self.apply(write)?;
                facts.is_refused(write);
                return Ok(Err(LedgerError::Conflict));
            }
            _ => {}
        }
        if !self.store.takes(write) && !self.breaks(Sabotage::IgnoresIfMatch) {
            if self.breaks(Sabotage::HidesConflicts) {
                facts.lost_race = true;
                return Ok(Err(in_doubt()));
            }
            facts.is_refused(write);
            return Ok(Err(LedgerError::Conflict));
        }
        if self.breaks(Sabotage::CommitsLater) {
            self.store.on_its_way = Some(write.clone());
            return Ok(Ok("@promised;".into()));
        }
        Ok(Ok(self.apply(write)?))
    }

    /// How many messages are acknowledged, and why not all are.
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

fn away() -> LedgerError {
    Failure::Unreachable("the model's ledger".into()).into()
}

fn in_doubt() -> LedgerError {
    Failure::Timeout.into()
}
