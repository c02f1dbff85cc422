//! Tests the model itself with worlds that break a promise: the model must notice, and name the rule that depends on
//! the promise. If the model misses a fault that was made on purpose, it would also miss the same fault made by
//! mistake.

use crate::{
    backend::Value,
    explorer::explore,
    listing::{LISTED, Listing, Task},
    rules::Rule,
    scope::{Budget, Sabotage, Scope, Trouble},
    spaces::CALM,
    state::State,
};

const ONE_ROW: Scope = Scope { batches: &[&[0]], ..CALM };

fn with_faults(faults: u8) -> Budget {
    Budget { faults, ..Budget::NONE }
}

fn assert_breaks(rule: Rule, sabotage: Sabotage, scope: Scope) {
    let start =
        State::with_backlog(Scope { sabotage: Some(sabotage), ..scope }).expect("a backlog comes about by the rules");
    let found = explore(&start);
    println!("{sabotage:?}: {found}");
    let broken = found.violation.as_ref().map(|(violation, _)| violation.rule);
    assert_eq!(broken, Some(rule), "{sabotage:?}: {found}");
}

#[test]
fn rule_1_a_commit_that_is_answered_before_it_is_applied() {
    assert_breaks(Rule::RecordedBeforeSent, Sabotage::CommitsLater, ONE_ROW);
}

#[test]
fn rule_1_a_cursor_that_moves_without_its_records() {
    assert_breaks(Rule::RecordedBeforeSent, Sabotage::CursorWithoutRecords, ONE_ROW);
}

#[test]
fn rule_2_acknowledgements_that_are_made_up() {
    assert_breaks(Rule::ForwardedMeansAcknowledged, Sabotage::AcknowledgesNothing, ONE_ROW);
}

#[test]
fn rule_3_a_body_that_changes() {
    assert_breaks(Rule::SameBytes, Sabotage::ChangesBodies, ONE_ROW);
}

#[test]
fn rule_4_messages_that_overtake() {
    let scope = Scope { backlog: 2, budget: with_faults(1), ..CALM };
    assert_breaks(Rule::InOrder, Sabotage::SwapsMessages, scope);
}

#[test]
fn rule_5_a_cursor_that_is_written_without_if_match() {
    assert_breaks(Rule::LoserWritesNothing, Sabotage::IgnoresIfMatch, Scope { pollers: 2, ..ONE_ROW });
}

#[test]
fn rule_5_a_lost_race_that_is_told_as_a_failure() {
    assert_breaks(Rule::LoserWritesNothing, Sabotage::HidesConflicts, Scope { pollers: 2, ..ONE_ROW });
}

#[test]
fn rule_6_an_error_that_is_told_as_no_rows() {
    let scope = Scope { budget: with_faults(1), troubles: &[Trouble::Status], ..ONE_ROW };
    assert_breaks(Rule::FailureIsNotEmpty, Sabotage::HidesErrors, scope);
}

#[test]
fn a_record_that_the_cursor_loses() {
    let scope = Scope { keeps_records: true, ..ONE_ROW };
    assert_breaks(Rule::QueueIsThePending, Sabotage::DropsRecord, scope);
    assert_breaks(Rule::LoserWritesNothing, Sabotage::HidesRecord, Scope { budget: with_faults(1), ..scope });
}

#[test]
fn rule_7_a_queue_that_looks_empty() {
    let scope = Scope { backlog: 100, budget: with_faults(1), hub_is_away: true, ..CALM };
    assert_breaks(Rule::LimitHeeded, Sabotage::HidesWaiting, scope);
}

/// The second row is late.
const LATE_ROW: Scope =
    Scope { batches: &[&[1], &[0]], overlap: Some(9), budget: Budget { crashes: 1, ..Budget::NONE }, ..CALM };

#[test]
fn late_rows_a_cursor_that_is_written_without_its_list() {
    assert_breaks(Rule::ListIsTheRecorded, Sabotage::DropsList, LATE_ROW);
}

#[test]
fn late_rows_a_cursor_that_is_read_without_its_list() {
    assert_breaks(Rule::OnceWithinReach, Sabotage::HidesList, LATE_ROW);
}

#[test]
fn late_rows_a_list_that_has_lost_its_stamps() {
    assert_breaks(Rule::ListIsTheRecorded, Sabotage::EmptiesList, LATE_ROW);
}

/// A recorded row gets another value.
const CORRECTION: Scope = Scope { backlog: 1, changes: &[(0, Value::Second)], ..LATE_ROW };

#[test]
fn corrections_a_list_that_has_lost_its_values() {
    assert_breaks(Rule::ListIsTheRecorded, Sabotage::ForgetsValues, Scope { batches: &[&[1]], ..CORRECTION });
}

#[test]
fn corrections_a_list_with_a_wrong_value() {
    assert_breaks(Rule::CorrectedOnce, Sabotage::MistakesValue, Scope { changes: &[], ..CORRECTION });
}

/// The second row cannot be used.
const UNUSABLE_ROW: Scope = Scope { backlog: 1, batches: &[&[1]], nonsense: &[1], ..LATE_ROW };

#[test]
fn unusable_rows_a_cursor_that_is_read_without_them() {
    assert_breaks(Rule::CountedOnce, Sabotage::ForgetsUnusable, UNUSABLE_ROW);
}

#[test]
fn unusable_rows_that_are_told_as_no_rows() {
    assert_breaks(Rule::FailureIsNotEmpty, Sabotage::HidesUnusable, UNUSABLE_ROW);
}

const RENAME: Scope = Scope { listings: &[Listing { name: "t", ..LISTED }], ..ONE_ROW };

#[test]
fn renames_records_that_get_the_new_name() {
    let scope = Scope { backlog: 1, batches: &[], ..RENAME };
    assert_breaks(Rule::SameBytes, Sabotage::RenamesRecords, scope);
}

#[test]
fn renames_that_a_run_does_not_see() {
    assert_breaks(Rule::NamesItsSite, Sabotage::HidesRenames, RENAME);
}

const GONE: Scope = Scope { listings: &[Listing { task: Task::Leave, ..LISTED }, LISTED], ..ONE_ROW };

#[test]
fn gone_a_cursor_that_is_read_without_the_note() {
    assert_breaks(Rule::GoneOnce, Sabotage::ForgetsGone, GONE);
}

#[test]
fn gone_a_note_that_stays_when_the_site_is_back() {
    assert_breaks(Rule::GoneOnce, Sabotage::KeepsGone, GONE);
}
