//! Tests `local` with the user's own services.

use std::net::TcpListener;

use emulators::iot_hub;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::local::support::{Live, app, command, last_record, records, runs, stderr, webhook};

#[test]
fn half_a_service_is_not_completed_by_an_emulator() {
    for (name, settings, missing) in [
        ("half-a-hub", json!({ "IoTHubURL": "myhub.azure-devices.net" }), "IoTHubDeviceId is not set"),
        ("half-a-backend", json!({ "Customer_ID": "Waterworks" }), "M2MBackendURL is not set"),
        ("less-of-a-backend", json!({ "Site_ID": "Well 7" }), "needs M2MBackendURL and Customer_ID"),
        (
            "made-up-sites",
            json!({ "DPSIDScope": "0ne1", "DPSEnrollmentGroupSymmetricKey": "a2V5" }),
            "no settings found",
        ),
        ("half-a-dps", json!({ "UplinkQueueName": "q", "DPSIDScope-pumps": "0ne1" }), "DPSEnrollmentGroupSymmetricKey"),
        ("half-a-ledger", json!({ "M2MDocumentsDBPrimaryKey": "c2VjcmV0LWtleQ==" }), "M2MDocumentsDBUri is not set"),
    ] {
        let output = command(&app(name, Some(&settings)), &["--for", "5s", "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        let text = stderr(&output);
        assert!(text.contains(missing) && text.contains("is real because"), "{name}: {text}");
        assert!(!text.contains("c2VjcmV0LWtleQ=="), "{text}");
    }
}

/// Settings of a hub and its DPS that look real.
fn own_hub(hub: &iot_hub::Emulator) -> Value {
    let ready = hub.ready();
    json!({
        "DPSGlobalDeviceEndpoint": ready.dps, "DPSIDScopeDefault": ready.id_scope,
        "DPSEnrollmentGroupSymmetricKey-pumps": ready.group_key, "IoTHubTrustedCa": ready.ca,
    })
}

#[test]
fn nothing_made_up_reaches_a_hub_of_ones_own_through_the_things_network() {
    let runtime = Runtime::new().unwrap();
    let hub = runtime.block_on(iot_hub::start(iot_hub::Options::default())).unwrap();
    let ready = hub.ready();

    // Only the other half is requested.
    let mut settings = own_hub(&hub);
    settings["IoTHubURL"] = json!(ready.mqtt);
    settings["IoTHubDeviceId"] = json!("mine");
    settings["IoTHubDeviceKey"] = json!(ready.key);
    let output = command(&app("own-dps", Some(&settings)), &["--for", "3s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!((&records[0]["webhooks"], &records[0]["commands"]), (&Value::Null, &Value::Null));
    assert!(records[0]["off"][0].as_str().unwrap().contains("UplinkQueueName"), "{}", records[0]);
    assert_eq!(hub.counts().per_device.keys().collect::<Vec<_>>(), ["mine"]);
    assert_eq!(hub.counts().dps_connections, 0);
}

#[test]
fn real_webhooks_are_waited_for_and_forwarded_to_a_hub_of_ones_own() {
    let runtime = Runtime::new().unwrap();
    let hub = runtime.block_on(iot_hub::start(iot_hub::Options::default())).unwrap();
    let mut settings = own_hub(&hub);
    settings["UplinkQueueName"] = json!("mine");
    let mut messages = hub.subscribe();
    let mut live = Live::start(command(&app("own-webhooks", Some(&settings)), &["--json"]));
    let start = live.start_record();
    let service = |row: &Value| json!([row["name"], row["emulated"]]);
    let services: Vec<_> = start["services"].as_array().unwrap().iter().map(service).collect();
    let expected = json!([["The Things Stack", false], ["Storage queue", true], ["Cosmos DB", true], ["DPS", false]]);
    assert_eq!(json!(services), expected);
    assert_eq!((&start["timers"], &start["queue"]), (&json!({}), &json!("mine")), "rapidM2M is off");

    let url = start["webhooks"].as_str().unwrap();
    assert_eq!(live.post(url, &webhook("pumps", "pump-7")), 202);
    assert_eq!(live.post(url, &json!({})), 400);
    let message = runtime.block_on(messages.recv()).unwrap();
    assert_eq!(message.device_id, "pump-7");
    let (status, rest) = live.interrupt();
    assert!(status.success(), "{rest}");
    let summary = last_record(&rest);
    assert_eq!(summary["webhooks"], json!({ "202": 1, "400": 1 }));
    assert_eq!((&summary["uplinks"], &summary["failures"]), (&Value::Null, &json!(0)), "a real hub's are not known");
}

#[test]
fn a_hub_of_ones_own_gets_the_rows() {
    let runtime = Runtime::new().unwrap();
    let hub = runtime.block_on(iot_hub::start(iot_hub::Options::default())).unwrap();
    let ready = hub.ready();
    let settings = json!({
        "IoTHubURL": ready.mqtt, "IoTHubDeviceId": "mine", "IoTHubDeviceKey": ready.key, "IoTHubTrustedCa": ready.ca,
        "StartFrom": "youngest",
    });
    let output = command(&app("own-hub", Some(&settings)), &["--for", "1s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    let is_emulated: Vec<_> = records[0]["services"].as_array().unwrap().iter().map(|row| &row["emulated"]).collect();
    assert_eq!(is_emulated, [true, true, false]);
    assert!(hub.counts().per_device["mine"].messages >= 3);
    let summary = records.last().unwrap();
    assert_eq!(summary["messages"], Value::Null, "what is in a real hub is not known here");
    assert!(!String::from_utf8(output.stdout).unwrap().contains(&ready.key), "secrets are not printed");
}

#[test]
fn a_failed_run_is_told_and_fails_the_session() {
    // The port was bound and released, so it refuses connections.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = json!({
        "M2MBackendURL": format!("http://{address}/api/1/"), "Base64encodedUsernamePassword": "dXNlcjpodW50ZXIy",
        "Customer_ID": "Waterworks", "Site_ID": "Well 7", "Channelnames": "ch0", "PollTimeoutSeconds": "60",
    });
    let app = app("failing", Some(&settings));
    let output = command(&app, &["--for", "1s", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let records = records(&output);
    let run = runs(&records)[0];
    assert_eq!((&run["level"], &run["sites.failed"]), (&json!("error"), &json!(1)));
    let warning = records.iter().find(|record| record["level"] == "warn").expect("a warning");
    assert_eq!(warning["site.names"], "Well 7", "{warning}");
    assert_ne!(records.last().unwrap()["failed"], 0);

    for (format, figure) in [("brief", false), ("text", true)] {
        let output = command(&app, &["--for", "1s"]).env("LOG_FORMAT", format).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("  error: rapidM2MForwarding: "), "{text}");
        assert!(text.contains(r#" site.names="Well 7""#), "{text}");
        assert_eq!(text.contains(" failure.count=1"), figure, "{text}");
        assert!(!text.contains("dXNlcjpodW50ZXIy") && !text.contains("hunter2"), "{text}");
    }
}
