//! Tests messages from the cloud to devices.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use iothub_connector::iot_hub::{
    Credential, Device, Devicebound, DeviceboundError, Endpoint, MAX_CLOUD_MESSAGE, Policy, SendError, Settlement,
    device::decode_key, sas,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::devices::support::{World, soon};

fn device(world: &World, id: &str, credential: Credential) -> Device {
    let endpoint = Endpoint::parse(&world.ready().mqtt).unwrap();
    Device { hub_host: endpoint.host.clone(), endpoint, id: id.into(), credential }
}

fn with_key(world: &World, id: &str) -> Device {
    device(world, id, Credential::Key(decode_key(&world.ready().key).unwrap()))
}

/// A device with a ready token.
fn with_token(world: &World, id: &str, seconds: i64) -> Device {
    let key = decode_key(&world.ready().key).unwrap();
    let resource = sas::device_resource("127.0.0.1", id);
    let expires = Utc::now() + TimeDelta::seconds(seconds);
    device(world, id, Credential::Token(sas::mint(&resource, key.expose_secret(), expires, None)))
}

fn devicebound(world: &World) -> Devicebound {
    Devicebound::new(world.trusted_ca())
}

async fn post(world: &World, id: &str, message: Value) {
    world.post(&format!("c2d?device={id}"), message).await;
}

