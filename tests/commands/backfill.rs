//! Tests ranges that are fetched while the app also polls, or without it.

use serde_json::{Value, json};

use crate::{
    commands::run::{DAY, SITE, assert_settled, backfilled, documents, ids, ranges, rows_of, run, run_failing, run_ok},
    support::{World, rows, stamp},
};

const FROM: &str = "--from=2024-03-01";
const UNTIL: &str = "--until=2024-03-04";

fn range(begin: &str, end: &str) -> (String, String) {
    (begin.to_owned(), end.to_owned())
}

#[tokio::test]
async fn a_range_is_fetched_for_the_first_time_and_again() {
    let world = World::with_sites(&[SITE]).await;
    // Rows at both bounds: the first belongs to the range, the last does not.
    let minutes = || (0..=3 * DAY).step_by(60);
    world.add(SITE, minutes().chain([-1])).await;
    let printed = run_ok(&world, &["backfill", SITE, FROM, UNTIL]).await;
    assert!(printed.starts_with("Well 7: 72 rows in 3 messages from 2024-03-01T00:00:00Z to 2024-03-04"), "{printed}");
    let messages = backfilled(&world).await;
    assert_eq!(rows_of(&messages), rows(minutes().filter(|minute| *minute < 3 * DAY)));
    let days = ["2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z", "2024-03-03T00:00:00Z", "2024-03-04T00:00:00Z"];
    assert_eq!(ranges(&messages), [range(days[0], days[1]), range(days[1], days[2]), range(days[2], days[3])]);
    let id = "backfill-20240301T000000000Z-20240304T000000000Z";
    let polls = world.polls(SITE).await;
    assert!(polls.iter().all(|poll| poll["Backfill"] == id && poll["Outcome"] == "forwarded" && poll["ttl"].is_u64()));
    let document = documents(&world).await.remove(0);
    assert_eq!((&document["id"], &document["ScannedUntil"]), (&json!(id), &json!(days[3])));
    assert_eq!((&document["Backfill"]["Rows"], &document["Backfill"]["Messages"]), (&json!(72), &json!(3)));
    assert_eq!(world.documents(SITE).await.len(), 4, "no cursor");
    assert_settled(&world).await;

    let printed = run_ok(&world, &["backfill", SITE, FROM, UNTIL]).await;
    assert!(printed.contains("finished at") && printed.contains("--again"), "{printed}");
    assert_eq!(ids(&world).await.len(), 3);
    // With every meaning of the backend's bounds, and with every order of the rows.
    for faults in [json!({}), json!({ "fromInclusive": false, "untilInclusive": false, "order": "descending" })] {
        let before = ids(&world).await;
        world.backend.put("faults", faults).await;
        run_ok(&world, &["backfill", SITE, FROM, UNTIL, "--again"]).await;
        assert_eq!(ids(&world).await[before.len()..], before[..3], "the same ids in the same order");
    }
    assert_eq!(backfilled(&world).await, messages, "the same bytes");
    assert_eq!(documents(&world).await[0]["Backfill"]["Runs"], 3);
    assert_settled(&world).await;
}

#[tokio::test]
async fn whole_days_make_the_same_messages_in_whatever_range() {
    let world = World::with_sites(&[SITE]).await;
    world.add(SITE, (0..4 * DAY).step_by(30)).await;
    run_ok(&world, &["backfill", SITE, FROM, UNTIL]).await;
    let three_days = ids(&world).await;
    run_ok(&world, &["backfill", SITE, "--from=2024-03-01T12:00:00Z", "--until=2024-03-04T06:00:00Z"]).await;
    let other = ids(&world).await.split_off(3);
    assert_eq!(other.len(), 4);
    assert_eq!(other[1..3], three_days[1..3], "the days that are in both");
    assert!(!three_days.contains(&other[0]) && !three_days.contains(&other[3]));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let world = World::with_sites(&[SITE]).await;
    world.add(SITE, (0..3 * DAY).step_by(60)).await;
    let printed = run_ok(&world, &["backfill", SITE, FROM, UNTIL, "--dry-run"]).await;
    assert!(printed.contains("72 rows") && printed.contains("in 3 messages"), "{printed}");
    let lines = run_ok(&world, &["backfill", SITE, FROM, UNTIL, "--dry-run", "--json"]).await;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["rows"], &last["isDryRun"]), (&json!("summary"), &json!(72), &json!(true)));
    assert!(ids(&world).await.is_empty() && world.all_documents().await.is_empty());
}

#[tokio::test]
async fn nothing_in_the_range_is_no_failure() {
    let world = World::with_sites(&[SITE, "Tank"]).await;
    world.add("Tank", [5]).await;
    let lines = run_ok(&world, &["backfill", SITE, "Tank", FROM, UNTIL, "--json"]).await;
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summaries: Vec<_> = records.iter().filter(|record| record["type"] == "summary").collect();
    let rows: Vec<_> =
        summaries.iter().map(|one| (one["site"].as_str().unwrap(), one["rows"].as_u64().unwrap())).collect();
    assert_eq!(rows, [(SITE, 0), ("Tank", 1)]);
    assert!(records.iter().any(|record| record["type"] == "progress" && record["site"] == SITE));
    assert!(world.outcomes(SITE).await.iter().all(|outcome| outcome == "empty"), "that it was asked is on record");
    assert_settled(&world).await;
}

