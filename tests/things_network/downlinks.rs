//! Tests the way of a service's message for a device into The Things Stack's downlink queue.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::things_network::support::{Host, QUEUE, World, uplink};

const LONG: &str = "timeout_ms=50000";

/// A world with a device that has already sent an uplink.
async fn world() -> (World, Host) {
    let world = World::start_fetching().await;
    let host = Host::start(&world.settings).await;
    send(&world, &host, 1).await;
    (world, host)
}

/// Sends an uplink of the device from the emulated Things Stack, with its headers.
async fn send(world: &World, host: &Host, counter: u32) {
    let body = json!({"target": host.target(), "application": "app-1", "device": "valve", "fCnt": counter});
    world.stack.post("uplink", body).await;
    host.drained().await;
}

/// Sends uplinks until The Things Stack has got `count` requests.
async fn send_until_requested(world: &World, host: &Host, count: usize) {
    for counter in 100.. {
        send(world, host, counter).await;
        if requests(world, 0).await.len() >= count {
            return;
        }
    }
}

async fn command(world: &World, message: Value) {
    world.hub.post("c2d?device=valve", message).await;
}

/// The states of the messages for the device, oldest first.
async fn states(world: &World, wait: &str) -> Vec<String> {
    let all = world.hub.get(&format!("c2d?device=valve&wait={wait}&{LONG}")).await;
    all.as_array().unwrap().iter().map(|message| message["state"].as_str().unwrap().to_owned()).collect()
}

