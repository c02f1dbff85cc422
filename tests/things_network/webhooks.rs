//! Tests the answers to webhooks, and the messages that reach the hub.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::things_network::support::{Host, QUEUE, World, uplink};

/// The fixture without any time.
const MASKED: &str = "v3-field-mask";

/// Every fixture, with its expected result.
fn fixtures() -> Vec<(String, String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/things_network");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let expected = files.filter_map(|file| {
        let name = file.file_name()?.to_str()?.strip_suffix(".expected.json")?.to_owned();
        let webhook = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        Some((name, webhook, serde_json::from_slice(&fs::read(&file).unwrap()).unwrap()))
    });
    expected.collect()
}

#[tokio::test]
async fn every_payload_reaches_the_hub_as_the_message_beside_it() {
    let mut world = World::start().await;
    world.set("ThingsNetworkEvents", "true");
    let host = Host::start(&world.settings).await;
    let fixtures = fixtures();
    for (name, webhook, expected) in &fixtures {
        let answer = host.post(webhook.as_str()).await;
        assert_eq!(answer.status, if expected["isUplink"] == true { 202 } else { 200 }, "{name}: {answer:?}");
    }
    let received = world.received(fixtures.len()).await;
    host.drained().await;
    assert_eq!(received.len(), fixtures.len());
    for (name, _, expected) in fixtures {
        let is_it = |message: &&Value| match name.as_str() {
            // Only the time of the request tells it from the device's next uplink.
            MASKED => message["deviceId"] == expected["device"] && message["messageId"] != expected["messageId"],
            _ => message["messageId"] == expected["messageId"],
        };
        let message = received.iter().find(is_it);
        let message = message.unwrap_or_else(|| panic!("{name} has not arrived"));
        let device = expected["device"].as_str().unwrap();
        // DPS allows an underscore inside the id.
        assert_eq!(message["deviceId"], device, "{name}");
        let (mut properties, mut body) = (message["properties"].clone(), message["body"].clone());
        if name == MASKED {
            // The message contains no other time than that of the request.
            let time = "iothub-creation-time-utc";
            properties[time] = expected["properties"][time].clone();
            body["ReceivedAtUTC"] = expected["body"]["ReceivedAtUTC"].clone();
        }
        assert_eq!(properties, expected["properties"], "{name}");
        assert_eq!(body, expected["body"], "{name}");
        let system = &message["systemProperties"];
        assert_eq!((&system["$.ct"], &system["$.ce"]), (&json!("application/json"), &json!("utf-8")), "{name}");
    }
    assert_eq!(host.queue("uplinks-rejected").await, Vec::<Value>::new());
}

/// `NAME.all.json` says what changes in the message of `NAME.json`.
#[tokio::test]
async fn members_that_are_asked_for_reach_the_hub() {
    let mut world = World::start().await;
    world.set("ThingsNetworkMembers", "all");
    let host = Host::start(&world.settings).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/things_network");
    let changes = |name: &str| fs::read(folder.join(format!("{name}.all.json"))).ok();
    let fixtures: Vec<_> =
        fixtures().into_iter().filter_map(|(name, ..)| changes(&name).map(|all| (name, all))).collect();
    for (name, _) in &fixtures {
        let webhook = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        assert_eq!(host.post(webhook).await.status, 202, "{name}");
    }
    let received = world.received(fixtures.len()).await;
    for (name, all) in &fixtures {
        let webhook: Value = serde_json::from_slice(&fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        let device = &webhook["end_device_ids"]["device_id"];
        let message = received.iter().find(|message| message["body"]["DeviceID"] == *device).unwrap();
        let changes: Value = serde_json::from_slice(all).unwrap();
        for part in ["body", "properties"] {
            for (member, value) in changes[part].as_object().into_iter().flatten() {
                assert_eq!(message[part][member], *value, "{name}: {member}");
            }
        }
    }
    assert!(fixtures.len() >= 8, "{}", fixtures.len());
}

#[tokio::test]
async fn malformed_webhooks_are_answered_with_what_is_wrong() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let mut large = uplink("app", "dev", 1);
    large["uplink_message"]["decoded_payload"]["text"] = "x".repeat(48 * 1024).into();
    let huge = "x".repeat(65 * 1024 * 1024);
    let cases: [(Vec<u8>, u16, &str); 10] = [
        (b"".to_vec(), 400, "the body is empty"),
        (b"{\"uplink_message\":".to_vec(), 400, "not a JSON object"),
        (b"[1]".to_vec(), 400, "not a JSON object"),
        (b"\x08\x01protobuf".to_vec(), 400, "set the webhook's format to JSON"),
        (b"{\"uplink_message\":{}}".to_vec(), 400, "end_device_ids.device_id"),
        (b"{\"app_id\":\"a\"}".to_vec(), 400, "dev_id missing"),
        (
            uplink("app", "a\nazfuncjsonlog:{}", 1).to_string().into_bytes(),
            400,
            "end_device_ids.device_id is not an id",
        ),
        (b"{\"hello\":1}".to_vec(), 400, "neither uplink_message"),
        (large.to_string().into_bytes(), 413, "the queue takes"),
        (huge.into_bytes(), 413, "larger than 67108864 bytes"),
    ];
    for (body, status, problem) in cases {
        let answer = host.post(body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"));
        assert_eq!((&answer.body["status"], &answer.body["type"]), (&json!(status), &json!("about:blank")));
        assert!(answer.body["detail"].as_str().unwrap().contains(problem), "{problem:?}: {answer:?}");
    }
    assert_eq!(host.queue(QUEUE).await, Vec::<Value>::new());
    // The handler still runs.
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    world.received(1).await;
}

#[tokio::test]
async fn a_webhook_needs_the_secret_when_there_is_one() {
    let mut world = World::start().await;
    world.set("ThingsNetworkWebhookSecret", "correct horse battery");
    let host = Host::start(&world.settings).await;
    let body = uplink("app", "dev", 1).to_string();
    for headers in [&[][..], &[("x-webhook-secret", "wrong")], &[("x-webhook-secret", "correct horse batterx")]] {
        let answer = host.post_with(body.as_str(), headers).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains("ThingsNetworkWebhookSecret"));
    }
    let answer = host.post_with(body, &[("X-Webhook-Secret", "correct horse battery")]).await;
    assert_eq!(answer.status, 202);
    world.received(1).await;
    assert!(!host.log().contains("battery"), "{}", host.log());
}

