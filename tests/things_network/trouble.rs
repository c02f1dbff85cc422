//! Tests temporary faults: the message stays in the queue, and arrives when the fault is over.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::things_network::support::{Host, QUEUE, World, uplink};

/// Asserts that everything posted has arrived and nothing was given up.
async fn arrived(world: &World, host: &Host, counters: impl IntoIterator<Item = u32>) {
    let expected: BTreeSet<_> = counters.into_iter().collect();
    // Some may arrive twice, so wait until nothing is left to come.
    host.drained().await;
    let received = world.received(expected.len()).await;
    let counters: BTreeSet<_> =
        received.iter().map(|message| u32::try_from(message["body"]["Counter"].as_u64().unwrap()).unwrap()).collect();
    assert_eq!(counters, expected);
    for queue in ["uplinks-poison", "uplinks-rejected"] {
        assert_eq!(host.queue(queue).await, Vec::<Value>::new(), "{queue}");
    }
}

/// Waits for what is put back, however long: the later it fails, the longer.
async fn is_taken_again(host: &Host) {
    for round in 1..=40 {
        if host.queue(QUEUE).await.is_empty() {
            return;
        }
        host.set_clock(Duration::from_secs(15 * 60) * round).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_hub_that_is_away_is_waited_for() {
    let mut world = World::start().await;
    world.set("ForwardTimeoutSeconds", "3");
    let host = Host::start(&world.settings).await;
    host.post(uplink("app", "dev", 0).to_string()).await;
    world.received(1).await;
    world.hub.away(true).await;
    world.hub.post("cut", Value::Null).await;
    // More messages of other devices than may wait inside the function.
    for counter in 1..=20 {
        assert_eq!(host.post(uplink("app", &format!("dev-{counter}"), counter).to_string()).await.status, 202);
    }
    host.logged("not forwarded now, the message stays in the queue").await;
    world.hub.away(false).await;
    arrived(&world, &host, 0..=20).await;
}

/// Messages that wait inside the function arrive as soon as the hub is back. They do not wait for the queue to
/// redeliver them.
#[tokio::test]
async fn a_few_messages_wait_in_the_function() {
    let world = World::start().await;
    let host = Host::start_with(&world.settings, json!({"visibilityTimeout": "00:10:00"}), &[]).await;
    host.post(uplink("app", "dev", 0).to_string()).await;
    world.received(1).await;
    world.hub.away(true).await;
    world.hub.post("cut", Value::Null).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    // After three attempts the hub counts as away. A fourth attempt in the log shows that a message waited for the hub.
    host.logged_times("failure.kind=\"hub_unreachable\"", 4).await;
    world.hub.away(false).await;
    arrived(&world, &host, 0..=1).await;
}

#[tokio::test]
async fn a_provisioning_service_that_is_away_is_waited_for() {
    let mut world = World::start().await;
    world.set("ForwardTimeoutSeconds", "2");
    let host = Host::start(&world.settings).await;
    world.hub.put("dps/away", true.into()).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    host.logged("dps_unreachable").await;
    world.hub.put("dps/away", false.into()).await;
    is_taken_again(&host).await;
    arrived(&world, &host, [1]).await;
}

#[tokio::test]
async fn a_cosmos_db_that_is_away_is_waited_for() {
    let mut world = World::start().await;
    world.set("ForwardTimeoutSeconds", "2");
    let host = Host::start(&world.settings).await;
    world.cosmos.away(true).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    host.logged("ledger_").await;
    world.cosmos.away(false).await;
    is_taken_again(&host).await;
    arrived(&world, &host, [1]).await;
}

/// A device that is refused for now holds up no other device.
#[tokio::test]
async fn a_device_that_the_provisioning_service_refuses_stays_in_the_queue() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    world.hub.put("dps/faults", json!({"disableTimes": 1000, "devices": ["locked"]})).await;
    assert_eq!(host.post(uplink("app", "locked", 1).to_string()).await.status, 202);
    host.logged("dps_refused").await;
    for counter in 2..10 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    world.received(8).await;
    let waiting = host.left(QUEUE, 1).await;
    assert!(waiting[0]["text"].as_str().unwrap().contains("locked"));
}

/// Slow registrations of many new devices do not keep out known devices.
#[tokio::test]
async fn known_devices_do_not_wait_for_new_ones() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    assert_eq!(host.post(uplink("app", "known", 0).to_string()).await.status, 202);
    world.received(1).await;
    world.hub.put("dps/faults", json!({"delayMs": 60_000})).await;
    for counter in 0..100 {
        let new = uplink("app", &format!("new-{counter}"), counter);
        assert_eq!(host.post(new.to_string()).await.status, 202);
    }
    for counter in 1..=10 {
        assert_eq!(host.post(uplink("app", "known", counter).to_string()).await.status, 202);
    }
    let received = world.received(11).await;
    assert!(
        received.iter().all(|message| message["deviceId"] == "known"),
        "no registration was waited for: {received:?}"
    );
}

