//! Tests `backfill --storage`: what an outage has swallowed comes from the Storage Integration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    support::{Emulator, binary},
    things_network::support::{Host, World},
};

/// Webhooks of each run.
const COUNT: usize = 60;

/// The result of a command.
struct Ran {
    code: Option<i32>,
    printed: String,
    said: String,
}

/// A world with a Things Stack whose uplinks all reach their target, and the storage account of the queues.
async fn world() -> (World, Emulator) {
    let mut world = World::start_with(&["--devices", "6", "--v2-share", "0", "--event-share", "0"]).await;
    let storage = Emulator::start("storage", &[]).await;
    world.set("AzureStorageConnectionString", storage.ready("connection"));
    world.set("ThingsStackUrl", world.stack.ready("endpoint").to_owned().as_str());
    world.set("ThingsStackApiKey", world.stack.ready("apikey").to_owned().as_str());
    (world, storage)
}

async fn run(world: &World, arguments: &[&str]) -> Ran {
    let mut command = binary();
    command.arg("backfill").args(arguments).env_clear().envs(&world.settings).env_remove("RUST_LOG");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), printed: text(output.stdout), said: text(output.stderr) };
    let key = world.stack.ready("apikey");
    assert!(!ran.printed.contains(key) && !ran.said.contains(key), "{} {}", ran.printed, ran.said);
    ran
}

async fn send(world: &World, target: &str) -> Value {
    let run = json!({"target": target, "count": COUNT, "rate": 0, "malformedShare": 0, "repeatShare": 0});
    world.stack.post("send", run).await;
    world.stack.get("sent?wait=done&timeout_ms=50000").await
}

#[tokio::test]
async fn what_an_outage_has_swallowed_comes_from_storage_under_the_same_ids() {
    let (world, _storage) = world().await;
    let host = Host::start(&world.settings).await;
    send(&world, &host.target()).await;
    host.drained().await;
    let before: BTreeSet<_> = ids(&world).await.into_keys().collect();
    assert_eq!(before.len(), COUNT);
    // Nobody listens there.
    let sent = send(&world, "http://127.0.0.1:9/api/uplink").await;
    assert_eq!(sent["errors"], COUNT, "{sent}");

    let both = ["--storage=app-1", "--storage=app-2", "--since=1h"];
    let dry = run(&world, &[&both[..], &["--dry-run", "--json"]].concat()).await;
    assert_eq!(dry.code, Some(0), "{}", dry.said);
    let summaries: Vec<Value> = dry.printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let uplinks: u64 = summaries.iter().map(|summary| summary["uplinks"].as_u64().unwrap()).sum();
    assert_eq!((uplinks, summaries.len()), (2 * COUNT as u64, 2), "{}", dry.printed);
    assert!(summaries.iter().all(|summary| summary["queued"] == 0), "{}", dry.printed);
    assert_eq!(ids(&world).await.len(), COUNT);

    for _ in 0..2 {
        let ran = run(&world, &both).await;
        assert_eq!(ran.code, Some(0), "{} {}", ran.printed, ran.said);
        assert!(ran.printed.contains("are in the queue of uplinks; 0 were left out"), "{}", ran.printed);
    }
    host.drained().await;
    let after = ids(&world).await;
    assert_eq!(after.len(), 2 * COUNT, "one message id for each uplink");
    assert!(before.iter().all(|id| after[id] == 3) && after.values().sum::<usize>() == 5 * COUNT, "{after:?}");
}

/// How often each message id has reached the hub.
async fn ids(world: &World) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for message in world.received(0).await {
        *ids.entry(message["messageId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    ids
}

#[tokio::test]
async fn a_range_and_a_device_are_kept_to() {
    let (world, _storage) = world().await;
    send(&world, "http://127.0.0.1:9/api/uplink").await;
    let uplinks = world.stack.get("uplinks").await;
    let of_first: Vec<_> =
        uplinks.as_array().unwrap().iter().filter(|uplink| uplink["application"] == "app-1").collect();
    let device = of_first[0]["device"].as_str().unwrap();
    let of_device = of_first.iter().filter(|uplink| uplink["device"] == device).count();
    let middle = of_first[of_first.len() / 2]["body"]["received_at"].as_str().unwrap();
    let earlier = of_first.iter().filter(|uplink| uplink["body"]["received_at"].as_str().unwrap() < middle).count();
    let counted = async |arguments: &[&str]| {
        let ran = run(&world, &[&["--storage=app-1", "--dry-run", "--json"], arguments].concat()).await;
        assert_eq!(ran.code, Some(0), "{}", ran.said);
        serde_json::from_str::<Value>(&ran.printed).unwrap()["uplinks"].as_u64().unwrap() as usize
    };
    assert_eq!(counted(&["--since=1h"]).await, of_first.len());
    assert_eq!(counted(&["--since=1h", &format!("--device={device}")]).await, of_device);
    assert_eq!(counted(&["--since=1h", &format!("--until={middle}")]).await, earlier);
    assert_eq!(counted(&["--since=2h", "--until=1h"]).await, 0);
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let (mut world, _storage) = world().await;
    for (arguments, code, problem) in [
        (&["--storage=app-1"][..], 2, "--since"),
        (&["--storage=app-1", "--since=1h", "--until=2h"], 2, "must be later than"),
        (&["--storage=app-1", "--since=1h", "Well 7"], 2, "cannot be used with"),
        (&["--storage=unknown", "--since=1h"], 1, "check the application's id"),
    ] {
        let ran = run(&world, arguments).await;
        assert!(ran.code == Some(code) && ran.said.contains(problem), "{arguments:?}: {:?} {}", ran.code, ran.said);
    }
    world.set("ThingsStackApiKey", "NNSXS.WRONG");
    let ran = run(&world, &["--storage=app-1", "--since=1h"]).await;
    assert!(ran.code == Some(1) && ran.said.contains("refused the API key (401)"), "{}", ran.said);
    world.unset("ThingsStackApiKey");
    let ran = run(&world, &["--storage=app-1", "--since=1h"]).await;
    assert!(ran.code == Some(2) && ran.said.contains("ThingsStackApiKey is not set"), "{}", ran.said);
}
