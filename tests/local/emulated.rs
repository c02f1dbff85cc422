//! Tests `local` with emulated services only.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::local::support::{Live, SITES, app, command, last_record, records, runs, stderr, webhook};

#[test]
fn without_any_setting_both_halves_reach_the_hub() {
    let output = command(&app("emulated", None), &["--for", "5s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    let [start, lines @ .., summary] = &records[..] else { panic!("{records:#?}") };
    assert_eq!(start["type"], "start");
    let services = start["services"].as_array().unwrap();
    assert!(services.iter().all(|service| service["emulated"] == true), "{services:?}");
    let names: Vec<_> = services.iter().map(|service| service["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["rapidM2M backend", "The Things Stack", "Storage queue", "Cosmos DB", "DPS", "IoT Hub"]);
    assert_eq!(start["timers"], json!({ "rapidM2MForwarding": "0 * * * * *" }));
    assert!(start["status"].as_str().unwrap().ends_with("/api/status"), "{start}");
    assert!(start["webhooks"].as_str().unwrap().ends_with("/api/uplink"), "{start}");

    for line in lines {
        assert!(line["timestamp"].is_string() && line["message"].is_string(), "the handler's own: {line}");
        assert_eq!(line["level"], "info", "{line}");
    }
    let runs = runs(lines);
    assert!(!runs.is_empty() && runs.iter().all(|run| run["sites.polled"] == 3), "{runs:?}");

    assert_eq!((&summary["type"], &summary["runs"]), (&json!("summary"), &json!(runs.len())));
    for none in ["failed", "failures", "rejected", "leftInQueue", "missed", "others", "uncounted"] {
        assert_eq!(summary[none], 0, "{none}: {summary}");
    }
    assert_eq!(summary["sites"].as_object().unwrap().keys().collect::<Vec<_>>(), SITES);
    for site in summary["sites"].as_object().unwrap().values() {
        assert!(site["rows"].as_u64() >= Some(60), "an hour of history: {site}");
        assert!(site["values"]["ch0"].is_number(), "{site}");
        assert_eq!(site["device"], "local-demo");
    }
    assert_eq!(summary["rows"], sum(&summary["sites"], "rows"));
    // In 5 s every device had its turn, and the session waited for everything that was sent.
    let devices = summary["devices"].as_object().unwrap();
    assert_eq!(devices.len(), 3);
    for (name, device) in devices {
        assert!(name.ends_with(&format!("/{}", device["device"].as_str().unwrap())), "{name}: {device}");
        let values = device["values"].as_object().unwrap();
        assert!(values.len() > 1 && !values.contains_key("DeviceID"), "decoded fields only: {device}");
    }
    let uplinks = sum(&summary["devices"], "messages");
    assert!(uplinks >= 3, "{summary}");
    assert_eq!((&summary["uplinks"], &summary["forwarded"]), (&json!(uplinks), &json!(uplinks)));
    assert_eq!(summary["webhooks"], json!({ "202": uplinks }));
}

fn sum(senders: &Value, what: &str) -> u64 {
    senders.as_object().unwrap().values().map(|sender| sender[what].as_u64().unwrap()).sum()
}

#[test]
fn people_get_a_table_of_services_the_handlers_lines_and_a_summary() {
    let app = app("text", None);
    let elsewhere = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let arguments = ["--every", "1", "--for", "6s", "--app", app.to_str().unwrap()];
    let output = command(elsewhere, &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    for expected in [
        "rapidM2M backend",
        "The Things Stack",
        "each every 1 s",
        "Cosmos DB",
        "IoT Hub",
        "rapidM2MForwarding runs now, then on schedule \"00:00:01\"",
        "takes webhooks at http://127.0.0.1:",
        "The status page is at http://127.0.0.1:",
        "Ctrl-C ends",
        "  info: the connector has started: ",
        "  info: registered a device for ",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    let (lines, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.as_bytes().get(2) == Some(&b':'));
    let of_runs = lines.iter().filter(|line| line.contains("  info: rapidM2MForwarding: 3 of 3 sites polled")).count();
    assert!(of_runs >= 1, "{text}");
    assert!(!text.contains("function.name"), "figures are for machines: {text}");
    assert!(text.contains(", 0 failed; ") && text.contains("\nThe hub received "), "{text}");
    for name in SITES.into_iter().chain(["app-1/water-meter-00000", "app-2/energy-meter-00001"]) {
        assert_eq!(others.iter().filter(|line| line.starts_with(name)).count(), 1, "{name} in the summary:\n{text}");
    }
    let of_site = lines.iter().filter(|line| line.contains(SITES[2])).count();
    assert!(of_site <= 1, "it may have been the first to connect, but no message has a line: {text}");
    let executable = env!("CARGO_BIN_EXE_iothub-connector");
    assert!(
        text.contains(&format!("In a second terminal, in {}:\n  {executable} check --local\n", app.display())),
        "{text}"
    );
    let short = |line: &str| line.replace(executable, "iothub-connector").replace(app.to_str().unwrap(), "app");
    assert!(others.iter().all(|line| short(line).chars().count() <= 80), "a terminal has 80 columns:\n{text}");
    assert!(!text.contains("NNSXS") && !text.contains("SharedAccessKey"), "secrets are not printed: {text}");
}

#[test]
fn trouble_can_be_looked_at() {
    let mut live = Live::start(command(&app("trouble", None), &["--json", "--with-trouble"]));
    let start = live.start_record();
    live.told("rapidM2MForwarding: ");
    let (_, _, json) = live.get(&format!("{}?format=json", start["status"].as_str().unwrap()));
    let page: Value = serde_json::from_str(&json).unwrap();
    let states = page["Items"].as_array().unwrap().iter().filter(|item| item["System"] == "rapidM2M");
    let states: Vec<_> =
        states.map(|item| (item["Site_Id"].as_str().unwrap(), item["State"].as_str().unwrap())).collect();
    let expected =
        [("Old pump house", "failing"), ("Spring 3", "silent")].into_iter().chain(SITES.map(|site| (site, "ok")));
    assert_eq!(states, expected.collect::<Vec<_>>(), "{json}");
    let (status, rest) = live.interrupt();
    let summary = last_record(&rest);
    assert!(summary["sites"][SITES[0]]["rows"].as_u64() >= Some(1440), "a day: {summary}");
    assert!(status.success(), "one failing site is no failed run: {summary}");
}

#[test]
fn the_status_page_is_at_the_root_too() {
    let mut live = Live::start(command(&app("status", None), &["--json"]));
    let start = live.start_record();
    live.told("rapidM2MForwarding: ");
    for url in [&start["host"], &start["status"]].map(|url| url.as_str().unwrap()) {
        let (status, content_type, page) = live.get(url);
        assert_eq!((status, content_type.as_str()), (200, "text/html; charset=utf-8"), "{url}");
        assert!(SITES.iter().all(|site| page.contains(site)), "{url}: {page}");
    }
    let (status, content_type, json) = live.get(&format!("{}?format=json", start["status"].as_str().unwrap()));
    assert_eq!((status, content_type.as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["States"]["ok"], 3, "{json}");
    live.wait_for_uplink(&start);
    assert!(live.interrupt().0.success());
}

#[test]
fn the_command_can_be_copied_and_goes_out_as_a_downlink() {
    let app = app("downlink", None);
    let mut live = Live::start(command(&app, &["--every", "1"]));
    let printed = live.line(" command ");
    assert!(printed.trim_start().starts_with(env!("CARGO_BIN_EXE_iothub-connector")), "not in the PATH: {printed}");
    let arguments: Vec<_> = printed.split_whitespace().skip(1).collect();
    let session: Value = serde_json::from_slice(&fs::read(app.join(".local/settings.json")).unwrap()).unwrap();
    let (hub, device) = (session["Controls"]["hub"].as_str().unwrap(), arguments[1]);
    // It is registered with its first uplink.
    live.get(&format!("{hub}received?device={device}&wait=1&timeout_ms=60000"));
    let (code, _, why) = beside(&app, &arguments);
    assert_eq!(code, Some(0), "{why}");
    for (other, expected) in
        [("water-meter-9", "the hub knows no device \"water-meter-9\""), ("local-demo", "all sites")]
    {
        let (code, _, why) = beside(&app, &["command", other, "open", "-p", "Port=1"]);
        assert!(code == Some(1) && why.contains(expected), "{why}");
    }
    let (_, _, messages) = live.get(&format!("{hub}c2d?device={device}&wait=completed:1&timeout_ms=60000"));
    assert_eq!(serde_json::from_str::<Value>(&messages).unwrap()[0]["state"], "completed", "{messages}");
    let (status, rest) = live.interrupt();
    assert!(status.success() && rest.contains("; 1 downlink\n"), "{rest}");
}

#[test]
fn a_rejected_message_is_told_and_fails_the_session() {
    let mut live = Live::start(command(&app("rejected", None), &["--json"]));
    let start = live.start_record();
    live.wait_for_uplink(&start);
    assert_eq!(live.post(start["webhooks"].as_str().unwrap(), &webhook("other", "water-meter-00000")), 202);
    let rejected = live.told("a message is rejected (device_taken)");
    assert_eq!(rejected["level"], "error");
    assert!(rejected["message"].as_str().unwrap().contains("DeviceIdTemplate"), "{rejected}");
    // Waits until the host has taken the answer as well.
    live.get(&format!("{}admin/queues/uplinks?wait=empty&timeout_ms=60000", start["host"].as_str().unwrap()));
    let (status, rest) = live.interrupt();
    assert_eq!((status.code(), &last_record(&rest)["rejected"]), (Some(1), &json!(1)), "{rest}");
}

#[test]
fn each_site_can_be_a_device_of_its_own() {
    let output = command(&app("devices", None), &["--for", "4s", "--device-per-site", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    let summary = records.last().unwrap();
    for (site, device) in SITES.iter().zip(["energy-meter-1-", "reservoir-sued-", "well-7-level-"]) {
        let id = summary["sites"][site]["device"].as_str().unwrap_or_else(|| panic!("nothing of {site}: {summary}"));
        assert!(id.starts_with(device), "{site} is {id}");
    }

    let own = json!({ "IoTHubURL": "127.0.0.1:1", "IoTHubDeviceId": "d", "IoTHubDeviceKey": "c2VjcmV0" });
    let output = command(&app("devices-own", Some(&own)), &["--device-per-site"]).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("DPSIDScope"), "{}", stderr(&output));
}

#[test]
fn several_instances_share_the_sites() {
    let arguments = ["--instances", "3", "--every", "10", "--for", "14s", "--json"];
    let output = command(&app("instances", None), &arguments).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    let summary = records.last().unwrap();
    let batches = summary["batches"].as_object().unwrap();
    let count: u64 = batches.values().map(|count| count.as_u64().unwrap()).sum();
    assert!(batches.len() >= 2 && count >= 6, "30 sites, 5 in a batch: {summary}");
    assert_eq!(
        (summary["sites"].as_object().unwrap().len(), &summary["failed"], &summary["failures"]),
        (30, &json!(0), &json!(0))
    );
    let of = |function: &str| records.iter().filter(|record| record["function.name"] == function).collect::<Vec<_>>();
    assert!(of("rapidM2MForwarding").iter().all(|run| run["sites.put"] == 30 && run["sites.polled"].is_null()));
    assert!(of("rapidM2MSites").iter().all(|batch| batch["sites.total"] == 5), "{records:#?}");
    let queue = |service: &&Value| service["name"] == "Storage queue";
    assert!(records[0]["services"].as_array().unwrap().iter().filter(queue).all(|service| service["emulated"] == true));
}

#[test]
fn the_emulated_things_stack_knows_the_secret() {
    let settings = json!({ "ThingsNetworkWebhookSecret": "correct horse battery staple", "UplinkQueueName": "mine" });
    let output = command(&app("secret", Some(&settings)), &["--for", "2s", "--json"]).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!(records[0]["queue"], "mine");
    assert!(records.last().unwrap()["webhooks"]["202"].as_u64() >= Some(1));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("correct horse"), "secrets are not printed");
}

#[test]
fn ctrl_c_ends_with_the_summary() {
    let mut live = Live::start(command(&app("interrupted", None), &["--json"]));
    let start = live.start_record();
    live.told("rapidM2MForwarding: ");
    live.wait_for_uplink(&start);
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
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("has no host.json") && text.contains("--app"), "{text}");
}

/// The reader of the lines has stopped reading, so the session cannot print its summary and end.
#[test]
fn the_second_ctrl_c_ends_at_once() {
    let mut live = Live::start(command(&app("interrupted-twice", None), &["--json"]));
    live.start_record();
    let handler = live.child_processes();
    assert_eq!(handler.len(), 1, "{handler:?}");
    live.fill_output();
    // Signals only this process. It ends the handler too.
    assert_eq!(live.interrupt_until_ended().code(), Some(130), "as shells have it: 128 and the signal's number");
    assert!(!Path::new(&format!("/proc/{}", handler[0])).exists(), "the handler is left behind");
}

/// What a second terminal prints.
fn beside(app: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    let output = command.args(arguments).current_dir(app).env_clear().output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output).to_owned())
}

#[test]
fn other_commands_use_the_session_that_runs_here() {
    let app = app("beside", None);
    let (code, _, why) = beside(&app, &["polls", SITES[0], "--local"]);
    assert!(code == Some(2) && why.contains("no session runs here"), "{why}");
    let mut live = Live::start(command(&app, &[]));
    live.line("rapidM2MForwarding: 3 of 3 sites polled");
    let (code, printed, why) = beside(&app, &["polls", SITES[0], "--local"]);
    assert!(code == Some(0) && printed.contains(SITES[0]), "{printed}{why}");
    let (code, printed, why) = beside(&app, &["check", "--local"]);
    // The session's own connection may be in the way of the one that `check` makes as the same device.
    assert!(code.is_some() && printed.contains("ok: has 3 sites"), "{printed}{why}");
    let _ = live.interrupt();
    assert_eq!(beside(&app, &["fault", "hub", "ok"]).0, Some(1), "the session has taken its file along");
}

#[test]
fn the_session_and_its_page_tell_what_can_be_copied() {
    let settings = json!({ "UplinkQueueName": "mine" });
    let app = app("copied", Some(&settings));
    let mut live = Live::start(command(&app, &["--instances", "2"]));
    let host = live.line("The status page is at ");
    let (_, host) = host.split_once(" at ").unwrap();
    let polls = live.line(" polls ");
    assert!(polls.ends_with(" polls \"site-00000\" --local"), "one of these sites: {polls}");
    live.line("rapidM2MSites: ");
    let (code, printed, why) = beside(&app, &["replay", "--queue", "rejected", "--local"]);
    assert_eq!(code, Some(0), "it has the queue's name: {printed}{why}");

    assert_eq!(live.post(&format!("{host}api/uplink"), &webhook("other", "x")), 202);
    assert_eq!(live.post(&format!("{host}api/uplink"), &webhook("another", "x")), 202);
    live.line("a message is rejected (device_taken)");
    // Waits until the host has taken the answer as well.
    live.get(&format!("{host}admin/queues/mine?wait=empty&timeout_ms=60000"));
    let (_, _, page) = live.get(host);
    assert!(page.contains("iothub-connector replay --queue rejected --local<"), "{page}");
    let _ = live.interrupt();
}

#[test]
fn services_of_the_session_that_runs_here_can_be_broken() {
    let app = app("broken", None);
    let mut live = Live::start(command(&app, &["--every", "1"]));
    live.line("rapidM2MForwarding: 3 of 3 sites polled");
    assert_eq!(beside(&app, &["fault", "backend", "away"]).0, Some(0));
    live.line("the backend cannot be reached");
    assert_eq!(beside(&app, &["fault", "backend", "ok"]).0, Some(0));
    live.line("rapidM2MForwarding: 3 of 3 sites polled");

    let (_, listed, _) = beside(&app, &["fault"]);
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let faults: Vec<_> = listed.lines().skip(1).map(words).take_while(|words| words.len() == 2).collect();
    assert!(faults.len() > 10, "{listed}");
    for fault in faults {
        let [service, fault] = &fault[..] else { panic!("{fault:?}") };
        let (code, printed, why) = beside(&app, &["fault", service, fault]);
        assert!(code == Some(0) && printed.starts_with(service), "{service} {fault}: {printed}{why}");
    }
    let (code, _, why) = beside(&app, &["fault", "hub", "awya"]);
    assert!(code == Some(2) && why.contains("did you mean away?"), "{why}");
    let _ = live.interrupt();
}
