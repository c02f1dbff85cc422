//! Tests faults while an uplink is forwarded to the hub.

use serde_json::{Value, json};

use super::world::World;
use crate::{
    faults::{
        cell::{
            Cell, Line,
            Recovers::{self, NextRun, SameRun, Soon, WhenAsked},
            cell, normal,
        },
        fault::Fault::{
            self, ContentType, CutBody, Echo, Garbage, Refused, Silent, Slow, Status, StatusAfter, TooSlow,
        },
        polls::assert_complete,
        table,
    },
    support::Emulator,
};

#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    /// The service with the fault, and the switch for its port.
    service: fn(&World) -> (&Emulator, &'static str),
    rule: fn() -> Value,
    /// Whether an uplink was forwarded before. The handler is then restarted if `restarts` is set.
    is_warm: bool,
    restarts: bool,
    timeout: &'static str,
}

async fn run(of: Table, cells: &[Cell]) -> Vec<String> {
    assert_complete(cells);
    table::run(of.name, cells.to_vec(), |cell| cell.fault.name(), |cell| one(of, cell)).await
}

async fn one(of: Table, cell: Cell) -> Line {
    let mut world = World::start().await;
    world.set("ForwardTimeoutSeconds", of.timeout);
    world.restart().await;
    if of.is_warm {
        let first = world.uplink();
        world.give_until_taken(first).await;
    }
    if of.restarts {
        world.restart().await;
    }
    let (service, away) = (of.service)(&world);
    let effect = cell.fault.effect(1_000);
    match &effect {
        Some(effect) => {
            let mut rule = (of.rule)();
            rule["effect"] = effect.clone();
            service.put("trouble", json!([rule])).await;
        }
        None => service.put(away, true.into()).await,
    }
    let uplink = world.uplink();
    let answer = world.give(uplink).await;
    let (service, away) = (of.service)(&world);
    match effect {
        Some(_) => {
            assert!(service.get("trouble").await[0]["met"].as_u64() > Some(0), "the fault was not met");
            service.delete("trouble").await;
        }
        None => service.put(away, false.into()).await,
    }
    let recorded = match (answer.status, answer.body["Outputs"]["rejected"].is_null()) {
        (200, true) => "forwarded",
        (200, false) => "rejected",
        _ => "queue",
    };
    let text = answer.body["Error"].as_str().unwrap_or_default().to_owned();
    let kind = if recorded == "forwarded" { "-".to_owned() } else { kind_of(&world) };
    assert_eq!(
        (recorded, kind.as_str()),
        (cell.recorded, cell.kind),
        "{} {}\n{}",
        answer.status,
        answer.body,
        world.told()
    );
    let is_readable = !text.chars().any(char::is_control) && text.len() < 700;
    assert!(is_readable && text.contains(cell.says), "{:?} is not in {text:?}", cell.says);
    if recorded != "forwarded" {
        assert!(text.contains("dev-1"), "whose it is: {text}");
    }
    match cell.recovers {
        Recovers::SameRun => assert_eq!(answer.status, 200),
        Recovers::NextRun => {
            let again = world.give(uplink).await;
            assert_eq!(again.status, 200, "{}", again.body);
        }
        Recovers::WhenAsked => {
            let again = world.give(uplink).await;
            assert_eq!(again.status, 500, "it waits as it was asked to: {}", again.body);
            world.give_until_taken(uplink).await;
        }
        Recovers::Soon | Recovers::BackOff => world.give_until_taken(uplink).await,
    }
    world.assert_all_is_well().await;
    let seen = match recorded {
        "forwarded" => "200".to_owned(),
        _ => format!("{}, `{kind}`: {}", answer.status, normal(&text)),
    };
    let recorded = if recorded == "queue" { "stays in the queue".to_owned() } else { format!("`{recorded}`") };
    Line { fault: cell.fault.name(), recorded, seen, recovers: cell.recovers.text() }
}

/// The kind in the last warning.
fn kind_of(world: &World) -> String {
    let log = world.log();
    let line = log.lines().rfind(|line| line.starts_with("warn: not forwarded now")).unwrap_or_default();
    let kind = line.split_once("kind=\"").map(|(_, behind)| behind.split('"').next().unwrap_or_default());
    kind.unwrap_or_default().to_owned()
}

/// The cells that all tables share, with the same kind for most of them.
const fn waits(fault: Fault, kind: &'static str, says: &'static str, recovers: Recovers) -> Cell {
    cell(fault, "queue", kind, says, recovers)
}

