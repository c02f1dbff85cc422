//! Defines when two states count as the same: the key contains everything that a poller or a rule can distinguish, and
//! nothing else.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use iothub_connector::rapidm2m::{
    ledger::{Committed, LedgerError, Outcome, Poll},
    polling::SiteMemory,
};

use crate::{
    backend::{self, Row},
    poller::{Answer, Write},
    state::{Poller, State},
    text::{Describe, Name, Text},
    world::World,
};

/// A fingerprint of 128 bits.
pub type Key = [u64; 2];

/// The pollers are alike, so their order does not matter.
pub fn of(state: &State) -> Key {
    let mut world = Words::default();
    world.world(&state.world);
    let words_of = |poller| {
        let Words { ids, etag, backs_off, scanned, .. } = &world;
        let (ids, etag) = (ids.clone(), etag.clone());
        let mut words = Words { words: Vec::new(), ids, etag, backs_off: *backs_off, scanned: *scanned };
        words.poller(poller, state);
        words.words
    };
    let mut pollers: Vec<_> = state.pollers.iter().map(words_of).collect();
    pollers.sort_unstable();
    fingerprint(world.words.iter().chain(pollers.iter().flatten()))
}

/// The key of the world alone, without pollers.
pub fn of_world(world: &World) -> Key {
    let mut words = Words::default();
    words.world(world);
    fingerprint(words.words.iter())
}

fn fingerprint<'a>(words: impl Iterator<Item = &'a u64>) -> Key {
    let mut hashers = [DefaultHasher::new(), DefaultHasher::new()];
    hashers[1].write_u8(1);
    for word in words {
        hashers.iter_mut().for_each(|hasher| hasher.write_u64(*word));
    }
    hashers.map(|hasher| hasher.finish())
}

/// A state as numbers. Names get numbers in the order in which they first occur.
#[derive(Default)]
struct Words<'a> {
    words: Vec<u64>,
    ids: Vec<&'a str>,
    etag: Option<String>,
    /// Whether a site ever backs off, so that it matters whether a process has tried it.
    backs_off: bool,
    /// The milliseconds at which the cursor's last poll was made, if it matters: a transaction without a record is recognised
    /// by its cursor alone.
    scanned: Option<u32>,
}

impl<'a> Words<'a> {
    fn number(&mut self, number: usize) {
        self.words.push(number as u64);
    }

