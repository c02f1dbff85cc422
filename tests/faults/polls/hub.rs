//! Tests faults of the hub while messages are sent over HTTPS.

use serde_json::json;

use super::run::{Service, Table, USUAL, assert_complete, run};
use crate::faults::{
    cell::{
        Cell,
        Recovers::{NextRun, SameRun, WhenAsked},
        cell,
    },
    fault::Fault::{ContentType, CutBody, Echo, Garbage, Refused, Silent, Slow, Status, StatusAfter, TooSlow},
    table,
};

#[rustfmt::skip]
const HTTPS: [Cell; 17] = [
    cell(Refused, "pending", "hub_unreachable", "the hub cannot be reached", NextRun),
    cell(Silent, "pending", "hub_stalled", "the hub has acknowledged nothing for 15 s", NextRun),
    cell(TooSlow, "pending", "hub_stalled", "the hub has acknowledged nothing for 15 s", NextRun),
    cell(Slow, "forwarded", "-", "", SameRun),
    cell(Status(401), "pending", "hub_refused", "the hub refused device gateway-1 (401)", NextRun),
    cell(Status(403), "pending", "hub_refused", "the hub refused device gateway-1 (403)", NextRun),
    cell(Status(404), "pending", "hub_refused", "the hub refused device gateway-1 (404)", NextRun),
    cell(Status(408), "pending", "hub_unreachable", "it answered 408", NextRun),
    cell(Status(412), "pending", "hub_unreachable", "it answered 412", NextRun),
    cell(Status(429), "pending", "hub_throttled", "the hub is throttling", NextRun),
    cell(StatusAfter(429, 7), "pending", "hub_throttled", "asks to wait for 7 s", WhenAsked),
    cell(Status(500), "pending", "hub_unreachable", "it answered 500", NextRun),
    cell(Status(503), "pending", "hub_unreachable", "it answered 503", NextRun),
    cell(CutBody, "pending", "hub_unreachable", "what answered 200 is not a hub", NextRun),
    cell(Garbage, "pending", "hub_unreachable", "what answered 200 is not a hub", NextRun),
    cell(ContentType, "forwarded", "-", "", SameRun),
    cell(Echo, "pending", "hub_unreachable", "it answered 500", NextRun),
];

async fn https() -> Vec<String> {
    assert_complete(&HTTPS);
    let settings = &[("IoTHubTransport", "https")];
    let rule = || json!({"path": "/messages/events"});
    run(Table { name: "hub_https", service: Service::Hub, rule, timeout: 20, settings, ..USUAL }, &HTTPS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hub_over_https() {
    table::report([https().await]);
}
