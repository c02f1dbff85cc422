use rumqttc::{Packet, PublishOptions, QoS, SubscribeReasonCode};
use serde_json::{Value, json};

use crate::client::Hub;

const EVENTS: &str = "devices/d/messages/events/";

#[tokio::test]
async fn properties_and_body_arrive_as_they_were_sent() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    let mut live = hub.emulator.subscribe();
    let bag =
        "%24.mid=a%20b%2F1&$.ct=application%2Fjson&%24.ce=utf-8&z=%C3%A9%2B%20%26&Site_Id=Energy%20meter%201&empty=";
    device.send(&format!("{EVENTS}{bag}"), r#"{"é":1}"#).await.unwrap();
    device.send(EVENTS, [0xFF, 0]).await.unwrap();

    let received = hub.get("received").await;
    let first = &received[0];
    assert_eq!((&first["sequence"], &first["deviceId"], &first["dup"]), (&json!(0), &json!("d"), &json!(false)));
    assert_eq!(first["messageId"], "a b/1");
    assert_eq!(first["systemProperties"], json!({"$.mid": "a b/1", "$.ct": "application/json", "$.ce": "utf-8"}));
    assert_eq!(first["properties"], json!({"z": "é+ &", "Site_Id": "Energy meter 1", "empty": ""}));
    assert_eq!(first["body"], r#"{"é":1}"#);
    let second = &received[1];
    assert_eq!((&second["messageId"], &second["properties"]), (&Value::Null, &json!({})));
    assert_eq!((&second["body"], &second["bodyEncoding"]), (&json!("/wA="), &json!("base64")));

    let seen = live.recv().await.unwrap();
    assert_eq!(
        (seen.device_id.as_str(), seen.message_id(), &seen.body[..]),
        ("d", Some("a b/1"), r#"{"é":1}"#.as_bytes())
    );
}

#[tokio::test]
async fn qos_0_is_recorded_and_retain_becomes_a_property() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    device.client.publish(EVENTS, "zero", PublishOptions::at_most_once()).await.unwrap();
    device.client.publish(EVENTS, "kept", PublishOptions::at_least_once().retained()).await.unwrap();
    assert_eq!(device.puback().await.unwrap(), 1, "only the second is acknowledged");
    let received = hub.get("received").await;
    assert_eq!((&received[0]["body"], &received[0]["properties"]), (&json!("zero"), &json!({})));
    assert_eq!((&received[1]["body"], &received[1]["properties"]), (&json!("kept"), &json!({"mqtt-retain": "true"})));
}

#[tokio::test]
async fn what_the_hub_does_not_allow_ends_the_connection() {
    let hub = Hub::start().await;
    for (topic, qos, length) in [
        ("devices/d/messages/events/", QoS::ExactlyOnce, 1),
        ("devices/d/messages/events", QoS::AtLeastOnce, 1),
        ("devices/e/messages/events/", QoS::AtLeastOnce, 1),
        ("sensors/d", QoS::AtLeastOnce, 1),
        ("devices/d/messages/events/a=%zz", QoS::AtLeastOnce, 1),
        ("devices/d/messages/events/a", QoS::AtLeastOnce, 1),
        ("devices/d/messages/events/%24.cdid=e", QoS::AtLeastOnce, 1),
        ("devices/d/messages/events/", QoS::AtLeastOnce, 262_145),
        ("devices/d/messages/events/a=b", QoS::AtMostOnce, 262_143),
        ("devices/d/messages/events/", QoS::AtLeastOnce, 900_000),
    ] {
        let mut device = hub.connected("d").await;
        device.client.publish(topic, vec![b'x'; length], PublishOptions::new(qos)).await.unwrap();
        device.ended().await;
    }
    assert_eq!(hub.get("received").await, json!([]));
    let mut device = hub.connected("d").await;
    device.send(EVENTS, vec![b'x'; 262_144]).await.unwrap();
    assert_eq!(hub.get("counts").await["bytes"], 262_144);
}

#[tokio::test]
async fn the_topics_of_the_hub_can_be_subscribed_to_and_no_others() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    for (filter, asked, granted) in [
        ("devices/d/messages/devicebound/#", QoS::AtLeastOnce, QoS::AtLeastOnce),
        ("$iothub/twin/res/#", QoS::AtMostOnce, QoS::AtMostOnce),
        ("$iothub/methods/POST/#", QoS::ExactlyOnce, QoS::AtLeastOnce),
        ("$iothub/twin/PATCH/properties/desired/#", QoS::AtLeastOnce, QoS::AtLeastOnce),
    ] {
        device.client.subscribe(filter, asked).await.unwrap();
        match device.poll().await.unwrap() {
            Packet::SubAck(suback) => assert_eq!(suback.return_codes, [SubscribeReasonCode::Success(granted)]),
            other => panic!("{other:?}"),
        }
        device.client.unsubscribe(filter).await.unwrap();
        assert!(matches!(device.poll().await.unwrap(), Packet::UnsubAck(_)));
    }
    for filter in ["#", "devices/e/messages/devicebound/#", "devices/d/messages/events/#"] {
        let mut device = hub.connected("d").await;
        device.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        device.ended().await;
    }
}

#[tokio::test]
async fn many_messages_in_flight_are_recorded_in_order() {
    const MESSAGES: usize = 3000;
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    for number in 0..MESSAGES {
        device.publish(&format!("{EVENTS}$.mid={number}"), number.to_string()).await;
        if number >= 100 {
            device.puback().await.unwrap();
        }
    }
    for _ in 0..100 {
        device.puback().await.unwrap();
    }
    let bodies = hub.bodies(MESSAGES).await;
    assert!(bodies.into_iter().eq((0..MESSAGES).map(|number| number.to_string())));
}
