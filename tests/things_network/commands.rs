//! Tests commands that The Things Stack or the connector refuses, commands that wait, and the commands of IoT Central.

use serde_json::{Value, json};

use crate::things_network::support::{Host, World};

const LONG: &str = "timeout_ms=50000";

/// Starts, and lets each device send an uplink, so that the hub has it.
async fn start(world: &World, devices: &[&str]) -> Host {
    let host = Host::start(&world.settings).await;
    for device in devices {
        send(world, &host, device, 1).await;
    }
    host
}

async fn send(world: &World, host: &Host, device: &str, counter: u32) {
    let body = json!({"target": host.target(), "application": "city", "device": device, "fCnt": counter});
    world.stack.post("uplink", body).await;
    host.drained().await;
}

async fn command(world: &World, device: &str, body: &str, properties: Value) {
    world.hub.post(&format!("c2d?device={device}"), json!({"body": body, "properties": properties})).await;
}

/// The states of a device's messages, oldest first, when so many are in one state.
async fn states(world: &World, device: &str, wait: &str) -> Vec<String> {
    let all = world.hub.get(&format!("c2d?device={device}&wait={wait}&{LONG}")).await;
    all.as_array().unwrap().iter().map(|message| message["state"].as_str().unwrap().to_owned()).collect()
}

/// The requests for downlinks that The Things Stack accepted, when there were `count` of any kind.
async fn accepted(world: &World, count: usize) -> Vec<Value> {
    let all = world.stack.get(&format!("downlinks?wait={count}&{LONG}")).await;
    all.as_array().unwrap().iter().filter(|request| request["status"] == 200).cloned().collect()
}

/// Sends uplinks until the device's message has this state.
async fn send_until(world: &World, host: &Host, device: &str, state: &str) {
    for counter in 100.. {
        send(world, host, device, counter).await;
        if states(world, device, "locked:0").await.iter().any(|other| other == state) {
            return;
        }
    }
}

#[tokio::test]
async fn a_text_that_may_stand_for_bytes_is_rejected_with_what_to_set() {
    let world = World::start_fetching().await;
    let host = start(&world, &["kiwi-1"]).await;
    command(&world, "kiwi-1", "vu8=", json!({"Port": "15", "Confirmed": "true", "Queue": "Replace"})).await;
    command(&world, "kiwi-1", "BEEF01", json!({"Port": "15"})).await;
    command(&world, "kiwi-1", "open", json!({"Port": "15"})).await;
    command(&world, "kiwi-1", "BEEF01", json!({"Port": "15", "Payload": "hex"})).await;
    send(&world, &host, "kiwi-1", 2).await;
    assert_eq!(states(&world, "kiwi-1", "completed:2").await, ["rejected", "rejected", "completed", "completed"]);
    let payloads: Vec<_> =
        accepted(&world, 2).await.iter().map(|request| request["downlinks"][0]["frm_payload"].clone()).collect();
    assert_eq!(payloads, ["b3Blbg==", "vu8B"]);
    let log = host.log();
    for kind in ["base64", "hex"] {
        assert!(log.contains(&format!("set property Payload to {kind} if")), "{kind}: {log}");
    }
}

#[tokio::test]
async fn commands_of_iot_central_are_sent_as_the_settings_say() {
    let mut world = World::start_fetching().await;
    for (name, value) in [
        ("SetPoint__Port", "15"),
        ("SetPoint__Confirmed", "true"),
        ("SetPoint__Queue", "Push"),
        ("LightsOff__Port", "16"),
        ("LightsOff__Queue", "Push"),
        ("LightsOff__Payload", "{\"lights\":false}"),
        ("Analog__Port", "17"),
    ] {
        world.set(&format!("AzureIoT__IoTCentral__Methods__{name}"), value);
    }
    let host = start(&world, &["central-1"]).await;
    for (name, body) in [("SetPoint", "22.5"), ("LightsOff", "@"), ("Analog", "{\"value_1\":1}")] {
        command(&world, "central-1", body, json!({"method-name": name})).await;
    }
    send(&world, &host, "central-1", 2).await;
    assert_eq!(states(&world, "central-1", "completed:3").await, ["completed"; 3]);
    let downlinks: Vec<_> = accepted(&world, 3).await.iter().map(|request| request["downlinks"][0].clone()).collect();
    let sent = downlinks.iter().map(|one| (&one["f_port"], &one["confirmed"], &one["decoded_payload"]));
    let expected = [
        (15, true, json!({"SetPoint": 22.5})),
        (16, false, json!({"lights": false})),
        (17, false, json!({"value_1": 1})),
    ];
    for (sent, (port, confirmed, payload)) in sent.zip(&expected) {
        assert_eq!(sent, (&json!(port), &json!(confirmed), payload));
    }
}

/// A typo in one command must not stop the next.
#[tokio::test]
async fn what_a_payload_formatter_refuses_is_rejected_and_the_next_command_passes() {
    let world = World::start_fetching().await;
    let host = start(&world, &["enc-1"]).await;
    for (counter, does) in (2..).zip(["output_errors", "input", "script", "runtime"]) {
        world.stack.put("formatters", json!({"device": "enc-1", "does": does, "contains": "bad"})).await;
        command(&world, "enc-1", "{\"bad\":1}", json!({"Port": "3"})).await;
        command(&world, "enc-1", "{\"open\":true}", json!({"Port": "3"})).await;
        send(&world, &host, "enc-1", counter).await;
        let states = states(&world, "enc-1", "locked:0").await;
        assert_eq!(states[states.len() - 2..], ["rejected", "completed"], "{does}: {}", host.log());
        assert!(host.log().contains(does), "{does} is not named");
    }
}

