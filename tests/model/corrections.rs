//! Checks changed values with an overlap: a row whose value changed within reach is recorded again as a correction.

use std::{collections::BTreeSet, hash::Hasher as _};

use fnv::FnvHasher;
use iothub_connector::rapidm2m::{
    Stamp,
    ledger::{Cursor, Poll, Recorded, Seen, Stamped},
    polling::record,
};

use crate::{
    backend::{Row, Rows, Value, stamp},
    rules::{Rule, Violation},
    scope::Scope,
    store::Store,
};

/// The hash that the product stores in the list.
fn hash_of(text: &str) -> u32 {
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.write_u8(0);
    let hash = hasher.finish();
    u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).expect("32 bits")
}

fn channels() -> u32 {
    hash_of("ch0")
}

/// What the list says of a row with this value.
pub fn seen(list: &Recorded, row: Row) -> Seen {
    let rows = [Stamped { stamp: stamp(row.number), hash: hash_of(&row.text()) }];
    list.see(&rows, channels()).first().copied().unwrap_or(Seen::New)
}

/// Checks that a record is marked as a correction exactly if its rows were recorded before, the last time with another
/// value.
pub fn check_mark(poll: &Poll, rows: &[Row], store: &Store) -> Result<(), Violation> {
    let properties = record::message(poll).map(|message| message.properties).unwrap_or_default();
    let is_marked = properties.iter().any(|(name, value)| *name == "Correction" && value == "true");
    for row in rows {
        let last = store.last_value(row.number);
        let is_right = match last {
            None => !is_marked,
            Some(value) => is_marked && value != row.value,
        };
        Rule::CorrectedOnce.check(is_right && is_marked == poll.correction, || {
            format!("row {row:?} is recorded as a correction: {is_marked}; its value was recorded as {last:?}")
        })?;
    }
    Ok(())
}

/// Checks that the list knows the last recorded value of a row, and would notice another one, if values change.
pub fn check_value(list: &Recorded, number: usize, last: Value, scope: &Scope) -> Result<(), Violation> {
    for value in [Value::First, Value::Second] {
        let row = Row { number, value };
        let says = seen(list, row);
        let is_right =
            if value == last { says == Seen::Known } else { says == Seen::Changed || scope.changes.is_empty() };
        Rule::ListIsTheRecorded.check(is_right, || {
            format!("row {number} was last recorded as {last:?}, of {row:?} the list says {says:?}: {list:?}")
        })?;
    }
    Ok(())
}

/// Removes the rows whose value of now is recorded from `changed`. A row that is older than the list is never corrected.
pub fn settle_debts(changed: &mut BTreeSet<usize>, rows: &Rows, store: &Store) -> Result<(), Violation> {
    changed.retain(|row| store.last_value(*row).as_ref() != rows.get(row));
    let since = store.committed().cursor.recorded.map(|list| list.since());
    let lost = changed.first().filter(|row| since.is_some_and(|since| stamp(**row) < since));
    Rule::CorrectedOnce.check(lost.is_none(), || {
        format!(
            "row {lost:?} changed within reach, is not recorded so, and the list begins at {since:?}: it never will be"
        )
    })
}

/// Checks that each row within reach was last recorded with its value of now.
pub fn check_settled(rows: impl Iterator<Item = Row>, since: Stamp, store: &Store) -> Result<(), Violation> {
    for row in rows.filter(|row| row.is_usable() && stamp(row.number) >= since) {
        let last = store.last_value(row.number);
        Rule::CorrectedOnce.check(last == Some(row.value), || {
            format!("row {row:?} was last recorded as {last:?}, after an undisturbed turn")
        })?;
    }
    Ok(())
}

/// Sabotage.
pub fn forget_values(cursor: &mut Cursor) {
    if let Some(list) = &mut cursor.recorded {
        // Values under other channels are dropped.
        list.extend(&[], channels() + 1, list.since());
    }
}

/// Sabotage.
pub fn mistake_value(cursor: &mut Cursor) {
    let newest = cursor.last_value_from.filter(|_| cursor.unforwarded.is_empty());
    if let (Some(list), Some(newest)) = (&mut cursor.recorded, newest) {
        let row = Stamped { stamp: Stamp::from_time(newest), hash: hash_of("mistaken") };
        list.extend(&[row], channels(), list.since());
    }
}
