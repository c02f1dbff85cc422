//! Tests the end of a handler that is told to end (SIGTERM), and of one whose host has gone.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    support,
    things_network::support::{Host, QUEUE, uplink},
};

const SITES: usize = 200;
const DEVICES: u32 = 8;
const UPLINKS: u32 = 64;

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// How often the hub has each message.
fn times(received: &[Value]) -> BTreeMap<&str, usize> {
    let mut times = BTreeMap::new();
    for message in received {
        *times.entry(message["messageId"].as_str().unwrap()).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn a_handler_that_is_told_to_end_loses_nothing_and_repeats_nothing_acknowledged() {
    let names: Vec<_> = (0..SITES).map(|site| format!("site-{site}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = support::World::with_sites(&names).await;
    for name in &names {
        world.add(name, 0..3).await;
    }
    let storage = support::Emulator::start("storage", &[]).await;
    for (name, value) in [
        ("UplinkQueueName", QUEUE),
        ("AzureStorageConnectionString", storage.ready("connection")),
        ("DPSGlobalDeviceEndpoint", world.hub.ready("dps").to_owned().as_str()),
        ("DPSIDScopeDefault", world.hub.ready("idScope").to_owned().as_str()),
        ("DPSEnrollmentGroupSymmetricKeyDefault", world.hub.ready("groupKey").to_owned().as_str()),
        ("PollConcurrency", "32"),
        ("PollTimeoutSeconds", "60"),
        ("RUST_LOG", "info"),
    ] {
        world.set(name, value);
    }
    let host = Host::start_with(&world.settings, json!({}), &["--schedule", "0 0 0 1 1 *"]).await;
    for device in 0..DEVICES {
        assert_eq!(host.post(uplink("app", &format!("dev-{device}"), 0).to_string()).await.status, 202);
    }
    host.drained().await;
    // Acknowledgements come late, so that much is in flight.
    world.hub.put("faults", json!({"pubackDelayMs": 1000})).await;
    host.run("rapidM2MForwarding").await;
    for counter in 1..=UPLINKS {
        let device = format!("dev-{}", counter % DEVICES);
        assert_eq!(host.post(uplink("app", &device, counter).to_string()).await.status, 202);
    }
    world.hub.get(&format!("received?wait={}&timeout_ms=50000", DEVICES + 60)).await;
    let began = Instant::now();
    signal(host.handler(), "-TERM");
    host.logged("handler ended: exit status: 0").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!host.log().contains("was dropped"), "{}", host.log());
    world.hub.heal().await;

    let received = world.hub.get("received").await.as_array().unwrap().clone();
    let polled = received.iter().filter(|message| message["deviceId"] == "gateway-1").count();
    assert!((1..SITES).contains(&polled), "{polled} sites are done: the handler was to end half-way");
    let uplinks = received.iter().filter(|message| message["deviceId"] != "gateway-1").count();
    let left = storage.get(&format!("queues/{QUEUE}")).await.as_array().unwrap().len();
    assert_eq!(uplinks + left, (DEVICES + UPLINKS) as usize, "each is at the hub or in the queue");

    // The next handler goes on.
    let next = world.handler().await;
    next.invoke_ok().await;
    let received = world.hub.get("received").await.as_array().unwrap().clone();
    let repeated: Vec<_> = times(&received).into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    let sites: std::collections::BTreeSet<_> =
        received.iter().filter_map(|message| message["properties"]["Site_Id"].as_str()).collect();
    assert_eq!(sites.len(), SITES);
}

#[tokio::test]
async fn a_handler_whose_host_was_killed_ends_too() {
    let world = crate::things_network::support::World::start().await;
    let mut host = Host::start(&world.settings).await;
    host.logged("handler ready after ").await;
    let handler = host.handler();
    let is_there = || std::path::Path::new(&format!("/proc/{handler}")).exists();
    assert!(is_there());
    host.kill().await;
    let give_up = Instant::now() + Duration::from_secs(30);
    while is_there() {
        assert!(Instant::now() < give_up, "the handler was left behind");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