/// Telemetry goes over MQTT, and the hub's HTTPS never answers the requests for downlinks.
#[tokio::test]
async fn uplinks_do_not_wait_for_a_hub_that_says_nothing_of_downlinks() {
    const DEVICES: usize = 100;
    let world = World::start_with(&["--devices", &DEVICES.to_string()]).await;
    let host = Host::start(&world.settings).await;
    let run = |count: usize| {
        json!({"target": host.target(), "count": count, "rate": 0, "repeatShare": 0, "malformedShare": 0, "eventShare": 0,
               "v2Share": 0})
    };
    let questions = async || world.hub.get("counts").await["httpsRequests"].as_u64().unwrap();
    world.hub.put("faults", json!({"httpDelayMs": 60_000})).await;
    // Register every device: this test is not about that. No answer comes, so no device listens for what the hub pushes.
    world.stack.post("send", run(2 * DEVICES)).await;
    world.received(2 * DEVICES).await;
    host.drained().await;
    let before = questions().await;
    world.stack.post("send", run(1000)).await;
    world.received(2 * DEVICES + 1000).await;
    // Those in flight when the first fails, and one after each back-off.
    assert!(before > 0, "the hub was asked");
    let asked = questions().await;
    assert!((1..100).contains(&asked), "the hub was asked {asked} times");
}

#[tokio::test]
async fn what_fails_too_often_ends_in_the_poison_queue_as_it_was() {
    let mut world = World::start().await;
    world.set("ForwardTimeoutSeconds", "1");
    world.hub.put("dps/faults", json!({"disableTimes": 1000})).await;
    let queues = json!({"visibilityTimeout": "00:00:00", "maxDequeueCount": 3});
    let host = Host::start_with(&world.settings, queues, &[]).await;
    // The handler, which has a shared access signature, cannot put anything back.
    let refusal = json!({"answer": {"status": 403, "headers": {"x-ms-error-code": "AuthorizationFailure"}}});
    host.set_storage("trouble", json!([{"path": "sig=", "effect": refusal}])).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    let poison = host.texts("uplinks-poison", 1).await;
    assert_eq!(poison[0]["Webhook"], uplink("app", "dev", 1));
    host.drained().await;
}

#[tokio::test]
async fn a_handler_that_is_killed_loses_nothing() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    // The acknowledgements are delayed, so that the kill happens while the messages are in flight.
    world.hub.put("faults", json!({"pubackDelayMs": 60_000})).await;
    for counter in 1..=5 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    world.hub.get("received?wait=1&timeout_ms=50000").await;
    host.kill_handler().await;
    world.hub.heal().await;
    host.drained().await;
    let counters: Vec<_> = world.received(6).await.iter().map(|message| message["body"]["Counter"].clone()).collect();
    let distinct: BTreeSet<_> = counters.iter().map(ToString::to_string).collect();
    assert_eq!(distinct.len(), 5, "{counters:?}");
}

/// With one message at a time the queue keeps the order, and so does the handler. With many at a time the handler keeps
/// the order in which they arrive at it.
#[tokio::test]
async fn a_devices_order_is_that_of_the_queue() {
    let world = World::start().await;
    let queues = json!({"batchSize": 1, "newBatchThreshold": 0});
    let host = Host::start_with(&world.settings, queues, &[]).await;
    for counter in 0..50 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    let counters: Vec<_> = world.received(50).await.iter().map(|message| message["body"]["Counter"].clone()).collect();
    assert_eq!(counters, (0..50).map(Value::from).collect::<Vec<_>>());
}
