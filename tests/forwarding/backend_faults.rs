//! Tests a backend that answers wrongly. A failure is recorded with its kind and never looks like "no data". Afterwards
//! every row arrives.

use serde_json::{Value, json};

use super::support::{World, row, rows, stamp};

/// One site for each fault, its kind and its HTTP status in the record. (What is meant for all sites: see `gate.rs`.)
fn cases() -> Vec<(&'static str, Value, &'static str, Value)> {
    vec![
        ("401", json!({ "status": 401 }), "unauthorized", json!(401)),
        ("404", json!({ "status": 404 }), "not_found", json!(404)),
        ("500", json!({ "status": 500 }), "http_status", json!(500)),
        (
            "502 in html",
            json!({ "status": 502, "body": "<html>", "contentType": "text/html" }),
            "http_status",
            json!(502),
        ),
        ("cut", json!({ "cutBody": true }), "cut_off", Value::Null),
        ("garbage", json!({ "garbage": true }), "not_json", json!(200)),
        ("half", json!({ "rawBody": "[[\"20240301\",1,2],[\"2024" }), "not_json", json!(200)),
        ("hang", json!({ "hang": true }), "timeout", Value::Null),
        ("html", json!({ "html": true }), "html", json!(200)),
        ("shape", json!({ "rawBody": "{\"rows\":[]}" }), "wrong_shape", json!(200)),
    ]
}

/// Sites that are not polled for a while after the fault.
const RESTING: [&str; 2] = ["401", "404"];

#[tokio::test]
async fn every_failure_is_recorded_with_its_kind_and_made_up_for() {
    let cases = cases();
    let mut sites: Vec<_> = cases.iter().map(|(site, ..)| *site).collect();
    sites.push("healthy");
    let mut world = World::with_sites(&sites).await;
    world.set("PollTimeoutSeconds", "3");
    world.set("PollConcurrency", "32");
    for site in &sites {
        world.add(site, 0..3).await;
    }
    let rules: Vec<_> = cases
        .iter()
        .map(|(site, rule, ..)| {
            let mut rule = rule.clone();
            rule["site"] = (*site).into();
            rule["times"] = 1.into();
            rule
        })
        .collect();
    world.backend.put("faults", json!({ "rules": rules })).await;
    let handler = world.handler().await;
    let expected: Vec<_> = cases.iter().map(|(site, _, kind, _)| ((*site).to_owned(), (*kind).to_owned())).collect();
    assert_eq!(handler.invoke_failing().await, expected);
    world.assert_rows("healthy", &rows(0..3)).await;
    for (site, _, kind, status) in &cases {
        let polls = world.polls(site).await;
        assert_eq!(polls.len(), 1, "{site}");
        assert_eq!((&polls[0]["Outcome"], &polls[0]["Error"]["Kind"]), (&json!("failed"), &json!(kind)), "{site}");
        assert_ne!(polls[0]["Error"]["Text"], "", "{site}");
        assert_eq!(polls[0]["Result"]["HttpStatus"], *status, "{site}");
        let cursor = world.cursor(site).await;
        assert_eq!((&cursor["LastError"]["Kind"], &cursor["ConsecutiveFailures"]), (&json!(kind), &json!(1)), "{site}");
        assert_eq!(cursor["LastValueFrom"], Value::Null, "{site}");
        assert_eq!(cursor["NotBefore"].is_string(), RESTING.contains(site), "{site}: {cursor}");
    }

    // Each fault happened once. A site that is backed off is not polled, counts as no success, and gets no new record.
    let resting = handler.invoke_failing().await;
    assert_eq!(resting.iter().map(|(site, _)| site.as_str()).collect::<Vec<_>>(), RESTING);
    for site in &sites {
        if RESTING.contains(site) {
            assert_eq!(world.outcomes(site).await, ["failed"], "{site}");
        } else {
            world.assert_rows(site, &rows(0..3)).await;
            assert_eq!(world.cursor(site).await["LastError"], Value::Null, "{site}");
        }
    }

    // An operator who has corrected the settings restarts the app.
    handler.kill().await;
    world.handler().await.invoke_ok().await;
    for site in &RESTING {
        world.assert_rows(site, &rows(0..3)).await;
        assert_eq!(world.outcomes(site).await, ["failed", "forwarded"]);
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn a_wrong_password_is_a_401_of_every_site() {
    let mut world = World::with_sites(&["Well 7"]).await;
    let right = world.settings["Base64encodedUsernamePassword"].clone();
    world.set("Base64encodedUsernamePassword", "ZGVtbzp3cm9uZyBwYXNzd29yZA==");
    world.add("Well 7", 0..3).await;
    let handler = world.handler().await;
    assert!(handler.invoke_failing().await.contains(&("Well 7".to_owned(), "unauthorized".to_owned())));
    world.assert_no_secrets().await;
    handler.kill().await;
    world.set("Base64encodedUsernamePassword", &right);
    world.handler().await.invoke_ok().await;
    world.assert_rows("Well 7", &rows(0..3)).await;
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_as_too_large() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("PollTimeoutSeconds", "15");
    world.add("Well 7", 0..3).await;
    let rule = json!({ "resource": "histdata", "bigBody": 65 * 1024 * 1024 });
    world.backend.put("faults", json!({ "rules": [rule] })).await;
    let handler = world.handler().await;
    assert_eq!(handler.invoke_failing().await, [("Well 7".to_owned(), "too_large".to_owned())]);
    assert_eq!(world.polls("Well 7").await[0]["Error"]["Kind"], "too_large");
    world.backend.heal().await;
    handler.invoke_ok().await;
    world.assert_rows("Well 7", &rows(0..3)).await;
}

#[tokio::test]
async fn bad_rows_do_not_keep_the_good_ones() {
    let site = "Well 7";
    let world = World::with_sites(&[site]).await;
    let handler = world.handler().await;
    world.add(site, 0..3).await;
    let bad = json!([["yesterday", 1, 2], [stamp(1), 1], [stamp(2), 1, 2, 3], [stamp(2), [1], {}], 7, {}, []]);
    world.add_raw(site, bad).await;
    world.add(site, 3..6).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(0..6)).await;
    let polls = world.polls(site).await;
    assert_eq!(polls[0]["Outcome"], "forwarded");
    assert_eq!(polls[0]["Result"]["BadRows"]["Count"], 7, "{}", polls[0]);
    assert!(polls[0]["Result"]["BadRows"]["First"].to_string().contains("yesterday"));

    // The same rows are not told again. An answer with no other new rows is not "no data".
    handler.invoke_ok().await;
    world.add_raw(site, json!([["tomorrow", 1, 2]])).await;
    assert_eq!(handler.invoke_failing().await, [(site.to_owned(), "bad_rows".to_owned())]);
    assert_eq!(world.outcomes(site).await, ["forwarded", "empty", "failed"]);
    world.add(site, 6..9).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(0..9)).await;
}

