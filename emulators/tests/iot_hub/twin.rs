use rumqttc::QoS;
use serde_json::{Value, json};

use crate::client::{Device, Hub};

/// Sends a request at QoS 1. Returns topic and body of the answer, which comes after the acknowledgement.
async fn ask(device: &mut Device, topic: &str, body: &str) -> (String, Value) {
    device.send(topic, body).await.unwrap();
    let publish = device.message().await;
    assert_eq!(publish.qos, QoS::AtMostOnce);
    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
    (topic, serde_json::from_slice(&publish.payload).unwrap_or_default())
}

#[tokio::test]
async fn a_device_reads_its_twin_and_reports() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    device.subscribe("$iothub/twin/res/#", QoS::AtLeastOnce).await;
    let empty = json!({"desired": {"$version": 1}, "reported": {"$version": 1}});
    let twin = ask(&mut device, "$iothub/twin/GET/?$rid=1", "").await;
    assert_eq!(twin, ("$iothub/twin/res/200/?$rid=1".into(), empty));
    let patch = "$iothub/twin/PATCH/properties/reported/?$rid=";
    let (topic, _) = ask(&mut device, &format!("{patch}2"), r#"{"firmware":"1.0","old":1}"#).await;
    assert_eq!(topic, "$iothub/twin/res/204/?$rid=2&$version=2");
    let (topic, _) = ask(&mut device, &format!("{patch}3"), r#"{"old":null}"#).await;
    assert_eq!(topic, "$iothub/twin/res/204/?$rid=3&$version=3");
    assert_eq!(ask(&mut device, &format!("{patch}4"), "{").await.0, "$iothub/twin/res/400/?$rid=4");
    let reported = json!({"firmware": "1.0", "$version": 3});
    assert_eq!(ask(&mut device, "$iothub/twin/GET/?$rid=5", "").await.1["reported"], reported);
    assert_eq!(hub.get("twin?device=d").await["reported"], reported);
    assert_eq!(hub.get("twin?device=e").await["reported"], json!({"$version": 1}));
    assert_eq!(hub.get("received").await, json!([]), "twins are no telemetry");
}

#[tokio::test]
async fn without_the_subscription_there_is_no_answer_and_other_topics_are_refused() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    device.send("$iothub/twin/GET/?$rid=1", "").await.unwrap();
    // An answer would have arrived before the next acknowledgement.
    device.send("devices/d/messages/events/", "x").await.unwrap();
    device.publish("$iothub/twin/PATCH/properties/desired/?$rid=2", "{}").await;
    device.ended().await;
}

#[tokio::test]
async fn twins_meet_trouble_too() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    device.subscribe("$iothub/twin/res/#", QoS::AtLeastOnce).await;
    hub.faults(r#"{"misspellTopics":true}"#).await;
    let (topic, _) = ask(&mut device, "$iothub/twin/GET/?$rid=1", "").await;
    assert_eq!(topic, "$iothub/twin/result/200/?$rid=1");
    hub.faults(r#"{"ignorePublishes":true}"#).await;
    device.publish("$iothub/twin/GET/?$rid=2", "").await;
    // When this is answered, the hub has read the packet before it.
    device.subscribe("$iothub/methods/POST/#", QoS::AtLeastOnce).await;
    hub.faults("{}").await;
    assert_eq!(ask(&mut device, "$iothub/twin/GET/?$rid=3", "").await.0, "$iothub/twin/res/200/?$rid=3");
}
