use std::fs;

use emulators::iot_hub::Options;
use rumqttc::{ConnectReturnCode, ConnectionError};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{HUB, Hub, Identity, now};

async fn refused(hub: &Hub, identity: &Identity) {
    let error = hub.connect(identity).await.err().expect("a CONNECT that must be refused was accepted");
    let code = ConnectReturnCode::NotAuthorized;
    assert!(matches!(error, ConnectionError::ConnectionRefused(refusal) if refusal == code), "{error:?}");
}

#[tokio::test]
async fn a_session_is_present_the_second_time_unless_it_is_clean() {
    let hub = Hub::start().await;
    let mut identity = hub.identity("d");
    let mut present = vec![];
    for clean in [false, false, true, false] {
        identity.clean = clean;
        present.push(hub.connect(&identity).await.unwrap().1.session_present);
    }
    assert_eq!(present, [false, true, false, false]);
}

#[tokio::test]
async fn a_refusal_is_return_code_5() {
    let hub = Hub::start().await;
    let good = hub.identity("d");
    let other_key = Hub::start().await.token(HUB, "d", now() + 60);
    for password in [
        "secret".to_owned(),
        other_key,
        hub.token(HUB, "d", now() - 1),
        hub.token(HUB, "e", now() + 60),
        hub.token("other.azure-devices.net", "d", now() + 60),
    ] {
        refused(&hub, &Identity { password, ..good.clone() }).await;
    }
    for user_name in [format!("{HUB}/d"), format!("{HUB}/e/?api-version=2021-04-12"), "d".to_owned()] {
        refused(&hub, &Identity { user_name, ..good.clone() }).await;
    }
    let counts = hub.get("counts").await;
    assert_eq!((&counts["refused"], &counts["connects"]), (&json!(8), &json!(0)));
    hub.connect(&good).await.unwrap();
}

#[tokio::test]
async fn a_hub_with_a_name_answers_to_it_and_to_its_address() {
    let hub = Hub::start_with(Options { hub_name: Some(HUB.into()), ..Options::default() }).await;
    for (host, accepted) in [(HUB, true), (hub.emulator.ready().mqtt.as_str(), true), ("else.azure-devices.net", false)]
    {
        let mut identity = hub.identity("d");
        identity.user_name = identity.user_name.replace(HUB, host);
        identity.password = hub.token(host, "d", now() + 60);
        match accepted {
            true => drop(hub.connect(&identity).await.unwrap()),
            false => refused(&hub, &identity).await,
        }
    }
}

#[tokio::test]
async fn the_key_and_the_directory_of_the_ca_can_be_chosen() {
    let directory = std::env::temp_dir().join(format!("iot-hub-ca-{}", std::process::id()));
    let key = "a2V5".to_owned();
    let options = Options { device_key: Some(key.clone()), ca_dir: Some(directory.clone()), ..Options::default() };
    let hub = Hub::start_with(options).await;
    assert_eq!((&hub.emulator.ready().key, &hub.emulator.ready().ca), (&key, &directory.join("ca.pem")));
    hub.connected("d").await;
    fs::remove_dir_all(directory).unwrap();
    let no_base64 = Options { device_key: Some("?".into()), ..Options::default() };
    assert!(emulators::iot_hub::start(no_base64).await.is_err());
}

#[tokio::test]
async fn a_client_that_trusts_another_ca_does_not_connect() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    let ca = fs::read(&other.emulator.ready().ca).unwrap();
    let error = hub.device(&hub.identity("d"), ca).connack().await.unwrap_err();
    assert!(matches!(error, ConnectionError::Tls(_) | ConnectionError::Io(_)), "{error:?}");
}

#[tokio::test]
async fn the_newer_connection_of_a_device_wins() {
    let hub = Hub::start().await;
    let mut older = hub.connected("d").await;
    let mut newer = hub.connected("d").await;
    older.ended().await;
    newer.send("devices/d/messages/events/", "x").await.unwrap();
    let counts = hub.get("counts").await;
    assert_eq!(counts["connected"], json!(["d"]));
    assert_eq!(counts["perDevice"], json!({"d": {"messages": 1, "connects": 2, "requests": 0}}));
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let hub = Hub::start().await;
    let expiry = now() + 3;
    let identity = Identity { password: hub.token(HUB, "d", expiry), ..hub.identity("d") };
    let (mut device, _) = hub.connect(&identity).await.unwrap();
    device.ended().await;
    assert!(now() >= expiry);
    refused(&hub, &identity).await;
}

#[tokio::test]
async fn tokens_can_be_made_to_expire() {
    let hub = Hub::start().await;
    let identity = hub.identity("d");
    let (mut device, _) = hub.connect(&identity).await.unwrap();
    assert_eq!(hub.request("POST", "expire", "").await, (200, json!({"ended": 1})));
    device.ended().await;
    let (mut device, _) = hub.connect(&identity).await.unwrap();
    hub.request("POST", "expire?refuse=true", "").await;
    device.ended().await;
    refused(&hub, &identity).await;
    hub.connect(&Identity { password: hub.token(HUB, "d", now() + 1800), ..identity }).await.unwrap();
}

#[tokio::test]
async fn a_silent_device_is_cut_after_one_and_a_half_keep_alive_times() {
    let hub = Hub::start().await;
    let mut stream = hub.raw().await;
    stream.write_all(&hub.identity("d").connect_packet(1)).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, *b"\x20\x02\x00\x00");
    // A ping restarts the keep-alive time.
    stream.write_all(b"\xC0\x00").await.unwrap();
    let asked = std::time::Instant::now();
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\xD0\x00");
    assert!(asked.elapsed().as_millis() >= 1490, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn what_is_not_mqtt_3_1_1_is_cut() {
    let hub = Hub::start().await;
    let connect = hub.identity("d").connect_packet(60);
    assert_eq!(hub.exchange(b"\x00\x00").await, b"", "no such packet");
    assert_eq!(hub.exchange(b"\xC0\x00").await, b"", "PINGREQ before CONNECT");
    assert_eq!(hub.exchange(b"\x10\x0D\x00\x04MQTT\x05\xC2\x00\x3C\x00\x00\x00").await, b"\x20\x02\x00\x01", "MQTT 5");
    let accepted = b"\x20\x02\x00\x00".as_slice();
    assert_eq!(
        hub.exchange(&[&connect, b"\xC0\x00\xE0\x00".as_slice()].concat()).await,
        [accepted, b"\xD0\x00"].concat()
    );
    assert_eq!(hub.exchange(&[&connect[..], &connect].concat()).await, accepted, "CONNECT twice");
    assert_eq!(hub.exchange(&[&connect, b"\x20\x02\x00\x00".as_slice()].concat()).await, accepted, "a server's packet");
    assert_eq!(hub.exchange(&[&connect, b"\x30\xFF\xFF\xFF\x7F".as_slice()].concat()).await, accepted, "256 MB");
}
