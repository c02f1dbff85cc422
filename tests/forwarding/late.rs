//! Tests rows that arrive late, and other odd times: recorded rows are recognised, all others are sent once.

use serde_json::{Value, json};

use super::support::{Row, Settings, World, row, rows, stamp};

const SITE: &str = "Well 7";

/// A world in which rows may be up to an hour late.
async fn world() -> World {
    world_with("3600").await
}

async fn world_with(overlap: &str) -> World {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("OverlapSeconds", overlap);
    world
}

/// The rows of these minutes, in the order in which the test expects them.
fn in_order(minutes: &[std::ops::Range<i64>]) -> Vec<Row> {
    rows(minutes.iter().cloned().flatten())
}

#[tokio::test]
async fn late_rows_go_out_once_whatever_is_restarted() {
    let world = world().await;
    let handler = world.handler().await;
    // The logger first uploads the new rows, then in two parts the rows that it measured while it had no network.
    world.add(SITE, 0..10).await;
    world.add(SITE, 30..40).await;
    handler.invoke_ok().await;
    world.add(SITE, 20..30).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    handler.kill().await;
    let handler = world.handler().await;
    world.add(SITE, 40..42).await;
    world.add(SITE, 10..20).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &in_order(&[0..10, 30..40, 20..30, 10..20, 40..42])).await;
    assert_eq!(world.delivered().await.repeats, 0);
    world.assert_settled().await;

    let cursor = world.cursor(SITE).await;
    assert_eq!(cursor["LastValueFrom"], row(41, json!({}))["Timestamp"]);
    let stamps = cursor["Recorded"]["Stamps"].as_array().unwrap();
    assert_eq!(stamps.len(), 1, "even intervals take one entry: {cursor}");
    // The request reaches back as far as rows may be late, and so does the range in the message.
    let received = world.hub.get("received").await;
    let message: Value = serde_json::from_str(received[2]["body"].as_str().unwrap()).unwrap();
    assert!(message["Timerange"]["begin"].as_str() <= message["Timeseries"][0]["Timestamp"].as_str(), "{message}");
}

#[tokio::test]
async fn rows_later_than_the_overlap_are_left_and_nothing_else_is_sent_again() {
    let world = world_with("600").await;
    let handler = world.handler().await;
    world.add(SITE, 10..24).await;
    world.add(SITE, 31..40).await;
    handler.invoke_ok().await;
    // The newest is minute 39: ten minutes before it is minute 29.
    world.backend.delete("rows?site=Well%207").await;
    world.add(SITE, 0..29).await;
    handler.invoke_ok().await;
    world.add(SITE, 29..41).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &in_order(&[10..24, 31..40, 29..31, 40..41])).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn what_is_older_than_the_beginning_does_not_become_late() {
    for (start, first) in [("youngest", 9), ("2024-03-01T00:05:00Z", 5)] {
        let mut world = world().await;
        world.set("StartFrom", start);
        let handler = world.handler().await;
        world.add(SITE, (0..10).filter(|minute| *minute != 6)).await;
        handler.invoke_ok().await;
        world.add(SITE, 6..7).await;
        world.add(SITE, 10..12).await;
        handler.invoke_ok().await;
        handler.invoke_ok().await;
        let late = if first < 6 { 6..7 } else { 0..0 };
        let begun: Vec<_> = (first..10).filter(|minute| *minute != 6).chain(late).chain(10..12).collect();
        world.assert_rows(SITE, &rows(begun)).await;
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn an_overlap_can_be_switched_on_and_off() {
    let mut world = world_with("0").await;
    let handler = world.handler().await;
    world.add(SITE, 10..20).await;
    handler.invoke_ok().await;
    assert!(world.cursor(SITE).await.get("Recorded").is_none());
    handler.kill().await;

    // The new list does not know the rows that were sent before, so no row older than the newest of them counts as
    // late.
    world.set("OverlapSeconds", "3600");
    let handler = world.handler().await;
    world.add(SITE, 22..25).await;
    handler.invoke_ok().await;
    world.add(SITE, 5..6).await;
    world.add(SITE, 20..22).await;
    handler.invoke_ok().await;
    handler.kill().await;

    world.set("OverlapSeconds", "0");
    let handler = world.handler().await;
    world.add(SITE, 25..27).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &in_order(&[10..20, 22..25, 20..22, 25..27])).await;
    world.assert_settled().await;
    assert!(world.cursor(SITE).await.get("Recorded").is_none());
}

#[tokio::test]
async fn an_overlap_that_no_answer_can_hold_is_read_in_windows() {
    let mut world = world().await;
    // Twice as much as one answer may hold before the connector requests it in parts.
    let text = "x".repeat(150_000);
    let wide = |minutes: std::ops::Range<i64>| -> Value {
        minutes.map(|minute| json!([stamp(minute), minute, text])).collect::<Vec<_>>().into()
    };
    world.set("PollTimeoutSeconds", "60");
    world.set("RUST_LOG", "info");
    let handler = world.handler().await;
    for start in [0, 20, 40] {
        world.add_raw(SITE, wide(start..start + 19)).await;
    }
    for start in [60, 80, 100, 120] {
        world.add_raw(SITE, wide(start..start + 20)).await;
    }
    handler.invoke_until_ok(4).await;
    // Late by 40 minutes (01:40:30), by 9 (02:11:30), and by more than the hour that reaches back from minute 139.
    world
        .add_raw(
            SITE,
            json!([["2024030101403", 1, "late"], ["2024030102113", 2, "late"], ["20240301003930", 3, "old"]]),
        )
        .await;
    world.add(SITE, 140..142).await;
    handler.invoke_until_ok(4).await;
    handler.invoke_ok().await;
    handler.kill().await;
    world.handler().await.invoke_until_ok(4).await;
    let delivered = world.delivered().await;
    let found = &delivered.rows[SITE];
    assert_eq!(delivered.repeats, 0);
    let polls = world.polls(SITE).await;
    let is_part = |poll: &Value| poll["Outcome"] == "empty" && poll["Request"]["Until"].is_string();
    assert!(polls.iter().any(is_part), "the overlap was read in one piece");
    let late: Vec<_> = found.iter().filter(|row| row["Channels"]["ch1"] == "late").collect();
    assert_eq!(late.len(), 2, "each late row once");
    assert_eq!(found.len(), 3 * 19 + 4 * 20 + 2 + 2, "nothing else again, and not the one that is too late");
    world.assert_settled().await;
}

#[tokio::test]
async fn an_unreadable_row_in_the_overlap_is_told_once() {
    let world = world().await;
    let handler = world.handler().await;
    world.add(SITE, 0..5).await;
    // One value instead of two.
    world.add_raw(SITE, json!([["2024030100023", 1]])).await;
    for _ in 0..3 {
        handler.invoke_ok().await;
    }
    world.add(SITE, 5..7).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..7)).await;
    let bad_rows = |poll: &Value| poll["Result"]["BadRows"]["Count"].as_u64().unwrap_or_default();
    assert_eq!(world.polls(SITE).await.iter().map(bad_rows).sum::<u64>(), 1);
    assert_eq!(world.cursor(SITE).await["Activity"]["UnusableRows"], 1);
}

