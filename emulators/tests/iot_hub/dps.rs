//! Tests the Device Provisioning Service over HTTPS, and its control requests.

use std::time::{Duration, Instant};

use emulators::iot_hub::{DpsOptions, Options};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::client::{Hub, answer, now, sign};

impl Hub {
    /// A request for a registration, with a token for an hour.
    fn dps(&self, method: &str, id: &str, path: &str) -> RequestBuilder {
        let ready = self.emulator.ready();
        let token = sign(&self.derived_key(id), &format!("{}/registrations/{id}", ready.id_scope), now() + 3600);
        self.dps_with(method, &ready.id_scope, id, path, &format!("{token}&skn=registration"))
    }

    fn dps_with(&self, method: &str, scope: &str, id: &str, path: &str, token: &str) -> RequestBuilder {
        let url = format!("{}/{scope}/registrations/{id}{path}?api-version=2021-06-01", self.emulator.ready().dps);
        self.https.request(method.parse().unwrap(), url).header("Authorization", token)
    }

    fn register(&self, id: &str) -> RequestBuilder {
        self.dps("PUT", id, "/register").body(json!({"registrationId": id}).to_string())
    }

    fn poll(&self, id: &str, operation: &Value) -> RequestBuilder {
        self.dps("GET", id, &format!("/operations/{}", operation["operationId"].as_str().unwrap()))
    }

    /// Registers and polls until the registration is done. Returns the last answer and the number of polls.
    async fn registered(&self, id: &str) -> (Value, u32) {
        let (status, operation) = answer(self.register(id)).await;
        assert_eq!((status, &operation["status"]), (202, &json!("assigning")));
        for polls in 1.. {
            match answer(self.poll(id, &operation)).await {
                (202, body) => assert_eq!(body, operation),
                (200, body) => return (body, polls),
                other => panic!("{other:?}"),
            }
        }
        unreachable!()
    }

    async fn dps_faults(&self, json: &str) {
        let (status, body) = self.request("PUT", "dps/faults", json).await;
        assert_eq!(status, 200, "{body}");
    }
}