#[tokio::test]
async fn events_are_accepted_and_kept_to_ourselves_unless_asked_for() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let mut kinds = 0;
    for (name, webhook, expected) in fixtures() {
        if expected["isUplink"] == false {
            assert_eq!(host.post(webhook).await.status, 200, "{name}");
            kinds += 1;
        }
    }
    assert_eq!(kinds, 12);
    // The field mask removed everything else of the event.
    assert_eq!(host.post(r#"{"end_device_ids":{},"received_at":"2020-02-12T15:15:46Z"}"#).await.status, 200);
    // Without ids there is no device to forward it as.
    assert_eq!(host.post(r#"{"downlink_queue_invalidated":{}}"#).await.status, 200);
    host.post(uplink("app", "dev", 1).to_string()).await;
    let received = world.received(1).await;
    host.drained().await;
    assert_eq!(received[0]["properties"]["Type"], "uplink");
    assert_eq!(world.hub.get("received").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeated_webhook_is_the_same_message_and_a_retry_of_v2_is_not_dropped() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let body = uplink("app", "dev", 7).to_string();
    for _ in 0..2 {
        assert_eq!(host.post(body.as_str()).await.status, 202);
    }
    let retry = json!({"app_id": "app", "dev_id": "dev", "counter": 8, "is_retry": true, "payload_raw": "AQ=="});
    assert_eq!(host.post(retry.to_string()).await.status, 202);
    let received = world.received(3).await;
    let mut counts = BTreeMap::<_, usize>::new();
    for message in &received {
        *counts.entry(message["messageId"].as_str().unwrap()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
    assert!(received.iter().any(|message| message["body"]["Retry"] == true));
}

/// Each application's device is a device of its own, named by the template.
#[tokio::test]
async fn a_template_names_the_devices() {
    let mut world = World::start().await;
    world.set("DeviceIdTemplate", "{application_id}.{device_id}-{dev_eui}");
    let host = Host::start(&world.settings).await;
    for application in ["one", "two"] {
        assert_eq!(host.post(uplink(application, "pump", 1).to_string()).await.status, 202);
    }
    let mut devices: Vec<_> = world.received(2).await.iter().map(|message| message["deviceId"].clone()).collect();
    devices.sort_by_key(ToString::to_string);
    assert_eq!(devices, ["one.pump-0004a30b001c0530", "two.pump-0004a30b001c0530"]);
}

/// No credential is printed, whatever happens.
#[tokio::test]
async fn secrets_are_not_logged() {
    let mut world = World::start().await;
    world.set("RUST_LOG", "trace");
    let host = Host::start(&world.settings).await;
    let push = format!("{}as/applications/app/webhooks/w/devices/dev/down/push", world.stack.ready("endpoint"));
    let headers = [("x-downlink-apikey", "NNSXS.VERYSECRET"), ("x-downlink-push", push.as_str())];
    world.hub.post("c2d?device=dev", json!({"body": "x", "properties": {"Port": "1"}})).await;
    assert_eq!(host.post_with(uplink("app", "dev", 1).to_string(), &headers).await.status, 202);
    assert_eq!(host.post_with("{", &headers).await.status, 400);
    host.put(QUEUE, "nonsense").await;
    world.received(1).await;
    host.texts("uplinks-rejected", 1).await;
    host.logged("a downlink waits, and is tried again").await;
    let log = host.log();
    for secret in ["NNSXS", world.hub.ready("groupKey"), world.cosmos.ready("key"), "SharedAccessSignature sr="] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
}
