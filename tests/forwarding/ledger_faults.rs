//! A Cosmos DB that answers late, not at all, or with errors.

use serde_json::{Value, json};

use super::support::{World, rows};

const SITE: &str = "Well 7";

/// Runs once with these faults, then without until it succeeds: nothing is lost, nothing sent under two ids.
async fn survives(faults: Value) {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    handler.invoke_ok().await;
    world.cosmos.put("faults", faults.clone()).await;
    world.add(SITE, 3..6).await;
    handler.invoke().await;
    let left = world.cosmos.get("faults").await["times"].clone();
    assert_eq!(left, 0, "the fault was not met: {faults}");
    world.cosmos.heal().await;
    world.add(SITE, 6..9).await;
    handler.invoke_until_ok(3).await;
    // The run that succeeded may have been one that another's write had overtaken.
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..9)).await;
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn a_record_whose_answer_is_lost_is_neither_lost_nor_doubled() {
    survives(json!({ "swallowAnswer": true, "writesOnly": true, "times": 1 })).await;
}

#[tokio::test]
async fn record_and_mark_whose_answers_are_lost_are_neither_lost_nor_doubled() {
    survives(json!({ "swallowAnswer": true, "writesOnly": true, "times": 2 })).await;
}

#[tokio::test]
async fn a_mark_whose_answer_is_lost_is_no_reason_to_send_again_under_another_id() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    // The acknowledgement comes late enough for the fault to hit what is written after it.
    world.hub.put("faults", json!({ "pubackDelayMs": 1_500 })).await;
    tokio::join!(handler.invoke(), async {
        world.hub.get("received?wait=1").await;
        world.cosmos.put("faults", json!({ "swallowAnswer": true, "writesOnly": true, "times": 1 })).await;
    });
    assert_eq!(world.cosmos.get("faults").await["times"], 0, "the fault was not met");
    world.cosmos.heal().await;
    world.hub.heal().await;
    world.add(SITE, 3..6).await;
    handler.invoke_until_ok(3).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..6)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn a_busy_cosmos_db_is_asked_again() {
    survives(json!({ "status": 429, "retryAfterMs": 20, "times": 1 })).await;
}

#[tokio::test]
async fn an_unavailable_cosmos_db_loses_nothing() {
    survives(json!({ "status": 503, "times": 1 })).await;
}

#[tokio::test]
async fn a_failing_cosmos_db_is_said_and_loses_nothing() {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("PollTimeoutSeconds", "5");
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    handler.invoke_ok().await;
    for status in [500, 429] {
        world.cosmos.put("faults", json!({ "status": status, "retryAfterMs": 20 })).await;
        let failed = handler.invoke_failing().await;
        assert_eq!(failed[0].0, SITE);
    }
    world.cosmos.heal().await;
    world.add(SITE, 3..6).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..6)).await;
    world.assert_settled().await;
}