#[rustfmt::skip]
const HUB: [Cell; 17] = [
    waits(Refused, "hub_unreachable", "the hub cannot be reached", Soon),
    waits(Silent, "hub_timeout", "the hub did not acknowledge in time", NextRun),
    waits(TooSlow, "hub_timeout", "the hub did not acknowledge in time", NextRun),
    cell(Slow, "forwarded", "-", "", SameRun),
    waits(Status(401), "hub_refused", "the hub refused device dev-1 (401)", Soon),
    waits(Status(403), "hub_refused", "the hub refused device dev-1 (403)", Soon),
    waits(Status(404), "hub_refused", "the hub refused device dev-1 (404)", Soon),
    waits(Status(408), "hub_unreachable", "it answered 408", Soon),
    waits(Status(412), "hub_unreachable", "it answered 412", Soon),
    waits(Status(429), "hub_throttled", "the hub is throttling", Soon),
    waits(StatusAfter(429, 20), "hub_throttled", "asks to wait for 20 s", WhenAsked),
    waits(Status(500), "hub_unreachable", "it answered 500", Soon),
    waits(Status(503), "hub_unreachable", "it answered 503", Soon),
    waits(CutBody, "hub_unreachable", "what answered 200 is not a hub", Soon),
    waits(Garbage, "hub_unreachable", "what answered 200 is not a hub", Soon),
    cell(ContentType, "forwarded", "-", "", SameRun),
    waits(Echo, "hub_unreachable", "it answered 500", Soon),
];

async fn hub() -> Vec<String> {
    let rule = || json!({"path": "/messages/events"});
    run(
        Table {
            name: "uplink_hub",
            service: |world| (&world.hub, "away"),
            rule,
            is_warm: true,
            restarts: false,
            timeout: "6",
        },
        &HUB,
    )
    .await
}

#[rustfmt::skip]
const DPS: [Cell; 17] = [
    waits(Refused, "dps_unreachable", "the Device Provisioning Service cannot be reached", Soon),
    waits(Silent, "device_underway", "is still being registered", Soon),
    waits(TooSlow, "device_underway", "is still being registered", Soon),
    cell(Slow, "forwarded", "-", "", SameRun),
    waits(Status(401), "dps_unauthorized", "check DPSEnrollmentGroupSymmetricKey", Soon),
    waits(Status(403), "dps_refused", "look at it in the enrollment group", Soon),
    waits(Status(404), "dps_unknown_scope", "check DPSIDScope", Soon),
    waits(Status(408), "dps_status", "status 408", Soon),
    waits(Status(412), "dps_refused", "look at it in the enrollment group", Soon),
    waits(Status(429), "dps_throttled", "asks to slow down", Soon),
    waits(StatusAfter(429, 30), "dps_throttled", "asks to slow down", WhenAsked),
    waits(Status(500), "dps_status", "status 500", Soon),
    waits(Status(503), "dps_status", "status 503", Soon),
    waits(CutBody, "dps_unreachable", "the Device Provisioning Service", Soon),
    waits(Garbage, "dps_garbage", "makes no sense", Soon),
    cell(ContentType, "forwarded", "-", "", SameRun),
    waits(Echo, "dps_status", "status 500", Soon),
];

async fn dps() -> Vec<String> {
    let rule = || json!({"path": "/registrations/"});
    run(
        Table {
            name: "uplink_dps",
            service: |world| (&world.hub, "dps/away"),
            rule,
            is_warm: false,
            restarts: false,
            timeout: "12",
        },
        &DPS,
    )
    .await
}

#[rustfmt::skip]
const DEVICES: [Cell; 17] = [
    waits(Refused, "ledger_unreachable", "Cosmos DB cannot be reached at", Soon),
    waits(Silent, "ledger_timeout", "Cosmos DB did not answer within 10 s", Soon),
    waits(TooSlow, "ledger_timeout", "Cosmos DB did not answer within 10 s", Soon),
    cell(Slow, "forwarded", "-", "", SameRun),
    waits(Status(401), "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", Soon),
    waits(Status(403), "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", Soon),
    waits(Status(404), "ledger_error", "the document keeps changing", Soon),
    waits(Status(408), "ledger_timeout", "Cosmos DB", Soon),
    waits(Status(412), "ledger_error", "Cosmos DB", Soon),
    waits(Status(429), "ledger_throttled", "more throughput", Soon),
    waits(StatusAfter(429, 3), "ledger_throttled", "more throughput", Soon),
    waits(Status(500), "ledger_error", "Cosmos DB", Soon),
    waits(Status(503), "ledger_error", "Cosmos DB", Soon),
    waits(CutBody, "ledger_unreachable", "Cosmos DB", Soon),
    waits(Garbage, "device_foreign_document", "not one of ours", Soon),
    cell(ContentType, "forwarded", "-", "", SameRun),
    waits(Echo, "ledger_error", "Cosmos DB", Soon),
];

async fn devices() -> Vec<String> {
    let rule = || json!({"method": "GET", "path": "/colls/devices/docs/"});
    run(
        Table {
            name: "uplink_devices",
            service: |world| (&world.cosmos, "away"),
            rule,
            is_warm: true,
            restarts: true,
            timeout: "6",
        },
        &DEVICES,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uplinks() {
    table::report(<[_; 3]>::from(tokio::join!(hub(), dps(), devices())));
}
