//! Tests what `check` says of the webhooks in The Things Stack.

use serde_json::{Value, json};

use crate::{
    check::services::{Report, world},
    support::{Emulator, World, put_webhook, stack_api},
};

const ADDRESS: &str = "https://app.example/api/uplink";
const READ: &str = "RIGHT_APPLICATION_TRAFFIC_READ";
const DOWN: &str = "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE";
/// The application that the settings name.
const APPLICATION: &str = "pumps";
const ALL: &str = "webhooks of pumps";
const WEBHOOK: &str = "webhook iot-hub of pumps";

/// A world with a Things Stack in which all is well.
async fn world_with_stack() -> (World, Emulator) {
    let mut world = world().await;
    let stack = Emulator::start("things_stack", &["--devices", "1", "--applications", "1"]).await;
    stack.post("devices", json!({"application": APPLICATION, "device": "pump-7"})).await;
    for (name, value) in [
        ("ThingsStackUrl", stack.ready("endpoint")),
        ("ThingsStackApiKey", stack.ready("apikey")),
        ("FunctionAppUrl", "https://app.example"),
        ("FunctionAppKey", "the-k3y-of-the-function"),
    ] {
        world.set(name, value);
    }
    stack.post("keys", json!({"key": "NNSXS.DOWN", "application": APPLICATION, "rights": [DOWN]})).await;
    put(&stack, good()).await;
    (world, stack)
}

fn good() -> Value {
    json!({
        "base_url": ADDRESS, "format": "json", "headers": {"x-functions-key": "the-k3y-of-the-function"}, "paused": false,
        "uplink_message": {"path": ""}, "downlink_api_key": "NNSXS.DOWN", "field_mask": null, "health_status": {"healthy": {}}
    })
}

async fn put(stack: &Emulator, webhook: Value) {
    put_webhook(stack, APPLICATION, "iot-hub", webhook).await;
}

/// Asserts that there is this row, with these parts in its text and its advice.
#[track_caller]
fn assert_row(report: &Report, result: &str, what: &str, parts: [&str; 2]) {
    let rows = report.rows.iter().filter(|row| row["what"] == what && row["result"] == result);
    let has = |row: &Value, name: &str, part: &str| row[name].as_str().unwrap_or_default().contains(part);
    let mut rows = rows.filter(|row| has(row, "text", parts[0]) && has(row, "toDo", parts[1]));
    assert!(rows.next().is_some(), "no {result} {what:?} with {parts:?}: {:#?}", report.rows);
}

/// Asserts that only this fails.
#[track_caller]
fn assert_fails(report: &Report, what: &str, parts: [&str; 2]) {
    assert_row(report, "failed", what, parts);
    assert_eq!(report.of_result("failed"), [what], "{:#?}", report.rows);
}

#[tokio::test]
async fn a_webhook_that_leads_here_is_well() {
    let (mut world, stack) = world_with_stack().await;
    let report = Report::of(&world, &[]).await;
    assert_eq!((report.ran.code, report.of_result("warning")), (0, Vec::new()), "{report:#?}");
    assert_row(&report, "ok", WEBHOOK, [&format!("leads to {ADDRESS}; healthy"), ""]);
    assert_row(&report, "ok", "API key for pumps", ["may read and set up webhooks", ""]);
    // An application that only its key names.
    stack.post("keys", json!({"key": "NNSXS.OF-APP-1", "application": "app-1", "rights": [READ]})).await;
    world.set("ThingsStackApiKey", "NNSXS.OF-APP-1");
    let report = Report::of(&world, &[]).await;
    assert_row(
        &report,
        "failed",
        "webhooks of app-1",
        ["none leads to https://app.example", "setup --application app-1"],
    );
    let warned = report.row("webhooks of pumps", "warning");
    assert!(warned["text"].as_str().unwrap().contains("no rights on application pumps"), "{warned}");
    assert_row(&report, "ok", "API key for app-1", ["lacks \"Edit basic application settings\"", ""]);
    // Without its settings, The Things Stack is not asked.
    world.unset("ThingsStackApiKey");
    let report = Report::of(&world, &[]).await;
    assert!(report.rows.iter().all(|row| !row["what"].as_str().unwrap().contains("webhook")), "{report:#?}");
}

