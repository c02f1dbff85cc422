//! Spaces in which the cursor keeps a small record until it is marked.

use super::{CALM, LATE, TWO_POLLERS, assert_holds, bound};
use crate::{
    listing::{LISTED, Listing, Task},
    scope::{Budget, Scope, Trouble},
};

/// The second row comes while the first one's record is kept, is acknowledged, or is marked.
const KEPT: Scope = Scope { keeps_records: true, batches: &[&[0], &[1]], ..TWO_POLLERS };

pub const ALIKE: [Scope; 2] = [
    Scope { batches: &[&[0]], budget: Budget { faults: 1, ..Budget::NONE }, ..KEPT },
    Scope { batches: &[&[0], &[1]], pollers: 1, budget: Budget { crashes: 1, ..Budget::NONE }, ..KEPT },
];

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn two_pollers_with_a_fault() {
    let faults = bound("MODEL_FAULTS", 1);
    let crashes = bound("MODEL_CRASHES", 0);
    assert_holds("kept, a fault", Scope { budget: Budget { faults, crashes, ..Budget::NONE }, ..KEPT });
}

#[test]
fn two_pollers_with_a_crash() {
    assert_holds("kept, a crash", Scope { budget: Budget { crashes: 1, ..Budget::NONE }, ..KEPT });
}

#[test]
fn one_poller_with_faults_and_a_crash() {
    let troubles = &[Trouble::Status, Trouble::Throttled];
    let budget = Budget { faults: 2, crashes: 1, pauses: 1, ..Budget::NONE };
    assert_holds("kept, faults and a crash", Scope { pollers: 1, troubles, budget, ..KEPT });
}

/// Messages that have documents wait before the one that is kept could be, or were put back behind it.
#[test]
fn behind_a_backlog() {
    let scope = Scope { pollers: 1, backlog: 2, batches: &[&[2], &[3]], ..KEPT };
    assert_holds("kept, behind a backlog", scope);
}

/// The answer is too large, so a turn records one message after the other.
#[test]
fn far_behind() {
    let budget = Budget { faults: 1, crashes: 1, ..Budget::NONE };
    assert_holds(
        "kept, far behind",
        Scope { batches: &[&[0, 1, 2]], most_rows: 2, budget, keeps_records: true, ..CALM },
    );
}

#[test]
fn late_rows() {
    let budget = Budget { crashes: 1, ..Budget::NONE };
    assert_holds("kept, late rows", Scope { keeps_records: true, batches: &[&[1], &[0]], budget, ..LATE });
}

#[test]
fn a_site_that_is_renamed_and_gone() {
    let listings: &[Listing] = &[Listing { name: "t", ..LISTED }, Listing { name: "t", task: Task::Leave }];
    let budget = Budget { crashes: 1, ..Budget::NONE };
    assert_holds("kept, renamed and gone", Scope { pollers: 1, listings, budget, ..KEPT });
}
