//! Tests the direct lane: the webhook's own call sends the uplink.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::things_network::support::{Host, QUEUE, World, uplink};

const DEVICE: &str = "valve";

/// A host with the lane on, and a device that has already sent an uplink.
async fn started(limit: &str) -> (World, Host) {
    let mut world = World::start().await;
    world.set("ThingsNetworkDirectMilliseconds", limit);
    let host = Host::start(&world.settings).await;
    send(&host, 0).await;
    world.received(1).await;
    host.drained().await;
    (world, host)
}

async fn send(host: &Host, counter: u32) {
    assert_eq!(host.post(uplink("app-1", DEVICE, counter).to_string()).await.status, 202);
}

fn counters(received: &[Value]) -> Vec<u64> {
    received.iter().map(|message| message["body"]["Counter"].as_u64().unwrap()).collect()
}

/// Calls of the function that takes messages from the queue.
fn calls(host: &Host) -> usize {
    host.log().matches("thingsNetworkForwarding started (").count()
}

#[tokio::test]
async fn uplinks_of_known_devices_do_not_touch_the_queue() {
    let (world, host) = started("4000").await;
    let before = calls(&host);
    for counter in 1..=20 {
        send(&host, counter).await;
        // The hub had it before The Things Stack had its answer.
        assert_eq!(world.hub.get("received").await.as_array().unwrap().len(), 1 + counter as usize);
    }
    assert_eq!(counters(&world.received(21).await), (0..=20).collect::<Vec<_>>());
    assert_eq!(calls(&host), before, "{}", host.log());
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_takes_the_queue_under_the_same_id() {
    let (world, host) = started("200").await;
    world.hub.put("faults", json!({"pubackDelayMs": 1500})).await;
    send(&host, 1).await;
    // It must not overtake the one in the queue.
    send(&host, 2).await;
    world.hub.heal().await;
    host.drained().await;
    let received = world.received(3).await;
    let ids: BTreeSet<_> = received.iter().map(|message| message["messageId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "repeats have the same id: {received:?}");
    let mut order = counters(&received);
    order.dedup();
    let first = |counter| order.iter().position(|one| *one == counter);
    assert!(first(1) < first(2), "{order:?}");
    // Then the lane is free again.
    let before = calls(&host);
    send(&host, 3).await;
    assert_eq!((calls(&host), host.queue(QUEUE).await.len()), (before, 0));
}

#[tokio::test]
async fn a_hub_that_is_away_leaves_the_queue_to_it() {
    let (world, host) = started("1000").await;
    world.hub.put("away", json!(true)).await;
    for counter in 1..=5 {
        send(&host, counter).await;
    }
    world.hub.put("away", json!(false)).await;
    let mut ahead = Duration::ZERO;
    while world.hub.get("received").await.as_array().unwrap().len() < 6 {
        ahead += Duration::from_secs(60);
        host.set_clock(ahead).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    host.drained().await;
    let counters: BTreeSet<_> = counters(&world.received(6).await).into_iter().collect();
    assert_eq!(counters, (0..=5).collect());
}

#[tokio::test]
async fn a_command_leaves_after_a_direct_uplink_too() {
    let (world, host) = started("4000").await;
    let uplink = |counter| json!({"target": host.target(), "application": "app-1", "device": DEVICE, "fCnt": counter});
    // The first one tells the device's tenant, and takes the queue.
    world.stack.post("uplink", uplink(6)).await;
    world.received(2).await;
    host.drained().await;
    let before = calls(&host);
    world.hub.post("c2d?device=valve", json!({"body": "x", "properties": {"Port": "15"}})).await;
    world.stack.post("uplink", uplink(7)).await;
    let requests = world.stack.get("downlinks?wait=1&timeout_ms=50000").await;
    assert_eq!(requests.as_array().unwrap().len(), 1, "{requests}");
    let all = world.hub.get("c2d?device=valve&wait=completed:1&timeout_ms=50000").await;
    assert_eq!(all[0]["state"], "completed");
    assert_eq!(calls(&host), before);
}
