//! Wherever everything stops: what a new poller makes of it, in one turn in which nothing goes wrong.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Mutex,
};

use iothub_connector::ledger::Outcome as RecordOutcome;

use crate::{
    backend::stamp,
    key::{self, Key},
    outcomes::Outcome,
    rules::{Rule, Violation},
    scope::Budget,
    state::{State, Step},
    world::World,
};

/// Longer than any rest of a site, in seconds.
const LONG: i64 = 2 * 60 * 60;

/// The worlds that are known to settle.
#[derive(Default)]
pub struct Settled(Mutex<HashSet<Key>>);

impl Settled {
    pub fn check(&self, world: &World) -> Result<(), Violation> {
        // A broken world has its own rule to break.
        if world.scope.sabotage.is_some() {
            return Ok(());
        }
        let is_new = self.0.lock().expect("no thread panicked").insert(key::of_world(world));
        if is_new { settles(world) } else { Ok(()) }
    }
}

fn settles(world: &World) -> Result<(), Violation> {
    let mut world = world.clone();
    world.scope.pollers = 1;
    world.left = Budget::NONE;
    world.seconds += LONG;
    world.store.on_its_way = None;
    world.hub.on_their_way = VecDeque::new();
    let mut state = State::new(world).after(Step::Begins { poller: 0, is_late: false })?;
    while state.pollers[0].turn.is_some() {
        state = state.after(Step::Answered(0, Outcome::Done))?;
    }
    let World { store, hub, rows, .. } = &state.world;
    let rule = Rule::OneTurnSettles;
    let recorded: BTreeSet<_> = store.rows().collect();
    // Older than the list are rows that came when they were out of reach.
    let list = store.committed().cursor.recorded;
    let missing: Vec<_> = rows.difference(&recorded).collect();
    let is_right = missing.iter().all(|row| list.as_ref().is_some_and(|list| !list.lacks(stamp(**row))));
    rule.check(is_right, || format!("of {rows:?}, {missing:?} are not recorded after an undisturbed turn"))?;
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