#[tokio::test]
async fn without_an_overlap_a_site_that_sends_nothing_usable_fails_each_time() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("OverlapSeconds", "0");
    let handler = world.handler().await;
    world.add("Well 7", 0..3).await;
    world.add_raw("Well 7", json!([["yesterday", 1, 2]])).await;
    handler.invoke_ok().await;
    for _ in 0..2 {
        assert_eq!(handler.invoke_failing().await, [("Well 7".to_owned(), "bad_rows".to_owned())]);
    }
    assert_eq!(world.outcomes("Well 7").await, ["forwarded", "failed", "failed"]);
}

#[tokio::test]
async fn rows_from_the_future_wait_and_hold_nothing_up() {
    let site = "Well 7";
    let world = World::with_sites(&[site]).await;
    let handler = world.handler().await;
    let future = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    world.add(site, 0..3).await;
    world.add_raw(site, json!([[future.format("%Y%m%d%H%M%S").to_string(), 1, 2]])).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(0..3)).await;
    assert_eq!(world.polls(site).await[0]["Result"]["RowsAhead"], 1);
    assert_eq!(world.cursor(site).await["LastValueFrom"], rows([2])[0]["Timestamp"]);
    world.add(site, 3..6).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(0..6)).await;
}

#[tokio::test]
async fn a_row_of_the_future_is_no_failure_and_on_record_as_long_as_it_waits() {
    let site = "Well 7";
    let world = World::with_sites(&[site]).await;
    let handler = world.handler().await;
    world.add(site, 0..3).await;
    world.add_raw(site, json!([["21990101", 1, 2]])).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    world.add(site, 3..6).await;
    world.add_raw(site, json!([["21990102", 1, 2]])).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(0..6)).await;
    assert_eq!(world.outcomes(site).await, ["forwarded", "empty", "forwarded"]);
    let ahead: Vec<_> = world.polls(site).await.iter().map(|poll| poll["Result"]["RowsAhead"].as_u64()).collect();
    assert_eq!(ahead, [1, 1, 2].map(Some), "every record names them");
    assert_eq!(world.output().matches("are ahead of the clock. They").count(), 1, "once an hour: {}", world.output());
}

