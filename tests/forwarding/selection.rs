//! Tests which sites and channels are polled, and from when on.

use serde_json::{Value, json};

use super::support::{World, row, rows, stamp};

#[tokio::test]
async fn all_sites_and_all_channels_are_those_that_the_backend_lists() {
    let sites = ["Well 7", "Tank"];
    let mut world = World::with_sites(&sites).await;
    world.set("Site_ID", "*");
    world.set("Channelnames", "*");
    let handler = world.handler().await;
    for site in sites {
        world.add(site, 0..3).await;
    }
    handler.invoke_ok().await;
    // The connector finds a site that is added later without a restart.
    world.backend.post("sites", json!({ "name": "New", "channels": ["ch0", "ch1"] })).await;
    world.add("New", 0..3).await;
    handler.invoke_ok().await;
    for site in ["Well 7", "Tank", "New"] {
        world.assert_rows(site, &rows(0..3)).await;
    }
    world.assert_settled().await;
}

#[tokio::test]
async fn a_list_of_sites_that_fails_is_recorded_and_known_sites_are_polled() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("Site_ID", "*");
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    handler.invoke_ok().await;
    world.backend.put("faults", json!({ "rules": [{ "resource": "sites", "times": 1, "status": 500 }] })).await;
    world.add("Well 7", 3..6).await;
    assert_eq!(handler.invoke_failing().await, [("*".to_owned(), "http_status".to_owned())]);
    assert_eq!(world.outcomes("*").await, ["failed"]);
    world.assert_rows("Well 7", &rows(0..6)).await;
    handler.invoke_ok().await;
}

#[tokio::test]
async fn a_blueprint_that_fails_is_recorded_and_asked_for_again() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("Channelnames", "*");
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    world.backend.put("faults", json!({ "rules": [{ "resource": "blueprint", "times": 1, "html": true }] })).await;
    assert_eq!(handler.invoke_failing().await, [("Well 7".to_owned(), "html".to_owned())]);
    handler.invoke_ok().await;
    assert_eq!(world.outcomes("Well 7").await, ["failed", "forwarded"]);
    world.assert_rows("Well 7", &rows(0..3)).await;
}

#[tokio::test]
async fn channels_come_as_they_are_named() {
    let mut world = World::start(&["--no-generate", "--channels", "3", "--site", "Well 7"], &["Well 7"]).await;
    world.set("Channelnames", "ch2,ch0");
    world.add_raw("Well 7", json!([[stamp(1), 10, 11, 12]])).await;
    world.handler().await.invoke_ok().await;
    world.assert_rows("Well 7", &[row(1, json!({ "ch0": 10, "ch2": 12 }))]).await;
}

#[tokio::test]
async fn another_container_is_read() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("Histdata", "3");
    world.add("Well 7", 0..3).await;
    let raw = json!([[stamp(7), 7, 0.5]]);
    world.backend.post("rows", json!({ "site": "Well 7", "container": 3, "rows": raw })).await;
    world.handler().await.invoke_ok().await;
    world.assert_rows("Well 7", &rows([7])).await;
}

/// As in the connector's predecessor: the first poll takes the newest row only.
#[tokio::test]
async fn youngest_starts_with_the_newest_row() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.unset("StartFrom");
    world.add("Well 7", 0..10).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.assert_rows("Well 7", &rows([9])).await;
    world.add("Well 7", 10..15).await;
    handler.invoke_ok().await;
    world.assert_rows("Well 7", &rows(9..15)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn a_time_to_start_from_is_itself_part_of_it() {
    for inclusive in [true, false] {
        let mut world = World::with_sites(&["Well 7"]).await;
        world.backend.put("faults", json!({ "fromInclusive": inclusive })).await;
        world.set("StartFrom", rows([5])[0]["Timestamp"].as_str().unwrap());
        world.add("Well 7", 0..10).await;
        let handler = world.handler().await;
        handler.invoke_ok().await;
        world.add("Well 7", 10..12).await;
        handler.invoke_ok().await;
        world.assert_rows("Well 7", &rows(5..12)).await;
    }
}

#[tokio::test]
async fn rows_that_come_to_an_empty_site_are_all_new() {
    for start in ["youngest", "all"] {
        let mut world = World::with_sites(&["Well 7"]).await;
        world.set("StartFrom", start);
        let handler = world.handler().await;
        handler.invoke_ok().await;
        assert_eq!(world.outcomes("Well 7").await, ["empty"]);
        // This also holds for a process that did not see the site empty.
        handler.kill().await;
        let handler = world.handler().await;
        world.add("Well 7", 0..5).await;
        handler.invoke_ok().await;
        world.assert_rows("Well 7", &rows(0..5)).await;
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn only_the_first_empty_poll_has_a_record_of_its_own_if_told_so() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("RecordEmptyPolls", "false");
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.add("Well 7", 0..3).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    assert_eq!(world.outcomes("Well 7").await, ["empty", "forwarded"]);
    world.assert_rows("Well 7", &rows(0..3)).await;
}

#[tokio::test]
async fn emulation_yields_one_row_a_poll_and_calls_no_backend() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("EmulationMode", "True");
    world.unset("M2MBackendURL");
    world.unset("Base64encodedUsernamePassword");
    let handler = world.handler().await;
    let epoch = chrono::DateTime::parse_from_rfc3339("2017-01-01T00:00:00Z").unwrap();
    let before = (chrono::Utc::now() - epoch.to_utc()).num_seconds();
    for _ in 0..3 {
        handler.invoke_ok().await;
    }
    let after = (chrono::Utc::now() - epoch.to_utc()).num_seconds();
    let delivered = world.delivered().await;
    let rows = &delivered.rows["Well 7"];
    assert_eq!((rows.len(), delivered.ids["Well 7"].len()), (3, 3));
    for row in rows {
        let seconds = row["Channels"]["ch0"].as_i64().unwrap();
        assert!((before..=after).contains(&seconds), "{row}");
        assert_eq!(row["Channels"].get("ch1"), None::<&Value>);
        let stamp = chrono::DateTime::parse_from_rfc3339(row["Timestamp"].as_str().unwrap()).unwrap();
        assert_eq!((stamp - epoch).num_seconds(), seconds);
    }
    assert_eq!(world.backend.get("counts").await["requests"], 0);
    world.assert_settled().await;
}