async fn states(world: &World, id: &str) -> Vec<String> {
    let statuses = world.get(&format!("c2d?device={id}")).await;
    statuses.iter().map(|status| status["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn messages_come_oldest_first_and_are_settled() {
    let world = World::start().await;
    let (devicebound, device) = (devicebound(&world), with_key(&world, "pump-7"));
    assert_eq!(devicebound.receive(&device, soon()).await.unwrap(), None);
    let properties = json!({ "Port": "15", "note": "100% %C3%BC" });
    let first =
        json!({ "bodyBase64": "/wA=", "messageId": "1", "contentType": "text/plain", "properties": properties });
    post(&world, "pump-7", first).await;
    post(&world, "pump-7", json!({ "body": "2", "messageId": "2" })).await;
    post(&world, "other", json!({ "body": "3" })).await;

    for (count, settlement) in [(1, Settlement::Abandon), (2, Settlement::Complete)] {
        let message = devicebound.receive(&device, soon()).await.unwrap().expect("a message");
        let properties = [("note", "100% %C3%BC"), ("port", "15")];
        assert_eq!(message.properties, properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((message.message_id.as_deref(), message.delivery_count), (Some("1"), count));
        assert_eq!((message.content_type.as_deref(), &message.body[..]), (Some("text/plain"), b"\xFF\0".as_slice()));
        devicebound.settle(&device, &message, settlement, soon()).await.unwrap();
    }
    let second = devicebound.receive(&device, soon()).await.unwrap().expect("a message");
    assert_eq!((second.message_id.as_deref(), &second.body[..]), (Some("2"), b"2".as_slice()));
    assert_eq!(second.content_type, None);
    assert_eq!(devicebound.receive(&device, soon()).await.unwrap(), None, "it is locked");
    devicebound.settle(&device, &second, Settlement::Reject, soon()).await.unwrap();
    assert_eq!(states(&world, "pump-7").await, ["completed", "rejected"]);
    assert_eq!(states(&world, "other").await, ["enqueued"]);
}

#[tokio::test]
async fn a_policy_receives_for_its_devices() {
    let world = World::start().await;
    let key = decode_key(&world.ready().policy_key).unwrap();
    let policy = Credential::Policy(Arc::new(Policy { name: world.ready().policy.clone(), key }));
    let device = device(&world, "a'b(1)%", policy);
    post(&world, "a'b(1)%25", json!({ "body": "x" })).await;
    let devicebound = devicebound(&world);
    let message = devicebound.receive(&device, soon()).await.unwrap().expect("a message");
    devicebound.settle(&device, &message, Settlement::Complete, soon()).await.unwrap();
    assert_eq!(states(&world, "a'b(1)%25").await, ["completed"]);
}

#[tokio::test]
async fn a_lock_that_is_over_is_said_and_the_message_comes_again() {
    let world = World::start().await;
    let (devicebound, device) = (devicebound(&world), with_key(&world, "pump-7"));
    post(&world, "pump-7", json!({ "body": "x" })).await;
    for settlement in [Settlement::Complete, Settlement::Reject, Settlement::Abandon] {
        let message = devicebound.receive(&device, soon()).await.unwrap().expect("a message");
        world.post("c2d/unlock?device=pump-7", Value::Null).await;
        let error = devicebound.settle(&device, &message, settlement, soon()).await.unwrap_err();
        assert_eq!(error, DeviceboundError::LockLost { device: "pump-7".into() }, "{settlement:?}");
    }
    let message = devicebound.receive(&device, soon()).await.unwrap().expect("a message");
    assert_eq!(message.delivery_count, 4);
    devicebound.settle(&device, &message, Settlement::Complete, soon()).await.unwrap();
    let twice = devicebound.settle(&device, &message, Settlement::Complete, soon()).await.unwrap_err();
    assert_eq!(twice.kind().as_str(), "c2d_lock_lost");
}

#[tokio::test]
async fn the_largest_message_comes_whole() {
    let world = World::start().await;
    // The hub counts the message id too.
    let largest = MAX_CLOUD_MESSAGE - 1;
    post(&world, "pump-7", json!({ "body": "x".repeat(largest), "messageId": "1" })).await;
    let message = devicebound(&world).receive(&with_key(&world, "pump-7"), soon()).await.unwrap();
    assert_eq!(message.expect("a message").body.len(), largest);
}

#[tokio::test]
async fn a_hub_that_throttles_is_left_alone_but_what_is_locked_is_settled() {
    let world = World::start().await;
    let (devicebound, device) = (devicebound(&world), with_key(&world, "pump-7"));
    post(&world, "pump-7", json!({ "body": "x" })).await;
    let message = devicebound.receive(&device, soon()).await.unwrap().expect("a message");
    world.put("faults", json!({ "httpStatus": 429, "httpStatusTimes": 1, "retryAfterSeconds": 600 })).await;
    for id in ["pump-7", "well-1"] {
        let error = devicebound.receive(&with_key(&world, id), soon()).await.unwrap_err();
        assert!(matches!(&error, DeviceboundError::Hub(SendError::Throttled { wait: Some(_) })), "{error:?}");
    }
    let requests = world.counts().await["httpsRequests"].as_u64().unwrap();
    assert_eq!(requests, 2, "the second device's was not made");
    devicebound.settle(&device, &message, Settlement::Complete, soon()).await.unwrap();
    assert_eq!(states(&world, "pump-7").await, ["completed"]);
}

#[tokio::test]
async fn what_the_hub_answers_is_explained() {
    let world = World::start().await;
    let device = with_key(&world, "pump-7");
    for (faults, kind) in [
        (json!({ "refuseTimes": 1 }), "hub_refused"),
        (json!({ "cutAfterConnectTimes": 1 }), "hub_quota"),
        (json!({ "httpStatus": 500, "httpStatusTimes": 1 }), "hub_unreachable"),
        (json!({ "httpStatus": 429, "httpStatusTimes": 1 }), "hub_throttled"),
    ] {
        world.put("faults", faults).await;
        assert_eq!(devicebound(&world).receive(&device, soon()).await.unwrap_err().kind().as_str(), kind);
    }
    let devicebound = devicebound(&world);
    world.put("faults", json!({ "httpDelayMs": 60_000 })).await;
    let error = devicebound.receive(&device, Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error, SendError::TimedOut.into());
    world.put("faults", json!({})).await;
    assert_eq!(devicebound.receive(&device, soon()).await.unwrap(), None, "it was the caller who had no time");

    let stranger = Devicebound::new(Vec::new());
    assert_eq!(stranger.receive(&device, soon()).await.unwrap_err().kind().as_str(), "hub_untrusted");
    world.delete("devices?device=pump-7").await;
    assert_eq!(devicebound.receive(&device, soon()).await.unwrap_err().kind().as_str(), "hub_refused");
    world.put("away", json!(true)).await;
    assert_eq!(devicebound.receive(&device, soon()).await.unwrap_err().kind().as_str(), "hub_unreachable");
}

/// Telemetry must not wait for a hub whose HTTPS does not work.
#[tokio::test]
async fn a_hub_in_trouble_is_left_alone_for_a_while() {
    for (faults, kind) in [
        (json!({ "httpStatus": 429, "httpStatusTimes": 1 }), "hub_throttled"),
        (json!({ "httpStatus": 500, "httpStatusTimes": 1 }), "hub_unreachable"),
    ] {
        let world = World::start().await;
        let devicebound = devicebound(&world);
        world.put("faults", faults).await;
        for id in ["pump-7", "well-1", "well-2"] {
            let error = devicebound.receive(&with_key(&world, id), soon()).await.unwrap_err();
            assert_eq!(error.kind().as_str(), kind);
        }
        assert_eq!(world.counts().await["httpsRequests"], 1);
    }
}

#[tokio::test]
async fn a_token_that_is_over_is_said() {
    let world = World::start().await;
    let devicebound = devicebound(&world);
    let error = devicebound.receive(&with_token(&world, "pump-7", -1), soon()).await.unwrap_err();
    assert_eq!(error.kind().as_str(), "hub_token_expired");
    assert_eq!(world.counts().await["httpsRequests"], 0);
    let device = with_token(&world, "pump-7", 600);
    assert_eq!(devicebound.receive(&device, soon()).await.unwrap(), None);
    world.post("expire?refuse=true", Value::Null).await;
    let error = devicebound.receive(&device, soon()).await.unwrap_err();
    assert_eq!(error.kind().as_str(), "hub_refused");
    assert!(!format!("{error:?}").contains("sig="), "{error:?}");
}

#[tokio::test]
async fn many_devices_share_few_connections() {
    let world = World::start().await;
    let devicebound = devicebound(&world);
    let devices: Vec<_> = (0..200).map(|number| with_key(&world, &format!("well-{number}"))).collect();
    for _ in 0..2 {
        for received in join_all(devices.iter().map(|device| devicebound.receive(device, soon()))).await {
            assert_eq!(received.unwrap(), None);
        }
    }
    let counts = world.counts().await;
    assert_eq!(counts["httpsRequests"], 400);
    assert!(counts["connections"].as_u64().unwrap() <= 32, "{counts}");
}
