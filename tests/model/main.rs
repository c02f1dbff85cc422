//! The protocol of cursor and records, tried in all its interleavings.
mod backend;
mod explorer;
mod hub;
mod key;
mod outcomes;
mod poller;
mod rules;
mod scope;
mod settling;
mod state;
mod store;
mod story;
mod world;

use scope::{Budget, Scope, Trouble};
use state::State;

fn env(name: &str, default: u8) -> u8 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn probe() {
    let batches: &'static [usize] = match env("B", 2) {
        1 => &[1],
        2 => &[1, 2],
        _ => &[1, 2, 1],
    };
    let scope = Scope {
        pollers: env("P", 2).into(),
        backlog: 0,
        batches,
        budget: Budget { faults: env("F", 1), crashes: env("C", 1), late_turns: env("L", 0), pauses: 0 },
        troubles: &[Trouble::Status],
        sabotage: None,
    };
    let found = explorer::explore(&State::new(world::World::new(scope)));
    println!("{found}");
    assert!(found.violation.is_none());
}
