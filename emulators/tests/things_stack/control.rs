//! Tests the parts of the control endpoint that the other tests do not use.

use serde_json::json;

use crate::support::{Stack, json, uplinks_only};

#[tokio::test]
async fn the_ready_line_says_where_it_is() {
    let stack = Stack::start(uplinks_only()).await;
    let ready = serde_json::to_value(stack.emulator.ready()).unwrap();
    assert_eq!(ready["emulator"], "things_stack");
    assert!(ready["endpoint"].as_str().unwrap().ends_with("/api/v3/"));
    assert!(ready["control"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let key: Vec<_> = ready["apikey"].as_str().unwrap().split('.').map(str::len).collect();
    assert_eq!(key, [5, 39, 52]);
    let sent = stack.get("sent").await;
    assert_eq!((&sent["sent"], &sent["isDone"]), (&json!(0), &json!(true)));
}

#[tokio::test]
async fn what_it_does_not_know_is_refused_with_the_reason() {
    let stack = Stack::start(uplinks_only()).await;
    for (path, body, status, reason) in [
        ("send", json!({}), 409, "no target"),
        ("send", json!({ "target": "nowhere" }), 400, "not a URL"),
        ("send", json!({ "rates": 1 }), 400, "unknown field `rates`"),
        ("send", json!({ "attempts": 0 }), 400, "attempts must be"),
        ("uplink", json!({ "application": "a", "device": "b" }), 400, "no target"),
        ("uplink", json!({ "device": "b", "target": "http://127.0.0.1:9/" }), 400, "application and device"),
        ("uplink", json!({ "port": 1 }), 400, "unknown field `port`"),
        ("faults", json!({}), 400, "one of status"),
    ] {
        let response = stack.post(path, body.clone()).await;
        assert_eq!(response.status(), status, "{path} {body}");
        let error = json(response).await;
        assert!(error["err"].as_str().unwrap().contains(reason), "{path} {body}: {error}");
    }
    for path in ["sent?wait=forever", "downlinks?wait=x", "queue?application=a"] {
        assert_eq!(stack.client.get(stack.control(path)).send().await.unwrap().status(), 400, "{path}");
    }
}

#[tokio::test]
async fn the_port_for_downlinks_can_go_away() {
    let stack = Stack::start(uplinks_only()).await;
    let path = "applications/a/webhooks/b/devices/c/down/push";
    let away = |away: bool| stack.client.put(stack.control("away")).body(away.to_string()).send();
    assert_eq!(away(true).await.unwrap().status(), 204);
    assert!(stack.downlink(path, "{}").await.unwrap_err().is_connect());
    assert_eq!(away(false).await.unwrap().status(), 204);
    assert_eq!(stack.downlink(path, "{}").await.unwrap().status(), 200);
}
