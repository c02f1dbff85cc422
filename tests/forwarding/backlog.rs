//! A site that is far behind.

use chrono::DateTime;

use super::support::World;

const SITE: &str = "Well 7";
/// More than one window, one transaction and one short invocation hold.
const BEHIND: usize = 150_000;

#[tokio::test]
async fn a_long_backlog_arrives_once_in_order_over_several_invocations() {
    let history = BEHIND.to_string();
    let options = ["--interval", "1", "--history", &history, "--plain", "--channels", "3", "--site", SITE];
    let mut world = World::start(&options, &[SITE]).await;
    world.set("Channelnames", "ch0,ch1,ch2");
    world.set("PollTimeoutSeconds", "4");
    world.set("RUST_LOG", "info");
    // Each transaction waits for the hub: together that is longer than an invocation, however fast the machine.
    world.hub.put("faults", serde_json::json!({ "pubackDelayMs": 500 })).await;
    let handler = world.handler().await;
    let mut invocations = 0;
    loop {
        let answer = handler.invoke().await;
        // A build without optimizations may be cut off in the middle of a window, or see no acknowledgement in its share of
        // the time; what must hold holds all the same.
        let failed = if answer.status == 200 { Vec::new() } else { answer.failed() };
        assert!(failed.iter().all(|(_, kind)| kind == "deadline" || kind == "hub_timeout"), "{}", answer.body);
        invocations += 1;
        assert!(invocations < 40, "{}", world.output());
        // Messages are cheap to count; the rows are looked at once, at the end.
        let cursor = world.cursor(SITE).await;
        let newest = DateTime::parse_from_rfc3339(cursor["LastValueFrom"].as_str().unwrap()).unwrap().to_utc();
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
