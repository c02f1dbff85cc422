//! Tests the API for downlinks.

use emulators::things_stack::{Event, Options};
use serde_json::{Value, json};

use crate::support::{Stack, Target, json, uplinks_only};

const PUSH: &str = "applications/app-1/webhooks/iot-hub/devices/pump-7/down/push";
const REPLACE: &str = "applications/app-1/webhooks/iot-hub/devices/pump-7/down/replace";
const QUEUE: &str = "queue?application=app-1&device=pump-7";

fn one(payload: &str) -> Value {
    json!({ "f_port": 15, "frm_payload": payload, "priority": "NORMAL", "confirmed": false })
}

fn body(payload: &str) -> String {
    json!({ "downlinks": [one(payload)] }).to_string()
}

#[tokio::test]
async fn downlinks_are_queued_and_every_request_is_told() {
    let stack = Stack::start(Options::default()).await;
    let mut events = stack.emulator.subscribe();
    for (path, payload) in [(PUSH, "AQ=="), (PUSH, "Ag==")] {
        let response = stack.downlink(path, &body(payload)).await.unwrap();
        assert_eq!((response.status().as_u16(), response.content_length()), (200, Some(0)));
    }
    assert_eq!(stack.get(QUEUE).await, json!([one("AQ=="), one("Ag==")]));
    assert_eq!(stack.downlink(REPLACE, &body("Aw==")).await.unwrap().status(), 200);
    assert_eq!(stack.get(QUEUE).await, json!([one("Aw==")]));

    let response = stack.downlink(PUSH, r#"{"downlinks":[{"f_port":0,"frm_payload":"AQ=="}]}"#).await.unwrap();
    assert_eq!(response.status(), 400);
    let error = json(response).await;
    assert_eq!(error["code"], 3);
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("error:pkg/applicationserver/io/web:decode_body (") && message.contains("f_port 0"));
    let details = &error["details"][0];
    assert_eq!(details["@type"], "type.googleapis.com/ttn.lorawan.v3.ErrorDetails");
    assert_eq!(details["correlation_id"].as_str().unwrap().len(), 32);
    assert_eq!(stack.get(QUEUE).await, json!([one("Aw==")]), "what is refused changes nothing");

    let requests = stack.get("downlinks?wait=4&timeout_ms=30000").await;
    let told = |name: &str| requests.as_array().unwrap().iter().map(|request| request[name].clone()).collect::<Value>();
    assert_eq!(told("operation"), json!(["push", "push", "replace", "push"]));
    assert_eq!(told("status"), json!([200, 200, 200, 400]));
    assert_eq!(requests[1]["downlinks"], json!([one("Ag==")]));
    assert_eq!((&requests[0]["application"], &requests[0]["device"]), (&json!("app-1"), &json!("pump-7")));
    assert!(requests[0]["at"].as_str().unwrap().ends_with('Z') && requests[0].get("reason").is_none());
    assert!(requests[3]["reason"].as_str().unwrap().contains("f_port 0"));
    let Event::Downlink(request) = events.recv().await.unwrap() else { panic!("no webhook was sent") };
    assert_eq!((request.status, &request.downlinks), (200, &vec![one("AQ==")]));

    stack.delete("downlinks").await;
    assert_eq!((stack.get("downlinks").await, stack.get(QUEUE).await), (json!([]), json!([])));
}

#[tokio::test]
async fn only_the_right_key_gets_in() {
    let stack = Stack::start(Options { apikey: Some("NNSXS.ID.SECRET".to_owned()), ..Options::default() }).await;
    assert_eq!(stack.emulator.ready().apikey, "NNSXS.ID.SECRET");
    let url = format!("{}as/{PUSH}", stack.emulator.ready().endpoint);
    for (authorization, status, code, name) in [
        (None, 403, 7, "no_application_rights"),
        (Some("NNSXS.ID.SECRET"), 403, 7, "no_application_rights"),
        (Some("Basic NNSXS.ID.SECRET"), 401, 16, "unsupported_authorization"),
        (Some("Bearer NNSXS.ID.OTHER"), 401, 16, "api_key_not_found"),
    ] {
        let mut request = stack.client.post(&url).body(body("AQ=="));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{authorization:?}");
        let error = json(response).await;
        assert_eq!((&error["code"], &error["details"][0]["name"]), (&json!(code), &json!(name)));
        assert!(!error.to_string().contains("OTHER"));
    }
    assert_eq!(stack.get(QUEUE).await, json!([]));
    assert_eq!(stack.get("downlinks").await[3]["downlinks"], json!([]));
}

