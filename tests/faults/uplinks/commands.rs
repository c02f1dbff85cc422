//! Tests faults on a command's way from the hub to The Things Stack, after an uplink.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::world::{DEVICE, World};
use crate::{
    faults::{
        cell::{
            Cell, Line,
            Recovers::{self, SameRun, Soon},
            cell,
        },
        fault::Fault::{ContentType, CutBody, Echo, Garbage, Refused, Silent, Slow, Status, StatusAfter, TooSlow},
        polls::{assert_answers_complete, assert_complete},
        table,
    },
    support::Emulator,
};

/// The pause between two uplinks.
const PAUSE: Duration = Duration::from_secs(1);
/// After a failure, the hub is not asked again for 10 s and a device not for 5 s. A locked command is redelivered after
/// a minute.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    service: fn(&World) -> &Emulator,
    rule: fn() -> Value,
    /// The beginning of the logged line.
    warning: &'static str,
}

async fn run(of: Table, cells: &[Cell]) -> Vec<String> {
    table::run(of.name, cells.to_vec(), |cell| cell.fault.name(), |cell| one(of, cell)).await
}

/// Runs one cell. `recorded` of these cells is the state of the command after the run, as the hub reports it.
async fn one(of: Table, cell: Cell) -> Line {
    let mut world = World::start().await;
    // Commands are fetched: over MQTT the hub would push this one before the fault.
    world.set("IoTHubTransport", "https");
    world.restart().await;
    let first = world.uplink();
    world.give_until_taken(first).await;
    world.hub.post(&format!("c2d?device={DEVICE}"), json!({"body": "x", "properties": {"Port": "1"}})).await;
    let effect = cell.fault.effect(1_000);
    match &effect {
        Some(effect) => {
            let mut rule = (of.rule)();
            rule["effect"] = effect.clone();
            (of.service)(&world).put("trouble", json!([rule])).await;
        }
        None => away(&of, &world, true).await,
    }
    let second = world.uplink();
    let answer = world.give(second).await;
    assert_eq!(answer.status, 200, "the uplink is forwarded in any case: {}", answer.body);
    match effect {
        Some(_) => {
            assert!((of.service)(&world).get("trouble").await[0]["met"].as_u64() > Some(0), "the fault was not met");
            (of.service)(&world).delete("trouble").await;
        }
        None => away(&of, &world, false).await,
    }
    let state = state(&world).await;
    assert_eq!(state, cell.recorded, "{}", world.told());
    let warned = world.warned(of.warning);
    if cell.recovers == SameRun {
        assert_eq!(warned, None);
    }
    let seen = warned.unwrap_or_default();
    assert!(seen.contains(cell.says), "{:?} is not in {seen:?}\n{}", cell.says, world.told());
    if cell.recovers != SameRun {
        assert!(!cell.says.is_empty() && world.log().contains(DEVICE), "whose it is");
    }
    recovered(&mut world, cell.recovers).await;
    world.assert_all_is_well().await;
    Line {
        fault: cell.fault.name(),
        recorded: format!("command: {}", if state == "completed" { "passed on" } else { "waits at the hub" }),
        seen: if seen.is_empty() { "200".into() } else { format!("200, warning: {seen}") },
        recovers: cell.recovers.text(),
    }
}

async fn away(of: &Table, world: &World, away: bool) {
    (of.service)(world).put("away", away.into()).await
}

async fn state(world: &World) -> String {
    let all = world.hub.get(&format!("c2d?device={DEVICE}")).await;
    all[0]["state"].as_str().unwrap().to_owned()
}

/// Sends uplinks until the command is completed. Its downlink was accepted once, or again under the same correlation
/// id.
async fn recovered(world: &mut World, recovers: Recovers) {
    let give_up = Instant::now() + PATIENCE;
    while state(world).await != "completed" {
        assert_ne!(recovers, SameRun);
        assert!(Instant::now() < give_up, "not passed on within {PATIENCE:?}: {}", world.told());
        // Ends the lock at once instead of after a minute.
        world.hub.post(&format!("c2d/unlock?device={DEVICE}"), Value::Null).await;
        let next = world.uplink();
        world.give_until_taken(next).await;
        tokio::time::sleep(PAUSE).await;
    }
    let queue = world.stack.get(&format!("queue?application=app-1&device={DEVICE}")).await;
    let ids: BTreeSet<_> = queue.as_array().unwrap().iter().map(|one| one["correlation_ids"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one command: {queue}");
}

fn cells(first: Cell, statuses: [Cell; 9], others: &[Cell]) -> Vec<Cell> {
    [first].into_iter().chain(statuses).chain(others.iter().copied()).collect()
}

async fn c2d() -> Vec<String> {
    let waits = |fault, says| cell(fault, "enqueued", "", says, Soon);
    let cells = cells(
        waits(Status(503), "it answered 503"),
        [
            waits(Status(401), "the hub refused device dev-1 (401)"),
            waits(Status(403), "the hub refused device dev-1 (403)"),
            waits(Status(404), "the hub refused device dev-1 (404)"),
            waits(Status(408), "it answered 408"),
            waits(Status(412), "it answered 412"),
            waits(Status(429), "the hub is throttling"),
            waits(StatusAfter(429, 3), "asks to wait for 3 s"),
            waits(Status(500), "it answered 500"),
            waits(Echo, "it answered 500"),
        ],
        &[
            waits(Silent, "the hub did not acknowledge in time"),
            cell(TooSlow, "locked", "", "the hub did not acknowledge in time", Soon),
            cell(Slow, "completed", "", "", SameRun),
            cell(CutBody, "locked", "", "the hub cut the connection", Soon),
            waits(Garbage, "it has no lock"),
            cell(ContentType, "completed", "", "", SameRun),
        ],
    );
    // The hub's port is also that of the uplink; its faults are in `forwarding`.
    assert_answers_complete(&cells);
    let rule = || json!({"method": "GET", "path": "/messages/devicebound"});
    let warning = "what waits for the device was not fetched";
    run(Table { name: "c2d", service: |world| &world.hub, rule, warning }, &cells).await
}

async fn downlink() -> Vec<String> {
    let waits = |fault, says| cell(fault, "enqueued", "", says, Soon);
    let cells = cells(
        waits(Refused, "The Things Stack cannot be reached"),
        [
            waits(Status(401), "needs the right to write downlink traffic"),
            waits(Status(403), "needs the right to write downlink traffic"),
            waits(Status(404), "did not take the downlink (404)"),
            waits(Status(408), "did not take the downlink (408)"),
            waits(Status(412), "did not take the downlink (412)"),
            waits(Status(429), "did not take the downlink (429)"),
            waits(StatusAfter(429, 7), "did not take the downlink (429)"),
            waits(Status(500), "did not take the downlink (500)"),
            waits(Status(503), "did not take the downlink (503)"),
        ],
        &[
            waits(Silent, "no answer in time"),
            waits(TooSlow, "no answer in time"),
            cell(Slow, "completed", "", "", SameRun),
            // Only the status counts.
            cell(CutBody, "completed", "", "", SameRun),
            waits(Garbage, "what answered is not The Things Stack"),
            cell(ContentType, "completed", "", "", SameRun),
            waits(Echo, "did not take the downlink (500)"),
        ],
    );
    assert_complete(&cells);
    let rule = || json!({"method": "POST", "path": "/down/push"});
    let warning = "a downlink waits for the device's next uplink";
    run(Table { name: "downlink", service: |world| &world.stack, rule, warning }, &cells).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands() {
    table::report(<[_; 2]>::from(tokio::join!(c2d(), downlink())));
}
