//! Tests each space completely. Run with `--nocapture` to see the number of states.

mod kept;
mod listing;
mod rows;

use std::collections::{HashMap, VecDeque};

use crate::{
    explorer::explore,
    key::{self, Key},
    scope::{Budget, Scope, Trouble},
    state::State,
};

/// Nothing goes wrong and nothing happens.
pub const CALM: Scope = Scope {
    pollers: 1,
    backlog: 0,
    batches: &[],
    nonsense: &[],
    changes: &[],
    listings: &[],
    overlap: None,
    most_rows: usize::MAX,
    budget: Budget::NONE,
    troubles: &[],
    hub_is_away: false,
    keeps_records: false,
    sabotage: None,
};

/// One batch has two rows, so that the messages that are cut, repeated and raced for include one with several rows.
const TWO_POLLERS: Scope = Scope {
    pollers: 2,
    batches: &[&[0], &[1, 2]],
    budget: Budget { faults: 1, crashes: 1, ..Budget::NONE },
    troubles: &[Trouble::Status],
    ..CALM
};

fn assert_holds(name: &str, scope: Scope) {
    let start = State::with_backlog(scope).expect("a backlog comes about by the rules");
    let found = explore(&start);
    println!("{name}: {found}");
    assert!(found.violation.is_none(), "{name}: {found}");
}

/// A bound from the environment, for a larger space than usual.
fn bound(name: &str, usual: u8) -> u8 {
    let Ok(text) = std::env::var(name) else { return usual };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number from 0 to 255"))
}

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn two_pollers_within_bounds() {
    let faults = bound("MODEL_FAULTS", 1);
    let crashes = bound("MODEL_CRASHES", 0);
    assert_holds("two pollers", Scope { budget: Budget { faults, crashes, ..Budget::NONE }, ..TWO_POLLERS });
}

#[test]
fn two_pollers_with_a_crash() {
    let budget = Budget { crashes: 1, ..Budget::NONE };
    assert_holds("two pollers, a crash", Scope { budget, ..TWO_POLLERS });
}

#[test]
fn two_pollers_with_a_fault_and_a_crash() {
    assert_holds("two pollers, a fault and a crash", Scope { batches: &[&[0, 1]], ..TWO_POLLERS });
}

#[test]
fn two_pollers_with_two_faults() {
    let budget = Budget { faults: 2, ..Budget::NONE };
    assert_holds("two pollers, two faults", Scope { batches: &[&[0]], budget, ..TWO_POLLERS });
}

#[test]
fn one_poller_with_all_that_a_backend_can_answer() {
    let troubles = &[Trouble::Status, Trouble::Html, Trouble::BadRows, Trouble::Throttled, Trouble::Unauthorized];
    let budget = Budget { faults: 2, crashes: 1, late_turns: 1, pauses: 1 };
    assert_holds("one poller", Scope { batches: &[&[0, 1]], budget, troubles, ..CALM });
}

/// The answer to the first request is too large, so the turn goes on window by window, with a message for each. (With
/// two pollers there would be too many ways to search for the windows.)
#[test]
fn one_poller_far_behind() {
    let budget = Budget { faults: 2, crashes: 1, ..Budget::NONE };
    assert_holds(
        "far behind",
        Scope { batches: &[&[0, 1, 2]], most_rows: 2, budget, troubles: &[Trouble::Status], ..CALM },
    );
}

#[test]
fn messages_that_wait_up_to_the_limit() {
    let budget = Budget { faults: 2, ..Budget::NONE };
    assert_holds("the limit", Scope { backlog: 99, batches: &[&[99], &[100]], budget, hub_is_away: true, ..CALM });
}

/// All rows are within reach, in any order of arrival.
const LATE: Scope = Scope { overlap: Some(100), batches: &[&[1], &[0, 2]], ..TWO_POLLERS };

/// The environment can enlarge this space: see `main.rs`.
#[test]
fn late_rows_from_the_first() {
    let faults = bound("MODEL_FAULTS", 0);
    let crashes = bound("MODEL_CRASHES", 1);
    assert_holds("late rows from the first", Scope { budget: Budget { faults, crashes, ..Budget::NONE }, ..LATE });
}

/// One row is already recorded at the start.
#[test]
fn late_rows_with_a_fault_and_a_crash() {
    let scope = Scope { backlog: 1, batches: &[&[0, 2]], ..LATE };
    assert_holds("late rows, a fault and a crash", scope);
}

/// The list never fits into one answer, so late rows appear both before and behind the window that is being read. All
/// rows stay within reach. With a short overlap, rows that appear behind that window could get out of reach when newer
/// rows appear before it.
#[test]
fn late_rows_in_windows() {
    let budget = Budget { crashes: 1, ..Budget::NONE };
    let scope = Scope { pollers: 1, backlog: 3, batches: &[&[0], &[2]], most_rows: 2, budget, ..LATE };
    assert_holds("late rows in windows", scope);
}

#[test]
fn late_rows_in_windows_from_the_first() {
    // A window that was empty gets more rows than one answer holds.
    let batches: &[&[usize]] = &[&[0, 3], &[2], &[1, 4, 5]];
    let scope = Scope { pollers: 1, batches, most_rows: 2, budget: Budget::NONE, ..LATE };
    assert_holds("late rows in windows from the first", scope);
}

/// The list begins after some recorded rows, and after rows that arrive too late.
#[test]
fn late_rows_and_a_short_overlap() {
    let scope = Scope { overlap: Some(2), batches: &[&[1], &[3], &[2, 5]], budget: Budget::NONE, ..LATE };
    assert_holds("late rows, a short overlap", scope);
}

/// If two different states counted as one, the model would never try the second one's successors.
#[test]
fn states_that_count_as_one_go_on_alike() {
    assert_alike(Scope { batches: &[&[0]], budget: Budget { faults: 1, ..Budget::NONE }, ..TWO_POLLERS });
    assert_alike(Scope { batches: &[&[1], &[0]], overlap: Some(0), budget: Budget::NONE, ..TWO_POLLERS });
    rows::ALIKE.into_iter().chain(listing::ALIKE).chain(kept::ALIKE).for_each(assert_alike);
}

fn assert_alike(scope: Scope) {
    let mut known: HashMap<Key, Vec<Key>> = HashMap::new();
    let mut waiting = VecDeque::from([State::with_backlog(scope).expect("nothing has happened")]);
    let mut met_again = 0;
    while let Some(state) = waiting.pop_front() {
        let after: Vec<_> = state.steps().into_iter().map(|step| state.after(step).expect("all rules hold")).collect();
        let mut keys: Vec<_> = after.iter().map(key::of).collect();
        keys.sort_unstable();
        match known.get(&key::of(&state)) {
            Some(first) => {
                assert_eq!(*first, keys, "two states with one key lead to different ones");
                met_again += 1;
            }
            None => {
                known.insert(key::of(&state), keys);
                waiting.extend(after);
            }
        }
    }
    assert!(2 * met_again > known.len(), "{met_again} of {} states were met again", known.len());
}
