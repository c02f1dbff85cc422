//! Tests that an uplink that cannot be forwarded now is put back for a while, without a failed invocation.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::things_network::support::{Host, QUEUE, World, uplink};

/// A message that is being handled is hidden for 10 minutes. One that was put back is hidden for less than this.
const BEING_HANDLED: i64 = 9 * 60;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The time until a message comes back, in seconds.
fn hidden(message: &Value) -> i64 {
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    (time(&message["nextVisibleTime"]) - chrono::Utc::now()).num_seconds()
}

/// Waits until every message in the queue was put back by delivery `count`.
async fn deliveries(host: &Host, messages: usize, count: u64) -> Vec<Value> {
    loop {
        let left = host.left(QUEUE, messages).await;
        let is_back = |message: &Value| message["dequeueCount"] == count && hidden(message) < BEING_HANDLED;
        if left.iter().all(is_back) {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets time pass for the queue until the hub has this many messages and the queue has none.
async fn arrived(world: &World, host: &Host, mut ahead: Duration, messages: usize) {
    while world.hub.get("received").await.as_array().unwrap().len() < messages {
        ahead += Duration::from_secs(60);
        host.set_clock(ahead).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    host.set_clock(ahead + Duration::from_secs(60 * 60)).await;
    host.drained().await;
}

#[tokio::test]
async fn a_hub_that_is_away_makes_no_invocation_fail() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    assert_eq!(host.post(uplink("app", "dev", 0).to_string()).await.status, 202);
    world.received(1).await;
    world.hub.put("away", json!(true)).await;
    for counter in 1..=20 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    for message in deliveries(&host, 20, 1).await {
        assert!((0..=7).contains(&hidden(&message)), "{message}");
    }
    host.set_clock(Duration::from_secs(10)).await;
    deliveries(&host, 20, 2).await;
    world.hub.put("away", json!(false)).await;
    arrived(&world, &host, Duration::from_secs(10), 21).await;
    let log = host.log();
    assert!(!log.contains("thingsNetworkForwarding failed"), "{log}");
    let warnings = log.lines().filter(|line| line.contains("not forwarded now")).count();
    assert!((1..=4).contains(&warnings), "one line for each cause, not {warnings}: {log}");
}

#[tokio::test]
async fn first_uplinks_of_many_new_devices_do_not_wait_for_the_host() {
    const DEVICES: u32 = 60;
    let world = World::start().await;
    let host = Host::start_with(&world.settings, json!({"visibilityTimeout": "00:01:00"}), &[]).await;
    // Each registration is asked for twice.
    world.hub.put("dps/faults", json!({"delayMs": 1500})).await;
    let began = std::time::Instant::now();
    for device in 0..DEVICES {
        assert_eq!(host.post(uplink("app", &format!("new-{device}"), 1).to_string()).await.status, 202);
    }
    world.received(DEVICES as usize).await;
    assert!(began.elapsed() < Duration::from_secs(40), "they waited for the host's minute: {:?}", began.elapsed());
    assert!(!host.log().contains("thingsNetworkForwarding failed"), "{}", host.log());
}

/// A queue keeps messages for seven days.
#[tokio::test]
async fn an_outage_of_fifteen_days_loses_nothing() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    world.hub.put("away", json!(true)).await;
    for counter in 0..3 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    deliveries(&host, 3, 1).await;
    for days in [3, 6, 9, 12, 15] {
        let before: Vec<_> = host.queue(QUEUE).await.iter().map(|message| message["dequeueCount"].clone()).collect();
        host.set_clock(DAY * days).await;
        host.until(async || {
            let now = host.queue(QUEUE).await;
            let counts: Vec<_> = now.iter().map(|message| message["dequeueCount"].clone()).collect();
            let is_hidden =
                |message: &Value| (0..BEING_HANDLED).contains(&(hidden(message) - (DAY * days).as_secs() as i64));
            now.len() == 3 && (counts != before || days > 6) && now.iter().all(is_hidden)
        })
        .await;
    }
    world.hub.put("away", json!(false)).await;
    // It knows nothing of the outage.
    host.kill_handler().await;
    arrived(&world, &host, DAY * 16, 3).await;
    let counters: BTreeSet<_> =
        world.received(3).await.iter().map(|message| message["body"]["Counter"].as_u64().unwrap()).collect();
    assert_eq!(counters, BTreeSet::from([0, 1, 2]));
}

#[tokio::test]
async fn a_good_uplink_never_becomes_poison() {
    let world = World::start().await;
    let host = Host::start_with(&world.settings, json!({"maxDequeueCount": 4}), &[]).await;
    world.hub.put("away", json!(true)).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    // It is written anew each second time.
    let mut ids = BTreeSet::new();
    for (round, count) in [1, 0, 1, 0, 1, 0].into_iter().enumerate() {
        let ahead = Duration::from_secs(60 * 60) * u32::try_from(round).unwrap();
        host.set_clock(ahead).await;
        host.until(async || {
            let left = host.queue(QUEUE).await;
            let wait = left.first().map_or(0, |message| hidden(message) - ahead.as_secs() as i64);
            left.len() == 1 && left[0]["dequeueCount"] == count && (1..BEING_HANDLED).contains(&wait)
        })
        .await;
        ids.insert(host.queue(QUEUE).await[0]["id"].to_string());
    }
    assert_eq!(ids.len(), 4, "it was written anew three times");
    assert!(host.queue("uplinks-poison").await.is_empty());
    world.hub.put("away", json!(false)).await;
    host.kill_handler().await;
    arrived(&world, &host, DAY, 1).await;
}

#[tokio::test]
async fn if_the_queue_refuses_the_host_puts_it_back() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    // Only the handler's request. If the account refused the host's own, the host would end.
    let refusal = json!([{"method": "PUT", "path": "/messages/", "header": "x-ms-version", "times": 1, "effect":
                          {"answer": {"status": 403, "headers": {"x-ms-error-code": "AuthenticationFailed"}}}}]);
    host.set_storage("trouble", refusal).await;
    world.hub.put("away", json!(true)).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    host.logged("check AzureStorageConnectionString").await;
    host.logged("thingsNetworkForwarding failed").await;
    world.hub.put("away", json!(false)).await;
    host.set_storage("trouble", json!([])).await;
    arrived(&world, &host, Duration::from_secs(60 * 60), 1).await;
}
