use emulators::iot_hub::Options;
use rumqttc::{ConnectReturnCode, ConnectionError};
use serde_json::json;

use crate::client::{HUB, Hub, Identity, answer, error_code, now, sign};

/// A key that is not the hub's, Base64.
const KEY: &str = "b3du";

async fn refused(hub: &Hub, identity: &Identity) {
    let error = hub.connect(identity).await.err().expect("a CONNECT that must be refused was accepted");
    let code = ConnectReturnCode::NotAuthorized;
    assert!(matches!(error, ConnectionError::ConnectionRefused(refusal) if refusal == code), "{error:?}");
}

/// The answer to a message over HTTPS: status and error code. The code is empty after 204.
async fn sent(hub: &Hub, device_id: &str, key: &str) -> (u16, String) {
    let token = sign(key, &format!("{HUB}/devices/{device_id}"), now() + 60);
    let (status, body) = answer(hub.post_with(device_id, &token, "x").header("Host", HUB)).await;
    (status, if status == 204 { String::new() } else { error_code(&body) })
}

#[tokio::test]
async fn a_registered_device_has_a_key_of_its_own() {
    let hub = Hub::start().await;
    let shared = hub.emulator.ready().key.clone();
    assert_eq!(sent(&hub, "d", &shared).await, (204, String::new()));
    assert_eq!(hub.request("PUT", "devices?device=d", r#"{"key":"b3du"}"#).await.0, 204);
    assert_eq!(hub.get("devices").await, json!({"d": {"enabled": true, "key": KEY}}));
    hub.connect(&hub.identity_with("d", KEY)).await.unwrap();
    refused(&hub, &hub.identity("d")).await;
    assert_eq!(sent(&hub, "d", KEY).await.0, 204);
    assert_eq!(sent(&hub, "d", &shared).await, (401, "401003".into()));
    hub.connect(&hub.identity("e")).await.expect("others have the shared key");
}

#[tokio::test]
async fn without_a_key_it_is_the_one_derived_from_the_group_key() {
    let hub = Hub::start().await;
    assert_eq!(hub.request("PUT", "devices?device=d", "{}").await.0, 204);
    hub.connect(&hub.identity_with("d", &hub.derived_key("d"))).await.unwrap();
}

#[tokio::test]
async fn a_disabled_device_is_disconnected_until_it_is_enabled() {
    let hub = Hub::start().await;
    hub.request("PUT", "devices?device=d", r#"{"key":"b3du"}"#).await;
    let identity = hub.identity_with("d", KEY);
    let (mut device, _) = hub.connect(&identity).await.unwrap();
    assert_eq!(hub.request("PUT", "devices?device=d", r#"{"enabled":false}"#).await.0, 204);
    device.ended().await;
    refused(&hub, &identity).await;
    assert_eq!(sent(&hub, "d", KEY).await, (403, "403012".into()));
    assert_eq!(sent(&hub, "d", "YW55").await, (401, "401003".into()), "a bad token comes first");
    assert_eq!(hub.request("PUT", "devices?device=d", r#"{"enabled":true}"#).await.0, 204);
    assert!(hub.connect(&identity).await.unwrap().1.session_present);
}

#[tokio::test]
async fn a_deleted_device_is_disconnected_and_unknown() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    assert_eq!(hub.request("DELETE", "devices?device=d", "").await.0, 204);
    device.ended().await;
    refused(&hub, &hub.identity("d")).await;
    let shared = hub.emulator.ready().key.clone();
    assert_eq!(sent(&hub, "d", &shared).await, (404, "404001".into()));
    assert_eq!(hub.get("devices").await, json!({}));
    hub.request("PUT", "devices?device=d", r#"{"key":"b3du"}"#).await;
    assert!(!hub.connect(&hub.identity_with("d", KEY)).await.unwrap().1.session_present);
}

#[tokio::test]
async fn a_message_for_a_device_that_is_not_known_is_refused() {
    for strict in [true, false] {
        let hub = Hub::start_with(Options { strict, ..Options::default() }).await;
        let post = || hub.request("POST", "c2d?device=d", r#"{"body":"x"}"#);
        assert_eq!(post().await.0, if strict { 404 } else { 201 });
        assert_eq!(hub.request("PUT", "devices?device=d", "{}").await.0, 204);
        assert_eq!(post().await.0, 201);
        assert_eq!(hub.request("DELETE", "devices?device=d", "").await.0, 204);
        let (status, body) = post().await;
        assert_eq!(status, 404);
        assert!(body["error"].as_str().unwrap().contains("DeviceNotFound"), "{body}");
    }
}

#[tokio::test]
async fn a_strict_hub_lets_registered_devices_in_only() {
    let hub = Hub::start_with(Options { strict: true, ..Options::default() }).await;
    refused(&hub, &hub.identity("d")).await;
    assert_eq!(sent(&hub, "d", &hub.emulator.ready().key).await, (404, "404001".into()));
    let key = json!({"key": hub.emulator.ready().key}).to_string();
    hub.request("PUT", "devices?device=d", &key).await;
    hub.connect(&hub.identity("d")).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_a_reason() {
    let hub = Hub::start().await;
    for (path, body, reason) in [
        ("devices", "{}", "missing field `device`"),
        ("devices?device=a%20b", "{}", "no device can have the id"),
        ("devices?device=d", r#"{"key":"?"}"#, "not Base64"),
        ("devices?device=d", r#"{"disabled":true}"#, "unknown field"),
    ] {
        let (status, answer) = hub.request("PUT", path, body).await;
        assert_eq!(status, 400, "{path} {body}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{path} {body}: {answer}");
    }
    assert_eq!(hub.get("devices").await, json!({}));
}

#[tokio::test]
async fn a_token_of_the_policy_is_good_for_every_device_that_there_is() {
    let hub = Hub::start_with(Options { strict: true, ..Options::default() }).await;
    let (policy, key) = (&hub.emulator.ready().policy, &hub.emulator.ready().policy_key);
    assert_eq!(policy, "device");
    hub.request("PUT", "devices?device=d", "{}").await;
    let token = |device: &str, key: &str, policy: &str| {
        format!("{}&skn={policy}", sign(key, &format!("{HUB}/devices/{device}"), now() + 60))
    };
    let post = async |device: &str, token: &str| {
        let (status, body) = answer(hub.post_with(device, token, "x").header("Host", HUB)).await;
        (status, if status == 204 { String::new() } else { error_code(&body) })
    };
    let unauthorized = (401, "401003".to_owned());
    assert_eq!(post("d", &token("d", key, policy)).await, (204, String::new()));
    assert_eq!(post("d", &token("d", key, "service")).await, unauthorized);
    assert_eq!(post("d", &token("d", KEY, policy)).await, unauthorized);
    assert_eq!(post("d", &token("d", &hub.derived_key("d"), policy)).await, unauthorized, "it is the device's own key");
    assert_eq!(post("d", &token("e", key, policy)).await, unauthorized);
    assert_eq!(
        post("d", &sign(key, &format!("{HUB}/devices/d"), now() + 60)).await,
        unauthorized,
        "no policy is named"
    );
    assert_eq!(post("e", &token("e", key, policy)).await, (404, "404001".into()));
    assert_eq!(post("d", &token("d", &hub.derived_key("d"), "")).await.0, 204, "an empty name is none");

    let identity =
        |device: &str, key, policy| Identity { password: token(device, key, policy), ..hub.identity(device) };
    hub.connect(&identity("d", key, policy)).await.unwrap();
    refused(&hub, &identity("d", key, "iothubowner")).await;
    refused(&hub, &identity("d", KEY, policy)).await;
    refused(&hub, &identity("e", key, policy)).await;
    hub.request("PUT", "devices?device=d", r#"{"enabled":false}"#).await;
    assert_eq!(post("d", &token("d", key, policy)).await, (403, "403012".into()));
}

#[tokio::test]
async fn the_policy_and_its_key_can_be_chosen() {
    let options = Options { policy: "iothubowner".into(), policy_key: Some(KEY.into()), ..Options::default() };
    let hub = Hub::start_with(options).await;
    let password = format!("{}&skn=iothubowner", sign(KEY, HUB, now() + 60));
    hub.connect(&Identity { password, ..hub.identity("d") }).await.expect("a token for the whole hub");
    let no_base64 = Options { policy_key: Some("?".into()), ..Options::default() };
    assert!(emulators::iot_hub::start(no_base64).await.is_err());
}
