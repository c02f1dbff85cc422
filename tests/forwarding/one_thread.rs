//! Tests that the handler, which has one thread, does long work elsewhere, so that it answers webhooks meanwhile.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::support::{Handler, World, stamp};

const SITE: &str = "Well 7";
const WEBHOOK: &str = include_str!("../fixtures/things_network/v3-uplink.json");
/// Rows of nearly 8 MiB, the most that one answer may hold before the connector shortens the window.
const ROWS: i64 = 350_000;

/// Posts a webhook as the host does. Returns how long it took.
async fn webhook(handler: &Handler) -> Duration {
    let request = json!({ "Url": "", "Method": "POST", "Query": {}, "Headers": {}, "Params": {}, "Body": WEBHOOK });
    let posted = Instant::now();
    let answer =
        handler.post("/thingsNetworkUplink", json!({ "Data": { "req": request }, "Metadata": {} }).to_string());
    let answer = answer.await;
    assert_eq!(answer.body["Outputs"]["res"]["statusCode"], 202, "{}", answer.body);
    posted.elapsed()
}

/// Runs the timer's function. Returns its time, and the longest time of a webhook meanwhile.
async fn run(handler: &Handler) -> (Duration, Duration) {
    let (started, took, mut longest) = (Instant::now(), Cell::new(None), Duration::ZERO);
    let run = async {
        handler.invoke_ok().await;
        took.set(Some(started.elapsed()));
    };
    let webhooks = async {
        while took.get().is_none() {
            longest = longest.max(webhook(handler).await);
        }
    };
    tokio::join!(run, webhooks);
    (took.get().unwrap(), longest)
}

#[tokio::test]
async fn webhooks_are_answered_while_a_large_answer_is_read() {
    let mut world = World::with_sites(&[SITE]).await;
    for (name, value) in [
        ("UplinkQueueName", "uplinks"),
        ("DPSIDScopeDefault", "0ne00000000"),
        ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0"),
        ("RUST_LOG", "warn"),
    ] {
        world.set(name, value);
    }
    world.add(SITE, 0..1).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    webhook(&handler).await;

    // All rows are older than the recorded ones, so that nothing is left to do after reading them.
    let rows: Vec<Value> = (1..ROWS).map(|minute| json!([stamp(-minute), 1, 0.5])).collect();
    let body = json!(rows).to_string();
    assert!((7_000_000..8 << 20).contains(&body.len()), "{} bytes", body.len());
    world.backend.put("faults", json!({ "rules": [{ "site": SITE, "resource": "histdata", "rawBody": body }] })).await;
    let (took, longest) = run(&handler).await;
    assert_eq!(world.polls(SITE).await.last().unwrap()["Result"]["Bytes"], body.len());
    assert!(longest < took / 4, "a webhook took {longest:?} while a run took {took:?}");
}
