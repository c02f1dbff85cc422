//! Tests the webhooks of the registry: the API for them, what is simulated, and how each fares.

use std::time::Duration;

use emulators::things_stack::Options;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Stack, Target, json, uplinks_only};

const READ: &str = "RIGHT_APPLICATION_TRAFFIC_READ";
const DOWN: &str = "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE";

impl Stack {
    async fn api(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.emulator.ready().endpoint);
        let request = self.client.request(method, url).bearer_auth(key);
        let request = request.body(body.map(|body| body.to_string()).unwrap_or_default());
        let response = request.send().await.unwrap();
        (response.status(), json(response).await)
    }

    async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.api(method, path, &self.emulator.ready().apikey, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn set(&self, webhook: Value, paths: &[&str]) -> Value {
        let body = json!({"webhook": webhook, "field_mask": {"paths": paths}});
        self.ok(Method::PUT, "as/webhooks/app-1/hook", Some(body)).await
    }

    async fn simulate(&self, device: &str) {
        let path = format!("as/applications/app-1/devices/{device}/up/simulate");
        self.ok(Method::POST, &path, Some(json!({"uplink_message": {"settings": {}}}))).await;
    }

    /// The health once it is so.
    async fn health(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let health = self.ok(Method::GET, "as/webhooks/app-1/hook?field_mask=health_status", None).await;
            let health = health["health_status"].clone();
            if is_so(&health) {
                return health;
            }
            assert!(tokio::time::Instant::now() < end, "it does not come to that: {health}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn name(answer: &Value) -> (&str, u64) {
    (answer["details"][0]["name"].as_str().unwrap(), answer["code"].as_u64().unwrap())
}

#[tokio::test]
async fn webhooks_are_set_got_listed_and_deleted() {
    let stack = Stack::start(uplinks_only()).await;
    let all = ["base_url", "format", "uplink_message"];
    let webhook =
        json!({"base_url": "https://a.example/x", "format": "json", "uplink_message": {"path": ""}, "paused": true});
    let made = stack.set(webhook.clone(), &all).await;
    assert_eq!((&made["ids"]["webhook_id"], &made["paused"]), (&json!("hook"), &Value::Null));
    let body = json!({"webhook": {"ids": {"webhook_id": "other"}, "base_url": "https://b.example", "format": "json"},
        "field_mask": "base_url,format"});
    stack.ok(Method::POST, "as/webhooks/app-1", Some(body)).await;
    let listed = stack.ok(Method::GET, "as/webhooks/app-1?field_mask=uplink_message", None).await;
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed["webhooks"][0]["uplink_message"], &listed["webhooks"][0]["format"]),
        (&json!({"path": ""}), &json!("json"))
    );
    assert_eq!(stack.ok(Method::GET, "as/webhooks/app-2", None).await, json!({"webhooks": []}));
    stack.ok(Method::DELETE, "as/webhooks/app-1/hook", None).await;
    let key = &stack.emulator.ready().apikey;
    let (status, answer) = stack.api(Method::GET, "as/webhooks/app-1/hook", key, None).await;
    assert_eq!((status.as_u16(), name(&answer)), (404, ("not_found", 5)));
    let wrong = json!({"webhook": webhook, "field_mask": {"paths": ["base_url", "queue.enabled"]}});
    let (status, answer) = stack.api(Method::PUT, "as/webhooks/app-1/hook", key, Some(wrong)).await;
    assert_eq!((status.as_u16(), name(&answer)), (400, ("field_mask_paths", 3)));
}

