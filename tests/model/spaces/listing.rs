//! Sites that get another name, and sites that are not listed for a while.

use super::{CALM, assert_holds, bound};
use crate::{
    listing::{LISTED, Listing, Task},
    scope::{Budget, Scope},
};

const RENAMED: Listing = Listing { name: "t", ..LISTED };
const GONE: Listing = Listing { task: Task::Leave, ..LISTED };
const UNWANTED: Listing = Listing { task: Task::Send, ..LISTED };

/// A message waits under the first name.
const RENAMES: Scope = Scope { pollers: 2, backlog: 1, batches: &[&[1]], listings: &[RENAMED], ..CALM };

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn renames_with_two_pollers() {
    let faults = bound("MODEL_FAULTS", 0);
    let crashes = bound("MODEL_CRASHES", 0);
    assert_holds("renames", Scope { budget: Budget { faults, crashes, ..Budget::NONE }, ..RENAMES });
}

#[test]
fn a_rename_and_back_with_a_fault_and_a_crash() {
    let budget = Budget { faults: 1, crashes: 1, ..Budget::NONE };
    let listings = &[RENAMED, LISTED];
    assert_holds("a rename and back", Scope { pollers: 1, listings, budget, ..RENAMES });
}

/// Each poller may have begun before the site was taken off the list, or before it came back.
const LEAVES: Scope = Scope { listings: &[GONE, LISTED], ..RENAMES };

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn a_site_that_is_gone_and_comes_back() {
    let faults = bound("MODEL_FAULTS", 0);
    let crashes = bound("MODEL_CRASHES", 0);
    assert_holds("gone and back", Scope { budget: Budget { faults, crashes, ..Budget::NONE }, ..LEAVES });
}

#[test]
fn a_site_that_is_gone_with_a_fault_and_a_crash() {
    let budget = Budget { faults: 1, crashes: 1, ..Budget::NONE };
    assert_holds("gone, a fault and a crash", Scope { pollers: 1, budget, ..LEAVES });
}

/// It comes back under another name.
#[test]
fn a_site_that_is_not_wanted_and_wanted_again() {
    let listings = &[UNWANTED, RENAMED];
    assert_holds("not wanted and wanted again", Scope { listings, ..LEAVES });
}

/// For the test of the keys.
pub const ALIKE: [Scope; 3] = [
    Scope {
        pollers: 1,
        listings: &[RENAMED, LISTED],
        budget: Budget { faults: 1, crashes: 1, ..Budget::NONE },
        ..RENAMES
    },
    RENAMES,
    Scope { batches: &[], ..LEAVES },
];
