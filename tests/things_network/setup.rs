//! Tests `things-stack`: the webhook is made in The Things Stack, tried out, and its health is shown.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{
    support::{binary, put_webhook, stack_api},
    things_network::support::{Host, World},
};

const FUNCTION_KEY: &str = "the-k3y-of-the-function";
const DOWNLINK_KEY: &str = "NNSXS.DOWNLINKS.SECRET";
const APPLICATION: &str = "pumps";
const DEVICE: &str = "pump-7";

/// The result of a command.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    printed: String,
    said: String,
}

/// A world whose Things Stack has an application with a device, and the settings for it and the app.
async fn world(app: &str) -> World {
    let mut world = World::start_with(&["--devices", "1", "--applications", "1"]).await;
    world.stack.post("devices", json!({"application": APPLICATION, "device": DEVICE})).await;
    let (endpoint, key) = (world.stack.ready("endpoint").to_owned(), world.stack.ready("apikey").to_owned());
    for (name, value) in [
        ("ThingsStackUrl", endpoint.as_str()),
        ("ThingsStackApiKey", &key),
        ("FunctionAppUrl", app),
        ("FunctionAppKey", FUNCTION_KEY),
        ("ThingsStackDownlinkApiKey", DOWNLINK_KEY),
        ("ThingsNetworkMembers", "simulated"),
    ] {
        world.set(name, value);
    }
    world
}

async fn run_with(world: &World, arguments: &[&str], input: &str) -> Ran {
    let mut command = binary();
    command.arg("things-stack").args(arguments).envs(&world.settings).env_remove("RUST_LOG").env("COLUMNS", "80");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may have closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), printed: text(output.stdout), said: text(output.stderr) };
    for secret in [world.stack.ready("apikey"), FUNCTION_KEY, DOWNLINK_KEY, "hunter2", "NNSXS."] {
        assert!(!ran.printed.contains(secret) && !ran.said.contains(secret), "{secret} is printed: {ran:?}");
    }
    assert!(ran.printed.lines().all(|line| line.starts_with('{') || line.chars().count() <= 80), "{}", ran.printed);
    ran
}

/// Runs `things-stack setup` for the application.
async fn setup(world: &World, arguments: &[&str]) -> Ran {
    run_with(world, &[&["setup", "--application", APPLICATION], arguments].concat(), "").await
}

/// Runs `things-stack setup`, which must fail and say this.
async fn setup_fails(world: &World, arguments: &[&str], parts: &[&str]) {
    let ran = setup(world, arguments).await;
    assert!(matches!(ran.code, Some(1 | 2)), "{ran:?}");
    for part in parts {
        assert!(ran.said.contains(part), "{part:?} is missing: {ran:?}");
    }
}

/// All webhooks of the application, with all that setup sets.
async fn webhooks(world: &World) -> Vec<Value> {
    let fields = "base_url,format,headers,downlink_api_key,paused,field_mask,uplink_message,join_accept";
    let path = format!("as/webhooks/{APPLICATION}?field_mask={fields}");
    stack_api(&world.stack, "GET", &path, None).await["webhooks"].as_array().unwrap().clone()
}

async fn put(world: &World, id: &str, webhook: Value) {
    put_webhook(&world.stack, APPLICATION, id, webhook).await;
}

#[tokio::test]
async fn the_webhook_is_made_and_a_simulated_uplink_arrives_at_the_hub() {
    let mut world = world("https://unused.example").await;
    let host = Host::start(&world.settings).await;
    world.set("FunctionAppUrl", &host.target());
    let dry = setup(&world, &["--device", DEVICE]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    for part in
        ["new webhook iot-hub of application pumps", "base URL", "header x-functions-key", "event uplink message"]
    {
        assert!(dry.printed.contains(part), "{part:?} is missing: {dry:?}");
    }
    assert!(dry.said.contains("Nothing is changed: add --yes") && dry.said.contains("would be simulated"), "{dry:?}");
    assert_eq!(webhooks(&world).await, Vec::<Value>::new());

    let done = setup(&world, &["--device", DEVICE, "--yes"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.said.contains("is made") && done.printed.contains("healthy: the connector takes"), "{done:?}");
    let webhook = &webhooks(&world).await[0];
    assert_eq!((&webhook["base_url"], &webhook["format"]), (&json!(host.target()), &json!("json")));
    assert_eq!(webhook["headers"], json!({ "x-functions-key": FUNCTION_KEY }));
    assert_eq!((&webhook["uplink_message"], &webhook["join_accept"]), (&json!({"path": ""}), &Value::Null));
    let message = &world.received(1).await[0];
    assert_eq!(message["body"]["DeviceID"], DEVICE);
    assert_eq!((&message["body"]["Simulated"], &message["body"]["PayloadRaw"]), (&json!(true), &json!("")));

    // Once more: nothing is left to do.
    let again = setup(&world, &["--yes", "--json"]).await;
    let lines: Vec<Value> = again.printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["changes"], &lines[0]["isNew"], &lines[1]["state"]),
        (&json!([]), &json!(false), &json!("healthy"))
    );
    let health = run_with(&world, &["health", "--application", APPLICATION], "").await;
    assert!(health.code == Some(0) && health.printed.contains("iot-hub"), "{health:?}");
}

