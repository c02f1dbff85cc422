use std::time::{Duration, Instant};

use rumqttc::{ConnectReturnCode, ConnectionError};
use serde_json::json;

use crate::client::{Device, Hub};

const EVENTS: &str = "devices/d/messages/events/";

async fn refusal(hub: &Hub, device_id: &str) -> Option<ConnectReturnCode> {
    match hub.connect(&hub.identity(device_id)).await {
        Ok(_) => None,
        Err(ConnectionError::ConnectionRefused(code)) => Some(code),
        Err(other) => panic!("{other:?}"),
    }
}

/// Sends on a connection that must end without an acknowledgement.
async fn send_in_vain(device: &mut Device, body: &str) {
    device.publish(EVENTS, body).await;
    device.ended().await;
}

#[tokio::test]
async fn connections_are_refused() {
    let hub = Hub::start().await;
    hub.faults(r#"{"refuseTimes":2}"#).await;
    let codes = [refusal(&hub, "d").await, refusal(&hub, "d").await, refusal(&hub, "d").await];
    assert_eq!(codes, [Some(ConnectReturnCode::NotAuthorized), Some(ConnectReturnCode::NotAuthorized), None]);
    hub.faults(r#"{"serverUnavailable":true}"#).await;
    assert_eq!(refusal(&hub, "d").await, Some(ConnectReturnCode::ServiceUnavailable));
    hub.faults(r#"{"refuse":true,"devices":["d"]}"#).await;
    assert_eq!(refusal(&hub, "d").await, Some(ConnectReturnCode::NotAuthorized));
    assert_eq!(refusal(&hub, "e").await, None);
    assert_eq!(hub.request("DELETE", "faults", "").await.0, 204);
    assert_eq!(refusal(&hub, "d").await, None);
}

#[tokio::test]
async fn a_message_dropped_before_its_puback_is_recorded_and_comes_again() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    device.send(EVENTS, "1").await.unwrap();
    hub.faults(r#"{"dropBeforePubackTimes":1}"#).await;
    send_in_vain(&mut device, "2").await;
    assert!(device.connack().await.unwrap().session_present);
    device.puback().await.unwrap();
    let received = hub.get("received").await;
    let seen: Vec<_> = received.as_array().unwrap().iter().map(|message| (&message["body"], &message["dup"])).collect();
    assert_eq!(seen, [(&json!("1"), &json!(false)), (&json!("2"), &json!(false)), (&json!("2"), &json!(true))]);
}

#[tokio::test]
async fn a_dropped_message_need_not_be_recorded() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    hub.faults(r#"{"dropBeforePubackTimes":1,"recordDropped":false}"#).await;
    send_in_vain(&mut device, "1").await;
    assert_eq!(hub.get("faults").await["dropBeforePubackTimes"], 0);
    assert_eq!(hub.get("received").await, json!([]));
}

#[tokio::test]
async fn acknowledgements_come_late() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    hub.faults(r#"{"pubackDelayMs":300}"#).await;
    let start = Instant::now();
    device.publish(EVENTS, "1").await;
    device.publish(EVENTS, "2").await;
    assert_eq!(device.puback().await.unwrap(), 1);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(device.puback().await.unwrap(), 2);
    assert_eq!(hub.bodies(2).await, ["1", "2"]);
}

#[tokio::test]
async fn a_connection_is_accepted_then_cut() {
    let hub = Hub::start().await;
    hub.faults(r#"{"cutAfterConnectTimes":1}"#).await;
    let (mut device, _) = hub.connect(&hub.identity("d")).await.unwrap();
    device.ended().await;
    device.connack().await.unwrap();
    device.send(EVENTS, "1").await.unwrap();
    assert_eq!(hub.get("counts").await["connects"], 2);
}

#[tokio::test]
async fn a_connection_is_cut_after_so_many_messages() {
    let hub = Hub::start().await;
    hub.faults(r#"{"cutAfterMessages":2}"#).await;
    // Written by hand: rumqttc may report the end of a connection instead of the acknowledgements just before it.
    let mut burst = hub.identity("d").connect_packet(60);
    for number in 1..=3 {
        burst.extend(b"\x32\x1F\x00\x1Adevices/d/messages/events/\x00");
        burst.extend([number, b'0' + number]);
    }
    assert_eq!(hub.exchange(&burst).await, b"\x20\x02\x00\x00\x40\x02\x00\x01\x40\x02\x00\x02");
    assert_eq!(hub.bodies(2).await, ["1", "2"]);
    let mut device = hub.connected("d").await;
    device.send(EVENTS, "3").await.unwrap();
}

#[tokio::test]
async fn ignored_messages_are_neither_recorded_nor_acknowledged() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    hub.faults(r#"{"ignorePublishes":true}"#).await;
    device.publish(EVENTS, "1").await;
    // The hub has read the message when it answers the later packet.
    device.client.subscribe("$iothub/twin/res/#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    assert!(matches!(device.poll().await.unwrap(), rumqttc::Packet::SubAck(_)));
    hub.faults("{}").await;
    device.publish(EVENTS, "2").await;
    // Packet id 1 was the message, 2 the subscription.
    assert_eq!(device.puback().await.unwrap(), 3);
    assert_eq!(hub.bodies(1).await, ["2"]);
}

#[tokio::test]
async fn a_session_is_lost() {
    let hub = Hub::start().await;
    let identity = hub.identity("d");
    hub.faults(r#"{"noSessionPresent":true}"#).await;
    for _ in 0..2 {
        assert!(!hub.connect(&identity).await.unwrap().1.session_present);
    }
    hub.faults("{}").await;
    assert!(hub.connect(&identity).await.unwrap().1.session_present);
}
