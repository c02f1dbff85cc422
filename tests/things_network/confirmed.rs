//! Tests commands that are done only when the device has confirmed them (`ConfirmDownlinks`).

use serde_json::json;

use crate::things_network::support::{Host, World};

const LONG: &str = "timeout_ms=50000";

/// A world with a valve, which has sent one uplink.
async fn valve(transport: &str) -> (World, Host) {
    let mut world = World::start().await;
    for (name, value) in [
        ("IoTHubTransport", transport),
        ("ThingsNetworkEvents", "true"),
        ("ConfirmDownlinks", "true"),
        // For events, which are posted here without the headers of a webhook.
        ("ThingsStackUrl", &*world.stack.ready("endpoint").to_owned()),
        ("ThingsStackDownlinkApiKey", &*world.stack.ready("apikey").to_owned()),
    ] {
        world.set(name, value);
    }
    let host = Host::start(&world.settings).await;
    uplink(&world, &host, 1).await;
    (world, host)
}

async fn uplink(world: &World, host: &Host, counter: u32) {
    let body = json!({"target": host.target(), "application": "city", "device": "valve-1", "fCnt": counter});
    world.stack.post("uplink", body).await;
    host.drained().await;
}

async fn command(world: &World, id: &str, confirmed: bool) {
    let properties = json!({"Port": "3", "Confirmed": confirmed.to_string()});
    let message = json!({"messageId": id, "bodyBase64": "AQ==", "properties": properties});
    world.hub.post("c2d?device=valve-1", message).await;
}

async fn states(world: &World, wait: &str) -> Vec<String> {
    let all = world.hub.get(&format!("c2d?device=valve-1&wait={wait}&{LONG}")).await;
    all.as_array().unwrap().iter().map(|message| message["state"].as_str().unwrap().to_owned()).collect()
}

/// The message ids of the commands that The Things Stack has got, `count` of them or more.
async fn sent(world: &World, count: usize) -> Vec<String> {
    let all = world.stack.get(&format!("downlinks?wait={count}&{LONG}")).await;
    let ids = all.as_array().unwrap().iter().map(|request| request["downlinks"][0]["correlation_ids"][0].as_str());
    ids.map(|id| id.unwrap().strip_prefix("iothub:").unwrap().to_owned()).collect()
}

/// The Things Stack says what became of a command's downlink.
async fn event(host: &Host, kind: &str, id: &str) {
    let downlink = json!({"f_port": 3, "f_cnt": 9, "frm_payload": "AQ==", "confirmed": true,
                          "correlation_ids": [format!("iothub:{id}")]});
    let error =
        json!({"namespace": "pkg/applicationserver", "name": "max_retries", "message_format": "too many attempts"});
    let content = if kind == "downlink_failed" { json!({"downlink": downlink, "error": error}) } else { downlink };
    let body = json!({
        "end_device_ids": {"device_id": "valve-1", "application_ids": {"application_id": "city"}},
        "received_at": "2026-01-31T12:00:00.5Z", kind: content
    });
    assert_eq!(host.post(body.to_string()).await.status, 200);
    host.drained().await;
}

#[tokio::test]
async fn a_pushed_command_is_done_when_the_device_confirms_it() {
    let (world, host) = valve("mqtt").await;
    command(&world, "open", true).await;
    command(&world, "report", false).await;
    assert_eq!(sent(&world, 1).await, ["open"]);
    event(&host, "downlink_nack", "open").await;
    assert_eq!(states(&world, "locked:2").await, ["locked"; 2], "The Things Stack sends it again by itself");
    event(&host, "downlink_ack", "open").await;
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2], "{}", host.log());
    assert_eq!(sent(&world, 2).await, ["open", "report"]);
}

/// The device confirms with its next uplink, which another process takes.
#[tokio::test]
async fn a_fetched_command_waits_for_its_confirmation_over_a_restart_and_is_sent_once() {
    let (world, host) = valve("https").await;
    command(&world, "open", true).await;
    command(&world, "report", false).await;
    uplink(&world, &host, 2).await;
    assert_eq!(states(&world, "enqueued:2").await, ["enqueued"; 2], "{}", host.log());
    host.stop().await;
    let host = Host::start(&world.settings).await;
    uplink(&world, &host, 3).await;
    assert_eq!(sent(&world, 1).await, ["open"]);
    assert_eq!(states(&world, "enqueued:2").await, ["enqueued"; 2], "{}", host.log());
    event(&host, "downlink_ack", "open").await;
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2], "{}", host.log());
    assert_eq!(sent(&world, 2).await, ["open", "report"]);
    // The event comes again, and the sender uses the id again: that is another command.
    event(&host, "downlink_ack", "open").await;
    command(&world, "open", true).await;
    uplink(&world, &host, 4).await;
    assert_eq!(sent(&world, 3).await, ["open", "report", "open"]);
    assert_eq!(states(&world, "enqueued:1").await, ["completed", "completed", "enqueued"]);
}

#[tokio::test]
async fn a_command_that_the_things_stack_gave_up_is_rejected() {
    let (world, host) = valve("https").await;
    command(&world, "open", true).await;
    uplink(&world, &host, 2).await;
    assert_eq!(sent(&world, 1).await, ["open"]);
    event(&host, "downlink_failed", "open").await;
    assert_eq!(states(&world, "rejected:1").await, ["rejected"], "{}", host.log());
    host.logged("The Things Stack gave up: too many attempts").await;
}

/// The container of devices is away when the confirmation comes: the event comes again later.
#[tokio::test]
async fn a_confirmation_is_not_lost_when_cosmos_db_is_away() {
    let (world, host) = valve("https").await;
    command(&world, "open", true).await;
    uplink(&world, &host, 2).await;
    assert_eq!(sent(&world, 1).await, ["open"]);
    world.cosmos.put("faults", json!({"status": 503, "times": 5})).await;
    event(&host, "downlink_ack", "open").await;
    host.logged("not forwarded now").await;
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
}