async fn requests(world: &World, count: usize) -> Vec<Value> {
    let all = world.stack.get(&format!("downlinks?wait={count}&{LONG}")).await;
    all.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_command_is_a_downlink_after_the_next_uplink() {
    let (world, host) = world().await;
    command(
        &world,
        json!({
            "bodyBase64": "vu8=", "messageId": "open-7",
            "properties": {"Port": "15", "Confirmed": "true", "Priority": "high"}
        }),
    )
    .await;
    assert_eq!(requests(&world, 0).await, Vec::<Value>::new(), "not before the device was heard");
    send(&world, &host, 2).await;
    let request = requests(&world, 1).await.remove(0);
    assert_eq!((&request["application"], &request["device"]), (&json!("app-1"), &json!("valve")));
    assert_eq!((&request["operation"], &request["status"]), (&json!("push"), &json!(200)));
    let expected = json!([{"f_port": 15, "frm_payload": "vu8=", "confirmed": true, "priority": "HIGH",
                           "correlation_ids": ["iothub:open-7"]}]);
    assert_eq!(request["downlinks"], expected);
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
    send(&world, &host, 3).await;
    assert_eq!(requests(&world, 1).await.len(), 1);
}

#[tokio::test]
async fn several_commands_keep_their_order_and_one_may_replace_the_others() {
    let (world, host) = world().await;
    for (body, queue) in [("01", "push"), ("02", "push"), ("03", "replace")] {
        let properties = json!({"Port": "1", "Payload": "hex", "Queue": queue});
        command(&world, json!({"body": body, "properties": properties})).await;
    }
    command(&world, json!({"body": "{\"open\": 0.5}"})).await;
    send(&world, &host, 2).await;
    let requests = requests(&world, 4).await;
    let payloads: Vec<_> = requests
        .iter()
        .map(|request| (request["operation"].as_str().unwrap(), request["downlinks"][0].clone()))
        .map(|(operation, downlink)| (operation, downlink["frm_payload"].as_str().map(str::to_owned)))
        .collect();
    let bytes = |text: &str| Some(text.to_owned());
    assert_eq!(
        payloads,
        [("push", bytes("AQ==")), ("push", bytes("Ag==")), ("replace", bytes("Aw==")), ("push", None)]
    );
    assert_eq!(requests[3]["downlinks"][0]["decoded_payload"], json!({"open": 0.5}));
    assert_eq!(states(&world, "completed:4").await, ["completed"; 4]);
}

/// The Things Stack fails until all attempts after one uplink are used up.
#[tokio::test]
async fn a_downlink_that_is_not_accepted_comes_again_and_is_accepted_once() {
    let (world, host) = world().await;
    world.stack.post("faults", json!({"times": 3, "status": 500})).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    send(&world, &host, 2).await;
    let statuses = |requests: &[Value]| requests.iter().map(|one| one["status"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(statuses(&requests(&world, 3).await), [500, 500, 500]);
    assert_eq!(states(&world, "enqueued:1").await, ["enqueued"]);
    send_until_requested(&world, &host, 4).await;
    assert_eq!(statuses(&requests(&world, 4).await), [500, 500, 500, 200]);
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
    send(&world, &host, 1000).await;
    assert_eq!(requests(&world, 4).await.len(), 4);
    let queue = world.stack.get("queue?application=app-1&device=valve").await;
    assert_eq!(queue.as_array().unwrap().len(), 1, "{queue}");
}

/// The Things Stack fails once: the same uplink's second attempt succeeds.
#[tokio::test]
async fn a_passing_failure_does_not_cost_an_uplinks_time() {
    let (world, host) = world().await;
    world.stack.post("faults", json!({"times": 1, "status": 500})).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    send(&world, &host, 2).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
    let queue = world.stack.get("queue?application=app-1&device=valve").await;
    assert_eq!(queue.as_array().unwrap().len(), 1, "{queue}");
}

#[tokio::test]
async fn what_cannot_be_a_downlink_is_rejected_and_holds_up_nothing() {
    let (world, host) = world().await;
    for properties in [json!({}), json!({"Port": "0"}), json!({"Port": "1", "Priority": "urgent"})] {
        command(&world, json!({"body": "x", "properties": properties})).await;
    }
    command(&world, json!({"body": "good", "properties": {"Port": "1"}})).await;
    send(&world, &host, 2).await;
    assert_eq!(states(&world, "completed:1").await, ["rejected", "rejected", "rejected", "completed"]);
    assert_eq!(requests(&world, 1).await.len(), 1);
    let log = host.log();
    for reason in ["property Port is missing", "property Port is \\\"0\\\"", "property Priority is \\\"urgent\\\""] {
        assert!(log.contains(reason) || log.contains(&reason.replace('\\', "")), "{reason} is not logged: {log}");
    }
}

#[tokio::test]
async fn a_key_without_the_right_is_told_and_the_command_waits() {
    let (world, host) = world().await;
    world.stack.post("faults", json!({"times": 1, "status": 403})).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    send(&world, &host, 2).await;
    host.logged("needs the right to write downlink").await;
    assert_eq!(states(&world, "enqueued:1").await, ["enqueued"]);
    send_until_requested(&world, &host, 2).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
}

/// The Things Stack accepts the downlink, but the hub does not get the acknowledgement: the message is redelivered, the
/// downlink is not sent again.
#[tokio::test]
async fn a_downlink_whose_message_could_not_be_completed_is_not_accepted_twice() {
    let (world, host) = world().await;
    // The lock ends while The Things Stack delays its answer, so the handler acknowledges too late and the message is
    // redelivered.
    world.stack.post("faults", json!({"delayMs": 1500})).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    let body = json!({"target": host.target(), "application": "app-1", "device": "valve", "fCnt": 2});
    world.stack.post("uplink", body).await;
    states(&world, "locked:1").await;
    world.hub.post("c2d/unlock?device=valve", Value::Null).await;
    host.logged("handled but not settled").await;
    host.drained().await;
    send(&world, &host, 3).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
    assert_eq!(requests(&world, 1).await.len(), 1);
}

/// A backlog of uplinks must not use up the ten deliveries of a message.
#[tokio::test]
async fn a_command_outlives_a_backlog_while_the_things_stack_is_away() {
    let (world, host) = world().await;
    world.stack.put("away", json!(true)).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    for counter in 2..20 {
        send(&world, &host, counter).await;
    }
    // Once, and on a busy machine again when the device has rested for 5 s, for 10 s, for 20 s.
    let all = world.hub.get("c2d?device=valve").await;
    assert_eq!(all[0]["state"], "enqueued");
    assert!((1..5).contains(&all[0]["deliveryCount"].as_u64().unwrap()), "{all}");
    world.stack.put("away", json!(false)).await;
    send_until_requested(&world, &host, 1).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
}

/// Without the webhook's key no downlink can be sent, so the handler does not request commands from the hub.
#[tokio::test]
async fn without_a_key_the_hub_is_not_asked() {
    let world = World::start_with(&["--no-downlink-key"]).await;
    let host = Host::start(&world.settings).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    send(&world, &host, 1).await;
    assert_eq!(host.post(uplink("app-1", "valve", 2).to_string()).await.status, 202);
    host.drained().await;
    assert_eq!(states(&world, "enqueued:1").await, ["enqueued"]);
}

/// A hub that throttles the requests for downlinks does not hold up uplinks.
#[tokio::test]
async fn a_hub_that_throttles_the_questions_still_gets_the_uplinks() {
    // The uplinks go over MQTT, the question over HTTPS.
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    world.hub.put("faults", json!({"httpStatus": 429, "httpStatusTimes": 1, "retryAfterSeconds": 1})).await;
    command(&world, json!({"body": "x", "properties": {"Port": "1"}})).await;
    for counter in 1..5 {
        send(&world, &host, counter).await;
    }
    assert_eq!(world.received(4).await.len(), 4);
    host.logged("what waits for the device was not fetched").await;
    send_until_requested(&world, &host, 1).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"]);
}

/// Sends an uplink from the emulated Things Stack, without waiting for its result.
async fn hand_in(world: &World, host: &Host, device: &str, counter: u32) {
    let body = json!({"target": host.target(), "application": "app-1", "device": device, "fCnt": counter});
    world.stack.post("uplink", body).await;
}

/// The Things Stack takes 9 s for each downlink. The device's telemetry and its commands still go on, each in order.
#[tokio::test]
async fn a_slow_things_stack_neither_holds_up_nor_reorders_uplinks() {
    let world = World::start_fetching().await;
    // A message that is put back stays invisible for longer than the test, so an uplink that had to wait would be
    // missing.
    let host = Host::start_with(&world.settings, json!({"visibilityTimeout": "00:10:00"}), &[]).await;
    send(&world, &host, 1).await;
    world.stack.post("faults", json!({"times": 100, "delayMs": 9_000})).await;
    for body in ["01", "02", "03", "04", "05", "06"] {
        command(&world, json!({"body": body, "properties": {"Port": "1", "Payload": "hex"}})).await;
    }
    hand_in(&world, &host, "valve", 2).await;
    requests(&world, 1).await;
    for counter in 3..=7 {
        hand_in(&world, &host, "valve", counter).await;
        world.received(counter as usize).await;
    }
    // All are answered except the one whose downlinks are in flight.
    host.left(QUEUE, 1).await;
    assert_ne!(states(&world, "locked:0").await, ["completed"; 6], "the commands were still on their way");
    let counters: Vec<_> = world.received(7).await.iter().map(|message| message["body"]["Counter"].clone()).collect();
    assert_eq!(counters, (1..=7).map(Value::from).collect::<Vec<_>>());
    world.stack.delete("faults").await;
    host.drained().await;
    // What did not fit into the time of that uplink.
    send(&world, &host, 8).await;
    assert_eq!(states(&world, "completed:6").await, ["completed"; 6]);
    let payloads: Vec<_> =
        requests(&world, 6).await.iter().map(|request| request["downlinks"][0]["frm_payload"].clone()).collect();
    assert_eq!(payloads, ["AQ==", "Ag==", "Aw==", "BA==", "BQ==", "Bg=="]);
}

/// The host runs 64 messages at once. Downlinks of many devices must leave most of these places to telemetry.
#[tokio::test]
async fn downlinks_of_many_devices_leave_room_for_uplinks() {
    const DEVICES: usize = 70;
    const MOST: usize = 16;
    /// Less than each of them takes.
    const HELD: TimeDelta = TimeDelta::seconds(8);
    let world = World::start_fetching().await;
    let host = Host::start(&world.settings).await;
    let devices: Vec<_> = (0..DEVICES).map(|number| format!("valve-{number}")).collect();
    for device in &devices {
        hand_in(&world, &host, device, 1).await;
    }
    host.drained().await;
    world.stack.post("faults", json!({"times": 1000, "delayMs": 9_000})).await;
    for device in &devices {
        let message = json!({"body": "x", "properties": {"Port": "1"}});
        world.hub.post(&format!("c2d?device={device}"), message).await;
    }
    for device in &devices {
        hand_in(&world, &host, device, 2).await;
    }
    world.received(2 * DEVICES).await;
    let began: Vec<_> = requests(&world, 1).await.iter().map(|request| time(&request["at"])).collect();
    let together = began.iter().map(|one| began.iter().filter(|other| (*one..*one + HELD).contains(other)).count());
    let most = together.max().unwrap();
    assert!(most <= MOST, "{most} of {DEVICES} downlinks at once");
}

fn time(text: &Value) -> DateTime<Utc> {
    text.as_str().unwrap().parse().unwrap()
}
