//! Tests faults of the hub over MQTT and over MQTT in WebSockets.

use std::{sync::Arc, time::Duration};

use rumqttc::{AsyncClient, Broker, MqttOptions, SessionMode, TlsConfiguration, Transport};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::world::{Polled, SITE, platform, world};
use crate::{
    faults::{
        cell::{
            Line,
            Recovers::{self, NextRun, SameRun},
        },
        table,
    },
    support::{World, token},
};

#[derive(Clone, Copy)]
enum Trouble {
    Away,
    /// The body of `PUT faults`.
    Switch(fn() -> Value),
    Untrusted,
    /// The token expires while a message is in flight.
    TokenEnds,
    /// Another client connects with the same device id, again and again.
    Takeover,
}

#[derive(Clone, Copy)]
struct Cell {
    fault: &'static str,
    trouble: Trouble,
    recorded: &'static str,
    kind: &'static str,
    says: &'static str,
    recovers: Recovers,
    /// The hub gets the message at least this often, under the same id, while the fault lasts.
    arrivals: u64,
}

const fn cell(
    fault: &'static str,
    trouble: Trouble,
    outcome: (&'static str, &'static str),
    says: &'static str,
    recovers: Recovers,
    arrivals: u64,
) -> Cell {
    Cell { fault, trouble, recorded: outcome.0, kind: outcome.1, says, recovers, arrivals }
}

const FINE: (&str, &str) = ("forwarded", "-");

#[rustfmt::skip]
const CELLS: [Cell; 16] = [
    cell("connection refused", Trouble::Away, ("pending", "hub_unreachable"), "the hub cannot be reached", NextRun, 0),
    cell("certificate is not trusted", Trouble::Untrusted, ("pending", "hub_untrusted"), "set IoTHubTrustedCa", NextRun, 0),
    cell("CONNECT refused (5)", Trouble::Switch(|| json!({"refuse": true})), ("pending", "hub_refused"),
        "the hub refused device gateway-1: the token or key is wrong", NextRun, 0),
    cell("CONNECT refused (3, unavailable)", Trouble::Switch(|| json!({"serverUnavailable": true})), ("pending", "hub_unreachable"),
        "says that it is unavailable", NextRun, 0),
    cell("CONNECT is never answered", Trouble::Switch(|| json!({"ignoreConnects": true})), ("pending", "hub_unreachable"),
        "did not answer within 10 s", NextRun, 0),
    cell("cut before the PUBACK, recorded", Trouble::Switch(|| json!({"dropBeforePubackTimes": 1})), FINE, "", SameRun, 2),
    cell("cut before the PUBACK, not recorded", Trouble::Switch(|| json!({"dropBeforePubackTimes": 1, "recordDropped": false})), FINE,
        "", SameRun, 1),
    cell("cut before every PUBACK, recorded", Trouble::Switch(|| json!({"dropBeforePubackTimes": 1_000})), ("pending", "hub_accepted_then_cut"),
        "daily quota is used up, or another client", NextRun, 3),
    cell("cut after each message", Trouble::Switch(|| json!({"cutAfterMessages": 1})), FINE, "", SameRun, 1),
    cell("token ends while a message is on its way", Trouble::TokenEnds, FINE, "", SameRun, 1),
    cell("another client with the same device id", Trouble::Takeover, ("pending", "hub_accepted_then_cut"),
        "another client uses the same device id", NextRun, 1),
    cell("daily quota is used up: accepted, then cut", Trouble::Switch(|| json!({"cutAfterConnectTimes": 1_000_000})),
        ("pending", "hub_accepted_then_cut"), "daily quota is used up", NextRun, 0),
    cell("throttling: late PUBACKs", Trouble::Switch(|| json!({"pubackDelayMs": 1_500})), FINE, "", SameRun, 1),
    cell("throttling: PUBACKs later than anybody waits", Trouble::Switch(|| json!({"pubackDelayMs": 600_000})),
        ("pending", "hub_stalled"), "the hub has acknowledged nothing for 15 s", NextRun, 1),
    cell("throttling: late PUBACKs, then cut", Trouble::Switch(|| json!({"pubackDelayMs": 3_000, "cutAfterMs": 200})),
        ("pending", "hub_accepted_then_cut"), "daily quota is used up, or another client", NextRun, 3),
    cell("messages are ignored", Trouble::Switch(|| json!({"ignorePublishes": true})), ("pending", "hub_stalled"),
        "the hub has acknowledged nothing for 15 s", NextRun, 0),
];

