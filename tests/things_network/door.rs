//! Tests what installations really post: webhooks of any size, masked ones, stored uplinks, and what people try by hand.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::things_network::support::{Host, World, uplink};

/// Receptions by gateways of other networks, each with a token as long as a Packet Broker's. The first one is the best.
fn receptions(count: i32) -> Value {
    let one = |n: i32| {
        json!({
            "gateway_ids": {"gateway_id": "packetbroker"},
            "packet_broker": {
                "message_id": "01J1ABGBN9H0FCZKZEDEGMMX8Q", "forwarder_net_id": "000013", "forwarder_tenant_id": "ttnv2",
                "forwarder_cluster_id": "ttn-v2-legacy-eu", "forwarder_gateway_id": format!("eui-{n:016x}"),
                "home_network_net_id": "000013", "home_network_tenant_id": "ttn",
            },
            "time": "2026-03-02T10:15:29.998443Z", "rssi": -20 - n, "channel_rssi": -20 - n, "snr": 9.5,
            "location": {"latitude": 51.22994085, "longitude": 4.41383496, "altitude": 30}, "frequency_offset": "4464",
            "uplink_token": "xdcUhPjP".repeat(90), "received_at": "2026-03-02T10:15:30.093770044Z",
        })
    };
    (0..count).map(one).collect()
}

fn heard_by(device: &str, count: i32) -> Value {
    let mut webhook = uplink("city", device, 41);
    webhook["uplink_message"]["rx_metadata"] = receptions(count);
    webhook
}

/// The message of the device.
fn of<'a>(received: &'a [Value], device: &str) -> &'a Value {
    received.iter().find(|message| message["deviceId"] == device).unwrap_or_else(|| panic!("{device} has not arrived"))
}

#[tokio::test]
async fn an_uplink_is_forwarded_however_many_gateways_have_heard_it() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let push =
        |device: &str| format!("https://tts.example/api/v3/as/applications/city/webhooks/w/devices/{device}/down/push");
    for count in [30, 36, 60, 120, 3000] {
        let device = format!("many-{count}");
        let push = push(&device);
        let headers = [("x-downlink-apikey", "NNSXS.TESTKEY"), ("x-downlink-push", &*push)];
        let answer = host.post_with(heard_by(&device, count).to_string(), &headers).await;
        assert_eq!(answer.status, 202, "{count}: {answer:?}");
    }
    let received = world.received(5).await;
    for count in [60, 120, 3000] {
        let body = &of(&received, &format!("many-{count}"))["body"];
        let found = (&body["Receptions"], &body["Gateway"], &body["Rssi"], &body["level"]);
        assert_eq!(found, (&json!(count), &json!("eui-0000000000000000"), &json!(-20), &json!(41)), "{body}");
    }
    assert_eq!(of(&received, "many-30")["body"].get("Receptions"), None, "it fits as it is");
    assert!(host.log().contains("application city, device many-60, fCnt 41 has"), "{}", host.log());
}

#[tokio::test]
async fn only_a_payload_that_is_too_large_by_itself_is_refused_and_the_log_says_whose() {
    let mut world = World::start().await;
    world.set("ThingsNetworkMembers", "attributes");
    let host = Host::start(&world.settings).await;
    let mut spare = uplink("city", "spare", 41);
    spare["uplink_message"]["attributes"] = json!({"note": "x".repeat(70_000)});
    assert_eq!(host.post(spare.to_string()).await.status, 202);
    for device in ["large", "larger"] {
        let mut webhook = heard_by(device, 40);
        webhook["uplink_message"]["decoded_payload"] = json!({"trace": "x".repeat(70_000)});
        let answer = host.post(webhook.to_string()).await;
        assert_eq!(answer.status, 413, "{answer:?}");
        let whose = format!("application city, device {device}, fCnt 41");
        assert!(answer.body["detail"].as_str().unwrap().contains(&whose), "{answer:?}");
        host.logged(&format!("a webhook was refused: the webhook of {whose}")).await;
    }
    let received = world.received(1).await;
    let body = &of(&received, "spare")["body"];
    assert_eq!((&body["LeftOut"], &body["level"]), (&json!(["attributes"]), &json!(41)), "{body}");
    host.drained().await;
}

