//! Tests the executable in the app's own folder.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;

use crate::local::support::{app, command, records, stderr};

const PACKAGED: [&str; 4] = ["--packaged", "--for", "3s", "--json"];

/// Puts a handler into the folder, at the path in host.json.
fn add_handler(app: &Path, text: &str) -> std::path::PathBuf {
    let handler = app.join("iothub-connector");
    fs::write(&handler, text).unwrap();
    fs::set_permissions(&handler, fs::Permissions::from_mode(0o755)).unwrap();
    handler
}

#[test]
fn the_handler_in_the_folder_is_started() {
    let app = app("packaged", None);
    // This script writes down that it was started, and then runs the real handler.
    let script =
        format!("#!/bin/sh\npwd > started\necho no record\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_iothub-connector"));
    add_handler(&app, &script);
    let started = app.join("started");
    drop(fs::remove_file(&started));

    let output = command(&app, &PACKAGED[1..]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!started.exists(), "without --packaged it is the own executable");

    let output = command(&app, &PACKAGED).output().unwrap();
    let records = records(&output);
    assert!(output.status.success(), "{records:#?}\n{}", stderr(&output));
    assert_eq!(fs::read_to_string(started).unwrap().trim(), app.to_str().unwrap(), "in the app's folder");
    let line =
        records.iter().find(|record| record["message"] == "no record").expect("what is not valid JSON is told as JSON");
    assert!(line["timestamp"].is_string() && line["level"] == "info", "{line}");
    let summary = records.last().unwrap();
    assert!(summary["messages"].as_u64() > Some(0), "{summary}");
    assert_eq!((&summary["failed"], &summary["error"]), (&0.into(), &Value::Null));
}

#[test]
fn a_folder_without_a_handler_that_can_be_started_is_named() {
    let app = app("not-packaged", None);
    drop(fs::remove_file(app.join("iothub-connector")));
    let error = |app: &Path| {
        let output = command(app, &PACKAGED).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        stderr(&output).to_owned()
    };
    let text = error(&app);
    assert!(text.contains("not-packaged has no iothub-connector") && text.contains("cargo xtask package"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");

    let handler = add_handler(&app, "#!/bin/sh\n");
    fs::set_permissions(handler, fs::Permissions::from_mode(0o644)).unwrap();
    let text = error(&app);
    assert!(text.contains("may not be executed: chmod +x"), "{text}");
}
