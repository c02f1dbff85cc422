//! Makes or checks `docs/faults.md`: an introduction, and a table for each dependency, made from the results of the
//! run.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::cell::Line;

/// The environment variable that makes the tests rewrite the page instead of comparing it.
const WRITE: &str = "FAULTS_PAGE";
const INTRODUCTION: &str = include_str!("introduction.md");

/// The tables in their order: name, title, and the requests that they are about.
pub const TABLES: [(&str, &str, &str); 19] = [
    ("sites", "Backend: list of sites", "`Site_ID=*`: once in each run. The known site has new rows meanwhile."),
    ("blueprint", "Backend: blueprint of a site", "`Channelnames=*`: before the first poll, and every 10 minutes."),
    ("rows", "Backend: rows of a site", "Once or more often in each run."),
    ("cursor", "Cosmos DB: reading a site's cursor", "After a start, and after every doubt."),
    ("waiting", "Cosmos DB: reading a record that waits", "After a restart, when the hub was away before."),
    ("record", "Cosmos DB: recording a poll", "The transaction that writes the rows and moves the cursor."),
    ("mark", "Cosmos DB: marking as forwarded", "The transaction after the hub's acknowledgement."),
    ("hub_https", "IoT Hub over HTTPS: sending", "`IoTHubTransport=https`."),
    ("mqtt", "IoT Hub over MQTT", "`IoTHubTransport=mqtt`, port 8883."),
    ("mqtt_ws", "IoT Hub over MQTT and WebSocket", "`IoTHubTransport=mqtt-ws`, port 443."),
    ("dps_register", "DPS: registering a device", "When a site has its first rows to send."),
    ("dps_poll", "DPS: asking for the result", "Until the device is assigned to a hub."),
    ("devices_read", "Cosmos DB: looking a device up", "Container `devices`, once for each device after a start."),
    ("devices_write", "Cosmos DB: writing a device down", "Container `devices`, after a registration."),
    (
        "uplink_hub",
        "Uplinks: IoT Hub over HTTPS",
        "One message of the queue; `run` is one call of thingsNetworkForwarding.",
    ),
    ("uplink_dps", "Uplinks: registering a device", "The device's first uplink."),
    ("uplink_devices", "Uplinks: looking a device up", "The device's first uplink after a start."),
    (
        "c2d",
        "Commands: fetching them from IoT Hub",
        "After an uplink, if the webhook has a downlink API key. The uplink itself is forwarded in any case.",
    ),
    ("downlink", "Commands: downlinks to The Things Stack", "The same. The uplink itself is forwarded in any case."),
];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")
}

/// Compares a table of the page with these lines.
///
/// # Errors
/// The differences.
pub fn check(name: &str, lines: &[Line]) -> Result<(), String> {
    static FILE: Mutex<()> = Mutex::new(());
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(path()).unwrap_or_default();
    let made = table(lines);
    if std::env::var_os(WRITE).is_some() {
        let tables: Vec<_> = TABLES
            .iter()
            .map(|(other, ..)| if *other == name { made.clone() } else { written(&page, other).unwrap_or_default() })
            .collect();
        fs::write(path(), whole(&tables)).unwrap();
        return Ok(());
    }
    let found = written(&page, name).unwrap_or_default();
    let differing = made.lines().filter(|line| !found.contains(*line)).collect::<Vec<_>>().join("\n");
    let help = format!("docs/faults.md is not what was seen: if that is right, rewrite it with {WRITE}=write");
    if found == made { Ok(()) } else { Err(format!("{name}: {help}:\n{differing}")) }
}

fn begin(name: &str) -> String {
    format!("<!-- table {name} -->\n")
}

/// The table with this name in a page.
fn written(page: &str, name: &str) -> Option<String> {
    let (_, behind) = page.split_once(&begin(name))?;
    Some(behind.lines().take_while(|line| line.starts_with('|')).fold(String::new(), |text, line| text + line + "\n"))
}

fn whole(tables: &[String]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for ((name, title, about), table) in TABLES.iter().zip(tables) {
        write!(page, "\n## {title}\n\n{about}\n\n{}{table}", begin(name)).unwrap();
    }
    page
}

fn table(lines: &[Line]) -> String {
    let mut table = "| Fault | Recorded | What you see | Recovers |\n|---|---|---|---|\n".to_owned();
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    for Line { fault, recorded, seen, recovers } in lines {
        writeln!(table, "| {} | {} | {} | {recovers} |", cell(fault), cell(recorded), cell(seen)).unwrap();
    }
    table
}

/// Checks the rest of the page. Each table is checked by the test that makes its lines.
#[test]
fn the_page_is_whole() {
    if std::env::var_os(WRITE).is_some() {
        return;
    }
    let page = fs::read_to_string(path()).unwrap_or_default();
    let tables: Vec<_> = TABLES.iter().map(|(name, ..)| written(&page, name).unwrap_or_default()).collect();
    assert!(tables.iter().all(|table| table.lines().count() > 2), "a table is missing");
    assert_eq!(page, whole(&tables), "docs/faults.md is generated: rewrite it with {WRITE}=write");
}
