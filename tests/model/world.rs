//! The world around the pollers: it applies the outcome of each question.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use iothub_connector::{
    cosmos::Failure,
    rapidm2m::ledger::{Committed, LedgerError, Poll},
};

use crate::{
    backend::{self, Rows, Value},
    corrections,
    facts::{Facts, Refused, check_marks},
    hub::{Hub, check_sent},
    late,
    listing::{LISTED, Listing, site_called},
    outcomes::Outcome,
    poller::{Answer, Question, Start, Write},
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
    pub rows: Rows,
    /// Changes of values that are still to come.
    pub changes: &'static [(usize, Value)],
    /// What a run is told of the site now, and what later ones are told.
    pub listing: Listing,
    pub listings: &'static [Listing],
    /// With an overlap: rows that came within reach and are not recorded.
    pub owed: BTreeSet<usize>,
    /// With an overlap: rows whose value changed within reach and is not recorded.
    pub changed: BTreeSet<usize>,
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
            rows: BTreeMap::new(),
            changes: scope.changes,
            listing: LISTED,
            listings: scope.listings,
            owed: BTreeSet::new(),
            changed: BTreeSet::new(),
            store: Store::default(),
            hub: Hub::default(),
            turns: 0,
            seconds: 0,
        }
    }

    pub fn breaks(&self, sabotage: Sabotage) -> bool {
        self.scope.sabotage == Some(sabotage)
    }

    /// Takes a poller's question when it reaches the world, and checks that the poller may ask it.
    pub fn hear(
        &self,
        mut question: Question,
        start: Start,
        facts: &mut Facts,
        acknowledged: &BTreeSet<String>,
    ) -> Result<Question, Violation> {
        start.listing.check_question(&question, |poll| self.store.record(&poll.id).is_none())?;
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
                    let mut poll = self.store.poll(id).map(|poll| Box::new(Poll::clone(poll)));
                    if let (Some(poll), true) = (&mut poll, self.breaks(Sabotage::RenamesRecords)) {
                        poll.site_name = site_called(self.listing.name).other_name().cloned();
                    }
                    Ok(poll)
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
                    let mut given = rows.clone();
                    given.retain(|row| row.is_usable() || !self.breaks(Sabotage::HidesUnusable));
                    let answer = backend::answer(&given, self.scope.most_rows);
                    // The rows before a window are known, except late ones, which the next sweep finds.
                    let is_part = self.scope.overlap.is_some() && self.scope.most_rows < usize::MAX;
                    let known = if is_part { rows } else { backend::up_to_end(*range, &self.rows) };
                    facts.backend = Some(Ok(known));
                    Answer::Rows(answer)
                }
            },
            Question::Commit(write) => Answer::Commit(self.commit(write, outcome, facts)?),
            Question::Send(messages) => {
                let (count, sent) = self.hub.send(messages, outcome, &self.scope, &self.store)?;
                let ids = messages[..count].iter().map(|message| message.id.clone());
                acknowledged.extend(ids.filter(|id| self.hub.arrived.contains(id)));
                Answer::Sent(count, sent)
            }
        })
    }

    /// Applies a transaction; returns the cursor's new ETag.
    pub fn apply(&mut self, write: &Write) -> Result<String, Violation> {
        let etag = self.store.apply(write, &self.scope)?;
        late::settle_debts(&mut self.owed, &self.store)?;
        corrections::settle_debts(&mut self.changed, &self.rows, &self.store)?;
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
            let mut waiting = self.store.committed().cursor.unforwarded.to_vec();
            let added = whole.cursor.unforwarded.iter().filter(|id| !waiting.contains(id)).cloned();
            waiting.extend(added.collect::<Vec<_>>());
            whole.cursor.unforwarded = waiting.into();
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
}

fn away() -> LedgerError {
    Failure::Unreachable("the model's ledger".into()).into()
}

fn in_doubt() -> LedgerError {
    Failure::Timeout.into()
}
