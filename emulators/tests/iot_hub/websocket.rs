use futures::{SinkExt, StreamExt};
use rumqttc::Packet;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::client::{Hub, Identity};

const EVENTS: &str = "devices/d/messages/events/";

/// Upgrades a connection by hand, with this subprotocol if there is one.
async fn upgrade(
    hub: &Hub,
    protocol: Option<&str>,
) -> Result<WebSocketStream<TlsStream<TcpStream>>, tungstenite::Error> {
    let url = "wss://localhost/$iothub/websocket?iothub-no-client-cert=true";
    let mut request = url.into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    }
    Ok(client_async(request, hub.raw().await).await?.0)
}

/// The hub's bytes until it closes.
async fn rest(socket: WebSocketStream<TlsStream<TcpStream>>) -> Vec<u8> {
    let messages: Vec<_> = socket.collect().await;
    messages.into_iter().filter_map(Result::ok).filter(Message::is_binary).flat_map(Message::into_data).collect()
}

#[tokio::test]
async fn a_device_talks_over_a_websocket_as_over_tls() {
    let hub = Hub::start().await;
    let identity = Identity { web_socket: true, ..hub.identity("d") };
    let (mut device, connack) = hub.connect(&identity).await.unwrap();
    assert!(!connack.session_present);
    device.send(&format!("{EVENTS}$.mid=1&k=v"), "short").await.unwrap();
    device.send(EVENTS, vec![b'x'; 262_144]).await.unwrap();
    let received = hub.get("received").await;
    assert_eq!((&received[0]["transport"], &received[0]["messageId"]), (&json!("mqtt-ws"), &json!("1")));
    assert_eq!(received[1]["body"].as_str().unwrap().len(), 262_144);
    hub.request("POST", "cut", "").await;
    device.ended().await;
    assert!(device.connack().await.unwrap().session_present);
    device.client.subscribe("$iothub/twin/res/#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    assert!(matches!(device.poll().await.unwrap(), Packet::SubAck(_)));
    let counts = hub.get("counts").await;
    assert_eq!((&counts["connects"], &counts["httpsRequests"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn frames_cut_packets_anywhere() {
    let hub = Hub::start().await;
    let mut bytes = hub.identity("d").connect_packet(60);
    for number in 1..=2 {
        bytes.extend(b"\x32\x1F\x00\x1Adevices/d/messages/events/\x00");
        bytes.extend([number, b'0' + number]);
    }
    bytes.extend(b"\xE0\x00");
    for piece in [1, 7, 1000] {
        let mut socket = upgrade(&hub, Some("mqtt")).await.unwrap();
        for piece in bytes.chunks(piece) {
            socket.send(Message::Binary(piece.to_vec().into())).await.unwrap();
        }
        assert_eq!(rest(socket).await, b"\x20\x02\x00\x00\x40\x02\x00\x01\x40\x02\x00\x02", "{piece}");
    }
    assert_eq!(hub.bodies(6).await.len(), 6);
}

#[tokio::test]
async fn what_is_not_mqtt_in_binary_frames_is_refused() {
    let hub = Hub::start().await;
    for protocol in [None, Some("mqttv3.1"), Some("chat")] {
        match upgrade(&hub, protocol).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 400, "{protocol:?}"),
            other => panic!("{protocol:?}: {other:?}"),
        }
    }
    let mut socket = upgrade(&hub, Some("mqtt")).await.unwrap();
    socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(rest(socket).await, b"");
    let mut socket = upgrade(&hub, Some("mqtt")).await.unwrap();
    // The hub may close before everything is written.
    let _ = socket.send(Message::Binary(vec![0x10; 2_000_000].into())).await;
    assert_eq!(rest(socket).await, b"");
    assert_eq!(hub.get("counts").await["connects"], 0);
}