    fn numbers<'b>(&mut self, numbers: impl IntoIterator<Item = &'b usize, IntoIter: ExactSizeIterator>) {
        let numbers = numbers.into_iter();
        self.number(numbers.len());
        numbers.for_each(|number| self.number(*number));
    }

    fn id(&mut self, id: &'a str) -> usize {
        self.ids.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        })
    }

    fn text(&mut self, text: &'a Text) {
        self.words.extend(text.hash);
        for name in &text.names {
            match name {
                Name::Id(id) => {
                    let number = self.id(id);
                    self.number(number);
                }
                Name::Tried(tried) => self.number((*tried && self.backs_off).into()),
                Name::Millis(millis) => {
                    if let Some(scanned) = self.scanned {
                        self.number((*millis == scanned).into());
                    }
                }
                // An ETag that is not current never becomes current again.
                Name::Etag(etag) => self.number(usize::from(self.etag.as_ref() == Some(etag))),
            }
        }
        let mut set: Vec<_> = text.set.iter().map(|id| self.id(id)).collect();
        set.sort_unstable();
        self.number(set.len());
        set.into_iter().for_each(|id| self.number(id));
    }

    fn world(&mut self, world: &'a World) {
        let World { left, batches, rows, changes, listings, owed, changed, store, hub, seconds, .. } = world;
        self.etag = store.etag();
        let scanned = store.cursor.as_ref().and_then(|committed| committed.cursor.scanned_until);
        self.scanned = scanned.filter(|_| !world.scope.listings.is_empty()).map(|time| time.timestamp_subsec_millis());
        self.backs_off = world.scope.troubles.iter().any(|trouble| trouble.makes_back_off());
        let budget = [left.faults, left.crashes, left.late_turns, left.pauses];
        self.words.extend(budget.map(u64::from));
        self.words.extend(u64::try_from(*seconds));
        self.number(batches.len());
        // The rows that are there determine which batches are still to come. What is still to come determines what a run is
        // told now.
        self.numbers(&backend::all(rows).map(Row::code).collect::<Vec<_>>());
        self.numbers(&[changes.len(), listings.len()]);
        self.numbers(owed);
        self.numbers(changed);
        if let Some(cursor) = &store.cursor {
            self.text(cursor.text());
        }
        for record in &store.records {
            let id = self.id(&record.poll.id);
            self.number(id);
            self.number(record.poll.outcome as usize);
            let mut name = DefaultHasher::new();
            record.poll.site_name.hash(&mut name);
            self.words.push(name.finish());
            self.numbers(&record.rows.iter().map(|row| row.code()).collect::<Vec<_>>());
            let message = record.poll.message_id.as_deref().unwrap_or_default();
            let knows = [hub.arrived.contains(message), hub.refused.contains(message)];
            knows.into_iter().for_each(|knows| self.number(knows.into()));
        }
        self.number(usize::MAX);
        if let Some(write) = &store.on_its_way {
            self.text(write.text());
        }
        // Stale reads are faults.
        if let (Some(previous), true) = (&store.previous, left.faults > 0) {
            self.text(previous.text());
        }
        for message in &hub.on_their_way {
            self.number(store.by_message(message).map_or(usize::MAX, |(place, _)| place));
        }
    }

    fn poller(&mut self, poller: &'a Poller, state: &State) {
        self.number(usize::MAX - 1);
        self.text(poller.memory.text());
        // For a finished message it no longer matters which poller got the acknowledgement.
        for (place, record) in state.world.store.records.iter().enumerate() {
            let is_known = record.poll.message_id.as_ref().is_some_and(|id| poller.acknowledged.contains(id));
            if is_known && record.poll.outcome == Outcome::Pending {
                self.number(place);
            }
        }
        let Some(turn) = &poller.turn else { return };
        self.number(turn.start.is_late.into());
        self.words.extend(u64::try_from(turn.start.seconds));
        let mut facts = DefaultHasher::new();
        turn.facts.hash(&mut facts);
        turn.start.listing.hash(&mut facts);
        turn.start.only_marks.hash(&mut facts);
        self.words.push(facts.finish());
        let (refused, store) = (&turn.facts.refused, &state.world.store);
        refused.stands(store).into_iter().for_each(|stands| self.number(stands.into()));
        if let Some(poll) = refused.record() {
            let id = self.id(&poll.id);
            self.numbers(&[id, store.poll(&poll.id).is_some().into()]);
        }
        turn.heard.iter().for_each(|answer| self.text(answer.text()));
    }
}

impl Describe for SiteMemory {
    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

impl Describe for Committed {
    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

impl Describe for Write {
    fn describe(&self) -> String {
        let mut text = format!("{:?}{:?}", self.cursor, self.etag);
        // It may not be in the store yet.
        self.cursor.record.iter().for_each(|kept| text.push_str(&record(kept)));
        self.created.iter().chain(&self.replaced).for_each(|poll| text.push_str(&record(poll)));
        text
    }
}

impl Describe for Answer {
    fn describe(&self) -> String {
        match self {
            Self::Cursor(Ok(cursor)) => cursor.describe(),
            Self::Record(Ok(Some(poll))) => record(poll),
            Self::Record(Ok(None)) => "no record".into(),
            Self::Commit(Ok(etag)) => etag.clone(),
            Self::Commit(Err(LedgerError::Conflict)) => "conflict".into(),
            Self::Cursor(Err(_)) | Self::Record(Err(_)) | Self::Commit(Err(_)) => "error".into(),
            Self::Rows(answer) => format!("{answer:?}"),
            Self::Sent(count, outcome) => format!("{count}{outcome:?}"),
        }
    }
}

/// The record without durations.
fn record(poll: &Poll) -> String {
    let Poll { id, outcome, message_id, message, site_name, result, .. } = poll;
    // The id of a correction contains a time, but not as text.
    let message = if poll.correction { message } else { message_id };
    let bad_rows = result.bad_rows.as_ref().map(|bad| bad.count);
    let mut text = String::new();
    write!(text, "{id}{outcome:?}{message:?}{site_name:?}{bad_rows:?}").expect("a String takes all");
    text
}
