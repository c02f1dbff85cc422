use rumqttc::QoS;
use serde_json::{Value, json};

use crate::client::{Device, Hub, Identity, answer, error_code};

const DEVICEBOUND: &str = "devices/d/messages/devicebound/#";

/// Connects again and expects the kept session.
async fn back(hub: &Hub, identity: &Identity) -> Device {
    let (device, connack) = hub.connect(identity).await.unwrap();
    assert!(connack.session_present);
    device
}

#[tokio::test]
async fn a_message_is_delivered_with_its_properties_and_completed_by_its_acknowledgement() {
    for web_socket in [false, true] {
        let hub = Hub::start().await;
        let (mut device, _) = hub.connect(&Identity { web_socket, ..hub.identity("d") }).await.unwrap();
        device.subscribe(DEVICEBOUND, QoS::AtLeastOnce).await;
        let message = json!({
            "body": "Grüße", "messageId": "m 1", "correlationId": "c", "contentType": "text/plain",
            "contentEncoding": "utf-8", "properties": {"k": "ü&=+"},
        });
        assert_eq!(hub.post_c2d("d", &message).await, "m 1");
        let publish = device.message().await;
        let topic = "devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&%24.ce=utf-8\
                     &%24.cid=c&%24.ct=text%2Fplain&%24.mid=m%201&k=%C3%BC%26%3D%2B";
        assert_eq!((&publish.topic[..], &publish.payload[..]), (topic.as_bytes(), "Grüße".as_bytes()));
        assert_eq!((publish.qos, publish.dup), (QoS::AtLeastOnce, false));
        let states = device.meanwhile(hub.c2d_states("d", "completed:1")).await;
        assert_eq!(states, ["completed"]);
    }
}