#[tokio::test]
async fn order_repeats_and_bounds_are_the_backends_choice() {
    let site = "Well 7";
    for variant in [
        json!({ "order": "shuffled", "repeatRows": true }),
        json!({ "order": "descending", "fromInclusive": false, "untilInclusive": false }),
        json!({ "contentType": "text/plain" }),
    ] {
        let world = World::with_sites(&[site]).await;
        world.backend.put("faults", variant).await;
        let handler = world.handler().await;
        for round in 0..3 {
            world.add(site, round * 20..round * 20 + 20).await;
            handler.invoke_ok().await;
        }
        world.assert_rows(site, &rows(0..60)).await;
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn numbers_in_quotes_stay_as_they_are() {
    let site = "Well 7";
    let world = World::with_sites(&[site]).await;
    world.backend.put("faults", json!({ "numbersAsStrings": true })).await;
    world.add(site, [7]).await;
    world.handler().await.invoke_ok().await;
    world.assert_rows(site, &[row(7, json!({ "ch0": "7", "ch1": "0.5" }))]).await;
}

#[tokio::test]
async fn a_customer_without_sites_is_a_failure_and_the_known_sites_are_polled() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("Site_ID", "*");
    world.add("Well 7", 0..3).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.backend.put("faults", json!({ "rules": [{ "resource": "sites", "rawBody": "[]" }] })).await;
    world.add("Well 7", 3..6).await;
    assert_eq!(handler.invoke_failing().await, [("*".to_owned(), "no_sites".to_owned())]);
    world.assert_rows("Well 7", &rows(0..6)).await;
}

#[tokio::test]
async fn an_unusable_youngest_row_does_not_block_a_new_site() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("StartFrom", "youngest");
    world.add_raw("Well 7", json!([["20990101", 1, 1]])).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    let now = chrono::Utc::now().format("%Y%m%d%H%M%S%3f").to_string();
    world.add_raw("Well 7", json!([[now.trim_end_matches('0'), 2, 2]])).await;
    handler.invoke_ok().await;
    assert_eq!(world.delivered().await.rows["Well 7"].len(), 1);
}

#[tokio::test]
async fn an_empty_answer_is_no_new_rows() {
    let site = "Well 7";
    let world = World::with_sites(&[site]).await;
    let handler = world.handler().await;
    let bodies = ["", "\n", "null", "{}", "[]"].map(|body| json!({ "rawBody": body }));
    for rule in bodies.into_iter().chain([json!({ "status": 204 })]) {
        let mut rule = rule;
        rule["resource"] = "histdata".into();
        world.backend.put("faults", json!({ "rules": [rule] })).await;
        handler.invoke_ok().await;
    }
    world.backend.heal().await;
    world.add(site, 0..3).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(0..3)).await;
    assert_eq!(world.outcomes(site).await, ["empty", "empty", "empty", "empty", "empty", "empty", "forwarded"]);
}

#[tokio::test]
async fn one_row_that_is_no_json_keeps_no_other() {
    let bad = [
        "NaN",
        "-Infinity",
        "007",
        "21,5",
        "\"line1\nline2\"",
        "\"a\u{0}b\"",
        "\"C:\\data\"",
        "\"\\ud800\"",
        "[1]",
        "\"x",
    ];
    let sites: Vec<_> = (0..bad.len()).map(|number| format!("s{number:02}")).collect();
    let names: Vec<_> = sites.iter().map(String::as_str).collect();
    let world = World::with_sites(&names).await;
    let body = |bad: &str, more: &str| {
        let row = |minute: i64| format!("[\"{}\",{minute},0.5]", stamp(minute));
        format!("[{},[\"{}\",{bad},0.5],{}{more}]", row(0), stamp(1), row(2))
    };
    let handler = world.handler().await;
    for more in [String::new(), format!(",[\"{}\",3,0.5]", stamp(3))] {
        let rules = sites
            .iter()
            .zip(bad)
            .map(|(site, bad)| json!({ "site": site, "resource": "histdata", "rawBody": body(bad, &more) }));
        world.backend.put("faults", json!({ "rules": rules.collect::<Vec<_>>() })).await;
        handler.invoke_ok().await;
        handler.invoke_ok().await;
    }
    let delivered = world.delivered().await;
    for (site, bad) in sites.iter().zip(bad) {
        let minutes: Vec<_> = delivered.rows[site].iter().map(|row| row["Timestamp"].clone()).collect();
        let is_there = |minute: i64| minutes.contains(&rows([minute])[0]["Timestamp"]);
        assert!([0, 2, 3].into_iter().all(is_there), "{bad:?}: {minutes:?}");
        // What can be read without guessing is read; what cannot is counted once, with its stamp.
        let first = world.polls(site).await[0]["Result"]["BadRows"]["First"][0].clone();
        assert_eq!(is_there(1), first.is_null(), "{bad:?}: {first}");
        assert!(first.is_null() || first.as_str().unwrap().starts_with("2024-03-01T00:01:00Z: "), "{bad:?}: {first}");
        let unusable = world.cursor(site).await["Activity"]["UnusableRows"].as_u64().unwrap_or_default();
        assert_eq!(unusable, u64::from(!first.is_null()), "{bad:?}");
    }
}