#[tokio::test]
async fn ids_that_a_field_mask_left_out_come_from_the_headers_for_downlinks() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let url =
        |device: &str| format!("https://tts.example/api/v3/as/applications/city/webhooks/w/devices/{device}/down/push");
    let mut webhook = uplink("city", "mask-1", 41);
    webhook.as_object_mut().unwrap().remove("end_device_ids");
    let headers = [("x-downlink-apikey", "NNSXS.TESTKEY"), ("x-downlink-push", &*url("mask-1"))];
    assert_eq!(host.post_with(webhook.to_string(), &headers).await.status, 202);
    // The key is not needed for that, and either URL does.
    webhook["end_device_ids"] = json!({"device_id": "mask-2", "application_ids": {}});
    assert_eq!(host.post_with(webhook.to_string(), &[("x-downlink-replace", &*url("mask-2"))]).await.status, 202);
    let received = world.received(2).await;
    for device in ["mask-1", "mask-2"] {
        let body = &of(&received, device)["body"];
        assert_eq!((&body["ApplicationID"], &body["DeviceID"]), (&json!("city"), &json!(device)));
    }
    let other = host.post_with(webhook.to_string(), &[("x-downlink-push", &*url("another"))]).await;
    assert_eq!(other.status, 400, "{other:?}");
}