#[tokio::test]
async fn a_key_may_do_what_its_rights_say_in_its_application() {
    let stack = Stack::start(uplinks_only()).await;
    let key = json!({"key": "NNSXS.READ", "application": "app-1", "rights": [READ]});
    assert_eq!(stack.post("keys", key).await.status(), 204);
    let get = |path: &'static str| stack.api(Method::GET, path, "NNSXS.READ", None);
    assert_eq!(get("as/webhooks/app-1").await.0, 200);
    let (status, answer) = get("as/webhooks/app-2").await;
    assert_eq!((status.as_u16(), name(&answer)), (403, ("no_application_rights", 7)));
    assert_eq!(get("applications/app-1/rights").await.1, json!({"rights": [READ]}));
    assert_eq!(get("auth_info").await.1["api_key"]["entity_ids"]["application_ids"]["application_id"], "app-1");
    let body = json!({"webhook": {}, "field_mask": {"paths": []}});
    let (status, answer) = stack.api(Method::PUT, "as/webhooks/app-1/hook", "NNSXS.READ", Some(body)).await;
    assert_eq!((status.as_u16(), name(&answer)), (403, ("insufficient_application_rights", 7)));
    let missing = &answer["details"][0]["attributes"]["missing"];
    assert_eq!(*missing, json!(["RIGHT_APPLICATION_SETTINGS_BASIC", DOWN]));
    stack.delete("keys?key=NNSXS.READ").await;
    let (status, answer) = stack.api(Method::GET, "as/webhooks/app-1", "NNSXS.READ", None).await;
    assert_eq!((status.as_u16(), name(&answer)), (401, ("api_key_not_found", 16)));
    // An application that does not exist is one without rights, also for who may do everything.
    let key = &stack.emulator.ready().apikey;
    let (status, answer) = stack.api(Method::GET, "as/webhooks/nowhere", key, None).await;
    assert_eq!((status.as_u16(), name(&answer)), (403, ("no_application_rights", 7)));
}

#[tokio::test]
async fn what_is_simulated_goes_to_the_webhooks_and_their_health_is_noted() {
    let target = Target::start().await;
    let stack = Stack::start(Options { unhealthy_attempts: 2, ..uplinks_only() }).await;
    stack.post("devices", json!({"application": "app-1", "device": "pump-7"})).await;
    let webhook = json!({"base_url": target.url, "format": "json", "uplink_message": {}, "downlink_api_key": "NNSXS.D",
        "headers": {"X-Functions-Key": "k3y"}});
    stack.set(webhook, &["base_url", "format", "uplink_message", "downlink_api_key", "headers"]).await;
    assert_eq!(stack.health(|_| true).await, Value::Null, "nothing was sent");
    stack.simulate("pump-7").await;
    stack.health(|health| health["healthy"].is_object()).await;
    let got = &target.wait(1).await[0];
    assert_eq!((&got.json()["simulated"], got.device()), (&json!(true), Some(("app-1".into(), "pump-7".into()))));
    let header = |name: &str| got.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap();
    assert_eq!((header("x-functions-key").as_str(), header("x-downlink-apikey").as_str()), ("k3y", "NNSXS.D"));
    assert!(header("x-downlink-push").ends_with("applications/app-1/webhooks/hook/devices/pump-7/down/push"));

    // Two failures disable it; nothing more is sent until somebody makes it forget its health.
    target.answer_with(&[401, 500]);
    for attempts in ["1", "2"] {
        stack.simulate("pump-7").await;
        let health = stack.health(|health| health["unhealthy"]["failed_attempts"] == attempts).await;
        let details = &health["unhealthy"]["last_failed_attempt_details"];
        assert_eq!(details["attributes"]["status_code"], if attempts == "1" { 401 } else { 500 });
        assert_eq!(details["details"][0]["value"]["body"], "noted");
    }
    stack.simulate("pump-7").await;
    stack.set(json!({"health_status": null}), &["health_status"]).await;
    stack.simulate("pump-7").await;
    stack.health(|health| health["healthy"].is_object()).await;
    assert_eq!(target.got().len(), 4, "what was simulated while it was disabled is lost");
}

#[tokio::test]
async fn a_paused_webhook_sends_nothing_and_takes_no_downlinks() {
    let target = Target::start().await;
    let stack = Stack::start(uplinks_only()).await;
    let webhook = json!({"base_url": target.url, "format": "json", "uplink_message": {}, "paused": true});
    stack.set(webhook, &["base_url", "format", "uplink_message", "paused"]).await;
    let sent = stack.send(json!({"target": target.url, "count": 1})).await;
    assert_eq!(sent["sent"], 1);
    stack.post("devices", json!({"application": "app-1", "device": "pump-7"})).await;
    stack.simulate("pump-7").await;
    let answer =
        stack.downlink("applications/app-1/webhooks/hook/devices/pump-7/down/push", r#"{"downlinks":[]}"#).await;
    assert_eq!(answer.unwrap().status(), 406);
    stack.set(json!({"paused": false}), &["paused"]).await;
    stack.simulate("pump-7").await;
    assert_eq!(target.wait(2).await.len(), 2);
}
