//! The least that a poll takes with the same clients: GET, recording batch, publish and PUBACK over TLS, marking batch, on
//! one thread. No retries, no windows, no limits, no logs. What the connector costs beyond it is its own.
//!
//! The benchmark starts it as a process of its own: it polls all sites once for each line that it is sent.

use std::{io, sync::Arc};

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, PartitionKey, RoutingStrategy, TransactionalBatch,
    clients::ContainerClient,
    options::{BatchReplaceOptions, Precondition},
};
use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use iothub_connector::iot_hub::{device::decode_key, sas};
use percent_encoding::utf8_percent_encode;
use rumqttc::{
    AsyncClient, Broker, Event, MqttOptions, NetworkOptions, Packet, PublishOptions, TlsConfiguration, Transport,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// As the connector does it by default.
const SITES_AT_ONCE: usize = 16;
const IN_FLIGHT: u16 = 100;
/// Its documents' partitions.
const CUSTOMER: &str = "The floor";
const DEVICE: &str = "floor";
const CHANNELS: [&str; 3] = ["ch0", "ch1", "ch2"];
/// Digits of a stamp.
const DIGITS: usize = 17;

/// Where everything is.
#[derive(Serialize, Deserialize)]
pub struct Services {
    /// The URL of all sites, with a slash at the end.
    pub backend: String,
    pub authorization: String,
    pub sites: usize,
    pub cosmos: String,
    pub cosmos_key: String,
    /// Both are there already.
    pub database: String,
    pub container: String,
    pub hub: String,
    pub hub_key: String,
    pub ca: String,
}

struct Floor {
    services: Services,
    http: reqwest::Client,
    container: ContainerClient,
    mqtt: AsyncClient,
}

struct Site {
    name: String,
    newest: String,
    etag: Option<String>,
    polls: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Poll<'a> {
    #[serde(rename = "id")]
    id: &'a str,
    #[serde(rename = "Customer_Id")]
    customer: &'a str,
    #[serde(rename = "Site_Id")]
    site: &'a str,
    outcome: &'a str,
    io_t_hub_message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cursor<'a> {
    #[serde(rename = "id")]
    id: &'a str,
    #[serde(rename = "Customer_Id")]
    customer: &'a str,
    #[serde(rename = "Site_Id")]
    site: &'a str,
    last_value_from: &'a str,
    unforwarded: &'a [&'a str],
}

/// Polls until standard input ends.
pub async fn run(services: Services) {
    let floor = Floor::connect(services).await;
    let site = |number| Site { name: format!("site-{number:05}"), newest: "2000".into(), etag: None, polls: 0 };
    let mut sites: Vec<_> = (0..floor.services.sites).map(site).collect();
    loop {
        println!("ready");
        // On another thread: the connections go on meanwhile.
        let line = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await;
        if line.expect("no panic").expect("the benchmark writes") == 0 {
            return;
        }
        futures::stream::iter(&mut sites).for_each_concurrent(SITES_AT_ONCE, |site| floor.poll(site)).await;
    }
}

impl Floor {
    async fn connect(services: Services) -> Self {
        let key = Secret::new(services.cosmos_key.clone());
        let account = AccountReference::with_authentication_key(services.cosmos.parse().expect("a URL"), key);
        let runtime = CosmosRuntime::builder().build().await.expect("the SDK's runtime");
        let client = CosmosClient::builder().with_runtime(runtime);
        let client = client.build(account, RoutingStrategy::PreferredRegions(Vec::new())).await.expect("an account");
        let database = client.database_client(services.database.clone());
        let container = database.container_client(services.container.clone(), None).await.expect("a container");
        let mqtt = connect_to_hub(&services).await;
        Self { services, http: reqwest::Client::new(), container, mqtt }
    }

    async fn poll(&self, site: &mut Site) {
        let body = self.get(site).await;
        let (message, newest) = message(&body, site);
        site.newest = newest;
        site.polls += 1;
        let id = format!("{:08}", site.polls);
        let mut poll =
            Poll { id: &id, customer: CUSTOMER, site: &site.name, outcome: "pending", io_t_hub_message: &message };
        let mut cursor = Cursor {
            id: "cursor",
            customer: CUSTOMER,
            site: &site.name,
            last_value_from: &site.newest,
            unforwarded: &[&id],
        };
        let batch = self.batch(site).create_item(&poll).expect("JSON");
        let etag = self.commit(batch, &cursor, site.etag.as_deref()).await;

        let topic = format!("devices/{DEVICE}/messages/events/%24.mid={}-{id}", site.name);
        let published = self.mqtt.publish_tracked(topic, message.clone(), PublishOptions::at_least_once()).await;
        published.expect("a connection").wait_async().await.expect("an acknowledgement");

        (poll.outcome, cursor.unforwarded) = ("forwarded", &[]);
        let batch = self.batch(site).replace_item(id.clone(), &poll, None).expect("JSON");
        site.etag = Some(self.commit(batch, &cursor, Some(&etag)).await);
    }

