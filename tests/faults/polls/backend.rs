//! Tests faults of the backend's three requests.

use serde_json::json;

use super::run::{Begins, Table, USUAL, assert_complete, run};
use crate::faults::{
    cell::{
        Cell,
        Recovers::{BackOff, NextRun, SameRun, WhenAsked},
        cell,
    },
    fault::Fault::{ContentType, CutBody, Echo, Garbage, Refused, Silent, Slow, Status, StatusAfter, TooSlow},
    table,
};

#[rustfmt::skip]
const ROWS: [Cell; 17] = [
    cell(Refused, "failed", "connect", "the backend cannot be reached", NextRun),
    cell(Silent, "failed", "timeout", "the backend did not answer in time", NextRun),
    cell(TooSlow, "failed", "timeout", "the backend did not answer in time", NextRun),
    cell(Slow, "forwarded", "-", "", SameRun),
    cell(Status(401), "failed", "unauthorized", "check Base64encodedUsernamePassword", BackOff),
    cell(Status(403), "failed", "forbidden", "has the user access to the customer?", BackOff),
    cell(Status(404), "failed", "not_found", "check Customer_ID, Site_ID and M2MBackendURL", BackOff),
    cell(Status(408), "failed", "http_status", "status 408", NextRun),
    cell(Status(412), "failed", "http_status", "status 412", NextRun),
    cell(Status(429), "failed", "rate_limited", "asks to slow down (429)", NextRun),
    cell(StatusAfter(429, 10), "failed", "rate_limited", "asks to slow down (429)", WhenAsked),
    cell(Status(500), "failed", "http_status", "status 500", NextRun),
    cell(Status(503), "failed", "http_status", "status 503", NextRun),
    cell(CutBody, "failed", "cut_off", "the backend's answer broke off", NextRun),
    cell(Garbage, "failed", "not_json", "the answer is not JSON, or cut off", NextRun),
    // Only the body counts: one of the vendor's own servers sends its JSON as text/html.
    cell(ContentType, "forwarded", "-", "", SameRun),
    cell(Echo, "failed", "http_status", "status 500", NextRun),
];

async fn rows() -> Vec<String> {
    assert_complete(&ROWS);
    run(Table { name: "rows", rule: || json!({"path": "/histdata0"}), ..USUAL }, &ROWS).await
}

#[rustfmt::skip]
const BLUEPRINT: [Cell; 17] = [
    cell(Refused, "failed", "connect", "the backend cannot be reached", NextRun),
    cell(Silent, "failed", "timeout", "the backend did not answer in time", NextRun),
    cell(TooSlow, "failed", "timeout", "the backend did not answer in time", NextRun),
    cell(Slow, "forwarded", "-", "", SameRun),
    cell(Status(401), "failed", "unauthorized", "check Base64encodedUsernamePassword", BackOff),
    cell(Status(403), "failed", "forbidden", "has the user access to the customer?", BackOff),
    cell(Status(404), "failed", "not_found", "check Customer_ID, Site_ID and M2MBackendURL", BackOff),
    cell(Status(408), "failed", "http_status", "status 408", NextRun),
    cell(Status(412), "failed", "http_status", "status 412", NextRun),
    cell(Status(429), "failed", "rate_limited", "asks to slow down (429)", NextRun),
    cell(StatusAfter(429, 10), "failed", "rate_limited", "asks to slow down (429)", WhenAsked),
    cell(Status(500), "failed", "http_status", "status 500", NextRun),
    cell(Status(503), "failed", "http_status", "status 503", NextRun),
    cell(CutBody, "failed", "cut_off", "the backend's answer broke off", NextRun),
    cell(Garbage, "failed", "not_json", "the answer is not JSON, or cut off", NextRun),
    cell(ContentType, "forwarded", "-", "", SameRun),
    cell(Echo, "failed", "http_status", "status 500", NextRun),
];

async fn blueprint() -> Vec<String> {
    assert_complete(&BLUEPRINT);
    let settings = &[("Channelnames", "*")];
    let rule = || json!({"path": "/blueprint"});
    run(Table { name: "blueprint", rule, begins: Begins::Restarted, settings, ..USUAL }, &BLUEPRINT).await
}

/// A site that is already known is still polled, unless the whole backend is away.
#[rustfmt::skip]
const SITES: [Cell; 17] = [
    cell(Refused, "failed, failed", "connect, connect", "the backend cannot be reached", NextRun),
    cell(Silent, "failed, forwarded", "timeout", "the backend did not answer in time", NextRun),
    cell(TooSlow, "failed, forwarded", "timeout", "the backend did not answer in time", NextRun),
    cell(Slow, "forwarded", "-", "", SameRun),
    cell(Status(401), "failed, forwarded", "unauthorized", "check Base64encodedUsernamePassword", BackOff),
    cell(Status(403), "failed, forwarded", "forbidden", "has the user access to the customer?", BackOff),
    cell(Status(404), "failed, forwarded", "not_found", "check Customer_ID", BackOff),
    cell(Status(408), "failed, forwarded", "http_status", "status 408", NextRun),
    cell(Status(412), "failed, forwarded", "http_status", "status 412", NextRun),
    cell(Status(429), "failed, forwarded", "rate_limited", "asks to slow down (429)", NextRun),
    cell(StatusAfter(429, 10), "failed", "rate_limited", "asks to slow down (429)", WhenAsked),
    cell(Status(500), "failed, forwarded", "http_status", "status 500", NextRun),
    cell(Status(503), "failed, forwarded", "http_status", "status 503", NextRun),
    cell(CutBody, "failed, forwarded", "cut_off", "the backend's answer broke off", NextRun),
    cell(Garbage, "failed, forwarded", "not_json", "the answer is not JSON, or cut off", NextRun),
    cell(ContentType, "forwarded", "-", "", SameRun),
    cell(Echo, "failed, forwarded", "http_status", "status 500", NextRun),
];

async fn sites() -> Vec<String> {
    assert_complete(&SITES);
    let settings = &[("Site_ID", "*")];
    run(Table { name: "sites", rule: || json!({"path": "/sites$"}), settings, timeout: 16, ..USUAL }, &SITES).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend() {
    table::report(<[_; 3]>::from(tokio::join!(rows(), blueprint(), sites())));
}
