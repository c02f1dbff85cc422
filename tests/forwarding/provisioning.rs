//! Tests sites that are devices of their own, each registered by DPS only once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::support::{World, rows};

const SITES: [&str; 3] = ["Energy meter 1", "well-7", "Well-7"];

async fn world(sites: &[&str]) -> World {
    let mut world = World::with_sites(sites).await;
    world.provision_sites().await;
    world
}

async fn add(world: &World, sites: &[&str], minutes: std::ops::Range<i64>) {
    for site in sites {
        world.add(site, minutes.clone()).await;
    }
}

/// The device that each site's messages came from; exactly one for each site.
async fn devices(world: &World) -> BTreeMap<String, String> {
    let mut devices = BTreeMap::new();
    for message in world.hub.get("received").await.as_array().unwrap() {
        let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        let (site, device) = (body["site_id"].as_str().unwrap(), message["deviceId"].as_str().unwrap());
        let known = devices.entry(site.to_owned()).or_insert_with(|| device.to_owned());
        assert_eq!(known, device, "{site} has one device");
    }
    devices
}

async fn assert_all(world: &World, sites: &[&str], minutes: std::ops::Range<i64>) {
    for site in sites {
        world.assert_rows(site, &rows(minutes.clone())).await;
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn each_site_is_a_device_of_its_own_also_after_a_restart() {
    let world = world(&SITES).await;
    for round in 0..3 {
        add(&world, &SITES, round * 5..round * 5 + 5).await;
        let handler = world.handler().await;
        handler.invoke_ok().await;
        handler.kill().await;
    }
    assert_all(&world, &SITES, 0..15).await;
    let devices = devices(&world).await;
    assert_eq!(devices["well-7"], "well-7", "a name that is an id is the id");
    assert!(devices["Well-7"].starts_with("well-7-") && devices["Energy meter 1"].starts_with("energy-meter-1-"));
    let registrations = world.registrations().await;
    assert_eq!(registrations.len(), 3);
    assert!(registrations.values().all(|one| one["registerCalls"] == 1), "{registrations:?}");
}

#[tokio::test]
async fn what_is_polled_while_a_registration_takes_its_time_leaves_in_the_same_run() {
    let world = world(&SITES).await;
    world.hub.put("dps/settings", json!({ "retryAfterSeconds": 1 })).await;
    world.hub.put("dps/faults", json!({ "assigningPolls": 2 })).await;
    add(&world, &SITES, 0..5).await;
    world.handler().await.invoke_ok().await;
    assert_all(&world, &SITES, 0..5).await;
}

#[tokio::test]
async fn a_registration_that_outlasts_the_run_is_no_failure_and_goes_on() {
    let mut world = world(&SITES[..1]).await;
    world.set("PollTimeoutSeconds", "5");
    world.hub.put("dps/faults", json!({ "assigningPolls": 1_000_000 })).await;
    world.hub.put("dps/settings", json!({ "retryAfterSeconds": 1 })).await;
    add(&world, &SITES[..1], 0..5).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    assert_eq!(world.outcomes(SITES[0]).await, ["pending"]);
    assert!(world.output().contains("1 waiting for their device's registration"), "{}", world.output());
    world.hub.put("dps/faults", json!({ "assigningPolls": 1 })).await;
    handler.invoke_ok().await;
    world.assert_rows(SITES[0], &rows(0..5)).await;
    let registrations = world.registrations().await;
    assert!(registrations.values().all(|one| one["registerCalls"] == 1), "the same one: {registrations:?}");
}

#[tokio::test]
async fn a_wrong_group_key_is_said_once_and_nothing_is_lost() {
    let mut world = world(&SITES).await;
    let key = world.settings["DPSEnrollmentGroupSymmetricKey"].clone();
    world.set("DPSEnrollmentGroupSymmetricKey", "d3Jvbmc=");
    add(&world, &SITES, 0..5).await;
    let failed = world.handler().await.invoke_failing().await;
    assert!(failed.len() == 3 && failed.iter().all(|(_, kind)| kind == "dps_unauthorized"), "{failed:?}");
    let output = world.output();
    assert_eq!(output.matches("warn: no device can be registered").count(), 1, "{output}");
    assert!(output.contains("DPSEnrollmentGroupSymmetricKey"), "{output}");
    world.set("DPSEnrollmentGroupSymmetricKey", &key);
    add(&world, &SITES, 5..8).await;
    world.handler().await.invoke_ok().await;
    assert_all(&world, &SITES, 0..8).await;
}

#[tokio::test]
async fn whatever_the_service_does_nothing_is_lost_and_it_is_named() {
    let sites = &SITES[..1];
    for (faults, kind) in [
        (json!({ "statusTimes": 1000, "status": 503 }), "dps_status"),
        (json!({ "garbageTimes": 1000 }), "dps_garbage"),
        (json!({ "dropTimes": 1000 }), "dps_unreachable"),
        (json!({ "statusTimes": 1, "status": 429, "retryAfterSeconds": 30 }), "dps_throttled"),
        (json!({ "failTimes": 1 }), "dps_refused"),
        (json!({ "disableTimes": 1 }), "dps_refused"),
    ] {
        let mut world = world(sites).await;
        world.set("PollTimeoutSeconds", "10");
        add(&world, sites, 0..5).await;
        world.hub.put("dps/faults", faults.clone()).await;
        let failed = world.handler().await.invoke_failing().await;
        assert_eq!(failed, [(sites[0].to_owned(), kind.to_owned())], "{faults}\n{}", world.output());
        assert_eq!(world.outcomes(sites[0]).await, ["pending"], "{faults}");
        world.hub.put("dps/faults", json!({})).await;
        world.handler().await.invoke_ok().await;
        assert_all(&world, sites, 0..5).await;
    }
}

#[tokio::test]
async fn a_service_that_is_away_keeps_nobody_from_being_polled() {
    let world = world(&SITES).await;
    world.hub.put("dps/away", json!(true)).await;
    add(&world, &SITES, 0..5).await;
    let handler = world.handler().await;
    let failed = handler.invoke_failing().await;
    assert!(failed.len() == 3 && failed.iter().all(|(_, kind)| kind == "dps_unreachable"), "{failed:?}");
    for site in SITES {
        assert_eq!(world.outcomes(site).await, ["pending"]);
    }
    world.hub.put("dps/away", json!(false)).await;
    handler.invoke_ok().await;
    assert_all(&world, &SITES, 0..5).await;
    // Known devices do not need DPS.
    world.hub.put("dps/away", json!(true)).await;
    add(&world, &SITES, 5..9).await;
    world.handler().await.invoke_ok().await;
    assert_all(&world, &SITES, 0..9).await;
}

#[tokio::test]
async fn a_device_that_is_gone_is_registered_again_once_a_minute_at_most() {
    let sites = &["well-7"];
    for transport in ["mqtt", "https"] {
        let mut world = world(sites).await;
        world.set("IoTHubTransport", transport);
        add(&world, sites, 0..5).await;
        world.handler().await.invoke_ok().await;
        world.hub.delete("devices?device=well-7").await;
        add(&world, sites, 5..9).await;
        let handler = world.handler().await;
        let refused = [("well-7".to_owned(), "hub_refused".to_owned())];
        assert_eq!(handler.invoke_failing().await, refused, "registered less than a minute ago");
        handler.kill().await;
        assert_eq!(world.registrations().await["well-7"]["registerCalls"], 1);

        world.age_registration("well-7", 61).await;
        world.handler().await.invoke_ok().await;
        assert_eq!(world.registrations().await["well-7"]["registerCalls"], 2);
        assert_all(&world, sites, 0..9).await;
    }
}

#[tokio::test]
async fn two_owners_of_one_id_are_refused_with_both_named() {
    let world = world(&["well-7"]).await;
    add(&world, &["well-7"], 0..5).await;
    world.handler().await.invoke_ok().await;
    let mut settings = world.settings.clone();
    settings.insert("Customer_ID".into(), "Another Utility".into());
    settings.insert("EmulationMode".into(), "true".into());
    for name in ["M2MBackendURL", "Base64encodedUsernamePassword"] {
        settings.remove(name);
    }
    let failed = world.handler_with(&settings).await.invoke_failing().await;
    assert_eq!(failed, [("well-7".to_owned(), "device_taken".to_owned())]);
    let output = world.output();
    for part in ["\"Another Utility\"", "\"Demo Water Utility\"", "device well-7"] {
        assert!(output.contains(part), "{part} is missing in {output}");
    }
    assert_all(&world, &["well-7"], 0..5).await;
}

/// A thousand sites: each is registered once, all rows arrive once and in order, and a restart registers nothing.
async fn a_fleet(transport: &str) {
    let sites: Vec<String> = (0..1_000).map(|number| format!("Logger {number}")).collect();
    let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
    let mut backend = vec!["--no-generate", "--channels", "2"];
    backend.extend(sites.iter().flat_map(|site| ["--site", site]));
    let mut world = World::start_with(&backend, &["--plain-items"], &sites).await;
    world.provision_sites().await;
    world.set("Site_ID", "*");
    world.set("IoTHubTransport", transport);
    world.set("PollTimeoutSeconds", "290");
    world.set("RUST_LOG", "info");
    for round in 0..2 {
        add(&world, &sites, round * 3..round * 3 + 3).await;
        let handler = world.handler().await;
        handler.invoke_ok().await;
        handler.kill().await;
    }
    let delivered = world.delivered().await;
    for site in &sites {
        assert_eq!(delivered.rows[*site], rows(0..6), "{site}");
    }
    assert_eq!((delivered.rows.len(), delivered.repeats), (1_000, 0));
    let devices: BTreeSet<_> = devices(&world).await.into_values().collect();
    let registrations = world.registrations().await;
    assert_eq!((devices.len(), registrations.len()), (1_000, 1_000));
    assert!(registrations.values().all(|one| one["registerCalls"] == 1));
}

#[tokio::test]
async fn a_fleet_over_mqtt() {
    a_fleet("mqtt").await;
}

#[tokio::test]
async fn a_fleet_over_https() {
    a_fleet("https").await;
}
