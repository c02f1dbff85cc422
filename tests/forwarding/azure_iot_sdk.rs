//! Tests the transport through the crate `azure_iot_sdk`. It can use port 8883 only, so each hub has a loopback address
//! of its own.

use serde_json::{Value, json};

use super::support::{Emulator, World, rows};

const SITE: &str = "Energy meter 1";

async fn world(address: &str) -> World {
    let mut world = World::with_sites(&[SITE]).await;
    world.hub = Emulator::start("iot_hub", &["--host", address, "--mqtt-port", "8883"]).await;
    let (key, ca) = (world.hub.ready("key").to_owned(), world.hub.ready("ca").to_owned());
    world.unset("IoTHubTrustedCa");
    world.set("SSL_CERT_FILE", &ca);
    world.set("IoTHubURL", address);
    world.set("IoTHubDeviceKey", &key);
    world.set("IoTHubTransport", "azure-iot-sdk");
    world
}

#[tokio::test]
async fn what_is_sent_is_recorded_as_not_confirmed() {
    let world = world("127.0.0.78").await;
    world.add(SITE, 0..5).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.add(SITE, 5..9).await;
    handler.invoke_ok().await;
    // This transport acknowledges nothing, so the hub may still be reading.
    let messages = world.hub.get("received?wait=2&timeout_ms=15000").await;
    let bodies: Vec<Value> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|message| serde_json::from_str(message["body"].as_str().unwrap()).unwrap())
        .collect();
    let received: Vec<&Value> = bodies.iter().flat_map(|body| body["Timeseries"].as_array().unwrap()).collect();
    assert_eq!(received, rows(0..9).iter().collect::<Vec<_>>());
    let properties = &messages[0]["properties"];
    let uid = &world.cursor(SITE).await["Site_Uid"];
    let expected = json!({
        "Customer_Id": "Demo%20Water%20Utility", "Site_Id": "Energy%20meter%201", "Site_Uid": uid
    });
    assert_eq!(*properties, expected);
    assert_eq!(messages[0]["systemProperties"]["$.ct"], "application/json");
    let polls = world.polls(SITE).await;
    assert_eq!(polls.len(), 2);
    for (poll, message) in polls.iter().zip(messages.as_array().unwrap()) {
        assert_eq!((&poll["Outcome"], &poll["Confirmed"]), (&json!("forwarded"), &json!(false)));
        assert_eq!(poll["MessageId"], message["messageId"]);
    }
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn a_refused_device_and_an_absent_hub_are_said() {
    let mut world = world("127.0.0.79").await;
    world.add(SITE, 0..5).await;
    world.set("IoTHubDeviceKey", "d3Jvbmc=");
    assert_eq!(world.handler().await.invoke_failing().await, [(SITE.to_owned(), "hub_refused".to_owned())]);
    world.hub.put("away", json!(true)).await;
    assert_eq!(world.handler().await.invoke_failing().await, [(SITE.to_owned(), "hub_unreachable".to_owned())]);
    assert_eq!(world.outcomes(SITE).await, ["pending"]);
}

#[tokio::test]
async fn what_it_cannot_do_stops_the_start() {
    let mut world = world("127.0.0.80").await;
    world.set("IoTHubTrustedCa", "ca.pem");
    world.set("IoTHubURL", "127.0.0.80:1234");
    let (code, output) = super::support::start_and_wait_for_exit(&world.settings).await;
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("SSL_CERT_FILE") && output.contains("port 8883"), "{output}");
}