#[tokio::test]
async fn at_qos_0_sent_is_completed() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    hub.post_c2d("d", &json!({"bodyBase64": "/wA="})).await;
    device.subscribe(DEVICEBOUND, QoS::AtMostOnce).await;
    let publish = device.message().await;
    assert_eq!((publish.qos, &publish.payload[..]), (QoS::AtMostOnce, b"\xFF\0".as_slice()));
    assert_eq!(hub.c2d_states("d", "completed:1").await, ["completed"]);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_what_came_meanwhile_too() {
    let hub = Hub::start().await;
    let identity = Identity { manual_acks: true, ..hub.identity("d") };
    let (mut device, _) = hub.connect(&identity).await.unwrap();
    device.subscribe(DEVICEBOUND, QoS::AtLeastOnce).await;
    hub.post_c2d("d", &json!({"body": "1"})).await;
    let first = device.message().await;
    assert_eq!(hub.c2d_states("d", "locked:1").await, ["locked"]);
    drop(device);
    hub.c2d_states("d", "enqueued:1").await;
    hub.post_c2d("d", &json!({"body": "2"})).await;

    let mut device = back(&hub, &identity).await;
    let [again, second] = [device.message().await, device.message().await];
    assert_eq!((&again.payload[..], again.dup, again.pkid), (b"1".as_slice(), true, first.pkid));
    assert_eq!((&second.payload[..], second.dup), (b"2".as_slice(), false));
    device.client.ack(&again).await.unwrap();
    let states = device.meanwhile(hub.c2d_states("d", "completed:1")).await;
    assert_eq!(states, ["completed", "locked"]);
    let statuses = hub.get("c2d?device=d").await;
    assert_eq!((&statuses[0]["deliveryCount"], &statuses[1]["deliveryCount"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn a_lock_that_ends_makes_the_message_come_again_on_the_same_connection() {
    let hub = Hub::start().await;
    let (mut device, _) = hub.connect(&Identity { manual_acks: true, ..hub.identity("d") }).await.unwrap();
    device.subscribe(DEVICEBOUND, QoS::AtLeastOnce).await;
    hub.post_c2d("d", &json!({"body": "1"})).await;
    device.message().await;
    assert_eq!(hub.request("POST", "c2d/unlock?device=d", "").await, (200, json!({"unlocked": 1})));
    assert!(device.message().await.dup);
}

#[tokio::test]
async fn a_clean_session_drops_what_waits() {
    let hub = Hub::start().await;
    hub.post_c2d("d", &json!({"body": "1"})).await;
    let (mut device, _) = hub.connect(&Identity { clean: true, ..hub.identity("d") }).await.unwrap();
    device.subscribe(DEVICEBOUND, QoS::AtLeastOnce).await;
    hub.post_c2d("d", &json!({"body": "2"})).await;
    assert_eq!(&device.message().await.payload[..], b"2");
    let states = device.meanwhile(hub.c2d_states("d", "completed:1")).await;
    assert_eq!(states, ["dropped", "completed"]);
}

#[tokio::test]
async fn twenty_messages_are_in_flight_and_all_arrive_in_order() {
    let hub = Hub::start().await;
    let (mut device, _) = hub.connect(&Identity { manual_acks: true, ..hub.identity("d") }).await.unwrap();
    for number in 0..50 {
        hub.post_c2d("d", &json!({"body": number.to_string()})).await;
    }
    let (status, body) = hub.request("POST", "c2d?device=d", r#"{"body":"one too many"}"#).await;
    assert_eq!(status, 409);
    assert!(body["error"].as_str().unwrap().contains("403004"), "{body}");
    device.subscribe(DEVICEBOUND, QoS::AtLeastOnce).await;
    let mut unacknowledged = vec![];
    for number in 0..50 {
        if number == 20 {
            assert_eq!(hub.c2d_states("d", "locked:20").await.iter().filter(|state| *state == "locked").count(), 20);
        }
        if number >= 20 {
            device.client.ack(&unacknowledged.remove(0)).await.unwrap();
        }
        let publish = device.message().await;
        assert_eq!(publish.payload, number.to_string());
        unacknowledged.push(publish);
    }
}

#[tokio::test]
async fn over_https_a_message_is_fetched_and_completed_rejected_or_abandoned() {
    let hub = Hub::start().await;
    let path = "/messages/devicebound";
    assert_eq!(answer(hub.https("GET", "d", path)).await, (204, Value::Null));
    let message = json!({"body": "x", "messageId": "m", "contentType": "text/plain", "properties": {"k": "ü"}});
    for _ in 0..2 {
        hub.post_c2d("d", &message).await;
    }
    let mut tokens = vec![];
    for (count, method, end) in [(1, "POST", "/abandon"), (2, "DELETE", ""), (1, "DELETE", "?reject")] {
        let response = hub.https("GET", "d", path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| String::from_utf8(response.headers()[name].as_bytes().to_vec()).unwrap();
        let etag = header("etag");
        let token = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).expect("quoted").to_owned();
        assert_eq!((header("iothub-messageid"), header("iothub-app-k")), ("m".into(), "ü".into()));
        assert_eq!(
            (header("iothub-contenttype"), header("iothub-to")),
            ("text/plain".into(), "/devices/d/messages/devicebound".into())
        );
        assert_eq!(header("iothub-deliverycount"), count.to_string());
        assert_eq!(header("iothub-sequencenumber"), if tokens.len() < 2 { "1" } else { "2" });
        assert!(header("iothub-enqueuedtime").ends_with('Z'));
        assert_eq!(response.text().await.unwrap(), "x");
        // Some clients return the ETag unchanged, with its quotes.
        let given = if method == "POST" { token.clone() } else { format!("%22{token}%22") };
        assert_eq!(answer(hub.https(method, "d", &format!("{path}/{given}{end}"))).await, (204, Value::Null));
        tokens.push(token);
    }
    assert_eq!(hub.c2d_states("d", "rejected:1").await, ["completed", "rejected"]);
    let (status, body) = answer(hub.https("DELETE", "d", &format!("{path}/{}", tokens[0]))).await;
    assert_eq!((status, error_code(&body).as_str()), (412, "412002"));
    assert_eq!(answer(hub.https("GET", "d", "/messages/deviceBound")).await.0, 204, "as C# spells it");
    let statuses = hub.get("c2d?device=d").await;
    assert_eq!(
        statuses[0],
        json!({"messageId": "m", "sequenceNumber": 1, "state": "completed", "deliveryCount": 2, "abandonedCount": 1})
    );
}

#[tokio::test]
async fn a_lock_that_is_lost_and_too_many_deliveries() {
    let hub = Hub::start().await;
    hub.post_c2d("d", &json!({"body": "x"})).await;
    for count in 1..=10 {
        let response = hub.https("GET", "d", "/messages/devicebound").send().await.unwrap();
        let token = response.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
        hub.request("POST", "c2d/unlock?device=d", "").await;
        let complete = hub.https("DELETE", "d", &format!("/messages/devicebound/{token}"));
        assert_eq!(answer(complete).await.0, 412, "{count}");
    }
    assert_eq!(hub.c2d_states("d", "deadlettered:1").await, ["deadlettered"]);
    assert_eq!(answer(hub.https("GET", "d", "/messages/devicebound")).await.0, 204);
}

#[tokio::test]
async fn a_message_expires() {
    let hub = Hub::start().await;
    hub.post_c2d("d", &json!({"body": "x", "ttlSeconds": 1})).await;
    assert_eq!(hub.c2d_states("d", "expired:1").await, ["expired"]);
    assert_eq!(answer(hub.https("GET", "d", "/messages/devicebound")).await.0, 204);
}

#[tokio::test]
async fn what_cannot_be_sent_to_a_device_is_refused() {
    let hub = Hub::start().await;
    let largest = json!({"body": "x".repeat(65_536 - 2), "messageId": "12"}).to_string();
    let too_large = json!({"body": "x".repeat(65_536 - 1), "messageId": "12"}).to_string();
    for (path, body, status) in [
        ("c2d?device=d", largest.as_str(), 201),
        ("c2d?device=d", too_large.as_str(), 413),
        ("c2d?device=d", r#"{"body":"x","bodyBase64":"eA=="}"#, 400),
        ("c2d?device=d", r#"{"bodyBase64":"?"}"#, 400),
        ("c2d?device=d", r#"{"properties":{"a b":"x"}}"#, 400),
        ("c2d?device=d", r#"{"properties":{"a":"x\ny"}}"#, 400),
        ("c2d?device=d", r#"{"text":"x"}"#, 400),
        ("c2d?device=a%20b", "{}", 400),
        ("c2d", "{}", 400),
    ] {
        let (answered, answer) = hub.request("POST", path, body).await;
        assert_eq!(answered, status, "{path} {answer}");
    }
    for path in ["c2d?device=d&wait=1", "c2d?device=d&wait=done:1", "c2d?device=d&wait=completed:x"] {
        assert_eq!(hub.request("GET", path, "").await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn a_broken_emulator_sends_to_the_wrong_topic() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    device.subscribe(DEVICEBOUND, QoS::AtLeastOnce).await;
    hub.faults(r#"{"misspellTopics":true}"#).await;
    hub.post_c2d("d", &json!({"body": "x"})).await;
    assert!(device.message().await.topic.starts_with(b"devices/d/messages/devicebounds/"));
}
