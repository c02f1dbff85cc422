use base64::{Engine, prelude::BASE64_STANDARD};
use emulators::iot_hub::Options;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::client::{HUB, Hub, answer, error_code, now};

const BATCH: &str = "application/vnd.microsoft.iothub.json";

#[tokio::test]
async fn a_message_arrives_with_its_headers_as_properties() {
    let hub = Hub::start().await;
    let request = hub
        .post("d", "Grüße")
        .header("iothub-messageid", "a b/1")
        .header("iothub-correlationid", "c")
        .header("iothub-contenttype", "application/json")
        .header("iothub-contentencoding", "utf-8")
        .header("iothub-creationtimeutc", "2021-04-21T11:30:16Z")
        .header("iothub-app-Site_Id", "Brücke 1".as_bytes())
        .header("iothub-to", "/devices/d/messages/events");
    assert_eq!(answer(request).await, (204, Value::Null));
    let received = &hub.get("received?wait=1").await[0];
    assert_eq!((&received["deviceId"], &received["transport"]), (&json!("d"), &json!("https")));
    let system = json!({
        "$.mid": "a b/1", "$.cid": "c", "$.ct": "application/json", "$.ce": "utf-8", "$.ctime": "2021-04-21T11:30:16Z",
    });
    assert_eq!(received["systemProperties"], system);
    assert_eq!(received["properties"], json!({"site_id": "Brücke 1"}), "names of headers have no case");
    assert_eq!((&received["body"], &received["messageId"]), (&json!("Grüße"), &json!("a b/1")));
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_order_or_not_at_all() {
    let hub = Hub::start().await;
    let message = |number: usize| {
        let body = BASE64_STANDARD.encode(number.to_string());
        let properties = json!({"iothub-app-Site_Id": "é", "iothub-messageid": number.to_string()});
        json!({"body": body, "base64Encoded": true, "properties": properties})
    };
    let batch = json!([message(0), message(1), {"body": "2"}]).to_string();
    assert_eq!(answer(hub.post("d", batch).header("Content-Type", BATCH)).await.0, 204);
    let spoilt = json!([message(3), {"body": "?", "base64Encoded": true}]).to_string();
    let (status, body) = answer(hub.post("d", spoilt).header("Content-Type", BATCH)).await;
    assert_eq!((status, error_code(&body).as_str()), (400, "ArgumentInvalid"));
    assert_eq!(hub.bodies(3).await, ["0", "1", "2"]);
    let received = hub.get("received").await;
    assert_eq!((&received[1]["messageId"], &received[1]["properties"]), (&json!("1"), &json!({"Site_Id": "é"})));
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let hub = Hub::start().await;
    assert_eq!(answer(hub.post("d", vec![b'x'; 262_144])).await.0, 204);
    let with_property = hub.post("d", vec![b'x'; 262_143]).header("iothub-app-a", "b");
    for request in [hub.post("d", vec![b'x'; 262_145]), with_property, hub.post("d", vec![b'x'; 1_000_000])] {
        let (status, body) = answer(request).await;
        assert_eq!((status, error_code(&body).as_str()), (413, "MessageTooLarge"));
    }
    let counts = hub.get("counts").await;
    assert_eq!(
        (&counts["messages"], &counts["httpsRequests"], &counts["httpsFailures"]),
        (&1.into(), &4.into(), &3.into())
    );
}

#[tokio::test]
async fn only_a_device_with_a_good_token_may_send() {
    let hub = Hub::start().await;
    let other_key = Hub::start().await;
    let host = hub.emulator.ready().https.strip_prefix("https://").unwrap().to_owned();
    for token in [
        "secret".to_owned(),
        other_key.token(&host, "d", now() + 60),
        hub.token(&host, "d", now() - 1),
        hub.token(&host, "e", now() + 60),
        hub.token(HUB, "d", now() + 60),
    ] {
        let (status, body) = answer(hub.post_with("d", &token, "x")).await;
        assert_eq!((status, error_code(&body).as_str()), (401, "401003"), "{token}");
    }
    let without = hub.https.post(format!("https://{host}/devices/d/messages/events?api-version=2021-04-12")).body("x");
    assert_eq!(answer(without).await.0, 401);
    let (status, body) = answer(hub.post("a b", "x")).await;
    assert_eq!((status, error_code(&body).as_str()), (404, "404001"));
    assert_eq!(hub.get("received").await, json!([]));
    assert_eq!(answer(hub.post("a%20b=1", "x")).await.0, 204, "an id that looks encoded");
    assert_eq!(hub.get("received").await[0]["deviceId"], "a%20b=1");
}

#[tokio::test]
async fn a_hub_with_a_name_wants_it_as_host() {
    let hub = Hub::start_with(Options { hub_name: Some(HUB.into()), ..Options::default() }).await;
    for (host, status) in [(HUB, 204), ("else.azure-devices.net", 401)] {
        let request = hub.post_with("d", &hub.token(host, "d", now() + 60), "x").header("Host", host);
        assert_eq!(answer(request).await.0, status, "{host}");
    }
}

#[tokio::test]
async fn an_expired_token_is_refused_over_https_too() {
    let hub = Hub::start().await;
    let host = hub.emulator.ready().https.strip_prefix("https://").unwrap().to_owned();
    let token = hub.token(&host, "d", now() + 60);
    assert_eq!(answer(hub.post_with("d", &token, "x")).await.0, 204);
    hub.request("POST", "expire?refuse=true", "").await;
    assert_eq!(answer(hub.post_with("d", &token, "x")).await.0, 401);
}

#[tokio::test]
async fn a_version_is_needed_and_so_is_a_path_that_exists() {
    let hub = Hub::start().await;
    let https = &hub.emulator.ready().https;
    for (path, status) in [
        ("/devices/d/messages/events", 400),
        ("/devices/d/messages/events?api-version=2001-01-01", 400),
        ("/devices/d/messages?api-version=2021-04-12", 404),
        ("/", 404),
    ] {
        let (answered, body) = answer(hub.https.post(format!("{https}{path}")).body("x")).await;
        assert_eq!(answered, status, "{path}: {body}");
        assert!(["ArgumentInvalid", "NotFound"].contains(&error_code(&body).as_str()));
    }
}

#[tokio::test]
async fn every_port_speaks_every_protocol_and_a_pool_serves_many_devices() {
    let hub = Hub::start().await;
    let ready = hub.emulator.ready().clone();
    for number in 0..10 {
        assert_eq!(answer(hub.post(&format!("d{number}"), "x")).await.0, 204);
    }
    assert_eq!(hub.get("counts").await["connections"], 1);
    let url = format!("https://{}/devices/d/messages/events?api-version=2021-04-12", ready.mqtt);
    let request = hub.https.post(url).header("Authorization", hub.token(&ready.mqtt, "d", now() + 60)).body("x");
    assert_eq!(answer(request).await.0, 204);
    for address in [ready.https.strip_prefix("https://").unwrap(), ready.dps.strip_prefix("https://").unwrap()] {
        let mut stream = hub.raw_at(address).await;
        stream.write_all(&hub.identity("d").connect_packet(60)).await.unwrap();
        let mut connack = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut connack).await.unwrap();
        assert_eq!(connack, *b"\x20\x02\x00\x00");
    }
    let counts = hub.get("counts").await;
    assert_eq!((&counts["connections"], &counts["dpsConnections"]), (&json!(3), &json!(1)));
    assert_eq!(counts["perDevice"]["d3"], json!({"messages": 1, "connects": 0, "requests": 1}));
}

#[tokio::test]
async fn the_doors_close_apart_from_each_other() {
    let hub = Hub::start().await;
    let dps = hub.emulator.ready().dps.clone();
    assert_eq!(hub.request("PUT", "away", "true").await.0, 204);
    assert!(hub.post("d", "x").send().await.unwrap_err().is_connect());
    assert_eq!(answer(hub.https.get(&dps)).await.0, 404);
    assert_eq!(hub.request("PUT", "dps/away", "true").await.0, 204);
    assert!(hub.https.get(&dps).send().await.is_err());
    assert_eq!(hub.request("PUT", "away", "false").await.0, 204);
    assert_eq!(answer(hub.post("d", "x")).await.0, 204);
    assert!(hub.https.get(&dps).send().await.is_err());
    assert_eq!(hub.request("PUT", "dps/away", "false").await.0, 204);
    assert_eq!(answer(hub.https.get(&dps)).await.0, 404);
    for path in ["cut", "dps/cut"] {
        assert_eq!(hub.request("POST", path, "").await.0, 204);
    }
    assert_eq!(answer(hub.post("d", "x")).await.0, 204, "cut, but not away");
}
