//! Checks that a new poller can finish the work wherever everything stops, in one turn in which nothing goes wrong.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Mutex,
};

use iothub_connector::rapidm2m::ledger::Outcome as RecordOutcome;

use crate::{
    backend, corrections,
    key::{self, Key},
    late::lacks,
    listing::{LISTED, Listing, Task},
    outcomes::Outcome,
    rules::{Rule, Violation},
    scope::Budget,
    state::{Poller, State, Step},
    unusable,
    world::World,
};

/// Longer than any back-off of a site, in seconds.
const LONG: i64 = 2 * 60 * 60;

/// The turns that a surviving poller needs: it may lose one turn to an old cursor, and one may end a sweep that began
/// before the last row came.
const TURNS: usize = 3;

/// What is known to settle: worlds, and worlds together with an idle poller's memory.
#[derive(Default)]
pub struct Settled(Mutex<HashSet<Key>>);

impl Settled {
    pub fn check(&self, state: &State) -> Result<(), Violation> {
        // A broken world is expected to break its own rule, so this rule is not checked.
        if state.world.scope.sabotage.is_some() {
            return Ok(());
        }
        let undisturbed = undisturbed(&state.world);
        if self.is_new(key::of_world(&state.world)) {
            settles(State::new(undisturbed.clone()), 1)?;
        }
        // A poller's memory must not keep it from finding a late row, or that the site is gone.
        let scope = &state.world.scope;
        let can_be_wrong = scope.overlap.is_some() || !scope.listings.is_empty();
        let remembers = |poller: &&Poller| can_be_wrong && poller.turn.is_none();
        for poller in state.pollers.iter().filter(remembers) {
            let alone = State { world: undisturbed.clone(), pollers: vec![poller.clone()] };
            if self.is_new(key::of(&alone)) {
                settles(alone, TURNS)?;
            }
        }
        Ok(())
    }

    fn is_new(&self, key: Key) -> bool {
        self.0.lock().expect("no thread panicked").insert(key)
    }
}

/// The world with one poller, in which nothing more goes wrong or happens, after all back-offs are over.
fn undisturbed(world: &World) -> World {
    let mut world = world.clone();
    world.scope.pollers = 1;
    world.left = Budget::NONE;
    world.listings = &[];
    world.seconds += LONG;
    world.store.on_its_way = None;
    world.hub.on_their_way = VecDeque::new();
    world
}

/// Has undisturbed turns, and at last marks what is not marked yet.
fn goes_on(mut state: State, turns: usize) -> Result<State, Violation> {
    let turns = (0..turns).map(|_| Step::Begins { poller: 0, is_late: false });
    for begin in turns.chain([Step::Marks(0)]) {
        state = state.after(begin)?;
        while state.pollers[0].turn.is_some() {
            state = state.after(Step::Answered(0, Outcome::Done))?;
        }
    }
    Ok(state)
}

fn settles(mut state: State, turns: usize) -> Result<(), Violation> {
    let Listing { name, task } = state.world.listing;
    if task != Task::Poll {
        state = goes_on(state, turns)?;
        check_sent(&state.world)?;
        let cursor = state.world.store.committed();
        let is_told = task == Task::Send || cursor.etag.is_none() || cursor.cursor.gone_since.is_some();
        Rule::GoneOnce.check(is_told, || "the cursor of a site that is gone does not say so".into())?;
        // It comes back.
        state.world.listing = Listing { name, ..LISTED };
    }
    state = goes_on(state, turns)?;
    check_sent(&state.world)?;
    let World { store, rows, .. } = &state.world;
    let recorded: BTreeSet<_> = store.rows().map(|row| row.number).collect();
    // Rows that are older than the list came when they were out of reach, so they may be missing.
    let cursor = store.committed().cursor;
    let list = cursor.recorded;
    let missing: Vec<_> = backend::all(rows).filter(|row| row.is_usable() && !recorded.contains(&row.number)).collect();
    let is_right = missing.iter().all(|row| list.as_ref().is_some_and(|list| !lacks(list, row.number)));
    let rule = Rule::OneTurnSettles;
    rule.check(is_right, || format!("of {rows:?}, {missing:?} are not recorded after an undisturbed turn"))?;
    let name_of = cursor.site_name.as_deref().unwrap_or(LISTED.name);
    Rule::NamesItsSite.check(name_of == name || store.cursor.is_none(), || {
        format!("the site is called {name}, the cursor says {name_of} after an undisturbed turn")
    })?;
    Rule::GoneOnce.check(cursor.gone_since.is_none(), || "a site that is polled again is still gone".into())?;
    if let Some(list) = list {
        corrections::check_settled(backend::all(rows), list.since(), store)?;
        unusable::check_settled(backend::all(rows), &list)?;
    }
    Ok(())
}

/// Checks that nothing waits.
fn check_sent(world: &World) -> Result<(), Violation> {
    let World { store, hub, .. } = world;
    let rule = Rule::OneTurnSettles;
    for record in &store.records {
        let id = record.poll.message_id.as_deref().unwrap_or_default();
        let is_right = match record.poll.outcome {
            RecordOutcome::Forwarded => hub.arrived.contains(id),
            RecordOutcome::Rejected => hub.refused.contains(id),
            _ => false,
        };
        rule.check(is_right, || {
            let (outcome, rows) = (record.poll.outcome, &record.rows);
            format!(
                "the record of rows {rows:?} is {outcome:?} after an undisturbed turn; at the hub: {}",
                hub.arrived.contains(id)
            )
        })?;
    }
    rule.check(store.waiting() == 0, || "messages wait after an undisturbed turn".into())
}
