//! Checks late rows with an overlap: what the cursor's list must say, and which rows must not be lost. The list begins
//! at `Since`.

use std::collections::BTreeSet;

use iothub_connector::rapidm2m::ledger::{Cursor, Recorded, Seen, Stamped};

use crate::{
    backend::{Row, Rows, stamp},
    corrections,
    rules::{Rule, Violation},
    scope::Scope,
    store::Store,
};

/// The rows of a batch that are within reach: not further behind the newest available row than the overlap.
pub fn within_reach(batch: &[usize], rows: &Rows, overlap: Option<u8>) -> impl Iterator<Item = usize> {
    let newest = rows.last_key_value().map_or(0, |(newest, _)| *newest);
    batch.iter().copied().filter(move |row| overlap.is_some_and(|overlap| row + usize::from(overlap) >= newest))
}

/// Checks the rows of a new record: each is recorded for the first time, or corrected, and none is older than the list was
/// when they were recorded.
pub fn check_new(rows: &[Row], is_correction: bool, store: &Store) -> Result<(), Violation> {
    let before = store.committed().cursor;
    for row in rows {
        let rule = Rule::OnceWithinReach;
        let is_new = store.last_value(row.number).is_none();
        rule.check(is_new || is_correction, || format!("row {row:?} is recorded again, with {rows:?}"))?;
        let is_in_reach = before.recorded.as_ref().is_none_or(|list| stamp(row.number) >= list.since());
        rule.check(is_in_reach, || format!("row {row:?} is recorded with {rows:?}, which is older than the list"))?;
    }
    Ok(())
}

/// Checks that the list says of each stamp since `Since` whether it is recorded. Without an overlap or without rows
/// there is no list.
pub fn check_list(cursor: &Cursor, store: &Store, scope: &Scope) -> Result<(), Violation> {
    let rule = Rule::ListIsTheRecorded;
    let newest = store.newest().filter(|_| scope.overlap.is_some());
    let (Some(newest), Some(list)) = (newest, &cursor.recorded) else {
        return rule.check(newest.is_none() && cursor.recorded.is_none(), || {
            format!("the newest recorded row is {newest:?}, the cursor's list is {:?}", cursor.recorded)
        });
    };
    // This includes rows that never arrive.
    for row in 0..=newest + 1 {
        let (last, is_in_reach) = (store.last_value(row), stamp(row) >= list.since());
        rule.check(lacks(list, row) == (is_in_reach && last.is_none()), || {
            format!("row {row} is recorded as {last:?}, the list says the opposite: {list:?}")
        })?;
        if let Some(last) = last.filter(|_| is_in_reach) {
            corrections::check_value(list, row, last, scope)?;
        }
    }
    Ok(())
}

/// Whether a row is still to be recorded, as the list says.
pub fn lacks(list: &Recorded, row: usize) -> bool {
    list.see(&[Stamped { stamp: stamp(row), hash: 0 }], 0) == [Seen::New]
}

/// Removes the recorded rows from `owed`. A row that is older than the list is never recorded.
pub fn settle_debts(owed: &mut BTreeSet<usize>, store: &Store) -> Result<(), Violation> {
    for row in store.rows() {
        owed.remove(&row.number);
    }
    let since = store.committed().cursor.recorded.map(|list| list.since());
    let lost = owed.first().filter(|row| since.is_some_and(|since| stamp(**row) < since));
    Rule::OnceWithinReach.check(lost.is_none(), || {
        format!("row {lost:?} came within reach, is not recorded, and the list begins at {since:?}: it never will be")
    })
}
