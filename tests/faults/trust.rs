//! Tests that certificates are verified with any settings: a server with a wrong certificate gets no data from any
//! client.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, stream};
use rcgen::{CertificateParams, date_time_ymd};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::{
    faults::{
        polls::{self, Polled},
        uplinks,
    },
    support::Authority,
};

/// The number of worlds at a time.
const AT_ONCE: usize = 8;

/// The fault of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certificate {
    Good,
    UnknownAuthority,
    Expired,
    WrongName,
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Backend,
    Cosmos,
    Mqtt,
    MqttWs,
    Https,
    Dps,
    ThingsStack,
}

/// A server that speaks TLS only.
struct Server {
    address: String,
    /// For each connection: whether the client went on after it had seen the certificate.
    handshakes: Arc<Mutex<Vec<bool>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(authority: &Authority, is_expired: bool, name: &str) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if is_expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let handshakes = Arc::new(Mutex::new(Vec::new()));
        let (seen, acceptor) = (handshakes.clone(), TlsAcceptor::from(authority.server(params)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = acceptor.accept(stream).await;
                // If the client sends anything, it has accepted the certificate.
                let went_on = match stream {
                    Ok(mut stream) => stream.read_u8().await.is_ok(),
                    Err(_) => false,
                };
                seen.lock().unwrap().push(went_on);
            }
        });
        Self { address, handshakes, _tasks: tasks }
    }
}

async fn server(trusted: &Authority, certificate: Certificate) -> Server {
    match certificate {
        Certificate::Good => Server::start(trusted, false, "127.0.0.1").await,
        Certificate::UnknownAuthority => Server::start(&Authority::new("unknown"), false, "127.0.0.1").await,
        Certificate::Expired => Server::start(trusted, true, "127.0.0.1").await,
        Certificate::WrongName => Server::start(trusted, false, "another.azure-devices.net").await,
    }
}

/// Every setting that a user might try in order to turn verification off, besides all settings of the example.
fn hopes() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("local.settings.json.example");
    let example: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut settings: Vec<_> = example["Values"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .filter(|(_, value)| !value.contains("REPLACEwith"))
        .collect();
    for (name, value) in [
        ("AZURE_COSMOS_EMULATOR_SERVER_CERT_VALIDATION_DISABLED", "true"),
        ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
        ("PYTHONHTTPSVERIFY", "0"),
        ("SSL_VERIFY", "false"),
        ("CURL_INSECURE", "1"),
        ("IoTHubVerifyCertificate", "false"),
    ] {
        settings.push((name.to_owned(), value.to_owned()));
    }
    settings
}

/// Lets a client talk to a server. Returns the log.
async fn talk(client: Client, server: &Server, trusted: &Authority) -> String {
    if let Client::Dps | Client::ThingsStack = client {
        return talk_after_uplink(client, server, trusted).await;
    }
    let mut world = polls::world().await;
    for (name, value) in hopes() {
        // Keeps the settings that lead to the services of this world.
        world.settings.entry(name).or_insert(value);
    }
    // Only rapidM2M.
    world.unset("UplinkQueueName");
    world.set("PollTimeoutSeconds", "6");
    world.set("SSL_CERT_FILE", trusted.path());
    let place = &server.address;
    match client {
        Client::Backend => world.set("M2MBackendURL", &format!("https://{place}/api/1/")),
        Client::Cosmos => world.set("M2MDocumentsDBUri", &format!("https://{place}/")),
        _ => {
            let transport = match client {
                Client::Mqtt => "mqtt",
                Client::MqttWs => "mqtt-ws",
                _ => "https",
            };
            world.set("IoTHubTransport", transport);
            world.set("IoTHubURL", place);
            world.set("IoTHubTrustedCa", trusted.path());
        }
    }
    let mut polled = Polled::start(world).await;
    polled.add_rows().await;
    assert_eq!(polled.invoke().await.status, 500, "the server answers nothing");
    polled.logged("error: rapidM2MForwarding: ").await;
    polled.world.output()
}

async fn talk_after_uplink(client: Client, server: &Server, trusted: &Authority) -> String {
    let mut world = uplinks::World::start().await;
    for (name, value) in hopes() {
        if !name.starts_with("M2M") && !name.starts_with("IoTHub") && name != "Customer_ID" {
            world.settings.entry(name).or_insert(value);
        }
    }
    world.set("IoTHubTransport", "https");
    world.set("ForwardTimeoutSeconds", "15");
    // Both authorities are trusted: the emulated hub's and the server's.
    let both = [&world.settings["IoTHubTrustedCa"], trusted.path()].map(|path| std::fs::read_to_string(path).unwrap());
    let file = format!("{}-{client:?}-{}", trusted.path(), server.address.replace([':', '.'], "-"));
    std::fs::write(&file, both.concat()).unwrap();
    world.set("IoTHubTrustedCa", &file);
    match client {
        Client::Dps => world.set("DPSGlobalDeviceEndpoint", &format!("https://{}", server.address)),
        _ => world.push = Some(format!("https://{}/down/push", server.address)),
    }
    world.restart().await;
    let device = uplinks::DEVICE;
    world.hub.post(&format!("c2d?device={device}"), json!({"body": "x", "properties": {"Port": "1"}})).await;
    let uplink = world.uplink();
    world.give(uplink).await;
    std::fs::remove_file(file).unwrap();
    world.log()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_who_it_says_gets_nothing() {
    let trusted = Authority::new("trusted");
    let clients = [
        Client::Backend,
        Client::Cosmos,
        Client::Mqtt,
        Client::MqttWs,
        Client::Https,
        Client::Dps,
        Client::ThingsStack,
    ];
    let certificates = [Certificate::Good, Certificate::UnknownAuthority, Certificate::Expired, Certificate::WrongName];
    let cases = clients.into_iter().flat_map(|client| certificates.map(|certificate| (client, certificate)));
    let trusted = &trusted;
    let tried = stream::iter(cases).for_each_concurrent(AT_ONCE, async |(client, certificate)| {
        let server = server(trusted, certificate).await;
        let log = talk(client, &server, trusted).await;
        let handshakes = server.handshakes.lock().unwrap().clone();
        assert!(!handshakes.is_empty(), "{client:?} did not connect");
        if certificate == Certificate::Good {
            // Without this, the other results would prove nothing.
            assert!(handshakes.contains(&true), "{client:?} does not trust the right server: {log}");
            return;
        }
        assert!(!handshakes.contains(&true), "{client:?} went on with a server whose certificate is: {certificate:?}");
        let ours: Vec<_> = log.lines().filter(|line| line.starts_with("warn: ")).collect();
        let says_why = ours.iter().any(|line| line.contains("certificate") || line.contains("cannot be reached"));
        assert!(says_why, "{client:?}, {certificate:?}: {ours:?}");
    });
    tried.await;
}
