//! `iothub-connector local`, as it is run by hand and by scripts.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Lines, Read as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use emulators::iot_hub;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const SITES: [&str; 3] = ["Energy meter 1", "Reservoir Süd", "Well 7 / Level"];

/// A copy of the function app's folder with this local.settings.json.
fn app(name: &str, settings: Option<&Value>) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&app).unwrap();
    fs::copy(source.join("host.json"), app.join("host.json")).unwrap();
    for folder in fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()) {
        let file = folder.join("function.json");
        if file.is_file() {
            let copy = app.join(folder.file_name().unwrap());
            fs::create_dir_all(&copy).unwrap();
            fs::copy(file, copy.join("function.json")).unwrap();
        }
    }
    let file = app.join("local.settings.json");
    match settings {
        Some(values) => fs::write(file, json!({ "IsEncrypted": false, "Values": values }).to_string()).unwrap(),
        None => drop(fs::remove_file(file)),
    }
    app
}

fn command(app: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    command.arg("local").args(arguments).current_dir(app).env_remove("RUST_LOG").env_remove("LOG_FORMAT");
    command
}

/// A session that is told to end. If something is missing, it ends by itself.
struct Live {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    runtime: Runtime,
}

impl Live {
    fn start(mut command: Command) -> Self {
        let command = command.args(["--for", "60s"]);
        let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, runtime: Runtime::new().unwrap() }
    }

    /// The next line with this in it.
    fn line(&mut self, part: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(part)).unwrap_or_else(|| panic!("no line with {part:?}"))
    }

    /// The next record of this type.
    fn record(&mut self, kind: &str) -> Value {
        serde_json::from_str(&self.line(&format!(r#""type":"{kind}""#))).unwrap()
    }

    fn post(&self, url: &str, body: &Value) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        self.runtime.block_on(client.post(url).body(body.to_string()).send()).unwrap().status().as_u16()
    }

    /// Ctrl-C as in a terminal: it goes to the group, that is to the handler too. Returns what is printed from then on.
    fn interrupt(mut self) -> (ExitStatus, String) {
        let group = format!("kill -INT -{}", self.child.id());
        assert!(Command::new("sh").args(["-c", &group]).status().unwrap().success());
        let rest: Vec<_> = self.lines.by_ref().map(Result::unwrap).collect();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(errors, "");
        (self.child.wait().unwrap(), rest.join("\n"))
    }
}

fn webhook(application: &str, device: &str) -> Value {
    json!({
        "end_device_ids": { "device_id": device, "application_ids": { "application_id": application } },
        "uplink_message": { "f_port": 1, "f_cnt": 3, "frm_payload": "AQ==" },
    })
}

fn last_record(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("a summary")).unwrap()
}

fn records(output: &Output) -> Vec<Value> {
    let text = str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn of_type<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["type"] == kind).collect()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

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
    assert_eq!(rejected["kind"], "for another's device");
    assert!(rejected["reason"].as_str().unwrap().contains("DeviceIdTemplate"), "{rejected}");
    let (status, rest) = live.interrupt();
    assert_eq!((status.code(), &last_record(&rest)["rejected"]), (Some(1), &json!(1)), "{rest}");

    let mut live = Live::start(command(&app, &[]));
    let line = live.line("takes webhooks at ");
    let url = line.split_once(" at ").unwrap().1;
    live.line("  app-1/water-meter-00000 ");
    assert_eq!(live.post(url, &foreign), 202);
    live.line("error: a message is rejected (for another's device)");
    let (_, rest) = live.interrupt();
    assert!(rest.contains("(1 rejected, see above"), "{rest}");
}

#[test]
fn half_a_service_is_not_completed_by_an_emulator() {
    for (name, settings, missing) in [
        ("half-a-hub", json!({ "IoTHubURL": "myhub.azure-devices.net" }), "IoTHubDeviceId is not set"),
        ("half-a-backend", json!({ "Customer_ID": "Waterworks" }), "M2MBackendURL is not set"),
        ("less-of-a-backend", json!({ "Site_ID": "Well 7" }), "needs M2MBackendURL and Customer_ID"),
        ("made-up-sites", json!({ "DPSIDScope": "0ne1", "DPSEnrollmentGroupSymmetricKey": "a2V5" }), "nothing to do"),
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

    // Only the other half is asked for.
    let mut settings = own_hub(&hub);
    settings["IoTHubURL"] = json!(ready.mqtt);
    settings["IoTHubDeviceId"] = json!("mine");
    settings["IoTHubDeviceKey"] = json!(ready.key);
    let output = command(&app("own-dps", Some(&settings)), &["--for", "3s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!((&records[0]["webhooks"], &records[0]["downlinks"]), (&Value::Null, &Value::Null));
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
    let start = live.record("start");
    let service = |row: &Value| json!([row["name"], row["emulated"]]);
    let services: Vec<_> = start["services"].as_array().unwrap().iter().map(service).collect();
    let expected = json!([
        ["The Things Stack", false],
        ["Storage queue", true],
        ["Cosmos DB", true],
        ["DPS", false],
        ["IoT Hub", false]
    ]);
    assert_eq!(json!(services), expected);
    assert_eq!((&start["timers"], &start["webhooks"]["queue"]), (&json!([]), &json!("mine")), "rapidM2M is off");

    let url = start["webhooks"]["url"].as_str().unwrap();
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
    // Bound and released: connections are refused.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = json!({
        "M2MBackendURL": format!("http://{address}/api/1/"), "Base64encodedUsernamePassword": "dXNlcjpodW50ZXIy",
        "Customer_ID": "Waterworks", "Site_ID": "Well 7", "Channelnames": "ch0", "PollTimeoutSeconds": "2",
    });
    let app = app("failing", Some(&settings));
    let output = command(&app, &["--for", "1s", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let records = records(&output);
    let run = of_type(&records, "run")[0];
    assert_eq!(run["succeeded"], false);
    assert!(run["error"].as_str().unwrap().contains("1 failed"), "{run}");
    let warning = of_type(&records, "log").into_iter().find(|log| log["level"] == "warning").expect("a warning");
    assert!(warning["text"].as_str().unwrap().contains("Well 7"), "{warning}");
    assert_ne!(records.last().unwrap()["failed"], 0);

    let output = command(&app, &["--for", "1s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("run failed: "), "{text}");
    assert!(!text.contains("dXNlcjpodW50ZXIy") && !text.contains("hunter2"), "{text}");
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
