//! Kills a backfill at every step of the stand-ins, and runs it again.

use std::{
    io::Read as _,
    process::Child,
    sync::{Arc, Mutex},
};

use emulators::{
    cosmos, iot_hub, rapidm2m,
    steps::{Step, Steps, Then},
};
use serde_json::{Value, json};

use crate::{
    commands::run::{DAY, SITE, assert_settled, backfilled, command, ids, run_ok},
    support::{Emulator, World, stamp},
};

const RANGE: [&str; 4] = ["backfill", SITE, "--from=2024-03-01", "--until=2024-03-04"];

/// Kills a process when it reaches a given step.
#[derive(Clone, Default)]
struct Killer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    victim: Option<Child>,
    /// The remaining steps before the kill; 0: no kill.
    left: usize,
    killed_at: Option<Step>,
}

impl Killer {
    fn steps(&self) -> Steps {
        let state = Arc::clone(&self.0);
        Steps::new(move |step| {
            let mut state = state.lock().unwrap();
            let State { victim: Some(victim), left, .. } = &mut *state else { return Then::GoOn };
            if *left != 1 {
                *left = left.saturating_sub(1);
                return Then::GoOn;
            }
            *left = 0;
            victim.kill().unwrap();
            // All connections of the process are gone with it.
            victim.wait().unwrap();
            state.killed_at = Some(step);
            Then::Lose
        })
    }

    /// Runs until the `nth` step, or to the end if there are fewer steps. Returns the step at which the process was
    /// killed.
    async fn run(&self, world: &World, arguments: &[&str], nth: usize) -> Option<Step> {
        let (mut out, mut err) = {
            // The process's first step waits for this lock.
            let mut state = self.0.lock().unwrap();
            let mut child = command(&world.settings, arguments).spawn().unwrap();
            let pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            *state = State { victim: Some(child), left: nth, killed_at: None };
            pipes
        };
        let said = tokio::task::spawn_blocking(move || {
            let (mut printed, mut said) = (String::new(), String::new());
            out.read_to_string(&mut printed).unwrap();
            err.read_to_string(&mut said).unwrap();
            format!("{printed}{said}")
        });
        let said = said.await.unwrap();
        let mut state = self.0.lock().unwrap();
        let status = state.victim.take().unwrap().wait().unwrap();
        assert!(state.killed_at.is_some() || status.success(), "{said}");
        state.killed_at
    }
}

async fn world(killer: &Killer) -> World {
    let backend = rapidm2m::Options {
        customer: crate::support::CUSTOMER.to_owned(),
        site: vec![SITE.to_owned()],
        channels: 2,
        no_generate: true,
        steps: killer.steps(),
        ..rapidm2m::Options::default()
    };
    let cosmos = cosmos::Options { steps: killer.steps(), ..cosmos::Options::default() };
    let hub = iot_hub::Options { steps: killer.steps(), ..iot_hub::Options::default() };
    let (backend, cosmos, hub) =
        tokio::join!(Emulator::rapidm2m(backend), Emulator::cosmos(cosmos), Emulator::iot_hub(hub));
    World::of(backend, cosmos, hub, &[SITE])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_killed_anywhere_makes_the_same_messages() {
    let killer = Killer::default();
    let world = world(&killer).await;
    // One day gives one message, one gives several, and one has no rows.
    world.add(SITE, (0..DAY).step_by(60)).await;
    let text = "x".repeat(80_000);
    let large: Vec<Value> = (0..3).map(|row| json!([stamp(DAY + row * 60), row, text])).collect();
    world.add_raw(SITE, large.into()).await;
    run_ok(&world, &RANGE).await;
    let (messages, expected) = (backfilled(&world).await, ids(&world).await);
    assert_eq!(expected.len(), 1 + 2);

    let (mut killed_at, mut seen) = (Vec::new(), expected.len());
    for nth in 1.. {
        let Some(step) = killer.run(&world, &[&RANGE[..], &["--again"]].concat(), nth).await else { break };
        killed_at.push(step);
        // If the process was killed before it began again, the backfill is still done from before.
        run_ok(&world, &[&RANGE[..], &["--again"]].concat()).await;
        let arrived = ids(&world).await.split_off(seen);
        seen += arrived.len();
        // All messages arrive once and in order. A repeat is one of the messages before it, under the same id.
        let mut first: Vec<String> = Vec::new();
        for id in arrived {
            if !first.contains(&id) {
                first.push(id);
            }
        }
        assert_eq!(first, expected, "killed at step {nth}, {step}");
        assert_settled(&world).await;
    }
    assert_eq!(backfilled(&world).await, messages, "the same bytes");
    for step in [
        Step::RowsAsked,
        Step::RowsAnswered,
        Step::RecordCame,
        Step::RecordApplied,
        Step::RecordAnswered,
        Step::MessageCame,
        Step::MessageTaken,
        Step::MessageAnswered,
        Step::MarkCame,
        Step::MarkApplied,
        Step::MarkAnswered,
    ] {
        assert!(killed_at.contains(&step), "never killed at {step}: {killed_at:?}");
    }
    println!("killed at {} steps", killed_at.len());
}