#[tokio::test]
async fn a_backend_that_goes_back_in_time_repeats_nothing() {
    for overlap in ["0", "3600"] {
        let world = world_with(overlap).await;
        let handler = world.handler().await;
        world.add(SITE, 0..20).await;
        handler.invoke_ok().await;
        // The backend is restored from a backup that is older than the last rows. Then the loggers upload these rows
        // again.
        world.backend.delete("rows?site=Well%207").await;
        world.add(SITE, 0..10).await;
        handler.invoke_ok().await;
        world.add(SITE, 10..22).await;
        handler.invoke_ok().await;
        handler.invoke_ok().await;
        world.assert_rows(SITE, &in_order(&[0..20, 20..22])).await;
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn late_rows_survive_lost_answers_of_the_ledger() {
    for times in [1, 2, 3] {
        let world = world().await;
        let handler = world.handler().await;
        world.add(SITE, 0..5).await;
        world.add(SITE, 10..15).await;
        handler.invoke_ok().await;
        world.cosmos.put("faults", json!({ "swallowAnswer": true, "writesOnly": true, "times": times })).await;
        world.add(SITE, 5..10).await;
        handler.invoke().await;
        world.cosmos.heal().await;
        handler.invoke_until_ok(4).await;
        handler.invoke_ok().await;
        world.assert_rows(SITE, &in_order(&[0..5, 10..15, 5..10])).await;
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn two_pollers_with_an_overlap_lose_and_repeat_nothing() {
    let mut world = world().await;
    let first: Settings = world.settings.clone();
    world.set("IoTHubDeviceId", "gateway-2");
    let second = std::mem::replace(&mut world.settings, first);
    let (one, two) = tokio::join!(world.handler(), world.handler_with(&second));
    let mut expected = Vec::new();
    for round in 0..15 {
        // In each round, the second half of the minutes arrives first.
        for minutes in [round * 4 + 2..round * 4 + 4, round * 4..round * 4 + 2] {
            world.add(SITE, minutes.clone()).await;
            expected.extend(minutes);
            tokio::join!(one.invoke(), two.invoke());
        }
    }
    two.kill().await;
    one.invoke_until_ok(3).await;
    one.invoke_ok().await;
    let delivered = world.delivered().await;
    let mut arrived: Vec<_> = delivered.rows[SITE].iter().map(|row| row["Timestamp"].to_string()).collect();
    arrived.sort();
    expected.sort_unstable();
    let expected: Vec<_> = rows(expected).iter().map(|row| row["Timestamp"].to_string()).collect();
    assert_eq!(arrived, expected, "each row once");
    world.assert_settled().await;
}

#[tokio::test]
async fn local_time_and_its_changes_mean_nothing() {
    let mut world = world().await;
    // The clocks of Sydney and Vienna changed in these hours.
    for zone in ["Australia/Sydney", "Europe/Vienna"] {
        world.set("TZ", zone);
        let handler = world.handler().await;
        let hour = if zone.starts_with('A') { 0 } else { 200_000 };
        world.add(SITE, hour..hour + 180).await;
        handler.invoke_ok().await;
        handler.kill().await;
    }
    world.assert_rows(SITE, &in_order(&[0..180, 200_000..200_180])).await;
    world.assert_settled().await;
}
