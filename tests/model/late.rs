//! Checks late rows with an overlap: what the cursor's list must say, and which rows must not be lost. The list begins
//! at `Since`.

use std::collections::BTreeSet;

use iothub_connector::rapidm2m::ledger::{Cursor, Recorded, Seen, Stamped};

use crate::{
    backend::stamp,
    rules::{Rule, Violation},
    scope::Scope,
    store::Store,
};

/// The rows of a batch that are within reach: not further behind the newest available row than the overlap.
pub fn within_reach(batch: &[usize], rows: &BTreeSet<usize>, overlap: Option<u8>) -> impl Iterator<Item = usize> {
    let newest = rows.last().copied().unwrap_or_default();
    batch.iter().copied().filter(move |row| overlap.is_some_and(|overlap| row + usize::from(overlap) >= newest))
}

/// Checks the rows of a new record: each is recorded for the first time, and none is older than the list was when they
/// were recorded.
pub fn check_new(rows: &[usize], store: &Store) -> Result<(), Violation> {
    let before = store.committed().cursor;
    for row in rows {
        let rule = Rule::OnceWithinReach;
        rule.check(store.rows().all(|known| known != *row), || format!("row {row} is recorded again, with {rows:?}"))?;
        let is_in_reach = before.recorded.as_ref().is_none_or(|list| stamp(*row) >= list.since());
        rule.check(is_in_reach, || format!("row {row} is recorded with {rows:?}, which is older than the list"))?;
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
        let is_recorded = store.rows().any(|known| known == row);
        let is_missing = stamp(row) >= list.since() && !is_recorded;
        rule.check(lacks(list, row) == is_missing, || {
            format!("row {row} is recorded: {is_recorded}, the list says the opposite: {list:?}")
        })?;
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
        owed.remove(&row);
    }
    let since = store.committed().cursor.recorded.map(|list| list.since());
    let lost = owed.first().filter(|row| since.is_some_and(|since| stamp(**row) < since));
    Rule::OnceWithinReach.check(lost.is_none(), || {
        format!("row {lost:?} came within reach, is not recorded, and the list begins at {since:?}: it never will be")
    })
}
