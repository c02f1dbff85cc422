//! Tests who a device is: the same ids in two tenants, a device that moved or was renamed, events without a DevEUI, an
//! enrollment for one port only.

use iothub_connector::iot_hub::devices::{Owner, documents::Document};
use serde_json::{Value, json};

use crate::things_network::support::{Answer, Host, QUEUE, World, uplink};

const REJECTED: &str = "uplinks-rejected";
const NORTH: &str = "north.eu1.cloud.thethings.industries";
const SOUTH: &str = "south.nam1.cloud.thethings.industries";

/// Posts a webhook as The Things Stack of this tenant does, and waits until it has left the queue.
async fn post(host: &Host, domain: &str, body: &Value) -> Answer {
    let answer = host.post_with(body.to_string(), &[("X-Tts-Domain", domain)]).await;
    host.drained().await;
    answer
}

fn with_eui(application: &str, device: &str, counter: u32, dev_eui: &str) -> Value {
    let mut body = uplink(application, device, counter);
    body["end_device_ids"]["dev_eui"] = dev_eui.into();
    body
}

/// Hub device and fCnt of the messages that the hub has, when it has so many.
async fn received(world: &World, count: usize) -> Vec<(String, Value)> {
    let all = world.received(count).await;
    all.iter()
        .map(|message| (message["deviceId"].as_str().unwrap().to_owned(), message["body"]["Counter"].clone()))
        .collect()
}

fn of(device: &str, counter: u32) -> (String, Value) {
    (device.to_owned(), counter.into())
}

#[tokio::test]
async fn the_same_ids_in_two_tenants_are_never_one_device() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    post(&host, NORTH, &with_eui("temperature", "node1", 41, "A840410000000A01")).await;
    post(&host, SOUTH, &with_eui("temperature", "node1", 41, "70B3D50000000B02")).await;
    post(&host, NORTH, &with_eui("temperature", "node1", 42, "A840410000000A01")).await;
    assert_eq!(received(&world, 2).await, [of("node1", 41), of("node1", 42)]);
    let rejected = host.texts(REJECTED, 1).await.remove(0);
    let reason = rejected["Reason"].as_str().unwrap();
    assert!(reason.contains(NORTH) && reason.contains(SOUTH) && reason.contains("{tenant_id}"), "{reason}");
    assert_eq!((&rejected["Domain"], &rejected["Kind"]), (&json!(SOUTH), &json!("device_taken")));
    host.stop().await;

    // Also after a restart, and with the tenant's own id in the template both are forwarded.
    let mut world = world;
    world.set("DeviceIdTemplate", "{tenant_id}-{device_id}");
    let host = Host::start(&world.settings).await;
    host.put(QUEUE, rejected.to_string()).await;
    host.drained().await;
    post(&host, NORTH, &with_eui("temperature", "node1", 43, "A840410000000A01")).await;
    assert_eq!(received(&world, 4).await[2..], [of("south-node1", 41), of("north-node1", 43)]);
}

/// A document of an earlier version names no tenant. It gets the first that comes, and keeps it.
#[tokio::test]
async fn a_device_that_is_known_without_tenant_gets_it_once() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    host.post(uplink("city", "pump", 1).to_string()).await;
    host.drained().await;
    let store = world.store();
    let before = store.read("pump").await.unwrap().unwrap().document;
    assert_eq!(before.tenant, None);
    let as_before: Value = serde_json::to_value(&before).unwrap();
    assert!(as_before.get("Tenant").is_none(), "{as_before}");
    post(&host, NORTH, &uplink("city", "pump", 2)).await;
    let after = store.read("pump").await.unwrap().unwrap().document;
    assert_eq!(serde_json::to_value(&after).unwrap()["Tenant"], json!({"Domain": NORTH}));
    assert_eq!(Document { tenant: None, ..after }, before, "nothing else changes, and it is not registered again");
    post(&host, SOUTH, &uplink("city", "pump", 3)).await;
    assert_eq!(host.texts(REJECTED, 1).await.len(), 1);
    // A message that was queued by an earlier version names no tenant.
    host.put(
        QUEUE,
        json!({"ReceivedAtUTC": "2026-01-31T12:00:00.5Z", "Webhook": uplink("city", "pump", 4)}).to_string(),
    )
    .await;
    host.drained().await;
    assert_eq!(received(&world, 3).await, [of("pump", 1), of("pump", 2), of("pump", 4)]);
}

