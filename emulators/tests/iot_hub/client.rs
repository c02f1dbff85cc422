//! The devices and the control client that these tests use.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use emulators::iot_hub::{self, Emulator, Options};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Body, RequestBuilder};
use rumqttc::{
    AckMode, AsyncClient, ConnAck, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, PublishOptions,
    QoS, TlsConfiguration, Transport,
};
use serde_json::Value;
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// The hub's name in user names and tokens.
pub const HUB: &str = "myhub.azure-devices.net";

/// Nothing in these tests takes that long, so a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each test has its own hub.
pub struct Hub {
    pub emulator: Emulator,
    http: reqwest::Client,
    /// Trusts the hub's CA.
    pub https: reqwest::Client,
}

/// The credentials of a device.
#[derive(Clone)]
pub struct Identity {
    pub device_id: String,
    pub user_name: String,
    pub password: String,
    pub clean: bool,
    pub web_socket: bool,
    /// Whether only the test acknowledges messages.
    pub manual_acks: bool,
}

/// A device with rumqttc. The end of its connection is an error of [`Device::poll`].
pub struct Device {
    pub client: AsyncClient,
    events: EventLoop,
}

impl Hub {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let emulator = iot_hub::start(options).await.unwrap();
        let ca = reqwest::Certificate::from_pem(&fs::read(&emulator.ready().ca).unwrap()).unwrap();
        let https = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
        Self { emulator, http: reqwest::Client::new(), https }
    }

    /// Credentials with a token for an hour, and a session that is kept.
    pub fn identity(&self, device_id: &str) -> Identity {
        Identity {
            device_id: device_id.into(),
            user_name: format!("{HUB}/{device_id}/?api-version=2021-04-12"),
            password: self.token(HUB, device_id, now() + 3600),
            clean: false,
            web_socket: false,
            manual_acks: false,
        }
    }

    /// A token signed with the hub's device key.
    pub fn token(&self, host: &str, device_id: &str, expiry: u64) -> String {
        sign(&self.emulator.ready().key, &format!("{host}/devices/{device_id}"), expiry)
    }

    /// The key of a device of the enrollment group, Base64.
    pub fn derived_key(&self, registration_id: &str) -> String {
        BASE64_STANDARD.encode(hmac(&self.emulator.ready().group_key, registration_id))
    }

    /// Credentials of a device with its own key, Base64.
    pub fn identity_with(&self, device_id: &str, key: &str) -> Identity {
        let password = sign(key, &format!("{HUB}/devices/{device_id}"), now() + 3600);
        Identity { password, ..self.identity(device_id) }
    }

    /// Connects. Returns the CONNACK, or the reason for having no connection.
    pub async fn connect(&self, identity: &Identity) -> Result<(Device, ConnAck), ConnectionError> {
        let mut device = self.device(identity, fs::read(&self.emulator.ready().ca).unwrap());
        let connack = device.connack().await?;
        Ok((device, connack))
    }

    /// A connected device with a token for an hour.
    pub async fn connected(&self, device_id: &str) -> Device {
        self.connect(&self.identity(device_id)).await.unwrap().0
    }

    pub fn device(&self, identity: &Identity, ca: Vec<u8>) -> Device {
        let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: None };
        let mut options = if identity.web_socket {
            let url = self.emulator.ready().https.replace("https:", "wss:") + "/$iothub/websocket";
            MqttOptions::websocket_with_tls_config(identity.device_id.as_str(), url, tls).unwrap()
        } else {
            let (host, port) = self.emulator.ready().mqtt.split_once(':').unwrap();
            let mut options = MqttOptions::new(identity.device_id.as_str(), (host, port.parse().unwrap()));
            options.set_transport(Transport::tls_with_config(tls));
            options
        };
        options.set_credentials(identity.user_name.as_str(), identity.password.clone());
        options.set_clean_session(identity.clean);
        options.set_ack_mode(if identity.manual_acks { AckMode::Manual } else { AckMode::Automatic });
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, events) = AsyncClient::builder(options).capacity(4096).build();
        Device { client, events }
    }

    /// An HTTPS request of a device with a token for an hour. The path is relative to the device's path and begins with
    /// a slash.
    pub fn https(&self, method: &str, device_id: &str, path: &str) -> RequestBuilder {
        let https = &self.emulator.ready().https;
        let token = self.token(https.strip_prefix("https://").unwrap(), device_id, now() + 3600);
        let separator = if path.contains('?') { '&' } else { '?' };
        let device_id = utf8_percent_encode(device_id, NON_ALPHANUMERIC);
        let url = format!("{https}/devices/{device_id}{path}{separator}api-version=2021-04-12");
        self.https.request(method.parse().unwrap(), url).header("Authorization", token)
    }

    /// A request that sends a message over HTTPS with this token.
    pub fn post_with(&self, device_id: &str, token: &str, body: impl Into<Body>) -> RequestBuilder {
        let mut request = self.post(device_id, body).build().unwrap();
        request.headers_mut().insert("Authorization", token.parse().unwrap());
        RequestBuilder::from_parts(self.https.clone(), request)
    }

    /// A request that sends a message over HTTPS. The test may add to it before it sends it.
    pub fn post(&self, device_id: &str, body: impl Into<Body>) -> RequestBuilder {
        self.https("POST", device_id, "/messages/events").body(body)
    }

    /// A TLS connection on which nothing has been sent yet.
    pub async fn raw(&self) -> TlsStream<TcpStream> {
        self.raw_at(&self.emulator.ready().mqtt).await
    }

    pub async fn raw_at(&self, address: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.emulator.ready().ca).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    /// Sends bytes on a new connection. Returns the hub's bytes until it closes.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.raw().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = vec![];
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the hub does not close").unwrap();
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A request to the control endpoint: status and JSON, null if there is none.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.emulator.ready().control);
        answer(self.http.request(method.parse().unwrap(), url).body(body.to_owned())).await
    }

    /// Enqueues a message to a device.
    pub async fn post_c2d(&self, device_id: &str, message: &Value) -> String {
        let (status, body) = self.request("POST", &format!("c2d?device={device_id}"), &message.to_string()).await;
        assert_eq!(status, 201, "{body}");
        body["messageId"].as_str().unwrap().to_owned()
    }

    /// The states of the messages to a device, as soon as the awaited state is reached.
    pub async fn c2d_states(&self, device_id: &str, wait: &str) -> Vec<String> {
        let statuses = self.get(&format!("c2d?device={device_id}&wait={wait}")).await;
        statuses.as_array().unwrap().iter().map(|status| status["state"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn faults(&self, json: &str) {
        let (status, body) = self.request("PUT", "faults", json).await;
        assert_eq!(status, 200, "{body}");
    }

    /// The received bodies, as soon as there are this many.
    pub async fn bodies(&self, number: usize) -> Vec<String> {
        let received = self.get(&format!("received?wait={number}")).await;
        received.as_array().unwrap().iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
    }
}

impl Identity {
    /// CONNECT as bytes, with a clean session.
    pub fn connect_packet(&self, keep_alive: u16) -> Vec<u8> {
        let mut body = b"\x00\x04MQTT\x04\xC2".to_vec();
        body.extend(keep_alive.to_be_bytes());
        for text in [&self.device_id, &self.user_name, &self.password] {
            body.extend((text.len() as u16).to_be_bytes());
            body.extend(text.as_bytes());
        }
        assert!((128..16384).contains(&body.len()), "a length of two bytes");
        [vec![0x10, body.len() as u8 | 0x80, (body.len() >> 7) as u8], body].concat()
    }
}

impl Device {
    /// The next packet from the hub, or the end of the connection.
    pub async fn poll(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            if let Event::Incoming(packet) = timeout(PATIENCE, self.events.poll()).await.expect("nothing happens")? {
                return Ok(packet);
            }
        }
    }

    /// Connects, or connects again.
    pub async fn connack(&mut self) -> Result<ConnAck, ConnectionError> {
        match self.poll().await? {
            Packet::ConnAck(connack) => Ok(connack),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// Subscribes and waits for the answer.
    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).await.unwrap();
        match self.poll().await.unwrap() {
            Packet::SubAck(_) => {}
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// The next message from the hub.
    pub async fn message(&mut self) -> Publish {
        match self.poll().await.unwrap() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// Publishes at QoS 1 without waiting.
    pub async fn publish(&self, topic: &str, body: impl Into<Vec<u8>>) {
        self.client.publish(topic, body.into(), PublishOptions::at_least_once()).await.unwrap();
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    pub async fn send(&mut self, topic: &str, body: impl Into<Vec<u8>>) -> Result<(), ConnectionError> {
        self.publish(topic, body).await;
        self.puback().await.map(drop)
    }

    /// The packet id of the next acknowledgement.
    pub async fn puback(&mut self) -> Result<u16, ConnectionError> {
        match self.poll().await? {
            Packet::PubAck(puback) => Ok(puback.pkid),
            other => panic!("{other:?} instead of PUBACK"),
        }
    }

    /// Lets the client work, above all on acknowledgements, until the other future is ready.
    pub async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                result = &mut other => return result,
                event = self.events.poll() => drop(event.unwrap()),
            }
        }
    }

    /// Waits until the hub ends the connection. Any packet before the end is a failure.
    pub async fn ended(&mut self) {
        match self.poll().await {
            Err(ConnectionError::MqttState(_) | ConnectionError::Io(_)) => {}
            other => panic!("{other:?} instead of the end"),
        }
    }
}

/// A token for a resource, signed with a Base64 key.
pub fn sign(key: &str, resource: &str, expiry: u64) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let resource = encode(resource);
    let signature = encode(&BASE64_STANDARD.encode(hmac(key, &format!("{resource}\n{expiry}"))));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
}

fn hmac(key: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(key).unwrap()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Status and JSON of an answer. The JSON is null if there is none.
pub async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = timeout(PATIENCE, request.send()).await.expect("no answer").unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
}

/// Microsoft's number of an error, or the name of an error without number.
pub fn error_code(body: &Value) -> String {
    let message = body["Message"].as_str().unwrap_or_else(|| panic!("{body}"));
    match serde_json::from_str::<Value>(message) {
        Ok(inner) => inner["errorCode"].to_string(),
        Err(_) => message.strip_prefix("ErrorCode:").unwrap().split(';').next().unwrap().to_owned(),
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
