//! Tests that the handler stops reading a body without end, from any source, and keeps its memory small.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    faults::{
        polls::{self, Polled},
        uplinks,
    },
    support::Emulator,
};

/// The most memory that the handler may have used, in KiB: an answer with rows, or a list of sites, of 64 MiB, in a buffer
/// that grows by doubling.
const MOST: u64 = 320 * 1024;
/// The same for every other answer.
const MOST_OF_OTHERS: u64 = 160 * 1024;
/// Longer than any of the handler's own limits here.
const PATIENCE: Duration = Duration::from_secs(40);

/// The most memory that the process has used, in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn endless(service: &Emulator, mut rule: Value, text: &str) {
    rule["effect"] = json!({"endless": text});
    service.put("trouble", json!([rule])).await;
}

async fn was_met(service: &Emulator) -> bool {
    service.get("trouble").await[0]["met"].as_u64() > Some(0)
}

/// A run while the backend's answer has no end.
async fn poll(settings: &[(&str, &str)], path: &str, text: &str, kind: &str, most: u64) {
    let mut world = polls::world().await;
    world.set("RUST_LOG", "info");
    world.set("PollTimeoutSeconds", "20");
    for (name, value) in settings {
        world.set(name, value);
    }
    let mut polled = Polled::start(world).await;
    endless(&polled.world.backend, json!({"path": path}), text).await;
    let began = Instant::now();
    let answer = polled.invoke().await;
    assert_eq!((answer.status, answer.failed()[0].1.as_str()), (500, kind), "{path}: {}", answer.body);
    assert!(began.elapsed() < PATIENCE && was_met(&polled.world.backend).await);
    let peak = peak(polled.handler.pid());
    assert!(peak < most, "{path}: {peak} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backends_bodies_have_limits() {
    poll(&[], "/histdata0", r#"["20170126133",51000,21.37],"#, "too_large", MOST).await;
    poll(&[("Channelnames", "*")], "/blueprint", r#"{"a":{"#, "too_large", MOST_OF_OTHERS).await;
    poll(&[("Site_ID", "*")], "/sites$", r#"[{"name":"x"},"#, "too_large", MOST).await;
}

/// An uplink while the answer of one of the services has no end.
async fn uplink(service: fn(&uplinks::World) -> &Emulator, path: &str, transport: &str) {
    let mut world = uplinks::World::start().await;
    world.set("RUST_LOG", "info");
    world.set("IoTHubTransport", transport);
    world.restart().await;
    world.hub.post("c2d?device=dev-1", json!({"body": "x", "properties": {"Port": "1"}})).await;
    endless(service(&world), json!({"path": path}), "{\"a\":1,").await;
    let (began, uplink) = (Instant::now(), world.uplink());
    world.give(uplink).await;
    assert!(began.elapsed() < PATIENCE && was_met(service(&world)).await, "{path}");
    let peak = peak(world.pid());
    assert!(peak < MOST_OF_OTHERS, "{path}: {peak} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_services_bodies_have_limits() {
    tokio::join!(
        uplink(|world| &world.hub, "/registrations/", "mqtt"),
        uplink(|world| &world.hub, "/messages/events", "https"),
        uplink(|world| &world.hub, "/messages/devicebound", "mqtt"),
        uplink(|world| &world.stack, "/down/push", "mqtt"),
    );
}

/// A body without end that the host posts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envelope_that_is_too_large_is_refused_and_not_kept() {
    let polled = Polled::start(polls::world().await).await;
    for function in ["/rapidM2MForwarding", "/thingsNetworkUplink", "/thingsNetworkForwarding"] {
        let answer = polled.handler.post(function, vec![b'x'; 1024 * 1024 + 1]).await;
        assert!(answer.status >= 400 || function == "/thingsNetworkUplink", "{function}: {}", answer.body);
    }
    let peak = peak(polled.handler.pid());
    assert!(peak < MOST_OF_OTHERS, "{peak} KiB");
}
