//! Tests a restart of the job host: the new handler runs before the old one is asked to end.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use crate::things_network::support::{Host, World, uplink};

const DEVICES: u32 = 8;
/// Few enough that the host takes all of them at once (`newBatchThreshold`).
const UPLINKS: u32 = 24;
/// Longer than a start of the handler takes.
const LATE_MS: u32 = 5000;

/// Uplinks of all devices of a group, so many in all, from this counter on.
async fn send(host: &Host, group: &str, counters: std::ops::Range<u32>) {
    for counter in counters {
        let device = format!("{group}-{}", counter % DEVICES);
        assert_eq!(host.post(uplink("app", &device, counter).to_string()).await.status, 202);
    }
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// How often the hub has each message, by device and counter.
fn times(received: &[Value]) -> BTreeMap<(&str, u64, &str), usize> {
    let mut times = BTreeMap::new();
    for message in received {
        let text = |name: &str| message[name].as_str().unwrap();
        let counter = message["body"]["Counter"].as_u64().unwrap();
        *times.entry((text("deviceId"), counter, text("messageId"))).or_default() += 1;
    }
    times
}

/// A host whose handler has uplinks of the group `old` in flight. All devices of both groups are known.
async fn busy() -> (World, Host) {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    send(&host, "old", 0..DEVICES).await;
    send(&host, "new", 0..DEVICES).await;
    host.drained().await;
    world.hub.put("faults", json!({ "pubackDelayMs": LATE_MS })).await;
    send(&host, "old", DEVICES..DEVICES + UPLINKS).await;
    world.received(3 * DEVICES as usize).await;
    host.logged_times("thingsNetworkForwarding started (", (2 * DEVICES + UPLINKS) as usize).await;
    (world, host)
}

#[tokio::test]
async fn while_two_handlers_run_nothing_is_lost_and_nothing_repeated() {
    let (world, host) = busy().await;
    let old = host.handler();
    host.restart().await;
    let new = host.handler();
    assert!(old != new && is_there(old) && is_there(new), "{}", host.log());
    assert!(!host.log().contains("handler ended: "), "{}", host.log());
    send(&host, "new", DEVICES..DEVICES + UPLINKS).await;
    // Those of the new handler arrive while the old one waits for its acknowledgements.
    host.until(async || {
        let received = world.hub.get("received").await;
        received
            .as_array()
            .unwrap()
            .iter()
            .filter(|message| message["deviceId"].as_str().unwrap().contains("new"))
            .count()
            > DEVICES as usize
    })
    .await;
    assert!(is_there(old), "{}", host.log());
    world.hub.heal().await;
    host.drained().await;
    host.logged("handler ended: exit status: 0").await;
    assert!(!is_there(old) && is_there(new));

    let received = world.received(2 * (DEVICES + UPLINKS) as usize).await;
    let times = times(&received);
    let repeated: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!(times.len(), 2 * (DEVICES + UPLINKS) as usize);
    assert!(repeated.is_empty(), "{repeated:?} {}", host.log());
    assert!(!host.log().contains("was dropped"), "{}", host.log());
}

#[tokio::test]
async fn two_handlers_that_take_a_devices_connection_from_each_other_lose_nothing() {
    let (world, host) = busy().await;
    host.restart().await;
    send(&host, "old", DEVICES + UPLINKS..DEVICES + 2 * UPLINKS).await;
    world.hub.heal().await;
    host.drained().await;
    host.logged("handler ended: exit status: 0").await;
    // What was not acknowledged before its connection was taken comes again, under the same id.
    let received = world.received((2 * DEVICES + 2 * UPLINKS) as usize).await;
    assert_eq!(times(&received).len(), (2 * DEVICES + 2 * UPLINKS) as usize);
}
