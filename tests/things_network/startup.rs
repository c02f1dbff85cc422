//! Tests the settings: each half alone, both halves, an error message that names what is missing, and a fault in one half
//! that leaves the other alone.

use serde_json::json;

use crate::things_network::support::{Host, QUEUE, World, start_and_wait_for_exit, uplink};

#[tokio::test]
async fn without_either_half_the_message_says_what_each_needs() {
    let mut world = World::start().await;
    world.unset("UplinkQueueName");
    let (code, text) = start_and_wait_for_exit(&world.settings).await;
    assert_eq!(code, Some(2));
    assert_eq!(text.lines().count(), 2, "{text}");
    for part in ["no settings found: set M2MBackendURL and Customer_ID", "UplinkQueueName", "cannot start"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[tokio::test]
async fn every_setting_at_fault_is_named_at_once() {
    let mut world = World::start().await;
    world.unset("DPSIDScopeDefault");
    world.unset("M2MDocumentsDBUri");
    for (name, value) in [
        ("UplinkQueueName", "Not A Queue"),
        ("DeviceIdTemplate", "{device}"),
        ("ThingsNetworkWebhookSecret", "hunter2"),
        ("DPSEnrollmentGroupSymmetricKey-app", "hunter2!"),
        ("AzureIotHubConnectionString-other", "HostName=h.net;DeviceId=d;SharedAccessKey=hunter2"),
    ] {
        world.set(name, value);
    }
    let (code, text) = start_and_wait_for_exit(&world.settings).await;
    assert_eq!((code, text.lines().count()), (Some(2), 10), "each problem has a line: {text}");
    for name in [
        "UplinkQueueName",
        "DeviceIdTemplate",
        "ThingsNetworkWebhookSecret",
        "DPSEnrollmentGroupSymmetricKey-app",
        "AzureIotHubConnectionString-other",
        "M2MDocumentsDBUri",
    ] {
        assert!(text.contains(name), "{name} is missing in {text}");
        // The host shows the last three lines.
        assert!(text.lines().last().unwrap().contains(name), "{name} is missing at the end of {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

/// Rows of rapidM2M sites are sent as one device, uplinks as devices of their own.
#[tokio::test]
async fn both_halves_run_together() {
    let mut world = World::start().await;
    let key = world.hub.ready("key").to_owned();
    let url = world.hub.ready("mqtt").to_owned();
    for (name, value) in [
        ("EmulationMode", "true"),
        ("Customer_ID", "c"),
        ("Site_ID", "s"),
        ("Channelnames", "ch0"),
        ("IoTHubURL", &url),
        ("IoTHubDeviceId", "gateway"),
        ("IoTHubDeviceKey", &key),
    ] {
        world.set(name, value);
    }
    let host = Host::start_with(&world.settings, json!({}), &["--run-at-start", "--schedule", "0 0 0 1 1 *"]).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    let received = world.received(2).await;
    let device = |message: &serde_json::Value| message["deviceId"].as_str().unwrap().to_owned();
    let mut devices: Vec<_> = received.iter().map(device).collect();
    devices.sort();
    assert_eq!(devices, ["dev", "gateway"]);
}

#[tokio::test]
async fn a_wrong_setting_of_rapidm2m_leaves_uplinks_alone() {
    let mut world = World::start().await;
    world.set("M2MBackendURL", "https://backend.example/api/1/");
    world.set("Base64encodedUsernamePassword", "hunter2?");
    let host = Host::start(&world.settings).await;
    for counter in 0..10 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    world.received(10).await;
    host.drained().await;
    host.run("rapidM2MForwarding").await;
    host.logged("rapidM2MForwarding failed").await;
    host.logged("failed with status 500").await;
    let (status, page) = host.get("status?format=json").await;
    let log = host.log();
    for name in ["Customer_ID", "Base64encodedUsernamePassword"] {
        assert!(status == 200 && page.contains(name), "{name} is missing in {status} {page}");
        assert!(log.contains(name), "{name} is missing in {log}");
    }
    assert!(!log.contains("hunter2") && !page.contains("hunter2"), "secrets are not printed");
    assert!(log.contains("rapidM2M is not ready, The Things Network is on"), "{log}");
}

#[tokio::test]
async fn webhooks_are_taken_even_if_they_cannot_be_forwarded() {
    let mut world = World::start().await;
    let storage = crate::support::Emulator::start("storage", &[]).await;
    world.set("AzureStorageConnectionString", storage.ready("connection"));
    let scope = world.settings["DPSIDScopeDefault"].clone();
    world.unset("DPSIDScopeDefault");
    world.unset("M2MDocumentsDBUri");
    let host = Host::start(&world.settings).await;
    for counter in 0..10 {
        assert_eq!(host.post(uplink("app", "dev", counter).to_string()).await.status, 202);
    }
    let waits = |message: &serde_json::Value| message["dequeueCount"].as_u64() > Some(0);
    let queue = format!("queues/{QUEUE}");
    host.until(async || storage.get(&queue).await.as_array().unwrap().iter().filter(|m| waits(m)).count() == 10).await;
    let (status, text) = host.get("status").await;
    assert!(
        status == 503 && text.contains("M2MDocumentsDBUri") && text.contains("DPSIDScopeDefault"),
        "{status} {text}"
    );
    let log = host.log();
    assert!(!log.contains("thingsNetworkForwarding failed"), "{log}");
    let lines = log.lines().filter(|line| line.contains("the messages stay in the queue")).count();
    assert_eq!(lines, 1, "a line a minute: {log}");
    drop(host);

    // Corrected settings restart the app.
    world.set("DPSIDScopeDefault", &scope);
    let uri = world.cosmos.ready("endpoint").to_owned();
    world.set("M2MDocumentsDBUri", &uri);
    let host = Host::start(&world.settings).await;
    storage.put("clock", json!({"aheadSeconds": 3600})).await;
    world.received(10).await;
    host.until(async || storage.get(&queue).await == json!([])).await;
}