#[tokio::test]
async fn what_is_there_is_changed_and_what_others_have_set_is_kept() {
    let mut world = world("https://app.example").await;
    world.set("ThingsNetworkEvents", "true");
    let there = json!({
        "base_url": "https://app.example/api/uplink?code=hunter2", "format": "protobuf", "paused": true,
        "headers": {"X-Other": "kept"}, "uplink_message": {"path": "/up"},
        "field_mask": {"paths": ["end_device_ids", "received_at", "up"]}
    });
    put(&world, "by-hand", there).await;
    let ran = setup(&world, &["--webhook", "by-hand", "--json"]).await;
    let plan: Value = serde_json::from_str(&ran.printed).unwrap();
    let what: Vec<_> =
        plan["changes"].as_array().unwrap().iter().map(|change| change["what"].as_str().unwrap()).collect();
    for expected in [
        "base URL",
        "format",
        "header x-functions-key",
        "downlink API key",
        "field mask",
        "paused",
        "event join accept",
    ] {
        assert!(what.contains(&expected), "{expected:?} is missing: {plan}");
    }
    let key = run_with(
        &world,
        &["setup", "--application", APPLICATION, "--webhook", "by-hand", "--function-key-stdin", "--yes"],
        "another-k3y\n",
    );
    let ran = key.await;
    assert!(ran.code == Some(0) && !ran.printed.contains("another-k3y"), "{ran:?}");
    let webhook = &webhooks(&world).await[0];
    assert_eq!(webhook["headers"], json!({"X-Other": "kept", "x-functions-key": "another-k3y"}));
    assert_eq!((&webhook["base_url"], &webhook["paused"]), (&json!("https://app.example/api/uplink"), &json!(false)));
    assert_eq!((&webhook["uplink_message"], &webhook["join_accept"]), (&json!({"path": ""}), &json!({"path": ""})));
    let mask: Vec<_> =
        webhook["field_mask"]["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(mask, ["end_device_ids", "received_at", "up", "simulated", "correlation_ids"]);
}

#[tokio::test]
async fn what_cannot_be_done_says_why_and_changes_nothing() {
    let mut world = world("https://app.example").await;
    let key = |application: &str, rights: &[&str]| json!({"key": "NNSXS.LIMITED", "application": application, "rights": rights});
    let own = world.stack.ready("apikey").to_owned();
    world.set("ThingsStackApiKey", "NNSXS.LIMITED");
    setup_fails(&world, &["--yes"], &["refused the API key (401)", "check ThingsStackApiKey"]).await;
    world.stack.post("keys", key(APPLICATION, &["RIGHT_APPLICATION_TRAFFIC_READ"])).await;
    let lacking = ["lacks rights on application pumps", "\"Edit basic application settings\"", "\"Write downlink"];
    setup_fails(&world, &["--yes"], &lacking).await;
    world.stack.post("keys", key("app-1", &["RIGHT_APPLICATION_TRAFFIC_READ"])).await;
    setup_fails(&world, &["--yes"], &["no rights on application pumps, or there is no such application"]).await;
    world.set("ThingsStackApiKey", &own);
    setup_fails(&world, &["--yes", "--webhook", "x"], &["answered 400", "webhook_id"]).await;
    assert_eq!(webhooks(&world).await, Vec::<Value>::new());

    put(
        &world,
        "iot-hub",
        json!({"base_url": "https://other.example/ttn?code=hunter2", "format": "json", "uplink_message": {}}),
    )
    .await;
    setup_fails(&world, &["--yes"], &["may be another's", "--take-over", "https://other.example/ttn"]).await;
    put(
        &world,
        "second",
        json!({"base_url": "https://app.example/api/uplink", "format": "json", "uplink_message": {}}),
    )
    .await;
    setup_fails(&world, &["--yes", "--webhook", "iot-hub"], &["come twice", "second leads here"]).await;
    put(
        &world,
        "third",
        json!({"base_url": "https://app.example/api/uplink/", "format": "json", "uplink_message": {}}),
    )
    .await;
    setup_fails(&world, &["--yes"], &["come twice", "second and third"]).await;
    assert_eq!(webhooks(&world).await[0]["base_url"], "https://other.example/ttn?code=hunter2");

    for (url, why) in [
        ("http://app.example", "without TLS"),
        ("https://app.example/api/status", "has the path /api/status"),
        ("https://app.example/api/uplink?code=hunter2", "FunctionAppKey"),
    ] {
        world.set("FunctionAppUrl", url);
        setup_fails(&world, &["--yes"], &["FunctionAppUrl", why]).await;
    }
    world.unset("FunctionAppUrl");
    setup_fails(&world, &["--yes"], &["no app: give --app-url"]).await;
    setup_fails(&world, &["--yes", "--app-url", "app.example"], &["--app-url is not a URL"]).await;
    setup_fails(
        &world,
        &["--app-url", "https://a.example", "--function-key-stdin"],
        &["no function key on standard input"],
    )
    .await;
    world.unset("FunctionAppKey");
    setup_fails(&world, &["--app-url", "https://a.example", "--webhook", "new"], &["set FunctionAppKey"]).await;
    world.stack.away(true).await;
    setup_fails(
        &world,
        &["--app-url", "https://a.example"],
        &["cannot be reached at http://127.0.0.1", "check ThingsStackUrl"],
    )
    .await;
}

#[tokio::test]
async fn another_tools_webhook_is_taken_over_if_told() {
    let world = world("https://app.example").await;
    put(
        &world,
        "iot-hub",
        json!({"base_url": "https://other.example/ttn", "format": "json", "uplink_message": {"path": "/up"}}),
    )
    .await;
    let ran = setup(&world, &["--take-over", "--yes"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let webhook = &webhooks(&world).await[0];
    assert_eq!(
        (&webhook["base_url"], &webhook["uplink_message"]),
        (&json!("https://app.example/api/uplink"), &json!({"path": ""}))
    );
}

#[tokio::test]
async fn a_webhook_that_does_not_arrive_is_told_with_its_reason() {
    let mut world = world("https://unused.example").await;
    let host = Host::start(&world.settings).await;
    world.set("FunctionAppUrl", &host.target());
    let absent = setup(&world, &["--device", "nobody", "--yes"]).await;
    assert!(absent.code == Some(1) && absent.said.contains("no device nobody"), "{absent:?}");
    world.set("ThingsNetworkWebhookSecret", "0123456789abcdef");
    let secret = setup(&world, &["--yes"]).await;
    assert!(secret.code == Some(0) && secret.printed.contains("X-Webhook-Secret"), "{secret:?}");
    assert!(!secret.printed.contains("0123456789abcdef"), "{secret:?}");
    host.stop().await;
    // Nobody listens there, and as long as this socket has the port, nobody will.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    world.set("FunctionAppUrl", &format!("http://{}", nobody.local_addr().unwrap()));
    let dead = setup(&world, &["--device", DEVICE, "--take-over", "--yes"]).await;
    assert_eq!(dead.code, Some(1), "{dead:?}");
    assert!(dead.printed.contains("unhealthy: 1 attempt failed"), "{dead:?}");
    let health = run_with(&world, &["health", "--application", APPLICATION, "--json"], "").await;
    let line: Value = serde_json::from_str(health.printed.trim()).unwrap();
    assert_eq!((health.code, &line["state"], &line["failedAttempts"]), (Some(1), &json!("unhealthy"), &json!(1)));
    assert!(line["toDo"].as_str().unwrap().contains("that the app runs"), "{line}");
    // The plan shows it, and makes The Things Stack try again at once.
    let plan = setup(&world, &["--json"]).await;
    let plan: Value = serde_json::from_str(&plan.printed).unwrap();
    assert_eq!(plan["changes"][0]["what"], "health", "{plan}");
    assert!(plan["changes"][0]["wanted"].as_str().unwrap().contains("tried at once"), "{plan}");
    let none = run_with(&world, &["health", "--application", "app-1"], "").await;
    assert!(none.code == Some(1) && none.said.contains("has no webhook"), "{none:?}");
}
