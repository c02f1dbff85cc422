//! What makes two states the same: everything that a poller or a rule can tell apart, and nothing else. Ids, ETags and the
//! milliseconds of clocks are names: they are replaced by what they stand for, so that ways which differ only in names meet.

use std::{
    collections::HashMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hasher as _},
};

use iothub_connector::ledger::{Committed, LedgerError, Outcome, Poll};

use crate::{
    poller::{Answer, Write},
    state::{Poller, State},
    store::Record,
    world::World,
};

/// A fingerprint of 128 bits.
pub type Key = (u64, u64);

/// The pollers are alike: which is which makes no difference.
pub fn of(state: &State) -> Key {
    let mut names = Names::default();
    let etag = state.world.store.etag();
    let mut text = names.replace(&world_text(&state.world), etag.as_deref());
    let mut pollers: Vec<_> = state
        .pollers
        .iter()
        .map(|poller| names.clone().replace(&poller_text(poller, state), etag.as_deref()))
        .collect();
    pollers.sort();
    pollers.iter().for_each(|poller| text.push_str(poller));
    fingerprint(&text)
}

/// Of the world alone, whoever polls.
pub fn of_world(world: &World) -> Key {
    fingerprint(&Names::default().replace(&world_text(world), world.store.etag().as_deref()))
}

fn fingerprint(text: &str) -> Key {
    let hash = |salt| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(text.as_bytes());
        hasher.finish()
    };
    (hash(0), hash(1))
}

fn world_text(world: &World) -> String {
    let World { left, batches, produced, store, hub, seconds, .. } = world;
    let mut text = format!("{left:?}{}/{produced}/{seconds}", batches.len());
    committed(&store.committed(), &mut text);
    for Record { poll, rows } in &store.records {
        write!(text, "{rows:?}").expect("a String takes all");
        record(poll, &mut text);
    }
    if let Some(write) = &store.on_its_way {
        self::write(write, &mut text);
    }
    // Reads that lag behind are faults.
    if let (Some(previous), true) = (&store.previous, left.faults > 0) {
        committed(previous, &mut text);
    }
    write!(text, "{:?}{:?}{:?}", hub.arrived, hub.refused, hub.on_their_way).expect("a String takes all");
    text
}

fn poller_text(poller: &Poller, state: &State) -> String {
    let mut text = in_order(&format!("\n{:?}", poller.memory));
    // Of finished messages it does not matter any more who got the acknowledgement.
    for Record { poll, rows } in &state.world.store.records {
        let is_known = poll.message_id.as_ref().is_some_and(|id| poller.acknowledged.contains(id));
        if is_known && poll.outcome == Outcome::Pending {
            write!(text, "+{}", rows.start).expect("a String takes all");
        }
    }
    let Some(turn) = &poller.turn else { return text };
    write!(text, "{}{}{:?}", turn.start.is_late, turn.start.seconds, turn.facts).expect("a String takes all");
    for answer in &turn.heard {
        match &**answer {
            Answer::Cursor(Ok(cursor)) => committed(cursor, &mut text),
            Answer::Record(Ok(Some(poll))) => record(poll, &mut text),
            Answer::Record(Ok(None)) => text.push('?'),
            Answer::Commit(Ok(etag)) => text.push_str(etag),
            Answer::Commit(Err(LedgerError::Conflict)) => text.push('x'),
            Answer::Cursor(Err(_)) | Answer::Record(Err(_)) | Answer::Commit(Err(_)) => text.push('!'),
            Answer::Rows(body) => write!(text, "{body:?}").expect("a String takes all"),
            Answer::Sent(count, outcome) => write!(text, "{count}{outcome:?}").expect("a String takes all"),
        }
    }
    text
}

fn committed(committed: &Committed, text: &mut String) {
    write!(text, "{:?}{:?}", committed.cursor, committed.etag).expect("a String takes all");
}

/// Without what took how long.
fn record(poll: &Poll, text: &mut String) {
    write!(text, "{}{:?}{:?}", poll.id, poll.outcome, poll.message_id).expect("a String takes all");
}

fn write(write: &Write, text: &mut String) {
    write!(text, "{:?}{:?}", write.cursor, write.etag).expect("a String takes all");
    write.created.iter().chain(&write.replaced).for_each(|poll| record(poll, text));
}

/// A set prints in any order: its elements sorted.
fn in_order(text: &str) -> String {
    const SET: &str = "acknowledged: {";
    let parts = text.split_once(SET).and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (set, tail))) = parts else { return text.to_owned() };
    let mut ids: Vec<_> = set.split(", ").collect();
    ids.sort_unstable();
    format!("{head}{SET}{}}}{tail}", ids.join(", "))
}

/// Ids of records, numbered as they are met.
#[derive(Clone, Default)]
struct Names(HashMap<String, usize>);

impl Names {
    fn replace(&mut self, text: &str, current_etag: Option<&str>) -> String {
        /// `1767225600123-0000-89abcdef`: the time begins with these digits all through the model.
        const ID: (&[u8], usize) = (b"1767", 27);
        let bytes = text.as_bytes();
        let mut out = String::with_capacity(text.len());
        let (mut at, mut copied) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let length = match rest[0] {
                b'.' if rest.get(4) == Some(&b'Z') => 4,
                b'1' if rest.starts_with(ID.0) && rest.get(13) == Some(&b'-') && rest.get(18) == Some(&b'-') => ID.1,
                b'e' if rest.starts_with(b"etag:") => {
                    rest.iter().position(|byte| *byte == b';').map_or(rest.len(), |end| end + 1)
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            out.push_str(&text[copied..at]);
            let name = &text[at..at + length];
            match rest[0] {
                b'1' => {
                    let next = self.0.len();
                    let number = *self.0.entry(name.to_owned()).or_insert(next);
                    write!(out, "#{number}").expect("a String takes all");
                }
                // One that is not current never will be.
                b'e' => out.push_str(if current_etag == Some(name) { "current" } else { "old" }),
                _ => {}
            }
            at += length;
            copied = at;
        }
        out.push_str(&text[copied..]);
        out
    }
}
