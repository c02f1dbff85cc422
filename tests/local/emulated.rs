//! Without services of one's own.

use std::{collections::BTreeSet, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{Live, SITES, app, command, last_record, of_type, records, stderr, webhook};

#[test]
fn without_any_setting_both_halves_reach_the_hub() {
    let output = command(&app("emulated", None), &["--for", "5s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    assert_eq!(records[0]["type"], "start");
    let services = records[0]["services"].as_array().unwrap();
    assert!(services.iter().all(|service| service["emulated"] == true), "{services:?}");
    let names: Vec<_> = services.iter().map(|service| service["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["rapidM2M backend", "The Things Stack", "Storage queue", "Cosmos DB", "DPS", "IoT Hub"]);
    assert_eq!(records[0]["timers"][0]["schedule"], "0 * * * * *");
    assert!(records[0]["status"].as_str().unwrap().ends_with("/api/status"), "{}", records[0]);
    assert!(records[0]["webhooks"]["url"].as_str().unwrap().ends_with("/api/uplink"), "{}", records[0]);

    for site in SITES {
        let message = of_type(&records, "message").into_iter().find(|message| message["site"] == site).expect(site);
        assert!(message["rows"].as_u64() >= Some(60), "an hour of history: {message}");
        assert!(message["values"]["ch0"].is_number(), "{message}");
        assert_eq!(message["device"], "local-demo");
    }
    let runs = of_type(&records, "run");
    assert!(!runs.is_empty() && runs.iter().all(|run| run["succeeded"] == true), "{runs:?}");
    assert!(runs.iter().all(|run| run["function"] == "rapidM2MForwarding"), "{runs:?}");

    let uplinks = of_type(&records, "uplink");
    for uplink in &uplinks {
        assert_eq!(uplink["device"], uplink["endDevice"], "{uplink}");
        assert!(uplink["fPort"].as_u64() > Some(0) && uplink["fCnt"].is_u64(), "{uplink}");
        let values = uplink["values"].as_object().unwrap();
        assert!(values.len() > 1 && !values.contains_key("DeviceID"), "decoded fields only: {uplink}");
    }

    let summary = records.last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["runs"], runs.len());
    for none in ["failed", "failures", "rejected", "leftInQueue", "missed", "uncounted"] {
        assert_eq!(summary[none], 0, "{none}");
    }
    let rows = of_type(&records, "message").iter().map(|message| message["rows"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(summary["rows"], rows);
    assert_eq!(summary["sites"].as_object().unwrap().keys().collect::<Vec<_>>(), SITES);
    // In 5 s every device had its turn, and all that was sent was waited for.
    assert_eq!(summary["devices"].as_object().unwrap().len(), 3);
    assert!(uplinks.len() >= 3, "{uplinks:?}");
    for count in ["uplinks", "forwarded"] {
        assert_eq!(summary[count], uplinks.len(), "{count}");
    }
    assert_eq!(summary["webhooks"], json!({ "202": uplinks.len() }));
}

#[test]
fn people_get_a_table_of_services_a_line_per_message_and_a_summary() {
    let app = app("text", None);
    let elsewhere = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let arguments = ["--every", "1", "--for", "6s", "--app", app.to_str().unwrap()];
    let output = command(elsewhere, &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    for expected in [
        "rapidM2M backend",
        "The Things Stack",
        "an uplink each every 1 s",
        "Cosmos DB",
        "IoT Hub",
        "\"00:00:01\" (command line)",
        "takes webhooks at http://127.0.0.1:",
        "The status page is at http://127.0.0.1:",
        "Ctrl-C ends",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    // In the messages' lines and in the summary.
    for name in SITES.into_iter().chain(["app-1/water-meter-00000", "app-2/energy-meter-00001"]) {
        assert!(text.lines().filter(|line| line.contains(name)).count() >= 2, "{name}:\n{text}");
    }
    assert!(text.lines().filter(|line| line.contains("run: 3 of 3 sites polled")).count() >= 2, "{text}");
    assert!(text.contains(" runs, 0 failed; ") && text.contains("\nThe hub received "), "{text}");
    assert!(!text.contains("NNSXS") && !text.contains("SharedAccessKey"), "secrets are not printed: {text}");
    // The messages' lines begin with a time; what is older has its column.
    let is_message = |line: &&str| line.as_bytes().get(4) == Some(&b':');
    let stamps = text.lines().filter(is_message).filter_map(|line| Some(line[..line.find("Z  ")?].chars().count()));
    let columns: BTreeSet<_> = stamps.collect();
    assert_eq!(columns.len(), 1, "{text}");
}

#[test]
fn the_status_page_is_at_the_root_too() {
    let mut live = Live::start(command(&app("status", None), &["--json"]));
    let start = live.record("start");
    live.record("run");
    for url in [&start["host"], &start["status"]].map(|url| url.as_str().unwrap()) {
        let (status, content_type, page) = live.get(url);
        assert_eq!((status, content_type.as_str()), (200, "text/html; charset=utf-8"), "{url}");
        assert!(SITES.iter().all(|site| page.contains(site)), "{url}: {page}");
    }
    let (status, content_type, json) = live.get(&format!("{}?format=json", start["status"].as_str().unwrap()));
    assert_eq!((status, content_type.as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["States"]["ok"], 3, "{json}");
    live.record("uplink");
    assert!(live.interrupt().0.success());
}

#[test]
fn a_downlink_by_hand_reaches_the_things_stack() {
    let mut live = Live::start(command(&app("downlink", None), &["--every", "1", "--json"]));
    let url = live.record("start")["downlinks"]["url"].as_str().unwrap().to_owned();
    assert_eq!(live.post(&url, &json!({ "body": "open the valve", "properties": { "Port": "7" } })), 201);
    let downlink = live.record("downlink");
    assert_eq!(
        (&downlink["application"], &downlink["endDevice"], &downlink["fPort"], &downlink["accepted"]),
        (&json!("app-1"), &json!("water-meter-00000"), &json!(7), &json!(true)),
        "{downlink}"
    );
    assert_eq!(downlink["payload"], BASE64_STANDARD.encode("open the valve"));
    live.record("run");
    let (status, rest) = live.interrupt();
    assert!(status.success(), "{rest}");
    assert_eq!(last_record(&rest)["downlinks"], 1);
}

#[test]
fn the_line_for_a_downlink_can_be_copied() {
    let mut live = Live::start(command(&app("downlink-text", None), &["--every", "1"]));
    let line = live.line("curl -X POST ");
    let parts: Vec<_> = line.split('\'').collect();
    assert_eq!(live.post(parts[1], &serde_json::from_str(parts[3]).unwrap()), 201);
    let line = live.line("downlink accepted");
    assert!(line.contains("app-1/water-meter-00000") && line.ends_with(r#""open the valve""#), "{line}");
    let (_, rest) = live.interrupt();
    assert!(rest.contains(", 1 downlink\n"), "{rest}");
}

#[test]
fn a_rejected_message_is_told_and_fails_the_session() {
    let app = app("rejected", None);
    let foreign = webhook("other", "water-meter-00000");

    let mut live = Live::start(command(&app, &["--json"]));
    let url = live.record("start")["webhooks"]["url"].as_str().unwrap().to_owned();
    assert_eq!(live.record("uplink")["device"], "water-meter-00000");
    assert_eq!(live.post(&url, &foreign), 202);
    let rejected = live.record("rejected");
    assert_eq!(rejected["kind"], "device_taken");
    assert!(rejected["reason"].as_str().unwrap().contains("DeviceIdTemplate"), "{rejected}");
    let (status, rest) = live.interrupt();
    assert_eq!((status.code(), &last_record(&rest)["rejected"]), (Some(1), &json!(1)), "{rest}");

    let mut live = Live::start(command(&app, &[]));
    let line = live.line("takes webhooks at ");
    let url = line.split_once(" at ").unwrap().1;
    live.line("  app-1/water-meter-00000 ");
    assert_eq!(live.post(url, &foreign), 202);
    live.line("error: a message is rejected (device_taken)");
    let (_, rest) = live.interrupt();
    assert!(rest.contains("(1 rejected, see above"), "{rest}");
}

#[test]
fn each_site_can_be_a_device_of_its_own() {
    let output = command(&app("devices", None), &["--for", "4s", "--device-per-site"]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    let names = ["energy-meter-1-", "reservoir-sued-", "well-7-level-"];
    for (site, device) in SITES.iter().zip(names) {
        let line =
            text.lines().find(|line| line.contains(site)).unwrap_or_else(|| panic!("no line of {site}:\n{text}"));
        assert!(line.contains(device), "{line}");
    }
    let uplink = text.lines().find(|line| line.contains("app-1/water-meter-00000")).expect("an uplink");
    assert!(uplink.contains("  water-meter-00000  "), "{uplink}");
    let header = text.lines().find(|line| line.trim_start().starts_with("received")).unwrap();
    assert!(text.contains("\n  DPS ") && header.contains("device"), "{text}");

    let own = json!({ "IoTHubURL": "127.0.0.1:1", "IoTHubDeviceId": "d", "IoTHubDeviceKey": "c2VjcmV0" });
    let output = command(&app("devices-own", Some(&own)), &["--device-per-site"]).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("DPSIDScope"), "{}", stderr(&output));
}

#[test]
fn the_emulated_things_stack_knows_the_secret() {
    let settings = json!({ "ThingsNetworkWebhookSecret": "correct horse battery staple", "UplinkQueueName": "mine" });
    let output = command(&app("secret", Some(&settings)), &["--for", "2s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!(records[0]["webhooks"]["queue"], "mine");
    assert!(records.last().unwrap()["webhooks"]["202"].as_u64() >= Some(1));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("correct horse"), "secrets are not printed");
}

#[test]
fn ctrl_c_ends_with_the_summary() {
    let mut live = Live::start(command(&app("interrupted", None), &["--json"]));
    let mut awaited = vec![r#""type":"run""#, r#""type":"uplink""#];
    while !awaited.is_empty() {
        let line = live.line("");
        awaited.retain(|kind| !line.contains(kind));
    }
    let (status, rest) = live.interrupt();
    let summary = last_record(&rest);
    assert_eq!((&summary["type"], &summary["failed"], &summary["error"]), (&json!("summary"), &json!(0), &Value::Null));
    assert!(status.success(), "{rest}");
}

#[test]
fn a_folder_that_is_no_function_app_is_named() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
    fs::create_dir_all(&folder).unwrap();
    let output = command(&folder, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("has no host.json") && text.contains("--app"), "{text}");
}

/// Whoever reads the lines has stopped to, so the session cannot print its summary and come to its end.
#[test]
fn the_second_ctrl_c_ends_at_once() {
    let mut live = Live::start(command(&app("interrupted-twice", None), &["--json"]));
    live.record("start");
    let handler = live.child_processes();
    assert_eq!(handler.len(), 1, "{handler:?}");
    live.fill_output();
    // To this process only: it takes the handler with it.
    assert_eq!(live.interrupt_until_ended().code(), Some(130), "as shells have it: 128 and the signal's number");
    assert!(!Path::new(&format!("/proc/{}", handler[0])).exists(), "the handler is left behind");
}
