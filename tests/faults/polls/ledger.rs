//! Tests faults of the ledger's requests: reading a cursor, reading a pending record, recording, marking.

use serde_json::{Value, json};

use super::run::{Begins, Closes, Service, Table, USUAL, assert_complete, run};
use crate::faults::{
    cell::{
        Cell,
        Recovers::{NextRun, SameRun},
        cell,
    },
    fault::Fault::{ContentType, CutBody, Echo, Garbage, Refused, Silent, Slow, Status, StatusAfter, TooSlow},
    table,
};

/// Longer than the 10 s that an operation may take.
const COSMOS: Table = Table { service: Service::Cosmos, timeout: 20, ..USUAL };

fn batch() -> Value {
    json!({"method": "POST", "header": "x-ms-cosmos-is-batch-request"})
}

fn reads() -> [Cell; 17] {
    #[rustfmt::skip]
    let cells = [
        cell(Refused, "-", "ledger_unreachable", "Cosmos DB cannot be reached at", NextRun),
        cell(Silent, "-", "ledger_timeout", "Cosmos DB did not answer within 10 s", NextRun),
        cell(TooSlow, "-", "ledger_timeout", "Cosmos DB did not answer within 10 s", NextRun),
        cell(Slow, "forwarded", "-", "", SameRun),
        cell(Status(401), "-", "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", NextRun),
        cell(Status(403), "-", "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", NextRun),
        cell(Status(404), "-", "-", "", NextRun),
        cell(Status(408), "-", "ledger_timeout", "Cosmos DB", NextRun),
        cell(Status(412), "-", "ledger_error", "Cosmos DB", NextRun),
        cell(Status(429), "-", "ledger_throttled", "more throughput", NextRun),
        cell(StatusAfter(429, 3), "-", "ledger_throttled", "more throughput", NextRun),
        cell(Status(500), "-", "ledger_error", "Cosmos DB", NextRun),
        cell(Status(503), "-", "ledger_error", "Cosmos DB", NextRun),
        cell(CutBody, "-", "ledger_unreachable", "Cosmos DB", NextRun),
        cell(Garbage, "-", "ledger_error", "is not that document", NextRun),
        cell(ContentType, "forwarded", "-", "", SameRun),
        cell(Echo, "-", "ledger_error", "Cosmos DB", NextRun),
    ];
    cells
}

async fn cursor() -> Vec<String> {
    let cells = reads();
    assert_complete(&cells);
    let rule = || json!({"method": "GET", "path": "/docs/cursor"});
    run(Table { name: "cursor", rule, begins: Begins::Restarted, ..COSMOS }, &cells).await
}

async fn waiting() -> Vec<String> {
    let cells = reads();
    assert_complete(&cells);
    // Poll ids begin with the milliseconds since 1970.
    let rule = || json!({"method": "GET", "path": "/docs/1"});
    run(Table { name: "waiting", rule, begins: Begins::Waiting, ..COSMOS }, &cells).await
}

fn writes(recorded: &'static str, done: &'static str) -> [Cell; 17] {
    #[rustfmt::skip]
    let cells = [
        cell(Refused, recorded, "ledger_unreachable", "Cosmos DB cannot be reached at", NextRun),
        cell(Silent, recorded, "ledger_timeout", "Cosmos DB did not answer within 10 s", NextRun),
        cell(TooSlow, done, "ledger_timeout", "Cosmos DB did not answer within 10 s", NextRun),
        cell(Slow, "forwarded", "-", "", SameRun),
        cell(Status(401), recorded, "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", NextRun),
        cell(Status(403), recorded, "ledger_unauthorized", "check M2MDocumentsDBPrimaryKey", NextRun),
        cell(Status(404), recorded, "ledger_missing", "", NextRun),
        cell(Status(408), recorded, "ledger_timeout", "Cosmos DB", NextRun),
        cell(Status(412), recorded, "-", "", NextRun),
        cell(Status(429), recorded, "ledger_throttled", "more throughput", NextRun),
        cell(StatusAfter(429, 3), recorded, "ledger_throttled", "more throughput", NextRun),
        cell(Status(500), recorded, "ledger_error", "Cosmos DB", NextRun),
        cell(Status(503), recorded, "ledger_error", "Cosmos DB", NextRun),
        cell(CutBody, done, "ledger_unreachable", "Cosmos DB", NextRun),
        cell(Garbage, recorded, "ledger_error", "Cosmos DB", NextRun),
        cell(ContentType, "forwarded", "-", "", SameRun),
        cell(Echo, recorded, "ledger_error", "Cosmos DB", NextRun),
    ];
    cells
}

async fn record() -> Vec<String> {
    let cells = writes("-", "pending");
    assert_complete(&cells);
    run(Table { name: "record", rule: batch, ..COSMOS }, &cells).await
}

async fn mark() -> Vec<String> {
    let cells = writes("pending", "forwarded");
    assert_complete(&cells);
    let rule = || {
        let mut rule = batch();
        rule["skip"] = 1.into();
        rule
    };
    run(Table { name: "mark", rule, closes: Closes::OnceReceived, ..COSMOS }, &cells).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledger() {
    table::report(<[_; 4]>::from(tokio::join!(cursor(), waiting(), record(), mark())));
}
