//! Chooses the kills of a run. Does no I/O: the same seed gives the same kills.

use std::{ops::RangeInclusive, time::Duration};

use emulators::steps::Step;
use fastrand::Rng;

/// Milliseconds from the handler's start to a kill at a random moment. The handler may not be ready yet.
const MOMENT: RangeInclusive<u64> = 0..=600;
/// One kill in this many is at a random moment.
const MOMENT_EVERY: usize = 6;

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// When the step is reached for the nth time since the handler's start.
    At { step: Step, nth: u32 },
    /// This long after the handler's start.
    After(Duration),
}

/// A step at which a handler can be killed.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub step: Step,
    /// How often the step is certainly reached soon, in one life of a handler.
    pub most: u32,
    /// If set, the step is reached only if the handler's previous life ended at this step.
    pub after: Option<Step>,
}

impl Spot {
    pub const fn new(step: Step, most: u32) -> Self {
        Self { step, most, after: None }
    }

    pub const fn after(self, step: Step) -> Self {
        Self { after: Some(step), ..self }
    }
}

/// Every step comes once, in random order, before any step comes again.
#[must_use]
pub fn plan(seed: u64, kills: usize, spots: &[Spot]) -> Vec<Kill> {
    // Not the random stream of the rows, which have the same seed.
    let mut random = Rng::with_seed(seed ^ 0x6b69_6c6c);
    let mut plan = Vec::with_capacity(kills);
    let mut deck: Vec<Spot> = Vec::new();
    while plan.len() < kills {
        if random.usize(..MOMENT_EVERY) == 0 {
            plan.push(Kill::After(Duration::from_millis(random.u64(MOMENT))));
            continue;
        }
        if deck.is_empty() {
            deck = spots.to_vec();
            random.shuffle(&mut deck);
        }
        let Some(spot) = deck.pop() else { continue };
        if let Some(step) = spot.after {
            plan.push(Kill::At { step, nth: 1 });
        }
        plan.push(Kill::At { step: spot.step, nth: random.u32(1..=spot.most) });
    }
    plan.truncate(kills);
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SPOTS: [Spot; 3] = [
        Spot::new(Step::RowsAsked, 5),
        Spot::new(Step::MarkCame, 1),
        Spot::new(Step::PollRead, 1).after(Step::RecordApplied),
    ];

    #[test]
    fn a_seed_plans_the_same_kills_again() {
        assert_eq!(plan(1, 10, &SPOTS), plan(1, 10, &SPOTS));
        assert_ne!(plan(1, 10, &SPOTS), plan(2, 10, &SPOTS));
        assert_eq!(plan(1, 0, &SPOTS), []);
    }

    #[test]
    fn every_step_has_its_turn_and_what_it_needs_before_it() {
        let plan = plan(3, 400, &SPOTS);
        assert_eq!(plan.len(), 400);
        let mut counts: BTreeMap<Option<Step>, usize> = BTreeMap::new();
        for (index, kill) in plan.iter().enumerate() {
            match kill {
                Kill::At { step, nth } => {
                    *counts.entry(Some(*step)).or_default() += 1;
                    assert!((1..=5).contains(nth));
                    if *step == Step::PollRead {
                        assert_eq!(plan[index - 1], Kill::At { step: Step::RecordApplied, nth: 1 });
                    }
                }
                Kill::After(time) => {
                    *counts.entry(None).or_default() += 1;
                    assert!(time.as_millis() <= 600);
                }
            }
        }
        assert_eq!(counts.len(), 5, "{counts:?}");
        assert!(counts.values().all(|count| (40..=120).contains(count)), "{counts:?}");
    }
}
