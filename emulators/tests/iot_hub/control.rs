use std::time::{Duration, Instant};

use rumqttc::ConnectionError;
use serde_json::{Value, json};

use crate::client::Hub;

fn sequences(received: &Value) -> Vec<u64> {
    received.as_array().unwrap().iter().map(|message| message["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn received_messages_are_selected_and_forgotten() {
    let hub = Hub::start().await;
    let (mut a, mut b) = (hub.connected("a").await, hub.connected("b").await);
    for _ in 0..2 {
        a.send("devices/a/messages/events/", "from a").await.unwrap();
        b.send("devices/b/messages/events/", "from b").await.unwrap();
    }
    assert_eq!(sequences(&hub.get("received").await), [0, 1, 2, 3]);
    assert_eq!(sequences(&hub.get("received?after=1").await), [2, 3]);
    assert_eq!(sequences(&hub.get("received?device=b").await), [1, 3]);
    assert_eq!(hub.request("DELETE", "received", "").await.0, 204);
    assert_eq!(hub.get("received").await, json!([]));
    a.send("devices/a/messages/events/", "more").await.unwrap();
    assert_eq!(sequences(&hub.get("received").await), [4]);
    let counts = json!({
        "messages": 5, "bytes": 28, "connects": 2, "refused": 0, "disconnects": 0, "connected": ["a", "b"],
        "connections": 2, "dpsConnections": 0, "httpsRequests": 0, "httpsFailures": 0,
        "mostConnected": 2,
        "perDevice": {
            "a": {"messages": 3, "connects": 1, "requests": 0},
            "b": {"messages": 2, "connects": 1, "requests": 0},
        },
    });
    assert_eq!(hub.get("counts").await, counts);
}

#[tokio::test]
async fn a_request_waits_for_what_it_asks_for() {
    let hub = Hub::start().await;
    let device = async {
        let mut device = hub.connected("a").await;
        for _ in 0..3 {
            device.send("devices/a/messages/events/", "x").await.unwrap();
        }
        device
    };
    let (received, of_device, connections, _device) = tokio::join!(
        hub.get("received?wait=3"),
        hub.get("received?wait=2&device=a"),
        hub.get("connections?wait=1"),
        device
    );
    assert_eq!(sequences(&received), [0, 1, 2]);
    assert!(of_device.as_array().unwrap().len() >= 2);
    assert_eq!(connections["connects"], 1);

    let start = Instant::now();
    assert_eq!(sequences(&hub.get("received?wait=4&timeout_ms=100").await), [0, 1, 2]);
    assert_eq!(hub.get("connections?wait=2&timeout_ms=100").await["connects"], 1);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_a_reason() {
    let hub = Hub::start().await;
    hub.faults(r#"{"refuseTimes":1}"#).await;
    for (method, path, body, reason) in [
        ("PUT", "faults", r#"{"refuseTime":1}"#, "unknown field `refuseTime`"),
        ("PUT", "faults", r#"{"refuse":"yes"}"#, "expected a boolean"),
        ("PUT", "faults", "", "EOF"),
        ("PUT", "away", "1", "expected a boolean"),
        ("GET", "received?since=1", "", "unknown field `since`"),
        ("GET", "received?after=x", "", "invalid digit"),
        ("GET", "connections?wait=1&timeout_ms=600001", "", "at most 600000"),
        ("POST", "expire?refuse=1", "", "not `true` or `false`"),
    ] {
        let (status, answer) = hub.request(method, path, body).await;
        assert_eq!(status, 400, "{method} {path} {body}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{method} {path} {body}: {answer}");
    }
    assert_eq!(hub.get("faults").await["refuseTimes"], 1, "what was set before stays");
}

#[tokio::test]
async fn the_hub_goes_away_and_comes_back() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    assert_eq!(hub.request("PUT", "away", "true").await.0, 204);
    device.ended().await;
    let refused = device.connack().await.unwrap_err();
    assert!(
        matches!(&refused, ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused),
        "{refused:?}"
    );
    assert_eq!(hub.get("counts").await["connects"], 1, "the control endpoint stays");
    assert_eq!(hub.request("PUT", "away", "false").await.0, 204);
    assert!(device.connack().await.unwrap().session_present);
    assert_eq!(hub.request("POST", "cut", "").await.0, 204);
    device.ended().await;
    device.connack().await.unwrap();
}

#[tokio::test]
async fn the_hub_ends_when_it_is_dropped() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    let ready = hub.emulator.ready().clone();
    drop(hub);
    device.ended().await;
    assert!(!ready.ca.exists());
}

#[tokio::test]
async fn an_array_of_megabytes_is_whole() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    for _ in 0..40 {
        device.send("devices/d/messages/events/", vec![b'"'; 200_000]).await.unwrap();
    }
    let received = hub.get("received").await;
    assert_eq!(received.as_array().unwrap().len(), 40);
    assert_eq!(received[39]["body"].as_str().unwrap().len(), 200_000);
}
