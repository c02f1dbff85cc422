//! Tests 10,000 uplinks of 500 devices, mixed with repeats, malformed webhooks and other events, while the handler is
//! killed and the hub is away.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    support::Emulator,
    things_network::support::{Host, World},
};

const DEVICES: usize = 500;
/// Webhooks of all kinds: more than 4 of 5 are distinct uplinks.
const IN_PEACE: u64 = 4_100;
const IN_TROUBLE: u64 = 8_200;
const UPLINKS: usize = 10_000;
const HUB_AWAY: Duration = Duration::from_secs(10);

/// The number that identifies an uplink: decoded, or in the first eight bytes of the payload.
pub fn marker(telemetry: &Value) -> u64 {
    if let Some(marker) = telemetry["marker"].as_u64() {
        return marker;
    }
    let payload = BASE64_STANDARD.decode(telemetry["PayloadRaw"].as_str().unwrap()).unwrap();
    u64::from_be_bytes(*payload.first_chunk().unwrap_or_else(|| panic!("no marker in {telemetry}")))
}

/// Waits until so many webhooks have been tried. The stand-in itself offers only a wait for the end of its run.
pub async fn until(stack: &Emulator, attempts: u64) {
    while stack.get("sent").await["attempts"].as_u64().unwrap() < attempts {
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn done(stack: &Emulator) -> Value {
    let mut before = 0;
    loop {
        let sent = stack.get("sent?wait=done&timeout_ms=50000").await;
        if sent["isDone"] == true {
            return sent;
        }
        // On a busy machine it goes slowly; what does not go on at all hangs.
        let attempts = sent["attempts"].as_u64().unwrap();
        assert!(attempts > before, "{sent}");
        before = attempts;
    }
}

struct Sent {
    device: String,
    order: usize,
}

async fn uplinks(world: &World) -> HashMap<u64, Sent> {
    let uplinks = world.stack.get("uplinks").await;
    let uplinks = uplinks.as_array().unwrap();
    let sent = uplinks.iter().enumerate().map(|(order, uplink)| {
        assert_eq!(uplink["status"], 202, "{uplink}");
        let device = uplink["device"].as_str().unwrap().to_owned();
        (uplink["marker"].as_u64().unwrap(), Sent { device, order })
    });
    sent.collect()
}

/// The first arrival of each message id: device, marker.
async fn arrivals(world: &World) -> Vec<(String, u64)> {
    let mut seen = HashMap::new();
    let mut arrivals = Vec::new();
    for message in world.received(0).await {
        let (id, marker) = (message["messageId"].as_str().unwrap().to_owned(), marker(&message["body"]));
        if let Some(before) = seen.insert(id, marker) {
            assert_eq!(before, marker, "one id for two uplinks");
        } else {
            arrivals.push((message["deviceId"].as_str().unwrap().to_owned(), marker));
        }
    }
    arrivals
}

#[tokio::test]
async fn ten_thousand_uplinks_arrive_whatever_happens() {
    let mut world = World::start_with(&["--devices", &DEVICES.to_string(), "--seed", "4711"]).await;
    world.set("RUST_LOG", "info");
    let host = Host::start_with(&world.settings, json!({"visibilityTimeout": "00:00:01"}), &["--restarts", "9"]).await;

    let run = |count: u64, attempts: u64| json!({"target": host.target(), "count": count, "rate": 0, "attempts": attempts, "retryDelay": 0.2});
    // First make every device known: a message goes back to the queue while its device is being registered, and other
    // messages overtake it.
    world.stack.post("send", run(2 * DEVICES as u64, 1)).await;
    done(&world.stack).await;
    host.drained().await;
    let warm_up = uplinks(&world).await.len();

    world.stack.post("send", run(IN_PEACE, 1)).await;
    let sent = done(&world.stack).await;
    host.drained().await;
    let number = |name: &str| sent[name].as_u64().unwrap();
    let status = |status: &str| sent["statuses"][status].as_u64().unwrap_or_default();
    assert!(number("malformed") > 10 && number("repeats") > 100 && number("events") > 100, "{sent}");
    // A repeat belongs to an uplink or to another event.
    assert_eq!(status("202") + status("200"), number("uplinks") + number("events") + number("repeats"), "{sent}");
    assert!(status("202") >= number("uplinks") && status("200") >= number("events"), "{sent}");
    assert_eq!(status("400") + status("413"), number("malformed"), "{sent}");

    // The queue delivered nothing twice, so each device's messages are in the order in which it sent them.
    let sent = uplinks(&world).await;
    let arrived = arrivals(&world).await;
    assert_eq!(arrived.len(), sent.len());
    let mut last = BTreeMap::new();
    for (device, marker) in &arrived {
        let Sent { device: of, order } = &sent[marker];
        assert_eq!(device, of);
        if *order < warm_up {
            continue;
        }
        let before = last.insert(device, order);
        assert!(before.is_none_or(|before| before < order), "{device}: {order} after {before:?}");
    }
    assert_eq!(last.len(), DEVICES);

    world.stack.post("send", run(IN_TROUBLE, 100)).await;
    let before = 2 * DEVICES as u64 + IN_PEACE;
    until(&world.stack, before + 1_500).await;
    host.kill_handler().await;
    until(&world.stack, before + 3_000).await;
    host.kill_handler().await;
    until(&world.stack, before + 4_500).await;
    world.hub.away(true).await;
    world.hub.post("cut", Value::Null).await;
    sleep(HUB_AWAY).await;
    world.hub.away(false).await;
    until(&world.stack, before + 6_500).await;
    host.kill_handler().await;
    done(&world.stack).await;
    host.drained().await;

    let sent = uplinks(&world).await;
    assert!(sent.len() >= UPLINKS, "{} uplinks", sent.len());
    let arrived = arrivals(&world).await;
    assert!(arrived.iter().all(|(device, marker)| *device == sent[marker].device));
    let markers: HashSet<_> = arrived.iter().map(|(_, marker)| *marker).collect();
    let lost: Vec<_> = sent.keys().filter(|marker| !markers.contains(marker)).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    assert_eq!(arrived.len(), sent.len(), "one message id for each uplink");
    for queue in ["uplinks-poison", "uplinks-rejected"] {
        assert_eq!(host.queue(queue).await, Vec::<Value>::new(), "{queue}");
    }
    let registrations = world.hub.get("dps/registrations").await;
    let registrations = registrations.as_array().unwrap();
    assert_eq!(registrations.len(), DEVICES);
    assert!(registrations.iter().all(|one| one["registerCalls"] == 1), "a device was registered again");
}
