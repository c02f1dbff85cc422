//! Tests that the handler logs when the host hangs up while an uplink is in flight, and how far the uplink came.

use serde_json::{Value, json};

use super::world::{DEVICE, World};

/// Hangs up as soon as `is_there` is ready. Returns the log lines about it.
async fn hang_up(world: &mut World, is_there: impl Future<Output = Value>) -> Vec<String> {
    let counter = world.uplink();
    let request = world.request(counter);
    let call = tokio::spawn(async move { drop(request.send().await) });
    let there = is_there.await;
    assert!(!there.as_array().unwrap().is_empty() && !call.is_finished(), "{there}");
    call.abort();
    world.logged("was dropped before its end").await;
    world.log().lines().filter(|line| line.contains("was dropped before")).map(str::to_owned).collect()
}

/// Asserts that there is one line, with the invocation and the device.
fn assert_told(lines: &[String], how_far: &str) {
    let [line] = lines else { panic!("one line: {lines:?}") };
    let expected = format!("warn: thingsNetworkForwarding was dropped before its end: {how_far}");
    assert!(line.starts_with(&expected), "{line}");
    for part in ["5b2f9c6e-0000-4000-8000-000000000000", DEVICE] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

async fn world() -> World {
    let mut world = World::start().await;
    world.set("IoTHubTransport", "mqtt");
    world.set("ForwardTimeoutSeconds", "60");
    world.restart().await;
    let first = world.uplink();
    world.give_until_taken(first).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_hub_has_not_acknowledged_it() {
    let mut world = world().await;
    world.hub.put("faults", json!({"pubackDelayMs": 60_000})).await;
    let url = format!("{}received?wait=2&timeout_ms=20000", world.hub.ready("control"));
    let lines = hang_up(&mut world, get(url)).await;
    assert_told(&lines, "it was being sent");
    // The message is redelivered, and the device is free for it. Ending the connection also ends what the hub holds
    // back.
    world.hub.heal().await;
    world.hub.post("cut", Value::Null).await;
    world.give_until_taken(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_its_downlinks_are_passed_on() {
    let mut world = world().await;
    // Over MQTT the hub would push the command, and no uplink would wait for it.
    world.set("IoTHubTransport", "https");
    world.restart().await;
    world.hub.post(&format!("c2d?device={DEVICE}"), json!({"body": "x", "properties": {"Port": "1"}})).await;
    world.stack.post("faults", json!({"delayMs": 60_000})).await;
    let url = format!("{}downlinks?wait=1&timeout_ms=20000", world.stack.ready("control"));
    let lines = hang_up(&mut world, get(url)).await;
    assert_told(&lines, "the hub has acknowledged it, and commands for the device were being passed on");
    // The dropped work has ended. Once the command's lock is over, the next uplink delivers it.
    world.hub.post(&format!("c2d/unlock?device={DEVICE}"), Value::Null).await;
    let next = world.uplink();
    world.give_until_taken(next).await;
    let all = world.hub.get(&format!("c2d?device={DEVICE}")).await;
    assert_eq!(all[0]["state"], "completed");
}

/// Reads a control endpoint without the world, which is in use meanwhile.
async fn get(url: String) -> Value {
    let response = crate::support::client().get(url).send().await.unwrap();
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}
