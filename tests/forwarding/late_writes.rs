//! Tests a Cosmos DB that applies a write and answers too late. Its client repeats the write, and the repetition is refused
//! because of the first one.

use serde_json::{Value, json};

use super::support::{World, rows};

const SITE: &str = "Well 7";
/// Longer than the client waits for one answer (6 s), and shorter than the limit for an operation (10 s).
const LATE_MS: u64 = 7_000;

/// The answer to one transaction is late; `skip` others come before it.
fn late(skip: u64) -> Value {
    json!([{"method": "POST", "header": "x-ms-cosmos-is-batch-request", "skip": skip, "times": 1,
            "effect": {"delayMs": LATE_MS}}])
}

/// One run whose transaction number `skip` is answered late: the run continues as if the answer had come in time.
async fn goes_on(has_cursor: bool, skip: u64) {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    if has_cursor {
        world.add(SITE, 0..3).await;
        handler.invoke_ok().await;
    }
    world.add(SITE, 3..6).await;
    world.cosmos.put("trouble", late(skip)).await;
    handler.invoke_ok().await;
    assert_eq!(world.cosmos.get("trouble").await[0]["met"], 1, "no transaction was late");
    assert!(!world.output().contains("served by another poller"), "nobody else polls: {}", world.output());
    world.assert_rows(SITE, &rows(if has_cursor { 0..6 } else { 3..6 })).await;
    world.assert_settled().await;
    let ids = &world.delivered().await.ids[SITE];
    assert_eq!(ids.len(), 1 + usize::from(has_cursor), "each message once");
    // The handler remembers the right cursor.
    world.add(SITE, 6..9).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(if has_cursor { 0..9 } else { 3..9 })).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn the_first_record_of_a_site() {
    goes_on(false, 0).await;
}

#[tokio::test]
async fn a_record() {
    goes_on(true, 0).await;
}

#[tokio::test]
async fn a_mark() {
    goes_on(true, 1).await;
}

#[tokio::test]
async fn a_poll_without_rows() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    handler.invoke_ok().await;
    world.cosmos.put("trouble", late(0)).await;
    handler.invoke_ok().await;
    assert_eq!(world.cosmos.get("trouble").await[0]["met"], 1, "no transaction was late");
    assert!(!world.output().contains("served by another poller"), "nobody else polls: {}", world.output());
    assert_eq!(world.outcomes(SITE).await, ["forwarded", "empty"]);
}