#[tokio::test]
async fn a_device_that_moved_is_rejected_until_it_is_moved_here_too_and_nothing_is_lost() {
    let world = World::start().await;
    let host = Host::start(&world.settings).await;
    post(&host, NORTH, &uplink("trial", "probe-5", 812)).await;
    post(&host, NORTH, &uplink("production", "probe-5", 1)).await;
    let rejected = host.texts(REJECTED, 1).await.remove(0);
    let reason = rejected["Reason"].as_str().unwrap();
    for part in ["\"trial\"", "\"production\"", "`iothub-connector devices move`", "`iothub-connector devices forget`"]
    {
        assert!(reason.contains(part), "{part} is missing in {reason}");
    }
    // As the command does it.
    let store = world.store();
    let stored = store.read("probe-5").await.unwrap().unwrap();
    let owner = (&Owner::things_network("production", "probe-5", "probe-5")).into();
    let moved = Document { owner, tenant: None, ..stored.document };
    store.write(&moved, stored.etag.as_deref()).await.unwrap();
    host.put(QUEUE, rejected.to_string()).await;
    host.drained().await;
    assert_eq!(received(&world, 2).await, [of("probe-5", 812), of("probe-5", 1)]);
}

/// A device cannot be renamed in The Things Stack: it is deleted and created anew.
#[tokio::test]
async fn with_the_dev_eui_in_the_template_a_device_goes_on_under_another_name_and_application() {
    let mut world = World::start().await;
    world.set("DeviceIdTemplate", "{dev_eui}");
    let host = Host::start(&world.settings).await;
    let eui = "A8404100000000C7";
    post(&host, NORTH, &with_eui("city", "old-name", 812, eui)).await;
    post(&host, NORTH, &with_eui("city", "new-name", 1, eui)).await;
    post(&host, NORTH, &with_eui("production", "new-name", 2, eui)).await;
    let device = "a8404100000000c7";
    assert_eq!(received(&world, 3).await, [of(device, 812), of(device, 1), of(device, 2)]);
    let document = world.store().read(device).await.unwrap().unwrap().document;
    assert_eq!((document.owner.group.as_str(), document.owner.name.as_str()), ("production", "new-name"));
    assert_eq!(document.registrations, 1);
    // But not in another tenant.
    post(&host, SOUTH, &with_eui("production", "new-name", 3, eui)).await;
    let reason = host.texts(REJECTED, 1).await.remove(0)["Reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(NORTH) && reason.contains(SOUTH), "{reason}");
}

#[tokio::test]
async fn an_event_without_dev_eui_finds_its_device_also_after_a_restart() {
    let mut world = World::start().await;
    world.set("DeviceIdTemplate", "{dev_eui}");
    world.set("ThingsNetworkEvents", "true");
    let host = Host::start(&world.settings).await;
    assert_eq!(post(&host, NORTH, &with_eui("city", "fail-1", 41, "A8404100B3968D42")).await.status, 202);
    let failed = |number: u32| {
        json!({
            "end_device_ids": {"device_id": "fail-1", "application_ids": {"application_id": "city"}},
            "correlation_ids": [format!("as:{number}")], "received_at": "2026-03-02T10:15:30.250Z",
            "downlink_failed": {
                "downlink": {"f_port": 15, "frm_payload": "vu8="},
                "error": {"namespace": "pkg/networkserver", "name": "application_downlink_too_long", "code": 3}
            }
        })
    };
    assert_eq!(post(&host, NORTH, &failed(1)).await.status, 200);
    assert_eq!(host.queue(REJECTED).await, Vec::<Value>::new());
    host.stop().await;
    let host = Host::start(&world.settings).await;
    assert_eq!(post(&host, NORTH, &failed(2)).await.status, 200);
    let received = world.received(3).await;
    assert!(received.iter().all(|message| message["deviceId"] == "a8404100b3968d42"), "{received:#?}");
    assert_eq!(host.queue(REJECTED).await, Vec::<Value>::new());
}

#[tokio::test]
async fn what_has_no_port_is_the_device_of_the_only_port_with_an_enrollment() {
    let mut world = World::start().await;
    world.set("ThingsNetworkEvents", "true");
    for (from, to) in [
        ("DPSIDScopeDefault", "DPSIDScope__city__2"),
        ("DPSEnrollmentGroupSymmetricKeyDefault", "DPSEnrollmentGroupSymmetricKey__city__2"),
    ] {
        let value = world.settings[from].clone();
        world.unset(from);
        world.set(to, &value);
    }
    let host = Host::start(&world.settings).await;
    let mut on_port = uplink("city", "ported-1", 41);
    on_port["uplink_message"]["f_port"] = 2.into();
    let mut without = uplink("city", "ported-1", 42);
    without["uplink_message"].as_object_mut().unwrap().remove("f_port");
    let ack = json!({
        "end_device_ids": {"device_id": "ported-1", "application_ids": {"application_id": "city"}},
        "received_at": "2026-03-02T10:15:30.250Z", "downlink_ack": {"f_port": 2, "f_cnt": 3, "confirmed": true}
    });
    let mut statuses = Vec::new();
    for body in [on_port, without, ack] {
        statuses.push(post(&host, NORTH, &body).await.status);
    }
    assert_eq!(statuses, [202, 202, 200]);
    let received = world.received(3).await;
    assert!(received.iter().all(|message| message["deviceId"] == "ported-1"), "{received:#?}");
    // Another port is not covered.
    post(&host, NORTH, &uplink("city", "ported-1", 43)).await;
    assert_eq!(host.texts(REJECTED, 1).await[0]["Kind"], "no_device");
}
