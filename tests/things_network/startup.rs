//! Tests the settings: each half alone, both halves, or an error message that names what is missing.

use serde_json::json;

use crate::things_network::support::{Host, World, start_and_wait_for_exit, uplink};

#[tokio::test]
async fn without_either_half_the_message_says_what_each_needs() {
    let mut world = World::start().await;
    world.unset("UplinkQueueName");
    let (code, text) = start_and_wait_for_exit(&world.settings).await;
    assert_eq!(code, Some(2));
    assert_eq!(text.lines().count(), 3, "{text}");
    for part in ["M2MBackendURL", "UplinkQueueName", "Customer_ID", "DPS"] {
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
    assert_eq!((code, text.lines().count()), (Some(2), 3), "{text}");
    for name in [
        "UplinkQueueName",
        "DeviceIdTemplate",
        "ThingsNetworkWebhookSecret",
        "DPSEnrollmentGroupSymmetricKey-app",
        "AzureIotHubConnectionString-other",
        "M2MDocumentsDBUri",
    ] {
        assert!(text.contains(name), "{name} is missing in {text}");
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
    let host = Host::start_with(&world.settings, json!({}), &["--run-at-start"]).await;
    assert_eq!(host.post(uplink("app", "dev", 1).to_string()).await.status, 202);
    let received = world.received(2).await;
    let device = |message: &serde_json::Value| message["deviceId"].as_str().unwrap().to_owned();
    let mut devices: Vec<_> = received.iter().map(device).collect();
    devices.sort();
    assert_eq!(devices, ["dev", "gateway"]);
}
