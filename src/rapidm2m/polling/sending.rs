//! Sends recorded messages to the hub, and marks in the ledger the ones that the hub acknowledged.

use tokio::time::Instant;

use super::{
    Failure,
    record::{self, Unsendable},
    turn::{EndTurn, Turn},
    world::World,
};
use crate::{
    iot_hub::{SendError, delivery::DeliveryError},
    rapidm2m::ledger::{Fault, LedgerError, Outcome, Poll},
    support::kind::Kind,
};

/// How many records are read, sent and marked together when pending messages are sent.
const RESEND_CHUNK: usize = 8;
/// How often a mark is retried if another poller writes in between.
const MARK_ATTEMPTS: usize = 5;

impl<W: World> Turn<'_, W> {
    /// Sends the pending messages, oldest first, until none is left or the hub fails.
    pub async fn send_what_waits(&mut self, until: Instant) -> Result<(), EndTurn> {
        if self.waiting() > 0 {
            // A message that was put back waits behind one that is not marked yet.
            self.mark_what_is_acknowledged().await?;
        }
        // Do not read records that cannot be sent.
        if self.can_send
            && self.waiting() > 0
            && let Some(error) = self.forwarder.world.closed(&record::owner(&self.site.key))
        {
            self.hub_failed(&error);
        }
        while self.can_send && self.waiting() > 0 {
            let polls = self.what_waits().await?;
            self.send_and_mark(polls, until).await?;
        }
        Ok(())
    }

    /// Gives all pending messages up. They are not sent, and their records say why.
    pub async fn reject_what_waits(&mut self, fault: &Fault) -> Result<(), EndTurn> {
        let history = self.forwarder.world.history_seconds();
        while !self.committed.cursor.unforwarded.is_empty() {
            let mut polls = self.what_waits().await?;
            for poll in &mut polls {
                self.reject(poll, fault.clone(), history);
            }
            self.mark(&polls).await?;
        }
        Ok(())
    }

    /// The records of the first pending messages. Empty if the first message cannot be sent; then a note records
    /// that.
    async fn what_waits(&mut self) -> Result<Vec<Poll>, EndTurn> {
        let ids: Vec<_> = self.committed.cursor.unforwarded.iter().take(RESEND_CHUNK).cloned().collect();
        let mut polls = Vec::with_capacity(ids.len());
        let mut size = 0;
        for id in ids {
            let kept = self.committed.cursor.record.clone().filter(|record| record.id == id);
            let read = match kept {
                Some(record) => Ok(Some(record.into())),
                None => self.forwarder.world.poll(&self.site.key, &id).await,
            };
            let found = match read {
                Ok(Some(poll)) => Unsendable::check(&poll).map(|()| poll),
                Ok(None) => Err(Unsendable::Gone),
                Err(LedgerError::Foreign { text, .. }) => Err(Unsendable::Unreadable(text)),
                Err(error) => return Err(self.stop(&error)),
            };
            match found {
                Ok(poll) if record::fits(&mut size, &poll) => polls.push(poll),
                Ok(_) => break,
                // Send the messages before it first. Then it is the first of the next round.
                Err(_) if !polls.is_empty() => break,
                Err(unsendable) => {
                    self.set_aside(&id, &unsendable).await?;
                    break;
                }
            }
        }
        Ok(polls)
    }

    /// Takes a message that cannot be sent out of the queue, and writes a note. If the record is gone, the note has
    /// its id. This is also a check: if the record exists and was only not visible yet, the transaction fails and the
    /// record is read again.
    async fn set_aside(&mut self, id: &str, unsendable: &Unsendable) -> Result<(), EndTurn> {
        let fault = unsendable.fault(&self.site.key, id);
        let failure = Failure::new(fault.kind.clone(), &fault.text);
        let mut note = record::note(&self.site.key, id, unsendable, self.forwarder.world.now());
        let mut cursor = self.committed.cursor.clone();
        if let Some(backfill) = &mut cursor.backfill {
            backfill.rejected += 1;
            note.backfill = Some(cursor.id().to_owned());
        }
        cursor.take_out(|waiting| waiting == id);
        self.commit(&[note], &[], cursor).await.map_err(|error| self.stop(&error))?;
        self.report.messages_rejected += 1;
        self.report.failures.push(failure);
        Ok(())
    }

    /// Sends records in order and marks the acknowledged ones. After the hub's first failure nothing more is sent.
    /// After a message that the hub rejects for good, the next ones are sent, before anything newer.
    pub async fn send_and_mark(&mut self, mut polls: Vec<Poll>, until: Instant) -> Result<(), EndTurn> {
        while self.can_send && !polls.is_empty() {
            let finished = self.send_some(&mut polls, until).await?;
            if finished == 0 {
                break;
            }
            polls.drain(..finished);
        }
        Ok(())
    }

    /// Sends until the hub refuses a message. Returns how many records, counted from the first, are finished and
    /// marked. The others can be sent as long as `can_send` is true.
    async fn send_some(&mut self, polls: &mut [Poll], until: Instant) -> Result<usize, EndTurn> {
        // Messages that were acknowledged in an earlier turn are the first ones, because messages are sent in order.
        let known = polls.iter().take_while(|poll| self.memory.acknowledged.contains(&poll.id)).count();
        let messages: Vec<_> = polls[known..].iter().map_while(record::message).collect();
        let owner = record::owner(&self.site.key);
        let provision_until = self.limits.provision_until;
        let (sent, outcome) = self.forwarder.world.send_in_order(&owner, &messages, provision_until, until).await;
        drop(messages);
        let now = self.forwarder.world.now();
        let history = self.forwarder.world.history_seconds();
        let confirmed = self.forwarder.world.confirms();
        let mut finished = known + sent;
        for poll in &mut polls[..finished] {
            record::set_forwarded(poll, now, confirmed, history);
            self.memory.acknowledged.insert(poll.id.clone());
        }
        self.report.messages_forwarded += finished;
        self.report.rows_forwarded += polls[..finished].iter().map(|poll| poll.result.rows).sum::<usize>();
        if finished > 0 {
            self.committed.cursor.activity.get_or_insert_default().note_hub(None, now);
        }
        match outcome {
            Ok(()) => {}
            Err(error) if error.condemns_message() => {
                let fault = Fault { kind: error.kind(), text: error.to_string() };
                // The hub has answered. Nobody has asked it about a message that is too large.
                if fault.kind != Kind::HubMessageTooLarge {
                    self.committed.cursor.activity.get_or_insert_default().note_hub(None, now);
                }
                self.reject(&mut polls[finished], fault, history);
                finished += 1;
            }
            // The hub acknowledges, but the time is over. The next run continues.
            Err(DeliveryError::Send(SendError::TimedOut)) if self.report.messages_forwarded > 0 => {
                self.can_send = false;
                self.report.is_behind = true;
            }
            Err(error) if error.is_underway() => {
                self.can_send = false;
                self.report.is_provisioning = true;
            }
            Err(error) => self.hub_failed(&error),
        }
        self.mark(&polls[..finished]).await?;
        Ok(finished)
    }

    /// Nothing more is sent in this turn.
    fn hub_failed(&mut self, error: &DeliveryError) {
        self.can_send = false;
        let failure = Failure::new(error.kind(), error.text());
        let now = self.forwarder.world.now();
        // The next write includes this, so an unreachable hub costs no writes of its own.
        let fault = Fault { kind: failure.kind.clone(), text: failure.text.clone() };
        self.committed.cursor.activity.get_or_insert_default().note_hub(Some(fault), now);
        self.report.failures.push(failure);
    }

    fn reject(&mut self, poll: &mut Poll, fault: Fault, history: Option<u32>) {
        tracing::error!(poll.id = poll.id, failure.kind = fault.kind.as_str(), "a message is rejected: {}", fault.text);
        self.report.rejections.push(Failure::known(&fault));
        record::set_rejected(poll, fault, history);
        self.report.messages_rejected += 1;
    }

    /// Writes finished records and takes them out of the queue.
    async fn mark(&mut self, finished: &[Poll]) -> Result<(), EndTurn> {
        let finished: Vec<_> = finished.iter().filter(|poll| !self.marks_later(poll)).collect();
        let mut lost_race = false;
        for _ in 0..MARK_ATTEMPTS {
            let queue = &self.committed.cursor.unforwarded;
            let finished: Vec<Poll> =
                finished.iter().filter(|poll| queue.contains(&poll.id)).map(|poll| Poll::clone(poll)).collect();
            if finished.is_empty() {
                break;
            }
            let mut cursor = self.committed.cursor.clone();
            let kept = cursor.take_out(|id| finished.iter().any(|poll| poll.id == *id));
            // What the cursor kept has no document yet.
            let (created, replaced): (Vec<_>, Vec<_>) =
                finished.into_iter().partition(|poll| kept.as_ref().is_some_and(|kept| kept.id == poll.id));
            let finished = || created.iter().chain(&replaced);
            if let Some(backfill) = &mut cursor.backfill {
                backfill.rejected += finished().filter(|poll| poll.outcome == Outcome::Rejected).count() as u64;
            }
            match self.commit(&created, &replaced, cursor).await {
                Ok(()) => {
                    for poll in finished() {
                        self.memory.acknowledged.remove(&poll.id);
                    }
                    break;
                }
                // Another poller has written to the site since. Mark those of our records that are still in the
                // queue.
                Err(LedgerError::Conflict) => lost_race = true,
                Err(error) => return self.ledger_failed(&error),
            }
        }
        if lost_race {
            // The remaining answer was planned with an outdated cursor. The other poller continues from its own.
            self.report.lost_race = true;
            return Err(EndTurn);
        }
        Ok(())
    }
}