#[tokio::test]
async fn each_fault_of_a_webhook_has_a_row() {
    let (world, stack) = world_with_stack().await;
    let unhealthy = json!({"unhealthy": {"failed_attempts": "7", "last_failed_attempt_details": {
        "name": "request", "attributes": {"status_code": 401, "url": "https://app.example/api/uplink?code=hunter2"}}}});
    let setup = "things-stack setup --application pumps --webhook iot-hub";
    for (what, change, parts) in [
        (
            ALL,
            json!({"base_url": "https://app.example/api/status"}),
            ["uplink message to https://app.example/api/status, not to", setup],
        ),
        (
            ALL,
            json!({"uplink_message": {"path": "/up"}}),
            ["uplink message to https://app.example/api/uplink/up, not to", setup],
        ),
        (WEBHOOK, json!({"format": "protobuf"}), ["format is protobuf, not json", setup]),
        (WEBHOOK, json!({"headers": {"x-functions-key": "old"}}), ["x-functions-key is another one, not set", setup]),
        (WEBHOOK, json!({"uplink_message": null}), ["event uplink message is absent", setup]),
        (
            WEBHOOK,
            json!({"field_mask": {"paths": ["up.uplink_message"]}}),
            ["leaves out what is used: also end_device_ids", setup],
        ),
        (WEBHOOK, json!({"paused": true}), ["is paused", "resume it"]),
        (WEBHOOK, json!({"health_status": unhealthy}), ["7 attempts failed; the app answered 401", "function key"]),
        (WEBHOOK, json!({"downlink_api_key": "NNSXS.GONE"}), ["does not know its downlink API key", "Write downlink"]),
    ] {
        put(&stack, good()).await;
        put(&stack, change.clone()).await;
        let report = Report::of(&world, &[]).await;
        assert_fails(&report, what, parts);
        assert_eq!(report.ran.code, 1, "{change}");
        report.ran.has_no(["hunter2", "NNSXS.", "the-k3y"]);
    }
    put(&stack, good()).await;
    put(&stack, json!({"downlink_api_key": "", "health_status": null})).await;
    let report = Report::of(&world, &[]).await;
    assert_row(&report, "warning", WEBHOOK, ["no downlink API key", "or leave it"]);
    assert_row(&report, "ok", WEBHOOK, ["nothing was sent", ""]);
    put_webhook(&stack, APPLICATION, "another", good()).await;
    let report = Report::of(&world, &[]).await;
    assert_row(
        &report,
        "warning",
        "webhooks of pumps",
        ["another, iot-hub lead here: each uplink comes 2 times", "delete"],
    );
}

#[tokio::test]
async fn a_stack_that_does_not_tell_says_what_to_do() {
    let (mut world, stack) = world_with_stack().await;
    world.unset("FunctionAppUrl");
    let report = Report::of(&world, &[]).await;
    assert_row(&report, "ok", WEBHOOK, ["leads to https://app.example/api/uplink", ""]);
    stack_api(&stack, "DELETE", "as/webhooks/pumps/iot-hub", None).await;
    let report = Report::of(&world, &[]).await;
    assert_fails(&report, "webhooks of pumps", ["none leads to a function app", "with FunctionAppUrl"]);

    world.set("FunctionAppUrl", "http://app.example");
    let report = Report::of(&world, &[]).await;
    assert_fails(&report, "FunctionAppUrl", ["is without TLS", "write https://"]);
    world.set("FunctionAppUrl", "https://app.example");

    stack.post("keys", json!({"key": "NNSXS.DOWN", "application": APPLICATION, "rights": [DOWN]})).await;
    let own = world.settings["ThingsStackApiKey"].clone();
    world.set("ThingsStackApiKey", "NNSXS.DOWN");
    let report = Report::of(&world, &[]).await;
    assert_row(&report, "warning", "webhooks of pumps", ["lacks rights", "Read application traffic"]);
    world.set("ThingsStackApiKey", "NNSXS.WRONG");
    let report = Report::of(&world, &[]).await;
    assert_fails(&report, "The Things Stack", ["refused the API key (401)", "check ThingsStackApiKey"]);
    world.set("ThingsStackApiKey", &own);
    // A cluster without an Identity Server.
    put(&stack, good()).await;
    let effect = json!({"answer": {"status": 404, "headers": {}, "body": "Not Found"}});
    let rule = |path: &str| json!({"path": path, "effect": effect});
    stack.put("trouble", json!([rule("/auth_info"), rule("/rights")])).await;
    let report = Report::of(&world, &[]).await;
    assert_row(&report, "ok", WEBHOOK, ["healthy", ""]);
    assert!(report.rows.iter().all(|row| row["what"] != "API key for pumps"), "{report:#?}");
    for (effect, parts) in [
        (json!("echo"), ["answered 500", "try again later"]),
        (json!("garbage"), ["is not The Things Stack", "check ThingsStackUrl"]),
    ] {
        stack.put("trouble", json!([{"path": "/webhooks/", "effect": effect}])).await;
        let report = Report::of(&world, &[]).await;
        assert_fails(&report, "webhooks of pumps", parts);
    }
    stack.delete("trouble").await;
    stack.away(true).await;
    let report = Report::of(&world, &[]).await;
    assert_fails(&report, "The Things Stack", ["cannot be reached", "check ThingsStackUrl"]);
}