/// The app continues to poll while a backfill runs.
#[tokio::test]
async fn the_apps_own_polling_is_not_disturbed() {
    const ROUNDS: i64 = 12;
    let mut world = World::with_sites(&[SITE]).await;
    world.set("StartFrom", "youngest");
    world.add(SITE, (0..20 * DAY).step_by(15)).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    let newest = 20 * DAY - 15;
    let live = async {
        for round in 1..=ROUNDS {
            world.add(SITE, [newest + round]).await;
            handler.invoke_ok().await;
        }
    };
    // Without an end, the range ends where the app has begun.
    let (ran, ()) = tokio::join!(run(&world, &["backfill", SITE, FROM]), live);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let cursor = world.cursor(SITE).await;
    assert_eq!((&cursor["Unforwarded"], &cursor["ConsecutiveFailures"]), (&json!([]), &json!(0)));
    let received = world.hub.get("received").await;
    let of_app = received.as_array().unwrap().iter().filter(|message| message["properties"]["Backfill"].is_null());
    let of_app: Vec<Value> = of_app.cloned().collect();
    let delivered = crate::support::delivered(&of_app.into(), crate::support::CUSTOMER);
    assert_eq!(delivered.rows[SITE], rows((newest..=newest + ROUNDS).collect::<Vec<_>>()));
    assert_eq!(delivered.repeats, 0);
    // Some of the new rows may have been there when the backfill began. All older rows are in it.
    let fetched = rows_of(&backfilled(&world).await);
    assert!(fetched.len() >= (20 * DAY / 15) as usize, "{} rows", fetched.len());
    assert_eq!(fetched[..(20 * DAY / 15) as usize], rows((0..20 * DAY).step_by(15)));
    let until = documents(&world).await[0]["Backfill"]["Until"].clone();
    // Rows that the app polls later change nothing: the same command is the same backfill.
    world.add(SITE, [newest + 100]).await;
    handler.invoke_ok().await;
    let printed = run_ok(&world, &["backfill", SITE, FROM]).await;
    assert!(printed.contains("finished at") && printed.contains(until.as_str().unwrap()), "{printed}");
    // The older rows of a backfill do not hide the app's rows: the status page shows the newest values.
    let asked = json!({ "Data": { "req": { "Method": "GET", "Query": { "format": "json", "site": SITE } } } });
    let answer = handler.post("/status", asked.to_string()).await;
    let shown: Value = serde_json::from_str(answer.body["Outputs"]["res"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(shown["Channels"][0]["Points"].as_array().unwrap().len() as i64, 1 + ROUNDS + 1, "{shown}");
    assert!(documents(&world).await[0].get("Activity").is_none());
}

#[tokio::test]
async fn two_processes_at_the_same_range_lose_nothing() {
    let world = World::with_sites(&[SITE]).await;
    world.add(SITE, (0..60 * DAY).step_by(60)).await;
    let arguments = ["backfill", SITE, FROM, "--until=2024-04-30", "--attempts=100"];
    let (one, other) = tokio::join!(run(&world, &arguments), run(&world, &arguments));
    assert_eq!((one.code, other.code), (Some(0), Some(0)), "{one:?} {other:?}");
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..60 * DAY).step_by(60)));
    assert_settled(&world).await;
}

/// A day with more than 8 MiB: the command fetches it by hours, and its messages cover hours.
#[tokio::test]
async fn a_day_that_one_answer_cannot_hold_is_fetched_by_hours() {
    let world = World::with_sites(&[SITE]).await;
    let text = "x".repeat(90_000);
    for hour in 0..24 {
        let rows: Vec<Value> =
            (0..5).map(|row| hour * 60 + row * 7).map(|minute| json!([stamp(minute), minute, text])).collect();
        world.add_raw(SITE, rows.into()).await;
    }
    world.add(SITE, [DAY + 5]).await;
    let cut = ["backfill", SITE, FROM, UNTIL, "--attempts=1"];
    run_ok(&world, &cut).await;
    let (messages, all) = (backfilled(&world).await, ids(&world).await);
    let minutes: Vec<_> = rows_of(&messages).iter().map(|row| row["Channels"]["ch0"].as_i64().unwrap()).collect();
    let expected = (0..24).flat_map(|hour| (0..5).map(move |row| hour * 60 + row * 7)).chain([DAY + 5]);
    assert_eq!(minutes, expected.collect::<Vec<_>>());
    let mut hours = ranges(&messages);
    hours.dedup();
    assert_eq!(hours.len(), 25);
    assert_eq!(hours[7], range("2024-03-01T07:00:00Z", "2024-03-01T08:00:00Z"));
    assert_eq!(hours[24], range("2024-03-02T00:00:00Z", "2024-03-03T00:00:00Z"));
    // If the process ends in the middle of the day, a new process continues with the same hours.
    world
        .backend
        .put("trouble", json!([{ "path": "/histdata", "skip": 9, "effect": { "answer": { "status": 500 } } }]))
        .await;
    let said = run_failing(&world, &[&cut[..], &["--again"]].concat(), 1).await;
    assert!(said.contains("came to 2024-03-01T08:00:00Z"), "{said}");
    world.backend.delete("trouble").await;
    run_ok(&world, &cut).await;
    assert_eq!(ids(&world).await[all.len()..], all);
    assert_settled(&world).await;
}
