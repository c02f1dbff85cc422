//! Tests a site that is far behind.

use chrono::DateTime;

use serde_json::{Value, json};

use super::support::{World, stamp};

const SITE: &str = "Well 7";
/// More rows than one window, one transaction or one short invocation holds.
const BEHIND: usize = 150_000;

#[tokio::test]
async fn a_long_backlog_arrives_once_in_order_over_several_invocations() {
    let history = BEHIND.to_string();
    let options = ["--interval", "1", "--history", &history, "--plain", "--channels", "3", "--site", SITE];
    let mut world = World::start(&options, &[SITE]).await;
    world.set("Channelnames", "ch0,ch1,ch2");
    world.set("PollTimeoutSeconds", "4");
    world.set("RUST_LOG", "info");
    // Each transaction waits for the hub. Together that takes longer than an invocation, even on a fast machine.
    world.hub.put("faults", serde_json::json!({ "pubackDelayMs": 500 })).await;
    let handler = world.handler().await;
    let mut invocations = 0;
    loop {
        let answer = handler.invoke().await;
        // A build without optimizations may be cut off in the middle of a window, or get no acknowledgement in its
        // share of the time. The assertions below must hold all the same.
        let failed = if answer.status == 200 { Vec::new() } else { answer.failed() };
        assert!(failed.iter().all(|(_, kind)| kind == "deadline" || kind == "hub_timeout"), "{}", answer.body);
        invocations += 1;
        assert!(invocations < 40, "{}", world.output());
        // The test counts messages often, which is cheap, and reads the rows once, at the end.
        let documents = world.documents(SITE).await;
        // A slow machine may record nothing in the first invocation.
        let Some(cursor) = documents.iter().find(|document| document["id"] == "cursor") else { continue };
        let Some(newest) = cursor["LastValueFrom"].as_str() else { continue };
        let newest = DateTime::parse_from_rfc3339(newest).unwrap().to_utc();
        let all_sent = cursor["Unforwarded"] == serde_json::json!([]);
        if all_sent && (chrono::Utc::now() - newest).num_seconds() < 5 {
            break;
        }
    }
    // `delivered` checks the size of every message.
    let delivered = world.delivered().await;
    let rows = &delivered.rows[SITE];
    let seconds: Vec<_> = rows
        .iter()
        .map(|row| DateTime::parse_from_rfc3339(row["Timestamp"].as_str().unwrap()).unwrap().timestamp())
        .collect();
    assert!(seconds.len() >= BEHIND, "{} rows in {invocations} invocations", seconds.len());
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "a row is missing, doubled or out of order");
    assert!(rows.iter().all(|row| row["Channels"].as_object().unwrap().len() == 3));
    assert!(invocations > 1, "one invocation sufficed: the deadline was not met");
    world.assert_settled().await;
    println!("{} rows in {} messages, {invocations} invocations", rows.len(), delivered.ids[SITE].len());
}

/// Each answer gives many messages, so the limit must also hold in the middle of an answer.
#[tokio::test]
async fn at_most_a_hundred_messages_wait_and_the_rest_stays_in_the_backend() {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("PollTimeoutSeconds", "60");
    world.set("RUST_LOG", "info");
    let text = "x".repeat(150_000);
    for start in (0..120).step_by(20) {
        let rows: Vec<Value> = (start..start + 20).map(|minute| json!([stamp(minute), minute, text])).collect();
        world.add_raw(SITE, rows.into()).await;
    }
    world.hub.away(true).await;
    let handler = world.handler().await;
    for _ in 0..3 {
        handler.invoke_failing().await;
    }
    assert_eq!(world.cursor(SITE).await["Unforwarded"].as_array().unwrap().len(), 100);
    world.hub.away(false).await;
    handler.invoke_until_ok(5).await;
    handler.invoke_ok().await;
    let delivered = world.delivered().await;
    let minutes: Vec<_> = delivered.rows[SITE].iter().map(|row| row["Channels"]["ch0"].as_i64().unwrap()).collect();
    assert_eq!(minutes, (0..120).collect::<Vec<_>>());
    world.assert_settled().await;
}
