//! What goes to the hub, and the marks in the ledger for what the hub acknowledged.

use tokio::time::Instant;

use super::{
    Failure,
    outside::Outside,
    record::{self, Unsendable},
    turn::{Stop, Turn},
};
use crate::{
    delivery::DeliveryError,
    hub::SendError,
    ledger::{Fault, LedgerError, Outcome, Poll},
};

/// Records that are read, sent and marked at once when a backlog is worked off.
const RESEND_CHUNK: usize = 8;
/// How often a mark is tried again when another poller writes in between.
const MARK_ATTEMPTS: usize = 5;

impl<O: Outside> Turn<'_, O> {
    /// Works off the backlog, oldest first, until it is empty or the hub fails.
    pub(super) async fn send_what_waits(&mut self, until: Instant) -> Result<(), Stop> {
        while self.can_send && !self.committed.cursor.unforwarded.is_empty() {
            let polls = self.what_waits().await?;
            self.send_and_mark(polls, until).await?;
        }
        Ok(())
    }

    /// Gives up what waits: nothing of it is sent, its records say why.
    pub(super) async fn reject_what_waits(&mut self, fault: &Fault) -> Result<(), Stop> {
        let history = self.forwarder.outside.history_seconds();
        while !self.committed.cursor.unforwarded.is_empty() {
            let mut polls = self.what_waits().await?;
            for poll in &mut polls {
                self.reject(poll, fault.clone(), history);
            }
            self.mark(&polls).await?;
        }
        Ok(())
    }

    /// The records of the first messages that wait. None if the first of them cannot be sent: that is on record then.
    async fn what_waits(&mut self) -> Result<Vec<Poll>, Stop> {
        let ids: Vec<_> = self.committed.cursor.unforwarded.iter().take(RESEND_CHUNK).cloned().collect();
        let mut polls = Vec::with_capacity(ids.len());
        let mut size = 0;
        for id in ids {
            let found = match self.forwarder.outside.poll(self.key, &id).await {
                Ok(Some(poll)) => Unsendable::check(&poll).map(|()| poll),
                Ok(None) => Err(Unsendable::Gone),
                Err(LedgerError::Foreign { text, .. }) => Err(Unsendable::Unreadable(text)),
                Err(error) => return Err(self.stop(&error)),
            };
            match found {
                Ok(poll) if record::fits(&mut size, &poll) => polls.push(poll),
                Ok(_) => break,
                // What stands before it goes first; it is then the first of the next round.
                Err(_) if !polls.is_empty() => break,
                Err(unsendable) => {
                    self.set_aside(&id, &unsendable).await?;
                    break;
                }
            }
        }
        Ok(polls)
    }

    /// Takes a message that cannot be sent out of the queue, and leaves a note. The note of a record that is gone has its id,
    /// which also makes sure: if the record was only not yet visible where it was read, the transaction fails and it is looked
    /// for again.
    async fn set_aside(&mut self, id: &str, unsendable: &Unsendable) -> Result<(), Stop> {
        let fault = unsendable.fault(self.key, id);
        let failure = Failure::new(&fault.kind, &fault.text);
        let mut note = record::note(self.key, id, unsendable, self.forwarder.outside.now());
        let mut cursor = self.committed.cursor.clone();
        if let Some(backfill) = &mut cursor.backfill {
            backfill.rejected += 1;
            note.backfill = Some(cursor.id().to_owned());
        }
        cursor.unforwarded.retain(|waiting| waiting != id);
        self.commit(&[note], &[], cursor).await.map_err(|error| self.stop(&error))?;
        self.report.messages_rejected += 1;
        self.report.failures.push(failure);
        Ok(())
    }

    /// Sends records, in order, and marks those that are acknowledged. After the hub's first failure nothing more is sent;
    /// after a message that it refuses for good, the next ones are, before anything newer.
    pub(super) async fn send_and_mark(&mut self, mut polls: Vec<Poll>, until: Instant) -> Result<(), Stop> {
        while self.can_send && !polls.is_empty() {
            let finished = self.send_some(&mut polls, until).await?;
            if finished == 0 {
                break;
            }
            polls.drain(..finished);
        }
        Ok(())
    }

    /// Sends until something is refused. Returns how many, counted from the first, are finished and marked; if it is not all
    /// of them, the rest can be sent as long as `can_send`.
    async fn send_some(&mut self, polls: &mut [Poll], until: Instant) -> Result<usize, Stop> {
        // What was acknowledged in an earlier turn stands at the front, by the order in which messages leave.
        let known = polls.iter().take_while(|poll| self.memory.acknowledged.contains(&poll.id)).count();
        let messages: Vec<_> = polls[known..].iter().map_while(record::message).collect();
        let owner = record::owner(self.key);
        let provision_until = self.limits.provision_until;
        let (sent, outcome) = self.forwarder.outside.send_in_order(&owner, &messages, provision_until, until).await;
        drop(messages);
        let now = self.forwarder.outside.now();
        let history = self.forwarder.outside.history_seconds();
        let confirmed = self.forwarder.outside.confirms();
        let mut finished = known + sent;
        for poll in &mut polls[..finished] {
            record::set_forwarded(poll, now, confirmed, history);
            self.memory.acknowledged.insert(poll.id.clone());
        }
        self.report.messages_forwarded += finished;
        self.report.rows_forwarded += polls[..finished].iter().map(|poll| poll.result.rows).sum::<usize>();
        if finished > 0 {
            self.committed.cursor.activity.get_or_insert_default().note_hub(None);
        }
        match outcome {
            Ok(()) => {}
            Err(error) if error.condemns_message() => {
                let fault = Fault { kind: error.kind().into(), text: error.to_string() };
                self.reject(&mut polls[finished], fault, history);
                finished += 1;
            }
            // The hub keeps up, the time is over: the next tick goes on.
            Err(DeliveryError::Send(SendError::TimedOut)) if self.report.messages_forwarded > 0 => {
                self.can_send = false;
                self.report.is_behind = true;
            }
            Err(error) if error.is_underway() => {
                self.can_send = false;
                self.report.is_provisioning = true;
            }
            Err(error) => {
                self.can_send = false;
                let failure = Failure::new(error.kind(), error.text());
                // Written with whatever is written next: a hub that is away costs no writes.
                let fault = Fault { kind: failure.kind.clone(), text: failure.text.clone() };
                self.committed.cursor.activity.get_or_insert_default().note_hub(Some(fault));
                self.report.failures.push(failure);
            }
        }
        self.mark(&polls[..finished]).await?;
        Ok(finished)
    }

    fn reject(&mut self, poll: &mut Poll, fault: Fault, history: Option<u32>) {
        tracing::error!(poll.id = poll.id, failure.kind = fault.kind, "a message is rejected: {}", fault.text);
        record::set_rejected(poll, fault, history);
        self.report.messages_rejected += 1;
    }

    /// Writes finished records and takes them out of the queue.
    async fn mark(&mut self, finished: &[Poll]) -> Result<(), Stop> {
        let mut lost_race = false;
        for _ in 0..MARK_ATTEMPTS {
            let queue = &self.committed.cursor.unforwarded;
            let finished: Vec<_> = finished.iter().filter(|poll| queue.contains(&poll.id)).cloned().collect();
            if finished.is_empty() {
                break;
            }
            let mut cursor = self.committed.cursor.clone();
            cursor.unforwarded.retain(|id| !finished.iter().any(|poll| poll.id == *id));
            if let Some(backfill) = &mut cursor.backfill {
                backfill.rejected += finished.iter().filter(|poll| poll.outcome == Outcome::Rejected).count() as u64;
            }
            match self.commit(&[], &finished, cursor).await {
                Ok(()) => {
                    for poll in &finished {
                        self.memory.acknowledged.remove(&poll.id);
                    }
                    break;
                }
                // Another poller has written to the site since: what it left of our queue is still ours to mark.
                Err(LedgerError::Conflict) => lost_race = true,
                Err(error) => return self.ledger_failed(&error),
            }
        }
        if lost_race {
            // The rest of the answer in hand was planned from a cursor that is history: the other poller goes on from its own.
            self.report.lost_race = true;
            return Err(Stop);
        }
        Ok(())
    }
}
