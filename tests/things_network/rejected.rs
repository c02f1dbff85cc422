//! Tests that a message that can never be forwarded goes to the queue of rejected messages at once, with the reason,
//! and can be put back.

use serde_json::{Value, json};

use crate::things_network::support::{Host, QUEUE, World, uplink};

const REJECTED: &str = "uplinks-rejected";

#[tokio::test]
async fn what_is_no_webhook_is_rejected_with_its_text() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    for text in ["hello", "{\"uplink_message\":{}}", "[1]", "\"{}\""] {
        host.put(QUEUE, text).await;
    }
    let rejected = host.texts(REJECTED, 4).await;
    host.drained().await;
    assert!(rejected.iter().any(|message| message["Text"] == "hello"), "{rejected:#?}");
    let no_ids = rejected.iter().find(|message| message["Webhook"] == json!({"uplink_message": {}})).unwrap();
    assert!(no_ids["Reason"].as_str().unwrap().contains("end_device_ids.device_id"), "{no_ids}");
    assert_eq!(no_ids["Kind"], "malformed");
    assert_eq!(host.queue("uplinks-poison").await, Vec::<Value>::new());
}

/// The C# sample's queue holds plain webhooks, without an envelope.
#[tokio::test]
async fn what_the_sample_has_left_in_the_queue_is_forwarded() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    let body = include_str!("../fixtures/things_network/v2-uplink.json");
    host.put(QUEUE, body).await;
    assert_eq!(world.received(1).await[0]["body"]["gps_1"]["lat"], -43.5309);
}

#[tokio::test]
async fn an_application_without_an_enrollment_is_rejected_and_can_be_put_back() {
    let mut world = World::start().await;
    world.unset("DPSEnrollmentGroupSymmetricKeyDefault");
    let key = world.hub.ready("groupKey").to_owned();
    world.set("DPSEnrollmentGroupSymmetricKey-known", &key);
    let host = Host::start(&world.settings).await;
    assert_eq!(host.post(uplink("known", "dev-1", 1).to_string()).await.status, 202);
    assert_eq!(host.post(uplink("unknown", "dev-2", 1).to_string()).await.status, 202);
    world.received(1).await;
    let rejected = host.texts(REJECTED, 1).await.remove(0);
    let reason = rejected["Reason"].as_str().unwrap();
    assert!(reason.contains("application unknown") && reason.contains("-unknown"), "{reason}");
    assert_eq!(rejected["Webhook"], uplink("unknown", "dev-2", 1));
    assert!(rejected["ReceivedAtUTC"].is_string());
    host.stop().await;

    world.set("DPSEnrollmentGroupSymmetricKey__unknown", &key);
    let host = Host::start(&world.settings).await;
    host.put(QUEUE, rejected.to_string()).await;
    assert_eq!(world.received(2).await[1]["deviceId"], "dev-2");
}

#[tokio::test]
async fn two_applications_never_share_a_device() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    assert_eq!(host.post(uplink("first", "pump", 1).to_string()).await.status, 202);
    world.received(1).await;
    assert_eq!(host.post(uplink("second", "pump", 1).to_string()).await.status, 202);
    let rejected = host.texts(REJECTED, 1).await.remove(0);
    let reason = rejected["Reason"].as_str().unwrap();
    for part in ["first", "second", "pump", "DeviceIdTemplate"] {
        assert!(reason.contains(part), "{part} is missing in {reason}");
    }
    host.drained().await;
    assert_eq!(world.hub.get("received").await.as_array().unwrap().len(), 1);
    assert_eq!(host.queue("uplinks-poison").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_message_that_the_hub_refuses_for_good_is_rejected_and_the_next_goes() {
    let mut world = World::start().await;
    world.set("IoTHubTransport", "https");
    let host = Host::start(&world.settings).await;
    world.hub.put("faults", json!({"httpStatus": 413, "httpStatusTimes": 1})).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    let rejected = host.texts(REJECTED, 1).await.remove(0);
    assert_eq!(rejected["Kind"], "hub_message_rejected");
    assert!(rejected["Reason"].as_str().unwrap().contains("413"), "{rejected}");
    assert_eq!(host.post(uplink("app", "dev", 2).to_string()).await.status, 202);
    assert_eq!(world.received(1).await[0]["body"]["Counter"], 2);
}

#[tokio::test]
async fn a_hub_that_refuses_every_message_condemns_one_at_most() {
    for (code, rejected) in [(400_001, 0), (400_004, 1)] {
        let mut world = World::start().await;
        world.set("IoTHubTransport", "https");
        let host = Host::start(&world.settings).await;
        world.hub.put("faults", json!({"httpErrorCode": code, "httpStatusTimes": 1_000_000})).await;
        for counter in 0..10 {
            let device = format!("dev-{counter}");
            assert_eq!(host.post(uplink("app", &device, counter).to_string()).await.status, 202);
        }
        host.until(async || {
            let left = host.queue("uplinks").await;
            left.len() == 10 - rejected && left.iter().all(|message| message["dequeueCount"].as_u64() > Some(0))
        })
        .await;
        host.texts(REJECTED, rejected).await;
        world.hub.heal().await;
        world.received(10 - rejected).await;
        host.drained().await;
        assert_eq!(host.queue(REJECTED).await.len(), rejected, "{code}");
    }
}
