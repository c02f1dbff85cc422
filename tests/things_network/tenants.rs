//! Tests 10,000 uplinks of two tenants that have devices with the same ids and DevEUIs. Some uplinks are too large for the queue, an
//! application is moved, commands go to devices of class C, while the handler is killed and the hub is away.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::fleet::{done, marker, until};
use crate::{
    support::Emulator,
    things_network::support::{Host, World},
};

const TENANTS: [&str; 2] = ["north", "south"];
const DEVICES: usize = 150;
/// Webhooks of each tenant before its application moves, and after that.
const BEFORE: u64 = 3_000;
const AFTER: u64 = 2_900;
const UPLINKS: usize = 10_000;
const HUB_AWAY: Duration = Duration::from_secs(5);
/// Devices of each tenant that get a command.
const SIRENS: usize = 20;
const LONG: &str = "timeout_ms=50000";

/// A device's DevEUI and the number of its uplink, by tenant.
type Uplink = (&'static str, String, u64);

fn hub_device(tenant: &str, dev_eui: &str) -> String {
    format!("{tenant}-{}", dev_eui.to_lowercase())
}

async fn sent(tenant: &'static str, stack: &Emulator) -> HashSet<Uplink> {
    let uplinks = stack.get("uplinks").await;
    let uplinks = uplinks.as_array().unwrap().iter().map(|uplink| {
        assert_eq!(uplink["status"], 202, "{uplink}");
        let dev_eui = uplink["body"]["end_device_ids"]["dev_eui"].as_str().unwrap().to_owned();
        (tenant, hub_device(tenant, &dev_eui), uplink["marker"].as_u64().unwrap())
    });
    uplinks.collect()
}

/// Sends some devices a command.
async fn send_command(hub: &Emulator, tenant: &str, stack: &Emulator, name: &str) {
    for siren in sirens(stack).await {
        let message =
            json!({"messageId": format!("{tenant}-{name}"), "bodyBase64": "AQ==", "properties": {"Port": "3"}});
        hub.post(&format!("c2d?device={}", hub_device(tenant, &siren)), message).await;
    }
}

/// Waits until these devices have no command that waits.
async fn all_completed(hub: &Emulator, tenant: &str, stack: &Emulator, count: usize) {
    for siren in sirens(stack).await {
        let path = format!("c2d?device={}&wait=completed:{count}&{LONG}", hub_device(tenant, &siren));
        // One that was cut off comes again after the hub's lock of a minute, and then some seconds.
        let mut states = hub.get(&path).await;
        if states.as_array().unwrap().iter().any(|message| message["state"] != "completed") {
            states = hub.get(&path).await;
        }
        assert!(states.as_array().unwrap().iter().all(|message| message["state"] == "completed"), "{siren}: {states}");
    }
}

async fn sirens(stack: &Emulator) -> Vec<String> {
    let devices = stack.get("devices").await;
    let devices = devices.as_array().unwrap().iter().take(SIRENS);
    devices.map(|device| device["devEui"].as_str().unwrap().to_owned()).collect()
}

/// How often each device of a tenant got each command.
async fn commands(tenant: &str, stack: &Emulator) -> BTreeMap<(String, String), usize> {
    let all = stack.get("downlinks").await;
    let devices = stack.get("devices").await;
    let eui_of = |id: &Value| {
        let device = devices.as_array().unwrap().iter().find(|device| device["device"] == *id);
        device.unwrap()["devEui"].as_str().unwrap().to_owned()
    };
    let mut times = BTreeMap::new();
    for request in all.as_array().unwrap() {
        assert_eq!(request["status"], 200, "{request}");
        let id = request["downlinks"][0]["correlation_ids"][0].as_str().unwrap();
        let name = id.strip_prefix(&format!("iothub:{tenant}-")).expect("a command of this tenant").to_owned();
        *times.entry((name, eui_of(&request["device"]))).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn two_tenants_with_the_same_devices_are_kept_apart() {
    let size = DEVICES.to_string();
    let fleet = |tenant| ["--devices", &size, "--seed", "4711", "--tenant", tenant];
    let mut world = World::start_with(&fleet(TENANTS[0])).await;
    let south = Emulator::start("things_stack", &fleet(TENANTS[1])).await;
    for (name, value) in
        [("DeviceIdTemplate", "{tenant_id}-{dev_eui}"), ("IoTHubMaxConnections", "1000"), ("RUST_LOG", "info")]
    {
        world.set(name, value);
    }
    let host = Host::start_with(&world.settings, json!({"visibilityTimeout": "00:00:01"}), &["--restarts", "9"]).await;
    let stacks = [(TENANTS[0], &world.stack), (TENANTS[1], &south)];
    let run = |count: u64| {
        json!({"target": host.target(), "count": count, "rate": 0, "attempts": 100, "retryDelay": 0.2, "v2Share": 0.0,
               "oversizedShare": 0.03})
    };
    // First all devices become known.
    for (count, is_peaceful) in [(2 * DEVICES as u64, true), (BEFORE, false), (AFTER, false)] {
        for (_, stack) in stacks {
            stack.post("send", run(count)).await;
        }
        let before = world.stack.get("sent").await["attempts"].as_u64().unwrap();
        if !is_peaceful {
            until(&world.stack, before + count / 4).await;
            for (tenant, stack) in stacks {
                send_command(&world.hub, tenant, stack, &format!("in-trouble-{count}")).await;
            }
            host.kill_handler().await;
            until(&world.stack, before + count / 2).await;
            world.hub.away(true).await;
            world.hub.post("cut", Value::Null).await;
            sleep(HUB_AWAY).await;
            world.hub.away(false).await;
        }
        for (_, stack) in stacks {
            done(stack).await;
        }
        host.drained().await;
        if count == BEFORE {
            // Nobody tells the connector.
            for (_, stack) in stacks {
                stack.post("move", json!({"from": "app-1", "to": "app-9"})).await;
            }
        }
    }

    let mut expected = sent(TENANTS[0], stacks[0].1).await;
    expected.extend(sent(TENANTS[1], stacks[1].1).await);
    assert!(expected.len() >= UPLINKS, "{} uplinks", expected.len());
    let mut seen: HashMap<String, Uplink> = HashMap::new();
    let mut cut_down = 0;
    for message in world.received(0).await {
        if message["body"]["Type"] != Value::Null {
            continue;
        }
        let device = message["deviceId"].as_str().unwrap().to_owned();
        let tenant = TENANTS.into_iter().find(|tenant| device.starts_with(tenant)).unwrap();
        let uplink = (tenant, device, marker(&message["body"]));
        cut_down += usize::from(message["body"]["Receptions"] != Value::Null);
        let id = message["messageId"].as_str().unwrap().to_owned();
        if let Some(before) = seen.insert(id, uplink.clone()) {
            assert_eq!(before, uplink, "one id for two uplinks");
        }
    }
    let arrived: HashSet<_> = seen.values().cloned().collect();
    assert_eq!(arrived.len(), seen.len(), "two ids for one uplink");
    let lost: Vec<_> = expected.difference(&arrived).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    assert_eq!(arrived.len(), expected.len(), "what nobody sent");
    assert!(cut_down > UPLINKS / 100, "{cut_down} of {} were too large", seen.len());
    for queue in ["uplinks-poison", "uplinks-rejected"] {
        assert_eq!(host.queue(queue).await, Vec::<Value>::new(), "{queue}");
    }
    let registrations = world.hub.get("dps/registrations").await;
    assert_eq!(registrations.as_array().unwrap().len(), TENANTS.len() * DEVICES);

    // Each device has its commands, from its own tenant: those in trouble at least once, the one in peace once.
    for (tenant, stack) in stacks {
        all_completed(&world.hub, tenant, stack, 2).await;
        send_command(&world.hub, tenant, stack, "in-peace").await;
        all_completed(&world.hub, tenant, stack, 3).await;
        let times = commands(tenant, stack).await;
        assert_eq!(times.len(), 3 * SIRENS, "{times:?}");
        let in_peace: Vec<_> = times.iter().filter(|((name, _), _)| name == "in-peace").collect();
        assert!(in_peace.len() == SIRENS && in_peace.iter().all(|(_, times)| **times == 1), "{in_peace:?}");
    }
}
