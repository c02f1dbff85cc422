//! When a record says that the hub has its message.
//!
//! A record of its own is marked at once. A small record that the cursor keeps becomes a document only when it is finished:
//! with the site's next transaction, whatever that writes, or after `MarkWithinSeconds`. If the process is killed before, the
//! message is sent again under the same id.

use std::{borrow::Cow, fmt};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{
    record,
    turn::{EndTurn, Turn},
    world::World,
};
use crate::rapidm2m::ledger::{Cursor, LedgerError, Outcome, Poll};

/// A larger record is cheaper as a document of its own: a cursor is written often.
const MAX_KEPT_MESSAGE: usize = 2_048;

/// When the hub acknowledged the message whose record the cursor keeps.
#[derive(Clone)]
pub struct Acknowledged {
    at: DateTime<Utc>,
    is_confirmed: bool,
    since: Instant,
}

/// What a turn does does not depend on it, so states that differ only in it count as the same.
impl fmt::Debug for Acknowledged {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Acknowledged")
    }
}

impl<W: World> Turn<'_, W> {
    /// How many messages the hub has not acknowledged.
    pub fn waiting(&self) -> usize {
        self.committed.cursor.unforwarded.len() - usize::from(self.has_unmarked())
    }

    /// Whether the hub has the message whose record the cursor keeps.
    pub fn has_unmarked(&self) -> bool {
        let record = &self.committed.cursor.record;
        record.as_ref().is_some_and(|record| self.memory.acknowledged.contains(&record.id))
    }

    /// Remembers that the message whose record the cursor keeps is acknowledged, instead of marking it now.
    pub fn marks_later(&mut self, poll: &Poll) -> bool {
        let is_kept = self.committed.cursor.record.as_ref().is_some_and(|record| record.id == poll.id);
        let is_later = is_kept && poll.outcome == Outcome::Forwarded && self.forwarder.mark_within.is_some();
        if is_later && self.memory.unmarked.is_none() {
            let (at, is_confirmed) = (self.forwarder.world.now(), self.forwarder.world.confirms());
            self.memory.unmarked = Some(Acknowledged { at, is_confirmed, since: Instant::now() });
        }
        is_later
    }

    /// Marks what is acknowledged for `MarkWithinSeconds`.
    pub async fn mark_what_is_due(&mut self) -> Result<(), EndTurn> {
        let is_due = match (&self.memory.unmarked, self.forwarder.mark_within) {
            (Some(unmarked), Some(within)) => unmarked.since.elapsed() >= within,
            _ => true,
        };
        if is_due { self.mark_what_is_acknowledged().await } else { Ok(()) }
    }

    /// Marks what is acknowledged, if there is anything.
    pub async fn mark_what_is_acknowledged(&mut self) -> Result<(), EndTurn> {
        if !self.has_unmarked() {
            return Ok(());
        }
        let cursor = self.committed.cursor.clone();
        self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))
    }

    /// Writes a transaction. A record that the cursor keeps becomes a document with it, if it is acknowledged. The written
    /// cursor becomes the turn's cursor; after a [`LedgerError::Conflict`] the turn's cursor is the one that the ledger has now.
    pub async fn commit(&mut self, created: &[Poll], replaced: &[Poll], mut cursor: Cursor) -> Result<(), LedgerError> {
        let marked = if self.has_unmarked() { self.take_marked(&mut cursor) } else { None };
        if cursor.backfill.is_some() {
            // Activity describes the polling of the site, not a backfill.
            cursor.activity = None;
        } else {
            let activity = cursor.activity.get_or_insert_default();
            for poll in created {
                activity.note(poll.polling_timestamp, poll.outcome, poll.result.rows);
            }
            activity.is_news = false;
        }
        let mut created = Cow::Borrowed(created);
        if let ([poll], []) = (&*created, replaced)
            && self.can_be_kept(poll, &cursor)
        {
            cursor.keep(poll.clone());
            created = Cow::Borrowed(&[]);
        }
        if let Some(marked) = marked {
            created.to_mut().insert(0, marked);
        }
        let (created, etag) = (&*created, self.committed.etag.as_deref());
        match self.forwarder.world.commit(&self.site.key, created, replaced, &cursor, etag).await {
            Ok(etag) => {
                self.committed = super::Committed { cursor, etag: Some(etag) };
            }
            Err(LedgerError::Conflict) => {
                let is_ours = self.is_written(created, replaced).await?;
                self.committed = self.forwarder.world.cursor(&self.site.key, self.range).await?;
                if !is_ours || !self.committed.cursor.is_like(&cursor) {
                    return Err(LedgerError::Conflict);
                }
            }
            Err(error) => return Err(error),
        }
        for poll in created.iter().filter(|poll| poll.outcome == Outcome::Forwarded) {
            self.memory.acknowledged.remove(&poll.id);
            self.memory.unmarked = None;
        }
        Ok(())
    }

    /// The record that the cursor keeps, marked as forwarded, and no longer in the cursor.
    fn take_marked(&mut self, cursor: &mut Cursor) -> Option<Poll> {
        let kept = self.committed.cursor.record.as_ref()?;
        let mut poll = cursor.take_out(|id| *id == kept.id)?;
        let (at, is_confirmed) = match &self.memory.unmarked {
            Some(unmarked) => (unmarked.at, unmarked.is_confirmed),
            None => (self.forwarder.world.now(), self.forwarder.world.confirms()),
        };
        record::set_forwarded(&mut poll, at, is_confirmed, self.forwarder.world.history_seconds());
        Some(poll)
    }

    fn can_be_kept(&self, poll: &Poll, cursor: &Cursor) -> bool {
        self.forwarder.mark_within.is_some()
            && self.range.is_none()
            && poll.outcome == Outcome::Pending
            && poll.message.as_ref().is_some_and(|message| message.len() <= MAX_KEPT_MESSAGE)
            && *cursor.unforwarded == [poll.id.clone()]
    }

    /// Whether a refused transaction was applied all the same, judged by one of its records: all are written or none. Cosmos
    /// DB's client repeats a transaction whose answer is late, and the repetition is refused because the first one was
    /// applied. The cursor alone is not a proof, unless it keeps a record: another poller may have moved it to the same place.
    async fn is_written(&self, created: &[Poll], replaced: &[Poll]) -> Result<bool, LedgerError> {
        // Without records the caller's comparison of the cursors is enough.
        let Some(poll) = record::witness(created, replaced) else { return Ok(replaced.is_empty()) };
        match self.forwarder.world.poll(&self.site.key, &poll.id).await {
            Ok(found) => Ok(found.is_some_and(|found| record::is_same(&found, poll))),
            Err(LedgerError::Foreign { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
