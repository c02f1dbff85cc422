//! Runs a command, and reads what reached the hub.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Settings, World};

pub const SITE: &str = "Well 7";
/// Minutes in a day.
pub const DAY: i64 = 24 * 60;

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub printed: String,
    pub said: String,
}

/// The binary with only these settings, in a folder without a settings file.
pub fn command(settings: &Settings, arguments: &[&str]) -> std::process::Command {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("commands");
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    let settings = settings.iter().filter(|(name, _)| *name != "RUST_LOG");
    command.args(arguments).env_clear().envs(settings).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub async fn run(world: &World, arguments: &[&str]) -> Ran {
    let output = Command::from(command(&world.settings, arguments)).kill_on_drop(true).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), printed: text(output.stdout), said: text(output.stderr) };
    for secret in [world.backend.ready("password"), world.hub.ready("key"), world.cosmos.ready("key"), "sig="] {
        assert!(!ran.printed.contains(secret) && !ran.said.contains(secret), "a secret is printed: {ran:?}");
    }
    ran
}

/// Runs a command that must succeed. Returns what it printed.
pub async fn run_ok(world: &World, arguments: &[&str]) -> String {
    let ran = run(world, arguments).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.printed
}

/// Runs a command that must fail with this code. Returns its error output.
pub async fn run_failing(world: &World, arguments: &[&str], code: i32) -> String {
    let ran = run(world, arguments).await;
    assert_eq!(ran.code, Some(code), "{ran:?}");
    ran.said
}

/// The messages of backfills by their ids. Each repeat must have the same body.
pub async fn backfilled(world: &World) -> BTreeMap<String, Value> {
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    for message in world.hub.get("received").await.as_array().unwrap() {
        if message["properties"]["Backfill"] != "true" {
            continue;
        }
        assert!(message["properties"]["Site_Uid"].is_string(), "{message}");
        assert_eq!(message["properties"].as_object().unwrap().len(), 4, "{message}");
        let (id, body) = (message["messageId"].as_str().unwrap(), message["body"].as_str().unwrap());
        let earlier = bodies.insert(id.to_owned(), body.to_owned());
        assert!(earlier.is_none_or(|earlier| earlier == body), "{id} came again with another body");
    }
    bodies.into_iter().map(|(id, body)| (id, serde_json::from_str(&body).unwrap())).collect()
}

/// The ids of the messages of backfills in the order of arrival, repeats included.
pub async fn ids(world: &World) -> Vec<String> {
    let received = world.hub.get("received").await;
    let backfilled = received.as_array().unwrap().iter().filter(|message| message["properties"]["Backfill"] == "true");
    backfilled.map(|message| message["messageId"].as_str().unwrap().to_owned()).collect()
}

/// The rows of the messages, in the order of time. No row is in two messages.
pub fn rows_of(messages: &BTreeMap<String, Value>) -> Vec<Value> {
    let mut rows: Vec<Value> =
        messages.values().flat_map(|body| body["Timeseries"].as_array().unwrap().iter().cloned()).collect();
    rows.sort_by_key(|row| row["Timestamp"].as_str().unwrap().to_owned());
    let stamps: BTreeSet<_> = rows.iter().map(|row| row["Timestamp"].as_str().unwrap()).collect();
    assert_eq!(stamps.len(), rows.len(), "a row is in two messages");
    rows
}

/// `Timerange` of each message, in order.
pub fn ranges(messages: &BTreeMap<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut ranges: Vec<_> =
        messages.values().map(|body| (text(&body["Timerange"]["begin"]), text(&body["Timerange"]["end"]))).collect();
    ranges.sort();
    ranges
}

/// The documents of a site's backfills.
pub async fn documents(world: &World) -> Vec<Value> {
    let mut documents = world.documents(SITE).await;
    documents.retain(|document| document["Kind"] == "backfill");
    documents
}

/// Asserts that a site's backfills are finished, and that the ledger agrees with the hub about each message.
pub async fn assert_settled(world: &World) {
    for document in documents(world).await {
        assert_eq!(document["Unforwarded"], json!([]), "{document}");
        assert!(document["Backfill"]["FinishedAt"].is_string(), "{document}");
    }
    let at_hub: BTreeSet<_> = ids(world).await.into_iter().collect();
    for poll in world.polls(SITE).await {
        let is_at_hub = poll["MessageId"].as_str().is_some_and(|id| at_hub.contains(id));
        assert_eq!(poll["Outcome"] == "forwarded", is_at_hub, "{poll}");
        assert_ne!(poll["Outcome"], "pending", "{poll}");
    }
}