#[tokio::test]
async fn stored_uplinks_are_taken_under_the_ids_of_their_webhooks() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let mut webhook = uplink("city", "store-1", 41);
    webhook["correlation_ids"] = json!(["gs:uplink:01J0000000000000000000"]);
    let stored = |device: &str, counter| uplink("city", device, counter);
    for body in [
        webhook.to_string(),
        json!({ "result": stored("store-1", 41) }).to_string(),
        stored("store-1", 41).to_string(),
        format!(" {{\n\"result\" : {} }}\n", stored("store-2", 42)),
    ] {
        let answer = host.post(body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let received = world.received(4).await;
    let ids = |device: &str| {
        let of_device = received.iter().filter(|message| message["deviceId"] == device);
        of_device.map(|message| message["messageId"].to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!((ids("store-1").len(), ids("store-2").len()), (1, 1));
}

#[tokio::test]
async fn what_people_try_by_hand_is_answered_with_what_is_wrong() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let of_console = json!({
        "name": "as.up.data.forward", "time": "2026-03-02T10:15:30.250Z",
        "identifiers": [{"device_ids": {"device_id": "d", "application_ids": {"application_id": "city"}}}],
        "data": uplink("city", "d", 1), "correlation_ids": ["as:up:x"], "origin": "ip-10-0-0-1", "unique_id": "01J",
    });
    let mut masked = uplink("city", "store-2", 1);
    masked["end_device_ids"]["application_ids"] = json!({});
    let ours = uplink("city", "d", 1).to_string();
    let lines =
        format!("{}\n{}\n", json!({ "result": uplink("city", "d", 1) }), json!({ "result": uplink("city", "d", 2) }));
    let cases: [(&str, String, &str, u16, &str); 7] = [
        ("", lines, "application/json", 400, "several JSON documents: post each on its own"),
        ("", of_console.to_string(), "application/json", 400, "an event of the console's live data"),
        ("", masked.to_string(), "application/json", 400, "end_device_ids.application_ids.application_id missing"),
        ("", json!({ "result": masked }).to_string(), "application/json", 400, "application_id missing"),
        (
            "",
            uplink("city", "UPPER-1", 1).to_string(),
            "application/json",
            400,
            "end_device_ids.device_id is not an id",
        ),
        ("", "\n\u{17}\n\u{6}pump-7\u{12}\u{6}".into(), "application/octet-stream", 400, "webhook's format to JSON"),
        ("/up", ours, "application/json", 404, "\"up\": leave the paths of the enabled event types empty"),
    ];
    for (path, body, kind, status, problem) in cases {
        let answer = host.post_to(path, body, &[("content-type", kind)]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains(problem), "{problem:?}: {answer:?}");
    }
    assert_eq!(host.post_to("/", uplink("city", "d", 2).to_string(), &[]).await.status, 202, "no path");
    world.received(1).await;
}

#[tokio::test]
async fn no_two_uplinks_share_an_id_even_if_they_hardly_differ() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let simulated = |minute: u32, received_at: &str| {
        let mut webhook = uplink("city", "sim-9", 0);
        webhook["simulated"] = json!(true);
        webhook["received_at"] = json!(format!("2026-03-02T10:{minute}:00Z"));
        webhook["uplink_message"]["received_at"] = json!(received_at);
        webhook.to_string()
    };
    let never = "0001-01-01T00:00:00Z";
    let claimed = "2020-01-01T00:00:00Z";
    for (minute, received_at) in [(10, never), (11, never), (10, claimed), (11, claimed)] {
        assert_eq!(host.post(simulated(minute, received_at)).await.status, 202);
    }
    let ids = json!({"device_id": "mask-9", "application_ids": {"application_id": "city"}});
    let masked =
        json!({"end_device_ids": ids, "uplink_message": {"frm_payload": "AA==", "received_at": never}}).to_string();
    let counted = json!({"end_device_ids": ids, "uplink_message": {"session_key_id": "s", "f_cnt": 7}}).to_string();
    for body in [&masked, &masked, &counted, &counted] {
        assert_eq!(host.post(body.as_str()).await.status, 202);
    }
    let received = world.received(8).await;
    let ids = |device: &str| {
        let of_device = received.iter().filter(|message| message["deviceId"] == device);
        of_device.map(|message| message["messageId"].to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids("sim-9").len(), 4);
    assert_eq!(ids("mask-9").len(), 3, "what a session has counted is the same uplink when it comes again");
    let times: BTreeSet<_> = received.iter().map(|message| message["body"]["ReceivedAtUTC"].to_string()).collect();
    assert!(times.contains("\"2026-03-02T10:10:00Z\"") && !times.contains("\"0001-01-01T00:00:00Z\""), "{times:?}");
}

/// The host delivers a message again after a failure: then its id must be the same, although nothing but the queue's time
/// tells it from another.
#[tokio::test]
async fn a_masked_uplink_keeps_its_id_when_the_queue_delivers_it_again() {
    let world = World::start().await;
    world.hub.put("faults", json!({"dropBeforePubackTimes": 1})).await;
    let host = Host::start(&world.settings).await;
    let ids = json!({"device_id": "mask-8", "application_ids": {"application_id": "city"}});
    let masked = json!({"end_device_ids": ids, "uplink_message": {"frm_payload": "AA=="}}).to_string();
    assert_eq!(host.post(masked).await.status, 202);
    let received = world.received(2).await;
    assert_eq!(received[0]["messageId"], received[1]["messageId"]);
}

#[tokio::test]
async fn the_creation_time_is_the_uplinks_over_https_too() {
    let mut world = World::start().await;
    world.set("IoTHubTransport", "https");
    let host = Host::start(&world.settings).await;
    assert_eq!(host.post(uplink("city", "time-1", 1).to_string()).await.status, 202);
    let message = &world.received(1).await[0];
    assert_eq!(message["body"]["ReceivedAtUTC"], "2026-01-31T12:00:00.250Z");
    let time = message["properties"]["iothub-creation-time-utc"].as_str().unwrap().replace("%3A", ":");
    assert_eq!(time, "2026-01-31T12:00:00.250Z");
}
