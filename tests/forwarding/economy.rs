//! Tests what the connector leaves out: requests for sites without news, records of empty polls, and what a busy Cosmos DB or
//! a hub that is away would only refuse.

use serde_json::{Value, json};

use super::support::{World, row, rows};
use crate::commands::run;

const SITES: usize = 40;

fn name(number: usize) -> String {
    format!("site-{number:05}")
}

/// A fleet with the default settings.
async fn fleet(site_id: &str) -> World {
    let names: Vec<_> = (0..SITES).map(name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let options = ["--no-generate", "--channels", "2", "--sites", &SITES.to_string()];
    let mut world = World::start(&options, &names).await;
    world.unset("RecordEmptyPolls");
    world.unset("SweepMinutes");
    if site_id == "*" {
        world.set("Site_ID", "*");
    }
    world
}

/// How many requests for rows there were; afterwards there are none.
async fn asked(world: &World) -> usize {
    let requests = world.backend.get("requests").await;
    world.backend.delete("requests").await;
    let is_for_rows = |request: &&Value| request["path"].as_str().unwrap().contains("/histdata");
    requests.as_array().unwrap().iter().filter(is_for_rows).count()
}

#[tokio::test]
async fn only_sites_with_a_new_contact_are_asked() {
    for site_id in ["*", "by name"] {
        let world = fleet(site_id).await;
        let handler = world.handler().await;
        for number in 0..SITES {
            world.add(&name(number), [0]).await;
        }
        handler.invoke_ok().await;
        assert_eq!(asked(&world).await, SITES, "{site_id}");
        for minute in 1..4 {
            world.add(&name(7), [minute]).await;
            handler.invoke_ok().await;
            assert_eq!(asked(&world).await, 1, "{site_id}");
        }
        world.assert_rows(&name(7), &rows(0..4)).await;
        world.assert_rows(&name(8), &rows(0..1)).await;
        world.assert_settled().await;
        assert!(world.output().contains("39 without a new contact"), "{}", world.output());
    }
}

/// A process that has just started learns from the cursors who has no news.
#[tokio::test]
async fn a_restart_does_not_ask_everybody() {
    let mut world = fleet("*").await;
    world.set("SweepMinutes", "1440");
    for number in 0..SITES {
        world.add(&name(number), [0]).await;
    }
    let handler = world.handler().await;
    handler.invoke_ok().await;
    handler.kill().await;
    asked(&world).await;
    world.add(&name(3), [1]).await;
    let future = (chrono::Utc::now() + chrono::TimeDelta::hours(1)).format("%Y%m%d%H%M%S").to_string();
    world.add_raw(&name(4), json!([[future, 1, 2]])).await;
    for restart in 0..2 {
        let handler = world.handler().await;
        handler.invoke_ok().await;
        handler.kill().await;
        // The row of the future is looked for each time. A sweep may be due for one or two.
        assert!((2 - restart..6).contains(&asked(&world).await), "restart {restart}");
    }
    world.assert_rows(&name(3), &rows(0..2)).await;
}

#[tokio::test]
async fn without_contacts_or_a_list_each_site_is_asked() {
    let world = fleet("*").await;
    let handler = world.handler().await;
    for number in 0..SITES {
        world.add(&name(number), [0]).await;
        if number.is_multiple_of(2) {
            world.backend.put(&format!("sites/{}", name(number)), json!({ "contact": null })).await;
        }
    }
    handler.invoke_ok().await;
    asked(&world).await;
    handler.invoke_ok().await;
    assert_eq!(asked(&world).await, SITES / 2);
    world.backend.put("faults", json!({ "rules": [{ "resource": "sites", "status": 500 }] })).await;
    handler.invoke_failing().await;
    assert_eq!(asked(&world).await, SITES);
}

#[tokio::test]
async fn a_contact_in_the_future_or_one_that_flaps_costs_requests_only() {
    let world = fleet("*").await;
    let handler = world.handler().await;
    for number in 0..SITES {
        world.add(&name(number), [0]).await;
    }
    for (round, contact) in ["2199010112", "2001", "2199010112", "x"].into_iter().enumerate() {
        world.backend.put(&format!("sites/{}", name(0)), json!({ "contact": contact })).await;
        world.add(&name(0), [1 + i64::try_from(round).unwrap()]).await;
        handler.invoke_ok().await;
    }
    world.assert_rows(&name(0), &rows(0..5)).await;
}

/// A list that does not tell of all new rows.
#[tokio::test]
async fn a_hint_that_is_wrong_is_not_used_any_more() {
    let mut world = fleet("*").await;
    world.set("SweepMinutes", "1");
    let handler = world.handler().await;
    for number in 0..SITES {
        world.backend.put(&format!("sites/{}", name(number)), json!({ "contact": "20260101" })).await;
        world.add(&name(number), [0]).await;
    }
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    asked(&world).await;
    for number in 0..SITES {
        world.add(&name(number), [1]).await;
    }
    // Within the minute a sweep finds the rows.
    let mut runs = 0;
    while !world.output().contains("as with SweepMinutes=0") {
        handler.invoke_ok().await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        runs += 1;
        assert!(runs < 90, "{}", world.output());
    }
    for number in 0..SITES {
        world.assert_rows(&name(number), &rows(0..2)).await;
    }
    asked(&world).await;
    handler.invoke_ok().await;
    assert_eq!(asked(&world).await, SITES);
    // The next start knows it, and people see it.
    handler.kill().await;
    let handler = world.handler().await;
    for _ in 0..2 {
        handler.invoke_ok().await;
        assert_eq!(asked(&world).await, SITES);
    }
    let request = json!({ "Data": { "req": { "Method": "GET", "Query": { "format": "json" } } } });
    let page = handler.post("/status", request.to_string()).await.body["Outputs"]["res"]["body"].to_string();
    assert!(page.contains("showed no new contact (device.stamp)"), "{page}");
    let checked = run::run(&world, &["check"]).await.printed;
    assert!(checked.contains("showed no new contact"), "{checked}");
}

#[tokio::test]
async fn empty_polls_are_counted_in_the_next_record() {
    let mut world = fleet("by name").await;
    world.set("SweepMinutes", "0");
    let site = name(3);
    let handler = world.handler().await;
    world.add(&site, [0]).await;
    handler.invoke_ok().await;
    for _ in 0..4 {
        handler.invoke_ok().await;
    }
    world.add(&site, [1]).await;
    handler.invoke_ok().await;
    assert_eq!(world.outcomes(&site).await, ["forwarded", "forwarded"]);
    let polls = world.polls(&site).await;
    assert_eq!(polls[0]["EmptyPolls"], Value::Null);
    let empty = &polls[1]["EmptyPolls"];
    assert_eq!((&empty["Count"], &empty["HttpStatus"]), (&json!(4), &json!(200)), "{}", polls[1]);
    assert!(
        polls[0]["PollingTimestamp"].as_str() < empty["First"].as_str()
            && empty["First"].as_str() < empty["Last"].as_str()
    );
    // A failure has a record, too, and the polls before it.
    handler.invoke_ok().await;
    world.backend.put("faults", json!({ "rules": [{ "site": site, "status": 500 }] })).await;
    handler.invoke().await;
    assert_eq!(world.polls(&site).await[2]["EmptyPolls"]["Count"], 1);
    world.assert_rows(&site, &rows(0..2)).await;
}

#[tokio::test]
async fn a_busy_cosmos_db_slows_a_run_down_and_fails_none() {
    let world = fleet("*").await;
    let handler = world.handler().await;
    for number in 0..SITES {
        world.add(&name(number), [0]).await;
    }
    world.cosmos.put("faults", json!({ "perSecond": 30 })).await;
    handler.invoke_ok().await;
    let throttled = world
        .output()
        .lines()
        .filter(|line| line.contains("sites polled"))
        .any(|line| line.contains("ledger.throttled"));
    assert!(throttled, "{}", world.output());
    for number in 0..SITES {
        world.assert_rows(&name(number), &rows(0..1)).await;
    }
}

/// The backend keeps the rows of an outage. Then they leave in one message, not in one for each run.
#[tokio::test]
async fn rows_of_an_outage_of_the_hub_leave_in_full_messages() {
    let world = fleet("*").await;
    let handler = world.handler().await;
    let site = name(0);
    world.hub.away(true).await;
    for minute in 0..20 {
        world.add(&site, [minute]).await;
        handler.invoke_failing().await;
    }
    assert_eq!(world.outcomes(&site).await, ["pending"]);
    world.hub.away(false).await;
    handler.invoke_ok().await;
    world.assert_rows(&site, &rows(0..20)).await;
    assert_eq!(world.outcomes(&site).await, ["forwarded"; 2]);
    let last = row(19, json!({ "ch0": 19, "ch1": 0.5 }));
    assert_eq!(world.delivered().await.rows[&site].last(), Some(&last));
}
