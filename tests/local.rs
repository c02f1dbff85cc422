//! `iothub-connector local`, as it is run by hand and by scripts.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use emulators::iot_hub;
use serde_json::{Value, json};

const SITES: [&str; 3] = ["Energy meter 1", "Reservoir Süd", "Well 7 / Level"];

/// A copy of the function app's folder with this local.settings.json.
fn app(name: &str, settings: Option<&Value>) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(app.join("rapidM2MForwarding")).unwrap();
    for file in ["host.json", "rapidM2MForwarding/function.json"] {
        fs::copy(source.join(file), app.join(file)).unwrap();
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
fn without_any_setting_rows_of_three_sites_reach_the_hub() {
    let output = command(&app("emulated", None), &["--for", "5s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    assert_eq!(records[0]["type"], "start");
    let emulated = records[0]["services"].as_array().unwrap().iter().filter(|service| service["emulated"] == true);
    assert_eq!(emulated.count(), 3);
    assert_eq!(records[0]["timers"][0]["schedule"], "0 * * * * *");

    for site in SITES {
        let message = of_type(&records, "message").into_iter().find(|message| message["site"] == site).expect(site);
        assert!(message["rows"].as_u64() >= Some(60), "an hour of history: {message}");
        assert!(message["values"]["ch0"].is_number(), "{message}");
    }
    let runs = of_type(&records, "run");
    assert!(!runs.is_empty() && runs.iter().all(|run| run["succeeded"] == true), "{runs:?}");

    let summary = records.last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["runs"], runs.len());
    assert_eq!(summary["failed"], 0);
    let rows = of_type(&records, "message").iter().map(|message| message["rows"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(summary["rows"], rows);
    assert_eq!(summary["sites"].as_object().unwrap().keys().collect::<Vec<_>>(), SITES);
}

#[test]
fn people_get_a_table_of_services_a_line_per_message_and_a_summary() {
    let app = app("text", None);
    let elsewhere = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let arguments = ["--every", "1", "--for", "6s", "--app", app.to_str().unwrap()];
    let output = command(elsewhere, &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    for expected in ["rapidM2M backend", "Cosmos DB", "IoT Hub", "\"00:00:01\" (command line)", "Ctrl-C ends"] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    // In the messages' lines and in the summary.
    for site in SITES {
        assert!(text.lines().filter(|line| line.contains(site)).count() >= 2, "{site}:\n{text}");
    }
    assert!(text.lines().filter(|line| line.contains("run: 3 of 3 sites polled")).count() >= 2, "{text}");
    assert!(text.contains("runs, 0 failed; the hub received"), "{text}");
}

#[test]
fn half_a_service_is_not_completed_by_an_emulator() {
    for (name, settings, missing) in [
        ("half-a-hub", json!({ "IoTHubURL": "myhub.azure-devices.net" }), "IoTHubDeviceId is not set"),
        ("half-a-backend", json!({ "Customer_ID": "Waterworks" }), "M2MBackendURL is not set"),
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
    let header = text.lines().find(|line| line.trim_start().starts_with("received")).unwrap();
    assert!(text.contains("\n  DPS ") && header.contains("device"), "{text}");

    let own = json!({ "IoTHubURL": "127.0.0.1:1", "IoTHubDeviceId": "d", "IoTHubDeviceKey": "c2VjcmV0" });
    let output = command(&app("devices-own", Some(&own)), &["--device-per-site"]).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("DPSIDScope"), "{}", stderr(&output));
}

#[test]
fn a_hub_of_ones_own_gets_the_rows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
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
    let mut child = command(&app("interrupted", None), &["--json"])
        // As in a terminal: Ctrl-C goes to the group, that is to the handler too.
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains(r#""type":"run""#)).expect("a run");
    let group = format!("kill -INT -{}", child.id());
    assert!(Command::new("sh").args(["-c", &group]).status().unwrap().success());
    let summary: Value = serde_json::from_str(&lines.last().expect("a summary")).unwrap();
    assert_eq!((&summary["type"], &summary["failed"], &summary["error"]), (&json!("summary"), &json!(0), &Value::Null));
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(child.wait().unwrap().success());
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
