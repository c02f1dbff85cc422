//! Tests the Device Provisioning Service over MQTT.

use rumqttc::{ConnectReturnCode, ConnectionError, Packet, QoS};
use serde_json::{Value, json};

use crate::client::{Device, Hub, Identity, now, sign};

const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/";

impl Hub {
    fn registrant(&self, id: &str, key: &str) -> Identity {
        let scope = &self.emulator.ready().id_scope;
        let token = sign(key, &format!("{scope}/registrations/{id}"), now() + 3600);
        Identity {
            user_name: format!("{scope}/registrations/{id}/api-version=2019-03-31&ClientVersion=test"),
            password: format!("{token}&skn=registration"),
            clean: true,
            ..self.identity(id)
        }
    }

    /// A device that is connected and subscribed.
    async fn registering(&self, identity: &Identity) -> Device {
        let (mut device, connack) = self.connect(identity).await.unwrap();
        assert!(!connack.session_present);
        device.subscribe("$dps/registrations/res/#", QoS::AtLeastOnce).await;
        device
    }
}

impl Device {
    /// Publishes. Returns topic and body of the answer.
    async fn ask(&mut self, topic: &str, body: &str) -> (String, Value) {
        self.send(topic, body).await.unwrap();
        let answer = self.message().await;
        let topic = String::from_utf8(answer.topic.to_vec()).unwrap();
        (topic, serde_json::from_slice(&answer.payload).unwrap())
    }
}

#[tokio::test]
async fn a_device_is_assigned_over_mqtt_and_web_socket() {
    let hub = Hub::start().await;
    for (id, web_socket) in [("a", false), ("b", true)] {
        let key = hub.derived_key(id);
        let mut device = hub.registering(&Identity { web_socket, ..hub.registrant(id, &key) }).await;
        let body = json!({"registrationId": id}).to_string();
        let (topic, operation) = device.ask(&format!("{REGISTER}?$rid=7"), &body).await;
        assert_eq!(topic, "$dps/registrations/res/202/?$rid=7&retry-after=3");
        let operation = operation["operationId"].as_str().unwrap();
        let poll = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=x-8&operationId={operation}");
        let (topic, body) = device.ask(&poll, "").await;
        assert_eq!(
            (topic.as_str(), &body["status"]),
            ("$dps/registrations/res/202/?$rid=x-8&retry-after=3", &json!("assigning"))
        );
        let (topic, body) = device.ask(&poll, "").await;
        assert_eq!(topic, "$dps/registrations/res/200/?$rid=x-8");
        assert_eq!(body["registrationState"]["deviceId"], id);
        hub.connect(&hub.identity_with(id, &key)).await.unwrap();
    }
    assert_eq!(hub.get("counts").await["perDevice"]["a"]["connects"], 1, "registering is not connecting to the hub");
}

#[tokio::test]
async fn a_bad_token_shows_with_the_first_request() {
    let hub = Hub::start().await;
    let mut device = hub.registering(&hub.registrant("d", "YW55")).await;
    let (topic, body) = device.ask(&format!("{REGISTER}?$rid=1"), r#"{"registrationId":"d"}"#).await;
    assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
    assert_eq!(body["errorCode"], 401_000);
}

#[tokio::test]
async fn trouble_is_the_same_over_mqtt() {
    let hub = Hub::start().await;
    let mut device = hub.registering(&hub.registrant("d", &hub.derived_key("d"))).await;
    let faults = r#"{"status":429,"statusTimes":1,"retryAfterSeconds":9,"dropTimes":1}"#;
    assert_eq!(hub.request("PUT", "dps/faults", faults).await.0, 200);
    let register = format!("{REGISTER}?$rid=1");
    let (topic, _) = device.ask(&register, r#"{"registrationId":"d"}"#).await;
    assert_eq!(topic, "$dps/registrations/res/429/?$rid=1&retry-after=9");
    device.publish(&register, r#"{"registrationId":"d"}"#).await;
    // The acknowledgement may arrive before the connection ends, but no answer.
    while let Ok(packet) = device.poll().await {
        assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}");
    }
}

#[tokio::test]
async fn what_the_service_does_not_know_ends_the_connection() {
    let hub = Hub::start().await;
    let identity = hub.registrant("d", &hub.derived_key("d"));
    for topic in ["devices/d/messages/events/", "$dps/registrations/PUT/iotdps-register/?rid=1"] {
        let mut device = hub.registering(&identity).await;
        device.publish(topic, "{}").await;
        device.ended().await;
    }
    let (mut device, _) = hub.connect(&identity).await.unwrap();
    device.client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    device.ended().await;
    let error = hub.connect(&Identity { device_id: "e".into(), ..identity }).await.err().unwrap();
    let code = ConnectReturnCode::BadClientId;
    assert!(matches!(error, ConnectionError::ConnectionRefused(refusal) if refusal == code), "{error:?}");
}
