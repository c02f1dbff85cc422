//! Tries all steps from all states, breadth first, so that the first violation has a shortest way to it.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    key::{self, Key},
    rules::Violation,
    settling,
    state::{State, Step},
    story,
};

/// The result of exploring a space.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub transitions: usize,
    /// The largest number of steps of a shortest way to a state.
    pub depth: usize,
    pub took: Duration,
    pub violation: Option<(Violation, Vec<String>)>,
}

/// A state and how it was reached.
struct Node {
    state: State,
    way: Option<Arc<Way>>,
}

struct Way {
    before: Option<Arc<Way>>,
    step: Step,
}

/// The data that all exploring threads share.
struct Space {
    visited: Mutex<HashSet<Key>>,
    settled: settling::Settled,
    transitions: AtomicUsize,
}

/// A violation, with the index of its state in the level and the index of the step among the state's steps.
type Broken = ((usize, usize), Violation, Option<Arc<Way>>);

pub fn explore(start: &State) -> Found {
    let began = Instant::now();
    let space = Space {
        visited: Mutex::new(HashSet::from([key::of(start)])),
        settled: settling::Settled::default(),
        transitions: AtomicUsize::new(0),
    };
    let mut level = vec![Node { state: start.clone(), way: None }];
    let (mut depth, mut violation) = (0, None);
    while !level.is_empty() {
        let (next, broken) = space.next_level(&level);
        // Reports the first violation in the order of the steps, whichever thread was faster.
        if let Some((_, broken, way)) = broken.into_iter().min_by_key(|(place, ..)| *place) {
            violation = Some((broken, story::tell(start, &steps(way.as_deref()))));
            break;
        }
        depth += usize::from(!next.is_empty());
        level = next;
    }
    let states = space.visited.into_inner().expect("no thread panicked").len();
    let transitions = space.transitions.into_inner();
    Found { states, transitions, depth, took: began.elapsed(), violation }
}

fn steps(mut way: Option<&Way>) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(Way { before, step }) = way {
        steps.push(*step);
        way = before.as_deref();
    }
    steps.reverse();
    steps
}

impl Space {
    fn next_level(&self, level: &[Node]) -> (Vec<Node>, Vec<Broken>) {
        let taken = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let work = || {
                let (mut next, mut broken) = (Vec::new(), Vec::new());
                loop {
                    let place = taken.fetch_add(1, Ordering::Relaxed);
                    let Some(node) = level.get(place) else { return (next, broken) };
                    self.leave(node, place, &mut next, &mut broken);
                }
            };
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let (mut next, mut broken) = (Vec::new(), Vec::new());
            for worker in workers {
                let (nodes, violations) = worker.join().expect("a worker panicked: its message is above");
                next.extend(nodes);
                broken.extend(violations);
            }
            (next, broken)
        })
    }

    /// Takes all steps from one state.
    fn leave(&self, node: &Node, place: usize, next: &mut Vec<Node>, broken: &mut Vec<Broken>) {
        for (number, step) in node.state.steps().into_iter().enumerate() {
            self.transitions.fetch_add(1, Ordering::Relaxed);
            let way = Some(Arc::new(Way { before: node.way.clone(), step }));
            let reached = node.state.after(step).and_then(|state| {
                let is_new = self.visited.lock().expect("no thread panicked").insert(key::of(&state));
                if is_new {
                    self.settled.check(&state)?;
                }
                Ok(is_new.then_some(state))
            });
            match reached {
                Ok(Some(state)) => next.push(Node { state, way }),
                Ok(None) => {}
                Err(violation) => broken.push(((place, number), violation, way)),
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, depth, took, violation } = self;
        write!(out, "{states} states, {transitions} transitions, {depth} deep, {:.1} s", took.as_secs_f64())?;
        let Some((violation, story)) = violation else { return Ok(()) };
        write!(out, "\n{violation}")?;
        story.iter().enumerate().try_for_each(|(number, line)| write!(out, "\n{:>3}. {line}", number + 1))
    }
}
