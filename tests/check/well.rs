//! Tests that all is well, and that `check` leaves nothing behind.

use emulators::rapidm2m;
use serde_json::json;

use crate::{
    check::{
        command::run,
        services::{Report, SITES, secrets, world, world_of},
    },
    support::{Ledger, World},
};

/// Asserts that no device was registered, no message was sent, and the storage account is as empty as before.
async fn assert_untouched(world: &World) {
    assert_eq!(world.hub.get("received").await, json!([]));
    for (id, registration) in world.registrations().await {
        assert_eq!(registration["registerCalls"], 0, "{id} was registered");
    }
    let (endpoint, key) = (world.cosmos.ready("endpoint"), world.cosmos.ready("key"));
    for container in ["pollingAttempts", "devices"] {
        let found = Ledger::find(endpoint, key, "M2MBackendForwarderData", container).await;
        assert!(found.is_none(), "container {container} was made");
    }
}

#[tokio::test]
async fn everything_is_reached_and_nothing_is_left_behind() {
    let mut world = world().await;
    for (transport, place) in [("mqtt", "mqtt"), ("mqtt-ws", "https"), ("https", "https")] {
        world.set("IoTHubTransport", transport);
        let url = world.hub.ready(place).to_owned();
        world.set("IoTHubURL", &url);
        let report = Report::of(&world, &[]).await;
        assert_eq!(report.ran.code, 0, "{report:#?}");
        assert_eq!(report.of_result("skipped"), [""; 0], "{report:#?}");
        let id_scope = format!("DPS {} (Default)", world.hub.ready("idScope"));
        let hub = world.hub.ready("https").trim_start_matches("https://");
        let device_at = url.trim_start_matches("https://");
        let expected = [
            "settings".to_owned(),
            "backend 127.0.0.1".into(),
            "customer Demo Water Utility".into(),
            format!("site {}", SITES[0]),
            format!("site {}", SITES[1]),
            "Cosmos DB 127.0.0.1".into(),
            "container pollingAttempts".into(),
            "container devices".into(),
            format!("hub {device_at}"),
            id_scope,
            format!("hub {hub} (pumps)"),
            "clock of this machine".into(),
            "storage of the queues".into(),
        ];
        assert_eq!(report.of_result("ok"), expected, "{report:#?}");
        assert!(report.row("hub", "ok")["text"].as_str().unwrap().ends_with(transport), "{report:#?}");
    }
    assert_untouched(&world).await;
}

#[tokio::test]
async fn containers_that_are_there_are_looked_into_and_stay_empty() {
    let world = world().await;
    // The connector makes the containers.
    world.handler().await.invoke_ok().await;
    world.hub.put("dps/settings", json!({ "retryAfterSeconds": 0 })).await;
    let before = world.all_documents().await.len();
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.ran.code, 0, "{report:#?}");
    assert_eq!(report.row("container pollingAttempts", "ok")["text"], "documents can be read and written");
    assert_eq!(report.of_result("warning"), [""; 0], "the container that the connector makes is right");
    assert_eq!(world.all_documents().await.len(), before);
}

#[tokio::test]
async fn the_table_lines_up_in_100_columns() {
    let mut world = world().await;
    world.set("IoTHubDeviceKey", "d3Jvbmc=");
    world.set("COLUMNS", "100");
    let ran = run(&["check"], &world.settings).await;
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{ran:?}");
    ran.has_no(secrets(&world).iter().map(String::as_str));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{}", ran.out);
    let (result, to_do) = (lines[0].find("RESULT").unwrap(), lines[0].find("TO DO").unwrap());
    let refused = lines.iter().find(|line| line.contains("failed: the hub refused device")).unwrap();
    assert_eq!((refused.find("failed"), refused.find("check key")), (Some(result), Some(to_do)), "{}", ran.out);
    assert_eq!(*lines.last().unwrap(), "12 ok, 0 warnings, 1 failed, 0 skipped", "{}", ran.out);
}

#[tokio::test]
async fn each_site_as_a_device_of_its_own_and_a_site_by_name() {
    let mut world = world().await;
    world.unset("UplinkQueueName");
    world.unset("DPSIDScopeDefault");
    world.provision_sites().await;
    let report = Report::of(&world, &["--site", SITES[1]]).await;
    assert_eq!(report.ran.code, 0, "{report:#?}");
    let sites: Vec<_> = report.of_result("ok").into_iter().filter(|what| what.starts_with("site ")).collect();
    assert_eq!(sites, [format!("site {}", SITES[1])]);
    assert!(report.of_result("ok").contains(&format!("DPS {} (sites)", world.hub.ready("idScope")).as_str()));
    assert_eq!(report.of_result("skipped"), ["hub"]);
    assert_untouched(&world).await;
}

#[tokio::test]
async fn of_many_sites_only_those_at_fault_have_a_row() {
    const MANY: usize = 1_000;
    let backend = rapidm2m::Options { sites: Some(MANY), no_generate: true, ..rapidm2m::Options::default() };
    let mut world = world_of(backend).await;
    world.set("Site_ID", "*");
    world.set("Channelnames", "*");
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.row("sites", "ok")["text"], "1000 sites of 1000");
    assert_eq!(report.ran.code, 0, "{report:#?}");

    let rule = |site: usize| json!({ "site": format!("site-{site:05}"), "status": 404 });
    world.backend.put("faults", json!({ "rules": (0..25).map(|site| rule(site * 40)).collect::<Vec<_>>() })).await;
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.row("sites", "ok")["text"], "975 sites of 1000");
    assert_eq!(report.row("sites", "failed")["text"], "5 more sites with a fault are not shown");
    assert_eq!(report.row("site site-00040", "failed")["kind"], "not_found");
    assert!(report.rows.len() < 40, "{}", report.rows.len());
}
