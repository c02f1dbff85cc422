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
mod text;
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

#[test]
fn sound() {
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
    use std::collections::*;
    let start = State::new(world::World::new(scope));
    let succ = |s: &State| -> Vec<(key::Key, String)> {
        let mut v: Vec<_> =
            s.steps().into_iter().map(|st| (key::of(&s.after(st).unwrap()), format!("{st:?}"))).collect();
        v.sort();
        v
    };
    let mut map: HashMap<key::Key, Vec<(key::Key, String)>> = HashMap::new();
    let mut todo = VecDeque::from([start]);
    let mut bad = 0;
    while let Some(s) = todo.pop_front() {
        let k = key::of(&s);
        let v = succ(&s);
        match map.get(&k) {
            None => {
                map.insert(k, v);
                for st in s.steps() {
                    todo.push_back(s.after(st).unwrap());
                }
            }
            Some(old) => {
                let a: Vec<_> = old.iter().map(|x| &x.0).collect();
                let b: Vec<_> = v.iter().map(|x| &x.0).collect();
                if a != b {
                    bad += 1;
                    println!("KEY {k:?}");
                    for (x, y) in old.iter().zip(&v) {
                        if x.0 != y.0 {
                            println!("--- {}\n{:?}\n+++ {}\n{:?}", x.1, x.0, y.1, y.0);
                            break;
                        }
                    }
                    if bad > 1 {
                        panic!()
                    }
                }
            }
        }
    }
    println!("{} {bad}", map.len());
}
