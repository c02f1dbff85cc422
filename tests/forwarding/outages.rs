//! Tests that after an outage of any service no row is missing.

use serde_json::json;

use super::support::{World, rows};

const SITES: [&str; 2] = ["Well 7", "Tank"];

fn kinds(kind: &str) -> Vec<(String, String)> {
    let mut kinds = SITES.map(|site| (site.to_owned(), kind.to_owned())).to_vec();
    kinds.sort();
    kinds
}

async fn add(world: &World, minutes: std::ops::Range<i64>) {
    for site in SITES {
        world.add(site, minutes.clone()).await;
    }
}

async fn assert_all(world: &World, minutes: std::ops::Range<i64>) {
    for site in SITES {
        world.assert_rows(site, &rows(minutes.clone())).await;
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn the_handler_is_killed_between_polls() {
    let world = World::with_sites(&SITES).await;
    for round in 0..4 {
        add(&world, round * 5..round * 5 + 5).await;
        let handler = world.handler().await;
        handler.invoke_ok().await;
        handler.kill().await;
    }
    assert_all(&world, 0..20).await;
    assert_eq!(world.delivered().await.repeats, 0);
}

#[tokio::test]
async fn the_handler_is_killed_before_the_acknowledgement() {
    let world = World::with_sites(&SITES[..1]).await;
    world.add(SITES[0], 0..5).await;
    world.hub.put("faults", json!({ "pubackDelayMs": 600_000 })).await;
    let handler = world.handler().await;
    tokio::select! {
        answer = handler.invoke() => panic!("nothing is acknowledged yet: {answer:?}"),
        _ = world.hub.get("received?wait=1&timeout_ms=15000") => {}
    }
    handler.kill().await;
    assert_eq!(world.outcomes(SITES[0]).await, ["pending"], "recorded before it was sent, not acknowledged");

    world.hub.heal().await;
    world.add(SITES[0], 5..8).await;
    world.handler().await.invoke_ok().await;
    let messages = world.hub.get("received").await;
    assert_eq!(messages[0]["messageId"], messages[1]["messageId"], "the resend has the same id");
    assert_eq!(messages[0]["body"], messages[1]["body"], "and the same bytes");
    assert_eq!(messages.as_array().unwrap().len(), 3);
    world.assert_rows(SITES[0], &rows(0..8)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn the_hub_is_away() {
    let world = World::with_sites(&SITES).await;
    let handler = world.handler().await;
    add(&world, 0..3).await;
    handler.invoke_ok().await;

    world.hub.away(true).await;
    for round in 1..4 {
        add(&world, round * 10..round * 10 + 3).await;
        assert_eq!(handler.invoke_failing().await, kinds("hub_unreachable"));
    }
    for site in SITES {
        // The backend keeps the other rows.
        assert_eq!(world.outcomes(site).await, ["forwarded", "pending"]);
        let polls = world.polls(site).await;
        let waiting: Vec<_> = polls[1..].iter().map(|poll| poll["id"].clone()).collect();
        assert_eq!(world.cursor(site).await["Unforwarded"], json!(waiting), "oldest first");
        assert!(polls[1..].iter().all(|poll| poll.get("ttl").is_none()), "what waits must not expire");
    }

    world.hub.away(false).await;
    handler.invoke_ok().await;
    for site in SITES {
        world.assert_rows(site, &rows((0..3).chain(10..13).chain(20..23).chain(30..33))).await;
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn cosmos_db_is_away() {
    let mut world = World::with_sites(&SITES).await;
    world.set("PollTimeoutSeconds", "4");
    let handler = world.handler().await;
    add(&world, 0..3).await;
    handler.invoke_ok().await;
    let before = world.hub.get("counts").await["messages"].clone();

    world.cosmos.away(true).await;
    for round in 1..3 {
        add(&world, round * 3..round * 3 + 3).await;
        let failed = handler.invoke_failing().await;
        assert_eq!(failed.iter().map(|(site, _)| site.as_str()).collect::<Vec<_>>(), ["Tank", "Well 7"]);
    }
    assert_eq!(world.hub.get("counts").await["messages"], before, "nothing is sent that is not recorded");

    world.cosmos.away(false).await;
    add(&world, 9..12).await;
    handler.invoke_ok().await;
    assert_all(&world, 0..12).await;
}

#[tokio::test]
async fn cosmos_db_is_away_when_the_handler_starts() {
    let mut world = World::with_sites(&SITES).await;
    world.set("PollTimeoutSeconds", "4");
    add(&world, 0..3).await;
    world.cosmos.away(true).await;
    let handler = world.handler().await;
    handler.invoke_failing().await;
    world.cosmos.away(false).await;
    handler.invoke_ok().await;
    assert_all(&world, 0..3).await;
}

#[tokio::test]
async fn the_backend_is_away() {
    let world = World::with_sites(&SITES).await;
    let handler = world.handler().await;
    add(&world, 0..3).await;
    handler.invoke_ok().await;

    world.backend.away(true).await;
    for _ in 0..2 {
        assert_eq!(handler.invoke_failing().await, kinds("connect"));
    }
    for site in SITES {
        assert_eq!(world.outcomes(site).await, ["forwarded", "failed", "failed"]);
        assert!(world.polls(site).await[1..].iter().all(|poll| poll["Error"]["Kind"] == "connect"));
        let cursor = world.cursor(site).await;
        assert_eq!((&cursor["ConsecutiveFailures"], &cursor["LastError"]["Kind"]), (&json!(2), &json!("connect")));
    }

    world.backend.away(false).await;
    add(&world, 3..6).await;
    handler.invoke_ok().await;
    assert_all(&world, 0..6).await;
}
