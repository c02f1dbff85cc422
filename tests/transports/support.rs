//! Starts an emulated hub, and makes devices, messages, and checks of what arrived.

use std::{num::NonZeroUsize, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use emulators::iot_hub;
use iothub_connector::iot_hub::{
    Credential, Device, Endpoint, Message, Options, Sender, Transport, device::decode_key, sas,
};
use rumqttc::{AsyncClient, Broker, Event, MqttOptions, Packet, QoS, SessionMode, TlsConfiguration};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::time::Instant;

pub const SITE: &str = "Zähler 7/ö +&=%?\"";

pub struct World {
    pub transport: Transport,
    hub: iot_hub::Emulator,
    http: reqwest::Client,
}

impl World {
    pub async fn start(transport: Transport) -> Self {
        let hub = iot_hub::start(iot_hub::Options::default()).await.unwrap();
        Self { transport, hub, http: reqwest::Client::new() }
    }

    /// A sender that trusts the hub.
    pub fn sender(&self) -> Sender {
        Sender::new(self.options())
    }

    pub fn options(&self) -> Options {
        Options::new(self.transport, NonZeroUsize::new(1_000).unwrap(), vec![self.ca()])
    }

    pub fn ca(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.hub.ready().ca).unwrap()
    }

    pub fn device(&self, id: &str) -> Device {
        self.device_with(id, Credential::Key(decode_key(&self.hub.ready().key).unwrap()))
    }

    pub fn device_with(&self, id: &str, credential: Credential) -> Device {
        let endpoint = Endpoint::parse(&self.hub.ready().mqtt).unwrap();
        Device { hub_host: endpoint.host.clone(), endpoint, id: id.into(), credential }
    }

    /// A ready token for the device that expires at `expires`.
    pub fn token(&self, id: &str, expires: DateTime<Utc>) -> Credential {
        let key = BASE64_STANDARD.decode(&self.hub.ready().key).unwrap();
        Credential::Token(sas::mint(&sas::device_resource("127.0.0.1", id), &key, expires, None))
    }

    pub async fn set_faults(&self, faults: Value) {
        self.put("faults", &faults).await;
    }

    pub async fn set_away(&self, away: bool) {
        self.put("away", &json!(away)).await;
    }

    /// Cuts every connection.
    pub async fn cut(&self) {
        self.call("POST", "cut", &Value::Null).await;
    }

    /// Enqueues a cloud-to-device message.
    pub async fn post_command(&self, device: &str, id: &str) {
        self.call("POST", &format!("c2d?device={device}"), &json!({"messageId": id, "body": "open"})).await;
    }

    /// Unlocks the device's delivered messages, as if a minute had passed.
    pub async fn unlock_commands(&self, device: &str) {
        self.call("POST", &format!("c2d/unlock?device={device}"), &Value::Null).await;
    }

    /// The states of the device's cloud-to-device messages, once the number of messages in a state is as in `wait`
    /// (`locked:2`).
    pub async fn commands(&self, device: &str, wait: &str) -> Vec<String> {
        let statuses = self.call("GET", &format!("c2d?device={device}&wait={wait}"), &Value::Null).await;
        let statuses: Vec<Value> = serde_json::from_str(&statuses).unwrap();
        statuses.iter().map(|status| status["state"].as_str().unwrap().to_owned()).collect()
    }

    /// Connects as the device with another client, subscribes to its messages and disconnects. The session stays, as
    /// with most of Microsoft's SDKs.
    pub async fn subscribe_as(&self, device: &str, qos: QoS) {
        let (host, port) = self.hub.ready().mqtt.split_once(':').unwrap();
        let mut options = MqttOptions::new(device, Broker::tcp(host, port.parse().unwrap()));
        let ca = std::fs::read(&self.hub.ready().ca).unwrap();
        let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: None };
        options.set_transport(rumqttc::Transport::Tls(tls));
        options.set_session_mode(SessionMode::Persistent);
        let token = self.token(device, Utc::now() + TimeDelta::hours(1));
        let Credential::Token(token) = token else { panic!("it is a token") };
        let user = format!("{host}/{device}/?api-version=2021-04-12");
        options.set_credentials(user, token.expose_secret().to_owned());
        let (client, mut events) = AsyncClient::builder(options).build();
        client.subscribe(format!("devices/{device}/messages/devicebound/#"), qos).await.unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
        // The hub's goodbye shows that it has finished with the connection and pushes nothing onto it any more.
        self.call("POST", "expire", &Value::Null).await;
        while events.poll().await.is_ok() {}
    }

    async fn put(&self, path: &str, body: &Value) {
        self.call("PUT", path, body).await;
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> String {
        let url = format!("{}{path}", self.hub.ready().control);
        let request = self.http.request(method.parse().unwrap(), url).body(body.to_string());
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        text
    }

    /// The device's messages, in order of arrival, repeats included.
    pub async fn received(&self, device: &str) -> Vec<Value> {
        let url = format!("{}received?device={device}", self.hub.ready().control);
        let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The ids of the device's messages in order of their first arrival; the same id must come with the same body.
    pub async fn distinct(&self, device: &str) -> Vec<String> {
        let mut seen: Vec<(String, Value)> = Vec::new();
        for message in self.received(device).await {
            let id = message["messageId"].as_str().unwrap().to_owned();
            match seen.iter().find(|(known, _)| *known == id) {
                Some((_, body)) => assert_eq!(*body, message["body"], "message {id} came with two bodies"),
                None => seen.push((id, message["body"].clone())),
            }
        }
        seen.into_iter().map(|(id, _)| id).collect()
    }

    pub fn counts(&self) -> iot_hub::Counts {
        self.hub.counts()
    }
}

pub fn message(id: &str, body: impl Into<Bytes>) -> Message {
    Message {
        id: id.into(),
        created: DateTime::from_timestamp_millis(1_700_000_000_120).unwrap(),
        properties: vec![("Customer_Id", "Stadtwerke".into()), ("Site_Id", SITE.into())],
        body: body.into(),
    }
}

pub fn messages(count: usize) -> Vec<Message> {
    (0..count).map(|n| message(&format!("m{n:03}"), format!("{{\"n\":{n}}}"))).collect()
}

pub fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// A deadline that is long enough for everything that must succeed.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub fn within(seconds: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds)
}
