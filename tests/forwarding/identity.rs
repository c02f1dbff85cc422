//! Tests that a site is its `_uid`, whatever it is called, and that what waits is sent though a site is gone.

use serde_json::json;

use super::support::{World, rows};

async fn world(sites: &[&str]) -> World {
    let mut world = World::with_sites(sites).await;
    world.set("Site_ID", "*");
    world
}

#[tokio::test]
async fn a_renamed_site_goes_on_and_a_namesake_begins_at_a_place_of_its_own() {
    let mut world = world(&["Well 7"]).await;
    world.unset("StartFrom");
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    handler.invoke_ok().await;
    world.add("Well 7", 3..6).await;
    handler.invoke_ok().await;
    world.backend.put("sites/Well%207", json!({ "name": "Shaft" })).await;
    world.add("Shaft", 6..9).await;
    handler.invoke_ok().await;
    world.backend.post("sites", json!({ "name": "Well 7" })).await;
    world.add("Well 7", 20..21).await;
    world.add("Shaft", 9..10).await;
    handler.invoke_ok().await;
    // Another process knows them, too.
    handler.kill().await;
    let handler = world.handler().await;
    world.add("Well 7", 21..22).await;
    world.add("Shaft", 10..11).await;
    handler.invoke_ok().await;

    let delivered = world.delivered().await;
    assert_eq!(delivered.rows["Well 7"], rows((2..6).chain(20..22)), "{}", world.output());
    assert_eq!(delivered.rows["Shaft"], rows(6..11), "{}", world.output());
    assert_eq!(delivered.repeats, 0);
    let cursor = world.cursor("Well 7").await;
    assert_eq!((&cursor["Site_Name"], &cursor["Earlier_Names"]), (&json!("Shaft"), &json!(["Well 7"])));
    let namesake = world
        .all_documents()
        .await
        .into_iter()
        .find(|document| document["Kind"] == "cursor" && document["Site_Uid"] != cursor["Site_Uid"]);
    let namesake = namesake.unwrap();
    assert_eq!((&namesake["Site_Id"], &namesake["Site_Name"]), (&namesake["Site_Uid"], &json!("Well 7")));
    assert!(world.output().contains("the site was called \"Well 7\" before"), "{}", world.output());
}

#[tokio::test]
async fn what_waits_of_a_site_that_is_gone_is_sent() {
    let world = world(&["Well 7", "Well 8"]).await;
    world.hub.put("faults", json!({ "refuse": true })).await;
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    handler.invoke_failing().await;
    world.backend.delete("sites/Well%207").await;
    handler.invoke_failing().await;
    handler.kill().await;
    world.hub.heal().await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    assert_eq!(world.delivered().await.rows["Well 7"], rows(0..3), "{}", world.output());
    let cursor = world.cursor("Well 7").await;
    assert!(cursor["GoneSince"].is_string() && cursor["Unforwarded"] == json!([]), "{cursor}");
    assert_eq!(world.output().matches("does not list the site any more").count(), 1, "{}", world.output());
    let polls = tokio::process::Command::new(env!("CARGO_BIN_EXE_iothub-connector"))
        .args(["polls", "Well 7"])
        .envs(&world.settings)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(polls.stdout).unwrap();
    assert!(said.starts_with("Well 7: not listed by the backend since "), "{said}");
}

#[tokio::test]
async fn what_another_process_recorded_of_a_site_that_is_gone_is_sent() {
    let world = world(&["Well 7", "Well 8"]).await;
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    handler.invoke_ok().await;
    let other = world.handler().await;
    world.hub.put("faults", json!({ "refuse": true })).await;
    world.add("Well 7", 3..6).await;
    other.invoke_failing().await;
    other.kill().await;
    world.hub.heal().await;
    world.backend.delete("sites/Well%207").await;
    handler.invoke_ok().await;
    assert_eq!(world.delivered().await.rows["Well 7"], rows(0..6), "{}", world.output());
    let cursor = world.cursor("Well 7").await;
    assert!(cursor["GoneSince"].is_string() && cursor["Unforwarded"] == json!([]), "{cursor}");
}

#[tokio::test]
async fn a_site_taken_out_of_the_settings_is_sent_to_its_end() {
    let mut world = World::with_sites(&["Well 7", "Well 8"]).await;
    world.hub.put("faults", json!({ "refuse": true })).await;
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    handler.invoke_failing().await;
    handler.kill().await;
    world.hub.heal().await;
    world.set("Site_ID", "Well 8");
    world.handler().await.invoke_ok().await;
    assert_eq!(world.delivered().await.rows["Well 7"], rows(0..3), "{}", world.output());
}

#[tokio::test]
async fn a_list_that_shrinks_touches_nobody() {
    let names: Vec<_> = (0..10).map(|number| format!("s{number}")).collect();
    let sites: Vec<_> = names.iter().map(String::as_str).collect();
    let world = world(&sites).await;
    let handler = world.handler().await;
    world.add("s0", 0..3).await;
    handler.invoke_ok().await;
    for site in &sites[..5] {
        world.backend.delete(&format!("sites/{site}")).await;
    }
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    assert!(world.cursor("s0").await.get("GoneSince").is_none());
    let told = "the backend lists 5 sites, and 5 that were polled before are not among them";
    assert_eq!(world.output().matches(told).count(), 1, "{}", world.output());
}

#[tokio::test]
async fn one_dead_site_of_many_is_told_and_all_dead_sites_are_a_failure() {
    let names: Vec<_> = (0..30).map(|number| format!("s{number:02}")).collect();
    let sites: Vec<_> = names.iter().map(String::as_str).collect();
    let world = world(&sites).await;
    let dead = |rule| json!({ "rules": [rule] });
    world.backend.put("faults", dead(json!({ "site": "s07", "status": 404 }))).await;
    let handler = world.handler().await;
    for minute in 0..3 {
        for site in &sites {
            world.add(site, [minute]).await;
        }
        handler.invoke_ok().await;
    }
    world.assert_rows("s08", &rows(0..3)).await;
    let output = world.output();
    let line = output.lines().find(|line| line.contains("site.names=\"s07\"")).unwrap_or_else(|| panic!("{output}"));
    assert!(line.contains("the backend does not know it (404)"), "{line}");
    world.backend.put("faults", dead(json!({ "resource": "histdata", "status": 404 }))).await;
    assert_eq!(handler.invoke_failing().await.len(), sites.len());
}
