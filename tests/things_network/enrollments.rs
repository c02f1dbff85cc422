//! Tests which device an uplink is sent as: enrollment groups and hubs by application and port.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::things_network::support::{Host, World, uplink};

fn with_port(application: &str, device: &str, counter: u32, port: u8) -> String {
    let mut uplink = uplink(application, device, counter);
    uplink["uplink_message"]["f_port"] = port.into();
    uplink.to_string()
}

/// How often each registration was requested.
async fn registrations(world: &World) -> BTreeMap<String, u64> {
    let all = world.hub.get("dps/registrations").await;
    let one =
        |one: &Value| (one["registrationId"].as_str().unwrap().to_owned(), one["registerCalls"].as_u64().unwrap());
    all.as_array().unwrap().iter().map(one).collect()
}

#[tokio::test]
async fn each_device_is_registered_once_also_over_restarts() {
    let world = World::start().await;
    for round in 0..2 {
        let host = Host::start(&world.settings).await;
        for device in ["a", "b", "c"] {
            for counter in 0..3 {
                assert_eq!(host.post(uplink("app", device, 10 * round + counter).to_string()).await.status, 202);
            }
        }
        host.drained().await;
        host.stop().await;
    }
    assert_eq!(world.received(18).await.len(), 18);
    let expected = ["a", "b", "c"].map(|device| (device.to_owned(), 1));
    assert_eq!(registrations(&world).await, expected.into());
}

/// The application's devices are already in a hub's registry: no registration.
#[tokio::test]
async fn a_hubs_own_connection_string_takes_the_place_of_provisioning() {
    let mut world = World::start().await;
    let (hub, policy, key) = (world.hub.ready("mqtt"), world.hub.ready("policy"), world.hub.ready("policyKey"));
    let connection = format!("HostName={hub};SharedAccessKeyName={policy};SharedAccessKey={key}");
    world.set("AzureIotHubConnectionString-legacy", &connection);
    let host = Host::start(&world.settings).await;
    assert_eq!(host.post(uplink("legacy", "old-1", 1).to_string()).await.status, 202);
    assert_eq!(host.post(uplink("other", "new-1", 1).to_string()).await.status, 202);
    let mut devices: Vec<_> =
        world.received(2).await.iter().map(|message| message["deviceId"].as_str().unwrap().to_owned()).collect();
    devices.sort();
    assert_eq!(devices, ["new-1", "old-1"]);
    assert_eq!(registrations(&world).await.into_keys().collect::<Vec<_>>(), ["new-1"]);
    assert!(!host.log().contains(world.hub.ready("policyKey")));
}

/// A port with its own hub must not make the device register again and again for alternating hubs.
#[tokio::test]
async fn a_ports_own_enrollment_is_kept_apart() {
    let mut world = World::start().await;
    let (hub, policy, key) = (world.hub.ready("mqtt"), world.hub.ready("policy"), world.hub.ready("policyKey"));
    let connection = format!("HostName={hub};SharedAccessKeyName={policy};SharedAccessKey={key}");
    world.set("AzureIotHubConnectionString__app__200", &connection);
    let host = Host::start(&world.settings).await;
    for counter in 0..6 {
        let port = if counter % 2 == 0 { 200 } else { 1 };
        assert_eq!(host.post(with_port("app", "dev", counter, port)).await.status, 202);
    }
    host.drained().await;
    let received = world.received(6).await;
    assert!(received.iter().all(|message| message["deviceId"] == "dev"));
    assert_eq!(registrations(&world).await, [("dev".to_owned(), 1)].into());
}