    async fn get(&self, site: &Site) -> bytes::Bytes {
        let query = serde_json::json!({ "select": CHANNELS, "from": site.newest, "until": "*" }).to_string();
        let query = utf8_percent_encode(&query, sas::RESERVED);
        let url = format!("{}{}/histdata0?json={query}", self.services.backend, site.name);
        let answer = self.http.get(url).header("authorization", &self.services.authorization).send().await;
        answer.and_then(reqwest::Response::error_for_status).expect("an answer").bytes().await.expect("a body")
    }

    fn batch(&self, site: &Site) -> TransactionalBatch {
        TransactionalBatch::new(PartitionKey::from((CUSTOMER.to_owned(), site.name.clone())))
    }

    /// Returns the cursor's new ETag.
    async fn commit(&self, batch: TransactionalBatch, cursor: &Cursor<'_>, etag: Option<&str>) -> String {
        let batch = match etag {
            None => batch.create_item(cursor),
            Some(etag) => {
                let unchanged = BatchReplaceOptions::default().with_precondition(Precondition::if_match(etag));
                batch.replace_item("cursor", cursor, Some(unchanged))
            }
        };
        let response = self.container.execute_transactional_batch(batch.expect("JSON"), None).await.expect("an answer");
        let response = response.into_model().expect("results");
        assert!(response.results().iter().all(|result| result.is_success()));
        response.results().last().and_then(|result| result.etag()).expect("the cursor's").to_owned()
    }
}

/// The rows of an answer in the shape that the hub gets, and the stamp of the last one.
fn message(body: &[u8], site: &Site) -> (String, String) {
    let rows: Vec<Vec<&RawValue>> = serde_json::from_slice(body).expect("rows");
    let stamp = |row: &[&RawValue]| row[0].get().trim_matches('"').to_owned();
    let newest = stamp(rows.last().expect("a row"));
    let mut text = format!(r#"{{"customer_id":"{CUSTOMER}","site_id":"{}","Timeseries":["#, site.name);
    let mut full = String::with_capacity(DIGITS);
    for row in rows.iter().filter(|row| stamp(row) != site.newest) {
        full.clear();
        full.push_str(row[0].get().trim_matches('"'));
        full.extend(std::iter::repeat_n('0', DIGITS - full.len()));
        text.push_str(r#"{"Timestamp":""#);
        for (part, separator) in [(0..4, "-"), (4..6, "-"), (6..8, "T"), (8..10, ":"), (10..12, ":"), (12..14, "Z")] {
            text.push_str(&full[part]);
            text.push_str(separator);
        }
        text.push_str(r#"","Channels":{"#);
        for (name, value) in CHANNELS.iter().zip(&row[1..]) {
            for part in ["\"", name, "\":", value.get(), ","] {
                text.push_str(part);
            }
        }
        text.pop();
        text.push_str("}},");
    }
    text.pop();
    text.push_str("]}");
    (text, newest)
}

async fn connect_to_hub(services: &Services) -> AsyncClient {
    let (host, port) = services.hub.rsplit_once(':').expect("host and port");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&services.ca).expect("a certificate")).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let key = decode_key(&services.hub_key).expect("a key");
    let expires = Utc::now() + TimeDelta::hours(1);
    let token = sas::mint(&sas::device_resource(host, DEVICE), key.expose_secret(), expires, None);
    let mut options = MqttOptions::new(DEVICE, Broker::tcp(host, port.parse().expect("a port")));
    options
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))))
        .set_credentials(format!("{host}/{DEVICE}/?api-version=2021-04-12"), token.expose_secret().to_owned())
        .set_keep_alive(60)
        .set_inflight(IN_FLIGHT);
    let (client, mut events) = AsyncClient::builder(options).capacity(usize::from(IN_FLIGHT)).build();
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    while !matches!(events.poll().await.expect("a connection"), Event::Incoming(Packet::ConnAck(_))) {}
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    client
}
