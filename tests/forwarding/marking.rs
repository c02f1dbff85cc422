//! Tests a small message that waits alone: the cursor keeps its record, which becomes a document when it is marked.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::support::{World, rows};
use crate::commands::run;

const SITE: &str = "Well 7";

async fn world(mark_within: &str) -> World {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("MarkWithinSeconds", mark_within);
    world
}

/// How often the hub has each message.
async fn times(world: &World) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for message in world.hub.get("received").await.as_array().unwrap() {
        *times.entry(message["messageId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    times
}

/// How many documents of Cosmos DB were written.
async fn writes(world: &World) -> u64 {
    world.cosmos.get("cost").await["written"].as_u64().unwrap()
}

#[tokio::test]
async fn a_site_that_sends_all_the_time_needs_two_writes_for_each_message() {
    let world = world("600").await;
    let handler = world.handler().await;
    world.add(SITE, [0]).await;
    handler.invoke_ok().await;
    let before = writes(&world).await;
    for minute in 1..11 {
        world.add(SITE, [minute]).await;
        handler.invoke_ok().await;
    }
    assert_eq!(writes(&world).await - before, 20);
    world.assert_rows(SITE, &rows(0..11)).await;
    assert!(times(&world).await.values().all(|times| *times == 1));

    // The last one is recorded, but no document yet.
    let (cursor, polls) = (world.cursor(SITE).await, world.polls(SITE).await);
    let record = &cursor["Record"];
    assert_eq!(cursor["Unforwarded"], json!([{ "Id": record["id"] }]));
    assert_eq!((&record["Outcome"], record.get("ttl")), (&json!("pending"), None));
    assert_eq!(polls.len(), 10);
    assert!(polls.iter().all(|poll| poll["Outcome"] == "forwarded" && poll["ttl"].is_number()), "{polls:?}");
    // When the hub had it counts, not when it was marked.
    let times = |name: &str| polls[0][name].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert!(times("ForwardedAt") - times("PollingTimestamp") < chrono::TimeDelta::seconds(5));
}

#[tokio::test]
async fn people_see_the_record_and_no_message_that_waits() {
    let world = world("600").await;
    world.add(SITE, [0]).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    let asked = json!({ "Data": { "req": { "Url": "http://localhost/api/status", "Method": "GET", "Query": { "format": "json" }, "Headers": {} } }, "Metadata": {} });
    let answer = handler.post("/status", asked.to_string()).await.body;
    let page: Value = serde_json::from_str(answer["Outputs"]["res"]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&page["Items"][0]["State"], &page["Items"][0]["Waiting"]), (&json!("silent"), &json!(0)), "{page}");
    let printed = run::run_ok(&world, &["polls", SITE]).await;
    assert!(printed.contains("pending") && !printed.contains("waits"), "{printed}");
    let printed = run::run_ok(&world, &["polls", SITE, "--outcome", "forwarded"]).await;
    assert!(!printed.contains("pending"), "{printed}");
}

/// If nothing else is written, it is marked by itself: also if the site is not polled, since it has no news.
#[tokio::test]
async fn what_is_acknowledged_is_marked_in_time() {
    for sweep in ["0", "1440"] {
        let mut world = world("1").await;
        world.set("SweepMinutes", sweep);
        world.set("RecordEmptyPolls", "false");
        let handler = world.handler().await;
        world.add(SITE, [0]).await;
        handler.invoke_ok().await;
        assert!(world.cursor(SITE).await["Record"].is_object());
        let is_marked = async || {
            handler.invoke_ok().await;
            world.cursor(SITE).await["Unforwarded"] == json!([])
        };
        let in_time = async {
            while !is_marked().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), in_time).await.expect("it is marked");
        assert_eq!(world.outcomes(SITE).await, ["forwarded"]);
        world.assert_rows(SITE, &rows(0..1)).await;
    }
}

#[tokio::test]
async fn a_process_that_ends_in_order_marks_everything() {
    let world = world("600").await;
    world.add(SITE, [0]).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    handler.interrupt();
    assert!(handler.ended().await.success());
    assert_eq!(world.outcomes(SITE).await, ["forwarded"]);
    let handler = world.handler().await;
    world.add(SITE, [1]).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..2)).await;
    assert!(times(&world).await.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_process_that_is_killed_sends_it_again_under_its_id() {
    let mut world = world("600").await;
    world.add(SITE, [0]).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    handler.kill().await;
    // With 0, what an earlier start kept in the cursor is marked at once.
    world.set("MarkWithinSeconds", "0");
    let handler = world.handler().await;
    handler.invoke_ok().await;
    assert_eq!(times(&world).await.into_values().collect::<Vec<_>>(), [2]);
    assert_eq!(world.outcomes(SITE).await[0], "forwarded");
    world.assert_settled().await;
}

/// While the hub takes nothing, the record waits in the cursor, and people see that it does.
#[tokio::test]
async fn a_message_that_the_hub_does_not_take_waits_in_the_cursor() {
    let world = world("600").await;
    world.hub.away(true).await;
    world.add(SITE, [0]).await;
    let handler = world.handler().await;
    for _ in 0..3 {
        handler.invoke_failing().await;
    }
    let cursor = world.cursor(SITE).await;
    assert!(cursor["Record"].is_object() && cursor["Activity"]["HubError"].is_object(), "{cursor}");
    world.hub.away(false).await;
    world.add(SITE, [1]).await;
    handler.invoke_until_ok(20).await;
    world.assert_rows(SITE, &rows(0..2)).await;
    assert!(times(&world).await.values().all(|times| *times == 1));
}

/// A refusal for good is written at once.
#[tokio::test]
async fn a_message_that_the_hub_refuses_becomes_a_rejected_document() {
    let mut world = world("600").await;
    world.set("IoTHubTransport", "https");
    world.hub.put("faults", json!({ "httpStatus": 400, "httpStatusTimes": 1 })).await;
    world.add(SITE, [0]).await;
    let handler = world.handler().await;
    handler.invoke_failing().await;
    assert_eq!(world.outcomes(SITE).await, ["rejected"]);
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]));
}
