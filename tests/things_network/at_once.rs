//! Tests commands that do not wait for an uplink: the hub pushes them over the device's MQTT connection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::things_network::support::{Host, World};

const LONG: &str = "timeout_ms=50000";
/// What a siren's user takes for "at once".
const AT_ONCE: Duration = Duration::from_secs(10);

/// A siren (class C) that has sent one uplink and sends no other.
async fn siren() -> (World, Host) {
    let mut world = World::start().await;
    world.set("IoTHubTransport", "mqtt");
    let host = Host::start(&world.settings).await;
    let body = json!({"target": host.target(), "application": "city", "device": "siren-1", "fCnt": 1});
    world.stack.post("uplink", body).await;
    host.drained().await;
    (world, host)
}

async fn command(world: &World, id: &str, body: &str, properties: Value) {
    let message = json!({"messageId": id, "bodyBase64": body, "properties": properties});
    world.hub.post("c2d?device=siren-1", message).await;
}

async fn states(world: &World, wait: &str) -> Vec<String> {
    let all = world.hub.get(&format!("c2d?device=siren-1&wait={wait}&{LONG}")).await;
    all.as_array().unwrap().iter().map(|message| message["state"].as_str().unwrap().to_owned()).collect()
}

async fn requests(world: &World, count: usize) -> Vec<Value> {
    let all = world.stack.get(&format!("downlinks?wait={count}&{LONG}")).await;
    all.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_command_goes_out_at_once_and_is_completed() {
    let (world, host) = siren().await;
    let began = Instant::now();
    for (id, body) in [("on", "AQ=="), ("tone", "Ag=="), ("off", "AA==")] {
        command(&world, id, body, json!({"Port": "3", "Note": "ü &="})).await;
    }
    let sent = requests(&world, 3).await;
    assert_eq!(states(&world, "completed:3").await, ["completed"; 3], "{}", host.log());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let downlinks: Vec<_> = sent.iter().map(|request| request["downlinks"][0].clone()).collect();
    let expected = [("on", "AQ=="), ("tone", "Ag=="), ("off", "AA==")].map(|(id, body)| {
        json!({"f_port": 3, "frm_payload": body, "confirmed": false, "priority": "NORMAL",
               "correlation_ids": [format!("iothub:{id}")]})
    });
    assert_eq!(downlinks, expected, "in their order");
}

/// The connection is cut while The Things Stack takes its time: the hub pushes the command again, and it is completed, but
/// not scheduled again.
#[tokio::test]
async fn a_command_that_is_pushed_again_is_not_scheduled_twice() {
    let (world, host) = siren().await;
    world.stack.post("faults", json!({"delayMs": 2000})).await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 1).await;
    world.hub.post("cut", Value::Null).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
    // The connection is open again without any uplink, and it listens.
    command(&world, "off", "AA==", json!({"Port": "3"})).await;
    let sent = requests(&world, 2).await;
    let ids: Vec<_> = sent.iter().map(|request| &request["downlinks"][0]["correlation_ids"][0]).collect();
    assert_eq!(ids, ["iothub:on", "iothub:off"]);
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2]);
}

/// MQTT cannot reject. The hub takes everything back after a minute, and gives it out over HTTPS, in its order.
#[tokio::test]
async fn what_can_be_no_downlink_is_rejected_after_a_minute_and_nothing_overtakes() {
    let (world, host) = siren().await;
    world.stack.post("faults", json!({"times": 3, "status": 503})).await;
    command(&world, "first", "AQ==", json!({"Port": "3"})).await;
    command(&world, "bad", "AQ==", json!({"Port": "300"})).await;
    command(&world, "last", "AA==", json!({"Port": "3"})).await;
    host.logged("a downlink waits, and is tried again").await;
    // Longer than the hub's lock and one wait of the test.
    states(&world, "completed:2").await;
    assert_eq!(states(&world, "completed:2").await, ["completed", "rejected", "completed"], "{}", host.log());
    let sent = requests(&world, 5).await;
    let ids = sent.iter().filter(|request| request["status"] == 200);
    let ids: Vec<_> = ids.map(|request| &request["downlinks"][0]["correlation_ids"][0]).collect();
    assert_eq!(ids, ["iothub:first", "iothub:last"]);
    // It listens again.
    let began = Instant::now();
    command(&world, "again", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 6).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}
