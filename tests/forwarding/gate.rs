//! Tests how polite the connector is to a backend that refuses, that asks to slow down, that is away, or some of whose sites
//! hang.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::{World, rows};

const SITES: usize = 120;

/// A fleet whose sites are named in the settings.
async fn fleet(sites: usize) -> World {
    let names: Vec<_> = (0..sites).map(|number| format!("site-{number:05}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    World::start(&["--no-generate", "--channels", "2", "--sites", &sites.to_string()], &names).await
}

/// A row for each site.
async fn add(world: &World, minute: i64, sites: usize) {
    for number in 0..sites {
        world.add(&format!("site-{number:05}"), [minute]).await;
    }
}

/// When requests came, and how they were answered; afterwards there are none.
async fn requests(world: &World) -> Vec<(DateTime<Utc>, u64)> {
    let requests = world.backend.get("requests").await;
    world.backend.delete("requests").await;
    let read = |request: &Value| {
        (request["receivedAt"].as_str().unwrap().parse().unwrap(), request["status"].as_u64().unwrap_or_default())
    };
    requests.as_array().unwrap().iter().map(read).collect()
}

async fn answers(world: &World, rule: Value) {
    world.backend.put("faults", json!({ "rules": [rule] })).await;
}

#[tokio::test]
async fn a_changed_password_costs_few_wrong_logins_also_over_restarts() {
    let mut world = fleet(SITES).await;
    let handler = world.handler().await;
    add(&world, 0, SITES).await;
    handler.invoke_ok().await;
    requests(&world).await;

    answers(&world, json!({ "status": 401 })).await;
    add(&world, 1, SITES).await;
    for _ in 0..3 {
        let failed = handler.invoke_failing().await;
        assert!(failed.contains(&("*".to_owned(), "unauthorized".to_owned())), "{failed:?}");
    }
    assert_eq!(requests(&world).await.len(), 2, "one may be the fault of a site");
    handler.kill().await;
    // A restart may be an operator's who has corrected something; but not any number of them.
    for (restart, expected) in [1, 1, 0, 0].into_iter().enumerate() {
        let handler = world.handler().await;
        handler.invoke_failing().await;
        assert_eq!(requests(&world).await.len(), expected, "restart {restart}");
        handler.kill().await;
    }
    let output = world.output();
    assert!(output.contains("check Base64encodedUsernamePassword") && output.contains("next attempt at"), "{output}");

    // Other credentials are tried at once.
    world.backend.heal().await;
    let right = world.settings["Base64encodedUsernamePassword"].clone();
    world.set("Base64encodedUsernamePassword", "ZGVtbzp3cm9uZyBwYXNzd29yZA==");
    let handler = world.handler().await;
    handler.invoke_failing().await;
    assert_eq!(requests(&world).await.len(), 2);
    handler.kill().await;
    world.set("Base64encodedUsernamePassword", &right);
    let handler = world.handler().await;
    handler.invoke_until_ok(2).await;
    world.assert_rows("site-00007", &rows(0..2)).await;
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn with_all_sites_a_refused_list_asks_no_fleet() {
    let mut world = fleet(SITES).await;
    world.set("Site_ID", "*");
    let handler = world.handler().await;
    add(&world, 0, SITES).await;
    handler.invoke_ok().await;
    requests(&world).await;
    answers(&world, json!({ "status": 403 })).await;
    for _ in 0..3 {
        assert!(handler.invoke_failing().await.contains(&("*".to_owned(), "forbidden".to_owned())));
    }
    assert_eq!(requests(&world).await.len(), 2);
}

#[tokio::test]
async fn a_site_that_alone_is_refused_stops_nobody() {
    let world = fleet(20).await;
    let handler = world.handler().await;
    answers(&world, json!({ "site": "site-00000", "status": 403 })).await;
    for minute in 0..2 {
        add(&world, minute, 20).await;
        handler.invoke_ok().await;
    }
    world.assert_rows("site-00001", &rows(0..2)).await;
    assert_eq!(world.cursor("site-00000").await["LastError"]["Kind"], "forbidden");
}

#[tokio::test]
async fn a_backend_that_asks_to_slow_down_is_asked_less_by_everybody() {
    for (status, retry_after) in [(429, Some("300")), (429, Some("0")), (429, None), (503, Some("300")), (503, None)] {
        let mut world = fleet(SITES).await;
        world.set("BackendRequestsPerSecond", "100");
        let handler = world.handler().await;
        add(&world, 0, SITES).await;
        handler.invoke_ok().await;
        let good = requests(&world).await;
        let within = |from: &DateTime<Utc>| {
            good.iter().filter(|(at, _)| from <= at && *at < *from + TimeDelta::seconds(1)).count()
        };
        let most = good.iter().map(|(at, _)| within(at)).max();
        assert!(good.len() > SITES && most <= Some(110), "{most:?} requests in a second");

        let mut rule = json!({ "resource": "histdata", "status": status });
        if let Some(after) = retry_after {
            rule["retryAfter"] = after.into();
        }
        answers(&world, rule).await;
        for run in 0..3 {
            handler.invoke_failing().await;
            let made = requests(&world).await.len();
            assert!(made <= SITES / 10, "{status}, {retry_after:?}, run {run}: {made} requests");
        }
        world.assert_no_secrets().await;
    }
}

#[tokio::test]
async fn a_backend_that_is_away_is_tried_by_few() {
    let world = fleet(SITES).await;
    let handler = world.handler().await;
    add(&world, 0, SITES).await;
    handler.invoke_ok().await;
    world.backend.away(true).await;
    for _ in 0..2 {
        let failed = handler.invoke_failing().await;
        assert!(failed.contains(&("*".to_owned(), "connect".to_owned())), "{failed:?}");
        assert!(failed.len() < SITES / 10, "{failed:?}");
    }
    world.backend.away(false).await;
    add(&world, 1, SITES).await;
    handler.invoke_ok().await;
    world.assert_rows("site-00119", &rows(0..2)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn sites_that_hang_hold_nobody_up() {
    let mut world = fleet(SITES).await;
    world.set("PollTimeoutSeconds", "15");
    let handler = world.handler().await;
    add(&world, 0, SITES).await;
    handler.invoke_ok().await;
    let hangs = |number: usize| number.is_multiple_of(10);
    let rules: Vec<_> = (0..SITES)
        .filter(|number| hangs(*number))
        .map(|number| json!({ "site": format!("site-{number:05}"), "hang": true }))
        .collect();
    world.backend.put("faults", json!({ "rules": rules })).await;
    for minute in 1..3 {
        add(&world, minute, SITES).await;
        requests(&world).await;
        handler.invoke().await;
        let delivered = world.delivered().await;
        for number in (0..SITES).filter(|number| !hangs(*number)) {
            let site = format!("site-{number:05}");
            assert_eq!(delivered.rows[&site].len() as i64, minute + 1, "{site} in run {minute}");
        }
    }
    world.backend.heal().await;
    handler.invoke_until_ok(3).await;
    world.assert_rows("site-00000", &rows(0..3)).await;
    world.assert_settled().await;
}

/// What waits for the hub is sent although the backend refuses everybody.
#[tokio::test]
async fn what_waits_is_sent_while_the_backend_refuses() {
    let world = fleet(10).await;
    let handler = world.handler().await;
    add(&world, 0, 10).await;
    world.hub.away(true).await;
    handler.invoke_failing().await;
    world.hub.away(false).await;
    answers(&world, json!({ "status": 401 })).await;
    handler.invoke_failing().await;
    handler.invoke_failing().await;
    for number in 0..10 {
        world.assert_rows(&format!("site-{number:05}"), &rows([0])).await;
    }
}