/// Another device's trouble of the same moment must not hide it.
#[tokio::test]
async fn each_devices_cause_is_told() {
    let world = World::start_fetching().await;
    let host = start(&world, &["node-0", "node-1", "node-2"]).await;
    world.stack.post("faults", json!({"device": "node-0", "times": 1000, "status": 503})).await;
    world.stack.put("formatters", json!({"device": "node-1", "does": "not_configured"})).await;
    world.stack.post("faults", json!({"device": "node-2", "times": 1000, "status": 404})).await;
    for device in ["node-0", "node-1", "node-2"] {
        command(&world, device, "{\"open\":true}", json!({"Port": "3"})).await;
        send(&world, &host, device, 2).await;
    }
    assert_eq!(states(&world, "node-1", "rejected:1").await, ["rejected"]);
    for device in ["node-0", "node-2"] {
        assert_eq!(states(&world, device, "enqueued:1").await, ["enqueued"]);
    }
    let log = host.log();
    for (device, text) in [("node-0", "(503)"), ("node-1", "formatter_not_configured"), ("node-2", "(404)")] {
        assert!(log.lines().any(|line| line.contains(device) && line.contains(text)), "{device}: {text} in {log}");
    }
}

#[tokio::test]
async fn a_paused_webhook_and_a_rate_limit_are_told_and_the_command_goes_out_afterwards() {
    let world = World::start_fetching().await;
    let host = start(&world, &["pause-0", "pause-1", "rate-1"]).await;
    let all = [("pause-0", 503, "(503)"), ("pause-1", 406, "paused"), ("rate-1", 429, "(429)")];
    for (device, status, _) in all {
        world.stack.post("faults", json!({"device": device, "times": 1000, "status": status})).await;
        command(&world, device, "AA==", json!({"Port": "3", "Payload": "base64"})).await;
        send(&world, &host, device, 2).await;
    }
    let log = host.log();
    for (device, _, text) in all {
        assert!(log.lines().any(|line| line.contains(device) && line.contains(text)), "{device}: {text} in {log}");
        assert_eq!(states(&world, device, "enqueued:1").await, ["enqueued"]);
    }
    world.stack.delete("faults").await;
    for (device, ..) in all {
        send_until(&world, &host, device, "completed").await;
    }
    assert_eq!(accepted(&world, 3).await.len(), 3);
}

/// What nobody knows to pass holds the later commands up for two uplinks only.
#[tokio::test]
async fn a_refusal_that_does_not_pass_lets_the_next_command_go_in_the_end() {
    let world = World::start_fetching().await;
    let host = start(&world, &["odd-1"]).await;
    world.stack.post("faults", json!({"device": "odd-1", "times": 3, "status": 422})).await;
    command(&world, "odd-1", "01", json!({"Port": "1", "Payload": "hex"})).await;
    command(&world, "odd-1", "02", json!({"Port": "1", "Payload": "hex"})).await;
    send_until(&world, &host, "odd-1", "completed").await;
    assert_eq!(states(&world, "odd-1", "completed:1").await, ["rejected", "completed"]);
    assert_eq!(accepted(&world, 4).await[0]["downlinks"][0]["frm_payload"], "Ag==");
}

#[tokio::test]
async fn the_values_of_a_json_command_arrive_as_they_are() {
    let world = World::start_fetching().await;
    let host = start(&world, &["json-1"]).await;
    let body = "{\"big\":12345678901234567890,\"f\":21.50,\"z\":1,\"a\":null}";
    command(&world, "json-1", body, json!({"Port": "3"})).await;
    send(&world, &host, "json-1", 2).await;
    let downlink = accepted(&world, 1).await[0]["downlinks"][0].clone();
    assert_eq!(downlink["f_port"], 3);
    assert_eq!(
        downlink["decoded_payload"],
        json!({"big": 12_345_678_901_234_567_890_u64, "f": 21.5, "z": 1, "a": null})
    );
}

#[tokio::test]
async fn an_event_about_a_downlink_names_the_command() {
    let mut world = World::start_fetching().await;
    world.set("ThingsNetworkEvents", "true");
    let host = start(&world, &["ack-1"]).await;
    let properties = json!({"Port": "3", "Payload": "base64", "Confirmed": "true"});
    let message = json!({"body": "AA==", "messageId": "cmd-77", "properties": properties});
    world.hub.post("c2d?device=ack-1", message).await;
    send(&world, &host, "ack-1", 2).await;
    let ours = accepted(&world, 1).await[0]["downlinks"][0]["correlation_ids"].clone();
    let ids: Vec<_> = [json!("as:downlink:01J0")].into_iter().chain(ours.as_array().unwrap().iter().cloned()).collect();
    let nack = json!({
        "end_device_ids": {"device_id": "ack-1", "application_ids": {"application_id": "city"}},
        "correlation_ids": ids, "received_at": "2026-01-31T12:00:00.5Z",
        "downlink_nack": {"session_key_id": "A", "f_port": 3, "f_cnt": 9, "frm_payload": "AA==", "confirmed": true}
    });
    assert_eq!(host.post(nack.to_string()).await.status, 200);
    let received = world.received(3).await;
    let event = received.iter().find(|message| message["body"]["Type"] == "downlink_nack").expect("the event");
    assert_eq!(event["body"]["CommandID"], "cmd-77");
}
