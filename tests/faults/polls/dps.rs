//! Tests faults while a site gets its own device: the registration, the wait for it, the look-up, and the write into
//! the ledger.

use serde_json::json;

use super::run::{Begins, Closes, Service, Table, USUAL, assert_complete, run};
use crate::faults::{
    cell::{
        Cell,
        Recovers::{NextRun, SameRun, Soon, WhenAsked},
        cell,
    },
    fault::Fault::{ContentType, CutBody, Echo, Garbage, Refused, Silent, Slow, Status, StatusAfter, TooSlow},
    table,
};

const DPS: Table = Table { service: Service::Dps, begins: Begins::First, timeout: 20, is_provisioned: true, ..USUAL };

#[rustfmt::skip]
const REGISTER: [Cell; 17] = [
    cell(Refused, "pending", "dps_unreachable", "the Device Provisioning Service cannot be reached", NextRun),
    // Three attempts of 15 s take longer than the run. That is no failure yet.
    cell(Silent, "pending", "-", "", Soon),
    cell(TooSlow, "pending", "-", "", Soon),
    cell(Slow, "forwarded", "-", "", SameRun),
    cell(Status(401), "pending", "dps_unauthorized", "check DPSEnrollmentGroupSymmetricKey", NextRun),
    cell(Status(403), "pending", "dps_refused", "look at it in the enrollment group", Soon),
    cell(Status(404), "pending", "dps_unknown_scope", "check DPSIDScope", NextRun),
    cell(Status(408), "pending", "dps_status", "status 408", NextRun),
    cell(Status(412), "pending", "dps_refused", "look at it in the enrollment group", Soon),
    cell(Status(429), "pending", "dps_throttled", "asks to slow down", Soon),
    cell(StatusAfter(429, 30), "pending", "dps_throttled", "asks to slow down", WhenAsked),
    cell(Status(500), "pending", "dps_status", "status 500", NextRun),
    cell(Status(503), "pending", "dps_status", "status 503", NextRun),
    cell(CutBody, "pending", "dps_unreachable", "the Device Provisioning Service", NextRun),
    cell(Garbage, "pending", "dps_garbage", "makes no sense", Soon),
    cell(ContentType, "forwarded", "-", "", SameRun),
    cell(Echo, "pending", "dps_status", "status 500", NextRun),
];

async fn register() -> Vec<String> {
    assert_complete(&REGISTER);
    run(Table { name: "dps_register", rule: || json!({"path": "/register?"}), ..DPS }, &REGISTER).await
}

#[rustfmt::skip]
const POLL: [Cell; 17] = [
    cell(Refused, "pending", "dps_unreachable", "the Device Provisioning Service cannot be reached", NextRun),
    cell(Silent, "pending", "-", "", Soon),
    cell(TooSlow, "pending", "-", "", Soon),
    cell(Slow, "forwarded", "-", "", SameRun),
    cell(Status(401), "pending", "dps_unauthorized", "check DPSEnrollmentGroupSymmetricKey", NextRun),
    cell(Status(403), "pending", "dps_refused", "look at it in the enrollment group", Soon),
    // Another app may be registering the device, so the connector waits. That is no failure yet.
    cell(Status(404), "pending", "-", "", Soon),
    cell(Status(408), "pending", "dps_status", "status 408", NextRun),
    cell(Status(412), "pending", "dps_refused", "look at it in the enrollment group", Soon),
    cell(Status(429), "pending", "dps_throttled", "asks to slow down", Soon),
    cell(StatusAfter(429, 30), "pending", "dps_throttled", "asks to slow down", WhenAsked),
    cell(Status(500), "pending", "dps_status", "status 500", NextRun),
    cell(Status(503), "pending", "dps_status", "status 503", NextRun),
    cell(CutBody, "pending", "dps_unreachable", "the Device Provisioning Service", NextRun),
    cell(Garbage, "pending", "dps_garbage", "makes no sense", Soon),
    cell(ContentType, "forwarded", "-", "", SameRun),
    cell(Echo, "pending", "dps_status", "status 500", NextRun),
];

async fn poll() -> Vec<String> {
    assert_complete(&POLL);
    let rule = || json!({"path": "/operations/"});
    run(Table { name: "dps_poll", rule, closes: Closes::OnceRegistered, ..DPS }, &POLL).await
}

const DEVICES: Table = Table { service: Service::Cosmos, ..DPS };

fn devices(refused: &'static str, not_found: &'static str, garbage: &'static str) -> [Cell; 17] {
    #[rustfmt::skip]
    let cells = [
        cell(Refused, refused, "ledger_unreachable", "Cosmos DB cannot be reached at", NextRun),
        cell(Silent, "pending", "ledger_timeout", "Cosmos DB did not answer within 10 s", NextRun),
        cell(TooSlow, "pending", "ledger_timeout", "Cosmos DB did not answer within 10 s", NextRun),
        cell(Slow, "forwarded", "-", "", SameRun),
        cell(Status(401), "pending", "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", NextRun),
        cell(Status(403), "pending", "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", NextRun),
        cell(Status(404), "pending", not_found, "", NextRun),
        cell(Status(408), "pending", "ledger_timeout", "Cosmos DB", NextRun),
        cell(Status(412), "pending", "ledger_error", "Cosmos DB", NextRun),
        cell(Status(429), "pending", "ledger_throttled", "more throughput", NextRun),
        cell(StatusAfter(429, 3), "pending", "ledger_throttled", "more throughput", NextRun),
        cell(Status(500), "pending", "ledger_error", "Cosmos DB", NextRun),
        cell(Status(503), "pending", "ledger_error", "Cosmos DB", NextRun),
        cell(CutBody, "pending", "ledger_unreachable", "Cosmos DB", NextRun),
        cell(Garbage, "pending", garbage, "", NextRun),
        cell(ContentType, "forwarded", "-", "", SameRun),
        cell(Echo, "pending", "ledger_error", "Cosmos DB", NextRun),
    ];
    cells
}

async fn devices_read() -> Vec<String> {
    let cells = devices("-", "ledger_error", "device_foreign_document");
    assert_complete(&cells);
    let rule = || json!({"method": "GET", "path": "/colls/devices/docs/"});
    run(Table { name: "devices_read", rule, begins: Begins::Restarted, ..DEVICES }, &cells).await
}

async fn devices_write() -> Vec<String> {
    let cells = devices("pending", "ledger_missing", "ledger_error");
    assert_complete(&cells);
    let rule = || json!({"method": "POST", "path": "/colls/devices/docs"});
    run(Table { name: "devices_write", rule, closes: Closes::OnceRegistered, ..DEVICES }, &cells).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning() {
    table::report(<[_; 4]>::from(tokio::join!(register(), poll(), devices_read(), devices_write())));
}
