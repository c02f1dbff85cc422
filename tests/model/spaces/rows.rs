//! Values that change, and rows that cannot be used.

use super::{CALM, assert_holds, bound};
use crate::{
    backend::Value::{First, Nonsense, Second},
    scope::{Budget, Scope},
};

/// A row that is recorded and waits gets another value, while a newer row comes.
const CORRECTIONS: Scope =
    Scope { pollers: 2, backlog: 1, batches: &[&[1]], changes: &[(0, Second)], overlap: Some(100), ..CALM };

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn corrections_with_two_pollers() {
    let faults = bound("MODEL_FAULTS", 0);
    let crashes = bound("MODEL_CRASHES", 0);
    let budget = Budget { faults, crashes, ..Budget::NONE };
    assert_holds("corrections", Scope { budget, ..CORRECTIONS });
}

#[test]
fn a_correction_with_a_fault() {
    let budget = Budget { faults: 1, ..Budget::NONE };
    assert_holds("a correction, a fault", Scope { batches: &[], budget, ..CORRECTIONS });
}

/// The first value comes back, so that it is recorded three times if each was seen.
#[test]
fn a_value_that_comes_back() {
    let changes = &[(0, Second), (0, First)];
    let budget = Budget { crashes: 1, ..Budget::NONE };
    assert_holds("a value that comes back", Scope { batches: &[], changes, budget, ..CORRECTIONS });
}

/// The changed row gets out of reach when the newer rows come.
#[test]
fn corrections_and_a_short_overlap() {
    let changes = &[(0, Second), (1, Second)];
    let budget = Budget { crashes: 1, ..Budget::NONE };
    let scope =
        Scope { pollers: 1, backlog: 2, batches: &[&[2], &[3]], changes, overlap: Some(1), budget, ..CORRECTIONS };
    assert_holds("corrections, a short overlap", scope);
}

/// The changed row is far behind the newest one, and the list does not fit into one answer.
#[test]
fn corrections_in_windows() {
    let scope = Scope { pollers: 1, backlog: 3, batches: &[&[3]], most_rows: 2, ..CORRECTIONS };
    assert_holds("corrections in windows", scope);
}

/// A row among good ones cannot be used.
const UNUSABLE: Scope =
    Scope { pollers: 2, backlog: 1, batches: &[&[1, 2], &[3]], nonsense: &[2], overlap: Some(100), ..CALM };

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn unusable_rows_with_two_pollers() {
    let faults = bound("MODEL_FAULTS", 0);
    let crashes = bound("MODEL_CRASHES", 0);
    let budget = Budget { faults, crashes, ..Budget::NONE };
    assert_holds("unusable rows", Scope { budget, ..UNUSABLE });
}

#[test]
fn an_unusable_row_with_a_fault_and_a_crash() {
    let budget = Budget { faults: 1, crashes: 1, ..Budget::NONE };
    assert_holds("an unusable row, a fault and a crash", Scope { pollers: 1, budget, ..UNUSABLE });
}

/// One row can be used later. Another one that was recorded cannot be used any more.
#[test]
fn rows_that_become_usable_and_unusable() {
    let changes = &[(1, First), (0, Nonsense)];
    let scope = Scope { batches: &[&[1]], nonsense: &[1], changes, ..UNUSABLE };
    assert_holds("rows that become usable and unusable", scope);
}

#[test]
fn unusable_rows_without_an_overlap() {
    let budget = Budget { faults: 1, crashes: 1, ..Budget::NONE };
    let scope = Scope { pollers: 1, overlap: None, batches: &[&[1, 2, 3]], nonsense: &[1, 2], budget, ..UNUSABLE };
    assert_holds("unusable rows without an overlap", scope);
}

#[test]
fn unusable_rows_in_windows() {
    let batches: &[&[usize]] = &[&[2, 3, 4], &[5]];
    let scope = Scope { pollers: 1, backlog: 2, batches, nonsense: &[2, 4], most_rows: 3, ..UNUSABLE };
    assert_holds("unusable rows in windows", scope);
}

/// For the test of the keys.
pub const ALIKE: [Scope; 2] =
    [Scope { batches: &[], ..CORRECTIONS }, Scope { batches: &[&[1]], nonsense: &[1], ..UNUSABLE }];