async fn mqtt() -> Vec<String> {
    table::run("mqtt", CELLS.to_vec(), |cell| cell.fault.into(), |cell| one("mqtt", cell)).await
}

async fn mqtt_ws() -> Vec<String> {
    table::run("mqtt_ws", CELLS.to_vec(), |cell| cell.fault.into(), |cell| one("mqtt-ws", cell)).await
}

async fn one(transport: &'static str, cell: Cell) -> Line {
    let mut world = world().await;
    world.set("IoTHubTransport", transport);
    if transport == "mqtt-ws" {
        let place = world.hub.ready("https").trim_start_matches("https://").to_owned();
        world.set("IoTHubURL", &place);
    }
    let trusted = world.settings["IoTHubTrustedCa"].clone();
    if let Trouble::Untrusted = cell.trouble {
        world.set("IoTHubTrustedCa", &platform());
    }
    let mut polled = Polled::start(world).await;
    polled.add_rows().await;
    let run = polled
        .observe(
            async |polled| {
                let world = &polled.world;
                match cell.trouble {
                    Trouble::Away => world.hub.away(true).await,
                    Trouble::Switch(switch) => world.hub.put("faults", switch()).await,
                    Trouble::Untrusted => {}
                    Trouble::TokenEnds => {
                        world.hub.put("faults", json!({"pubackDelayMs": 3_000})).await;
                        let ending = async {
                            world.hub.get("received?wait=1").await;
                            world.hub.heal().await;
                            world.hub.post("expire", Value::Null).await;
                        };
                        return tokio::join!(polled.handler.invoke(), ending).0;
                    }
                    Trouble::Takeover => {
                        // Nothing is acknowledged before the other client is back.
                        world.hub.put("faults", json!({"pubackDelayMs": 1_500})).await;
                        let rival = Rival::start(world, &trusted);
                        let answer = polled.invoke().await;
                        rival.stop();
                        return answer;
                    }
                }
                polled.invoke().await
            },
            async |world| {
                world.hub.heal().await;
                world.hub.away(false).await;
            },
        )
        .await;
    assert_eq!(
        (run.outcomes().as_str(), run.kinds().as_str()),
        (cell.recorded, cell.kind),
        "{}",
        polled.told(&run.answer)
    );
    let seen = run.seen_text(&polled.world);
    for text in run.texts() {
        assert!(text.contains(cell.says), "{:?} is not in {text:?}", cell.says);
        polled.logged(&text).await;
    }
    let arrivals = polled.world.hub.get("counts").await["messages"].as_u64();
    assert!(arrivals >= Some(cell.arrivals), "{arrivals:?} messages have arrived, not {}", cell.arrivals);
    if let Trouble::Untrusted = cell.trouble {
        polled.world.set("IoTHubTrustedCa", &trusted);
        polled.restart().await;
    }
    if cell.recovers == NextRun {
        polled.invoke_ok().await;
    }
    assert_eq!(polled.world.cursor(SITE).await["Unforwarded"], json!([]), "it is there");
    polled.assert_all_is_well().await;
    Line {
        fault: cell.fault.into(),
        recorded: run.recorded_text(),
        seen,
        recovers: if let Trouble::Untrusted = cell.trouble {
            "when the setting is mended"
        } else {
            cell.recovers.text()
        },
    }
}

/// Another client with the device's id. It connects again as soon as it is cut.
struct Rival(JoinHandle<()>);

impl Rival {
    fn start(world: &World, trusted: &str) -> Self {
        let (host, port) = world.hub.ready("mqtt").split_once(':').unwrap();
        let (host, port) = (host.to_owned(), port.parse().unwrap());
        let password = token(&host, "gateway-1", world.hub.ready("key"), 3_600);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let tls =
            tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
        let tls = Arc::new(tls);
        Self(tokio::spawn(async move {
            loop {
                let mut options = MqttOptions::new("gateway-1", Broker::tcp(host.clone(), port));
                options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls.clone())));
                options.set_session_mode(SessionMode::Persistent);
                options.set_credentials(format!("{host}/gateway-1/?api-version=2021-04-12"), password.clone());
                let (_client, mut events) = AsyncClient::builder(options).build();
                while events.poll().await.is_ok() {}
                // A pause between two attempts, as any client makes it.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }))
    }

    fn stop(self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hub_over_mqtt() {
    table::report(<[_; 2]>::from(tokio::join!(mqtt(), mqtt_ws())));
}