fn retry_after(response: &Response) -> Option<&str> {
    Some(response.headers().get("Retry-After")?.to_str().unwrap())
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_device_is_assigned_and_can_come_in() {
    let hub = Hub::start().await;
    let ready = hub.emulator.ready();
    let response = hub.register("Meter-1").send().await.unwrap();
    assert_eq!((response.status().as_u16(), retry_after(&response)), (202, Some("3")));
    let operation: Value = body(response).await;
    let response = hub.poll("Meter-1", &operation).send().await.unwrap();
    assert_eq!((response.status().as_u16(), retry_after(&response)), (202, Some("3")));
    let (status, body) = answer(hub.poll("Meter-1", &operation)).await;
    assert_eq!((status, &body["status"], &body["operationId"]), (200, &json!("assigned"), &operation["operationId"]));
    let state = &body["registrationState"];
    for (member, value) in [
        ("registrationId", "Meter-1"),
        ("deviceId", "Meter-1"),
        ("assignedHub", &ready.mqtt),
        ("status", "assigned"),
        ("substatus", "initialAssignment"),
    ] {
        assert_eq!(state[member], value, "{member}");
    }
    assert!(state["createdDateTimeUtc"].as_str().unwrap().ends_with('Z'), "{state}");
    assert_eq!(answer(hub.dps("POST", "Meter-1", "")).await, (200, state.clone()));
    assert_eq!(answer(hub.poll("Meter-1", &operation)).await.1["registrationState"], *state);

    let key = hub.derived_key("Meter-1");
    assert_eq!(hub.get("devices").await, json!({"Meter-1": {"enabled": true, "key": key}}));
    hub.connect(&hub.identity_with("Meter-1", &key)).await.unwrap();
    hub.connect(&hub.identity("Meter-1")).await.err().expect("the shared key holds no more");
}

#[tokio::test]
async fn a_device_that_was_deleted_must_register_again() {
    let hub = Hub::start().await;
    let key = hub.derived_key("d");
    hub.registered("d").await;
    hub.request("DELETE", "devices?device=d", "").await;
    hub.connect(&hub.identity_with("d", &key)).await.err().expect("it was deleted");
    hub.registered("d").await;
    hub.connect(&hub.identity_with("d", &key)).await.unwrap();
}

#[tokio::test]
async fn registrations_are_counted_and_can_be_waited_for() {
    let hub = Hub::start().await;
    let (waited, _) = tokio::join!(hub.get("dps/registrations?wait=2"), async {
        hub.registered("A").await;
        hub.registered("b").await;
    });
    assert_eq!(waited.as_array().unwrap().len(), 2);
    hub.registered("a").await;
    hub.dps_faults(r#"{"statusTimes":1}"#).await;
    assert_eq!(answer(hub.register("a")).await.0, 503);
    let expected = json!([{
        "registrationId": "A", "status": "assigned", "assignedHub": hub.emulator.ready().mqtt, "registerCalls": 3,
        "polls": 4, "refused": 1, "assignments": 2,
    }]);
    assert_eq!(hub.get("dps/registrations?device=a").await, expected, "names have no case");
    let start = Instant::now();
    assert_eq!(hub.get("dps/registrations?wait=9&timeout_ms=100").await.as_array().unwrap().len(), 2);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn what_is_no_registration_is_refused() {
    let hub = Hub::start().await;
    let ready = hub.emulator.ready();
    let body = json!({"registrationId": "d"}).to_string();
    let own = format!("{}/registrations/d", ready.id_scope);
    let good = sign(&hub.derived_key("d"), &own, now() + 60);
    let with_policy = |token: String| format!("{token}&skn=registration");
    for token in [
        "secret".to_owned(),
        format!("{good}&skn=service"),
        with_policy(sign(&hub.derived_key("d"), &own, now() - 1)),
        with_policy(sign(&ready.key, &own, now() + 60)),
        with_policy(sign(&hub.derived_key("d"), &format!("{}/registrations/e", ready.id_scope), now() + 60)),
    ] {
        let (status, error) =
            answer(hub.dps_with("PUT", &ready.id_scope, "d", "/register", &token).body(body.clone())).await;
        assert_eq!((status, &error["errorCode"], &error["message"]), (401, &json!(401_000), &json!("Unauthorized")));
        assert!(error["trackingId"].is_string() && error["timestampUtc"].is_string(), "{error}");
    }
    let no_policy = hub.dps_with("PUT", &ready.id_scope, "d", "/register", &good).body(body.clone());
    assert_eq!(answer(no_policy).await.0, 202, "Microsoft's Python SDK sends no `skn`");
    let good = with_policy(good);
    let elsewhere = hub.dps_with("PUT", "0ne0", "d", "/register", &good).body(body.clone());
    let no_version =
        hub.https.put(format!("{}/{}/registrations/d/register", ready.dps, ready.id_scope)).body(body.clone());
    for (request, expected) in [
        (elsewhere, 404),
        (no_version, 400),
        (hub.dps("PUT", "d", "/register").body(json!({"registrationId": "e"}).to_string()), 400),
        (hub.dps("PUT", "d", "/register"), 400),
        (hub.dps("PUT", "d", "/register").body(vec![b' '; 100_000]), 400),
        (hub.dps("PUT", "d.", "/register").body(json!({"registrationId": "d."}).to_string()), 400),
        (hub.dps("GET", "d", "/operations/5.1.2"), 404),
        (hub.dps("POST", "d", ""), 404),
    ] {
        let (status, error) = answer(request).await;
        assert_eq!(status, expected, "{error}");
        assert_eq!(error["errorCode"].as_u64().unwrap() / 1000, u64::from(expected), "{error}");
    }
    assert_eq!(hub.get("devices").await, json!({}));
}

#[tokio::test]
async fn operations_end_as_asked_for() {
    let hub = Hub::start().await;
    hub.dps_faults(r#"{"failTimes":1,"disableTimes":1,"assigningPolls":2}"#).await;
    let (failed, polls) = hub.registered("d").await;
    assert_eq!((&failed["status"], polls), (&json!("failed"), 3));
    assert_eq!(failed["registrationState"]["errorCode"], 400_209);
    assert_eq!(hub.registered("d").await.0["registrationState"]["status"], "disabled");
    assert_eq!(hub.get("devices").await, json!({}));
    assert_eq!(hub.registered("d").await.0["status"], "assigned");
}

#[tokio::test]
async fn requests_meet_the_trouble_that_was_asked_for() {
    let hub = Hub::start().await;
    let operation = answer(hub.register("d")).await.1;
    hub.dps_faults(r#"{"status":429,"statusTimes":1,"retryAfterSeconds":7,"step":"poll","devices":["D"]}"#).await;
    assert_eq!(answer(hub.register("e")).await.0, 202);
    let response = hub.poll("d", &operation).send().await.unwrap();
    assert_eq!((response.status().as_u16(), retry_after(&response)), (429, Some("7")));
    assert_eq!(body(response).await["errorCode"], 429_001);

    hub.dps_faults(r#"{"status":500,"statusTimes":1,"garbageTimes":1,"dropTimes":1}"#).await;
    let response = hub.register("d").send().await.unwrap();
    assert_eq!((response.status().as_u16(), retry_after(&response)), (500, None));
    let response = hub.register("d").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_bytes()[0]), (200, b'<'));
    let dropped = hub.register("d").send().await;
    assert!(dropped.is_err(), "{dropped:?}");

    hub.dps_faults(r#"{"delayMs":200}"#).await;
    let start = Instant::now();
    assert_eq!(answer(hub.register("d")).await.0, 202);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(hub.request("DELETE", "dps/faults", "").await.0, 204);
    assert_eq!(hub.get("dps/faults").await["assigningPolls"], 1);
}

#[tokio::test]
async fn a_broken_emulator_registers_everybody() {
    let hub = Hub::start().await;
    hub.faults(r#"{"acceptAnyToken":true}"#).await;
    let scope = hub.emulator.ready().id_scope.clone();
    let request = hub.dps_with("PUT", &scope, "d", "/register", "x").body(json!({"registrationId": "d"}).to_string());
    assert_eq!(answer(request).await.0, 202);
}

#[tokio::test]
async fn scope_key_hub_and_waiting_time_can_be_chosen() {
    let dps_options = DpsOptions {
        id_scope: Some("0ne00111111".into()),
        group_key: Some("Z3JvdXA=".into()),
        assigned_hub: Some("myhub.azure-devices.net".into()),
        dps_retry_after: 0,
    };
    let hub = Hub::start_with(Options { dps_options: dps_options.clone(), ..Options::default() }).await;
    let ready = hub.emulator.ready();
    assert_eq!((ready.id_scope.as_str(), ready.group_key.as_str()), ("0ne00111111", "Z3JvdXA="));
    assert_eq!(retry_after(&hub.register("d").send().await.unwrap()), Some("0"));
    assert_eq!(hub.registered("d").await.0["registrationState"]["assignedHub"], "myhub.azure-devices.net");

    assert_eq!(hub.request("PUT", "dps/settings", r#"{"retryAfterSeconds":5}"#).await.0, 200);
    let (_, settings) = hub.request("PUT", "dps/settings", r#"{"assignedHub":"other"}"#).await;
    assert_eq!(settings, json!({"assignedHub": "other", "retryAfterSeconds": 5}));
    assert_eq!(hub.get("dps/settings").await, settings);
    assert_eq!(retry_after(&hub.register("d").send().await.unwrap()), Some("5"));
    assert_eq!(hub.registered("d").await.0["registrationState"]["assignedHub"], "other");

    let no_base64 = DpsOptions { group_key: Some("?".into()), ..dps_options };
    assert!(emulators::iot_hub::start(Options { dps_options: no_base64, ..Options::default() }).await.is_err());
}

#[tokio::test]
async fn what_the_control_endpoint_does_not_understand_is_refused() {
    let hub = Hub::start().await;
    for (method, path, body, reason) in [
        ("PUT", "dps/faults", r#"{"refuse":true}"#, "unknown field `refuse`"),
        ("PUT", "dps/settings", r#"{"retryAfter":1}"#, "unknown field `retryAfter`"),
        ("GET", "dps/registrations?since=1", "", "unknown field `since`"),
        ("GET", "dps/registrations?wait=1&timeout_ms=600001", "", "at most 600000"),
    ] {
        let (status, answer) = hub.request(method, path, body).await;
        assert_eq!(status, 400, "{method} {path}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{method} {path}: {answer}");
    }
}
