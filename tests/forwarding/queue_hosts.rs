//! Tests three Functions hosts with one storage queue, each with a handler of its own, as Azure starts them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::support::{Emulator, World, rows};
use crate::things_network::support::Host;

const QUEUE: &str = "polls";
const SITES: usize = 45;
const NEVER: &str = "0 0 0 1 1 *";

fn name(number: usize) -> String {
    format!("site-{number:05}")
}

async fn world(storage: &Emulator) -> World {
    let names: Vec<_> = (0..SITES).map(name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = World::start(&["--no-generate", "--channels", "2", "--sites", &SITES.to_string()], &names).await;
    for (name, value) in [
        ("Site_ID", "*"),
        ("IoTHubTransport", "https"),
        ("PollQueueName", QUEUE),
        ("PollBatchSites", "5"),
        ("AzureStorageConnectionString", storage.ready("connection")),
        ("AzureWebJobs.thingsNetworkUplink.Disabled", "true"),
        ("AzureWebJobs.thingsNetworkForwarding.Disabled", "true"),
    ] {
        world.set(name, value);
    }
    world
}

/// Waits until the queue has no message, visible or not.
async fn drained(storage: &Emulator, hosts: &[Host]) {
    hosts[0].until(async || storage.get(&format!("queues/{QUEUE}")).await == json!([])).await;
}

#[tokio::test]
async fn of_three_instances_one_polls_each_site_and_nothing_is_lost() {
    let storage = Emulator::start("storage", &[]).await;
    let world = world(&storage).await;
    // One batch at a time for each host, so that all have some.
    let one_at_a_time = json!({ "batchSize": 1, "newBatchThreshold": 0, "visibilityTimeout": "00:00:01" });
    let start = || Host::start_with(&world.settings, one_at_a_time.clone(), &["--schedule", NEVER]);
    let (one, two, three) = tokio::join!(start(), start(), start());
    let mut hosts = vec![one, two, three];
    for minute in 0..4 {
        for number in 0..SITES {
            world.add(&name(number), [minute]).await;
        }
        world.backend.delete("requests").await;
        let result = hosts[0].invoke("rapidM2MForwarding").await;
        assert_eq!(result["succeeded"], true, "{result}");
        drained(&storage, &hosts).await;
        let mut asked = BTreeMap::<String, usize>::new();
        for request in world.backend.get("requests").await.as_array().unwrap() {
            let path = request["path"].as_str().unwrap();
            if path.contains("/histdata") {
                *asked.entry(path.to_owned()).or_default() += 1;
            }
        }
        assert_eq!(asked.values().sum::<usize>(), SITES, "each site by one of them: {asked:?}");
    }
    for host in &hosts {
        assert!(host.log().contains("rapidM2MSites: "), "this one had no batch: {}", host.log());
        assert!(!host.log().contains("served by another poller"), "{}", host.log());
    }
    // One of them is killed with a batch in work: the next run has its sites.
    for number in 0..SITES {
        world.add(&name(number), [4]).await;
    }
    world.backend.put("faults", json!({ "rules": [{ "resource": "histdata", "times": 3, "delayMs": 2000 }] })).await;
    hosts[0].run("rapidM2MForwarding").await;
    let last = hosts.remove(2);
    last.kill_handler().await;
    world.backend.heal().await;
    hosts.push(last);
    let is_all = async || {
        let delivered = world.delivered().await;
        (0..SITES).all(|number| delivered.rows.get(&name(number)).is_some_and(|rows| rows.len() == 5))
    };
    for _ in 0..20 {
        if is_all().await {
            break;
        }
        drained(&storage, &hosts).await;
        hosts[0].invoke("rapidM2MForwarding").await;
    }
    for number in 0..SITES {
        world.assert_rows(&name(number), &rows(0..5)).await;
    }
    hosts[0].invoke("rapidM2MForwarding").await;
    drained(&storage, &hosts).await;
    world.assert_settled().await;
}

/// The timer's own process may poll batches, too; and what is not a batch ends in the queue of rejected messages.
#[tokio::test]
async fn a_message_that_is_no_batch_is_rejected_and_the_others_are_polled() {
    let storage = Emulator::start("storage", &[]).await;
    let world = world(&storage).await;
    let hosts = [Host::start_with(&world.settings, json!({}), &["--schedule", NEVER]).await];
    for text in ["hello", "{\"Kind\":\"rapidM2MSites\"}"] {
        hosts[0].put(QUEUE, text).await;
    }
    for number in 0..SITES {
        world.add(&name(number), [0]).await;
    }
    hosts[0].invoke("rapidM2MForwarding").await;
    drained(&storage, &hosts).await;
    for number in 0..SITES {
        world.assert_rows(&name(number), &rows(0..1)).await;
    }
    let rejected: Vec<Value> = hosts[0].left(&format!("{QUEUE}-rejected"), 2).await;
    assert!(rejected.iter().any(|message| message["text"] == "hello"), "{rejected:?}");
}