#[tokio::test]
async fn once_something_was_sent_only_what_exists_is_known() {
    let target = Target::start().await;
    let stack = Stack::start(uplinks_only()).await;
    assert_eq!(stack.downlink(PUSH, &body("AQ==")).await.unwrap().status(), 200);
    let device = stack.get("devices").await[0].clone();
    assert_eq!(stack.send(json!({ "target": target.url, "count": 1 })).await["sent"], 1);
    let path = |application: &str, webhook: &str, device: &str| {
        format!("applications/{application}/webhooks/{webhook}/devices/{device}/down/push")
    };
    let known = device["device"].as_str().unwrap();
    for (path, status, name) in [
        (PUSH.to_owned(), 404, "device_not_found"),
        (path("app-3", "iot-hub", known), 404, "application_not_found"),
        (path("app-1", "other", known), 404, "webhook_not_found"),
        (path("app-1", "iot-hub", known).replace("push", "pull"), 404, "unknown"),
        ("nothing".to_owned(), 404, "unknown"),
    ] {
        let response = stack.downlink(&path, &body("AQ==")).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(json(response).await["details"][0]["name"], json!(name), "{path}");
    }
    // The URL in the webhook's header works.
    let url = target.got()[0].headers["x-downlink-push"].to_str().unwrap().to_owned();
    let request = stack.client.post(url).header("authorization", format!("Bearer {}", stack.emulator.ready().apikey));
    assert_eq!(request.body(body("AQ==")).send().await.unwrap().status(), 200);
    let uplink = json!({ "application": "app-1", "device": "pump-7", "target": target.url });
    assert_eq!(stack.post("uplink", uplink).await.status(), 200);
    assert_eq!(stack.downlink(PUSH, &body("AQ==")).await.unwrap().status(), 200, "it has sent an uplink");
}

#[tokio::test]
async fn faults_hit_the_next_requests_in_their_order() {
    let stack = Stack::start(Options::default()).await;
    for fault in [
        json!({ "times": 2, "status": 500 }),
        json!({ "status": 429, "retryAfter": "7" }),
        json!({ "cut": true }),
        json!({ "delayMs": 600_000 }),
    ] {
        assert_eq!(stack.post("faults", fault).await.status(), 204);
    }
    assert_eq!(stack.get("faults").await[0], json!({ "times": 2, "status": 500 }));
    for (status, code) in [(500, 13), (500, 13), (429, 8)] {
        let response = stack.downlink(PUSH, &body("AQ==")).await.unwrap();
        assert_eq!(response.status(), status);
        let retry_after = response.headers().get("retry-after").cloned();
        assert_eq!(retry_after.is_some_and(|value| value == "7"), status == 429);
        assert_eq!(json(response).await["code"], code);
    }
    assert_eq!(stack.get(QUEUE).await, json!([]));

    // Accepted, but the client got no answer.
    assert!(stack.downlink(PUSH, &body("AQ==")).await.unwrap_err().is_request());
    assert_eq!(stack.get(QUEUE).await, json!([one("AQ==")]));
    let second = body("Ag==");
    tokio::select! {
        early = stack.downlink(PUSH, &second) => panic!("{early:?}"),
        requests = stack.get("downlinks?wait=5&timeout_ms=30000") => assert_eq!(requests[4]["status"], 200),
    }
    assert_eq!(stack.get(QUEUE).await, json!([one("AQ=="), one("Ag==")]));
    assert_eq!(stack.downlink(PUSH, &body("Aw==")).await.unwrap().status(), 200);
    assert_eq!(stack.get("downlinks").await.as_array().unwrap().len(), 6);

    assert_eq!(stack.post("faults", json!({ "status": 503 })).await.status(), 204);
    stack.delete("faults").await;
    assert_eq!(stack.downlink(PUSH, &body("BA==")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_queue_and_a_body_have_an_end() {
    let stack = Stack::start(Options::default()).await;
    let many = json!({ "downlinks": vec![one("AQ=="); 1001] }).to_string();
    let response = stack.downlink(PUSH, &many).await.unwrap();
    assert_eq!((response.status().as_u16(), &json(response).await["code"]), (429, &json!(8)));
    let large = " ".repeat(1024 * 1024 + 1);
    assert_eq!(stack.downlink(PUSH, &large).await.unwrap().status(), 413);
}
