//! Tests services that fail while a range is fetched, and what the operator does about it.

use std::time::Duration;

use azure_data_cosmos::PartitionKey;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::{
    commands::run::{
        DAY, Ran, SITE, assert_settled, backfilled, command, documents, ids, rows_of, run, run_failing, run_ok,
    },
    support::{CUSTOMER, Ledger, World, rows, stamp},
};

const DATABASE: &str = "M2MBackendForwarderData";
const POLLS: &str = "pollingAttempts";
const RANGE: [&str; 4] = ["backfill", SITE, "--from=2024-03-01", "--until=2024-03-04"];

fn range<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&RANGE[..], more].concat()
}

async fn three_days() -> World {
    let world = World::with_sites(&[SITE]).await;
    world.add(SITE, (0..3 * DAY).step_by(60)).await;
    world
}

#[tokio::test]
async fn what_waits_for_a_hub_that_is_away_goes_out_when_the_command_is_run_again() {
    let world = three_days().await;
    world.hub.away(true).await;
    let said = run_failing(&world, &range(&["--attempts=2"]), 1).await;
    assert!(said.contains("trying again in"), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: Well 7: ") && last.contains("the hub cannot be reached"), "{said}");
    assert!(
        last.contains("came to 2024-03-02T00:00:00Z (24 rows in 1 messages recorded; waiting for the hub: 1)"),
        "{said}"
    );
    assert!(last.ends_with("Run the same command to resume"), "{said}");
    let printed = run_ok(&world, &["polls", SITE]).await;
    assert!(
        printed.contains("1 message waits for the hub; resume with: iothub-connector backfill \"Well 7\""),
        "{printed}"
    );
    world.hub.away(false).await;
    let printed = run_ok(&world, &range(&[])).await;
    assert!(printed.contains("72 rows in 3 messages") && printed.contains("24 rows recorded before"), "{printed}");
    assert_eq!(ids(&world).await.len(), 3);
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..3 * DAY).step_by(60)));
    assert_settled(&world).await;
}

/// A command that gave up is perhaps never run again.
#[tokio::test]
async fn what_waits_of_a_backfill_that_nobody_goes_on_with_is_sent_by_the_app() {
    let mut world = three_days().await;
    world.set("StartFrom", "youngest");
    world.hub.away(true).await;
    run_failing(&world, &range(&["--attempts=2"]), 1).await;
    world.hub.away(false).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    assert!(backfilled(&world).await.is_empty(), "the command may still be at it");
    handler.kill().await;
    // Two hours later.
    let without_additions = |document: &Value| {
        let mut document = document.clone();
        document.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
        document
    };
    let ledger = Ledger::open(world.cosmos.ready("endpoint"), world.cosmos.ready("key"), DATABASE, POLLS).await;
    let documents = world.documents(SITE).await;
    let backfill = documents.iter().find(|document| document["Kind"] == "backfill").unwrap();
    let id = backfill["Unforwarded"][0].as_str().unwrap();
    let poll = documents.iter().find(|document| document["id"] == id).unwrap();
    let older = format!("{:013}{}", id[..13].parse::<i64>().unwrap() - 2 * 60 * 60 * 1000, &id[13..]);
    let mut aged = without_additions(poll);
    aged["id"] = older.as_str().into();
    let partition = || PartitionKey::from((CUSTOMER.to_owned(), SITE.to_owned()));
    ledger.create(partition(), &aged).await;
    ledger.delete(CUSTOMER, SITE, id).await;
    let mut aged = without_additions(backfill);
    aged["Unforwarded"] = json!([older]);
    world.replace(SITE, &aged).await;

    world.handler().await.invoke_ok().await;
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..DAY).step_by(60)));
    world.printed("nobody went on with it", 1).await;
    run_ok(&world, &range(&[])).await;
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..3 * DAY).step_by(60)));
}

#[tokio::test]
async fn a_backend_that_fails_is_asked_again_so_often_and_no_more() {
    let world = three_days().await;
    let rule = |times: u64| json!({ "rules": [{ "resource": "histdata", "times": times, "status": 500 }] });
    world.backend.put("faults", rule(2)).await;
    let ran = run(&world, &RANGE).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.said.matches("trying again in").count(), 2, "{ran:?}");
    assert_eq!(world.outcomes(SITE).await, ["failed", "failed", "forwarded", "forwarded", "forwarded"]);
    world
        .backend
        .put("trouble", json!([{ "path": "/histdata", "skip": 1, "effect": { "answer": { "status": 500 } } }]))
        .await;
    let said = run_failing(&world, &range(&["--again", "--attempts=2"]), 1).await;
    let last = said.lines().last().unwrap();
    assert!(last.contains("status 500") && last.contains("came to 2024-03-02T00:00:00Z"), "{said}");
    assert_eq!(documents(&world).await[0]["LastError"]["Kind"], "http_status");
    world.backend.delete("trouble").await;
    run_ok(&world, &RANGE).await;
    assert_eq!(ids(&world).await.len(), 6);
    assert_settled(&world).await;
}

#[tokio::test]
async fn a_site_that_the_backend_does_not_know_leaves_no_trace() {
    let world = three_days().await;
    let ran = run(&world, &["backfill", "Wel 7", SITE, RANGE[2], RANGE[3]]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.said.starts_with("error: Wel 7: the backend does not know it (404)"), "{ran:?}");
    assert!(ran.printed.starts_with("Well 7: 72 rows"), "the other site is served: {ran:?}");
    assert!(world.documents("Wel 7").await.is_empty());
}

#[tokio::test]
async fn a_message_that_the_hub_refuses_is_rejected_and_the_others_go_on() {
    let mut world = three_days().await;
    let https = world.hub.ready("https").trim_start_matches("https://").trim_end_matches('/').to_owned();
    world.set("IoTHubURL", &https);
    // The window of two days is sent as one batch, then message by message.
    world
        .hub
        .put(
            "trouble",
            json!([{ "path": "/messages/events", "skip": 1, "times": 2, "effect": { "answer": { "status": 400, "body": "{\"Message\":\"ErrorCode:ArgumentInvalid;no\"}" } } }]),
        )
        .await;
    let ran = run(&world, &RANGE).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.printed.contains("1 message rejected: see iothub-connector polls \"Well 7\""), "{ran:?}");
    assert_eq!(world.outcomes(SITE).await, ["forwarded", "rejected", "forwarded"]);
    assert_eq!(ids(&world).await.len(), 2);
    assert_settled(&world).await;
    let printed = run_ok(&world, &["polls", SITE, "--outcome=rejected,failed"]).await;
    assert!(printed.contains("hub_message_rejected: "), "{printed}");
    assert_eq!(printed.matches("rejected  ").count(), 1, "{printed}");
}

#[tokio::test]
async fn rows_that_cannot_be_used_are_said() {
    let world = three_days().await;
    world.add_raw(SITE, json!([["soon", 1, 2], [stamp(7), [1], 2]])).await;
    let ran = run(&world, &RANGE).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.printed.contains("1 row unusable: see Result.BadRows"), "{ran:?}");
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..3 * DAY).step_by(60)));
    let polls = world.polls(SITE).await;
    assert!(polls.iter().any(|poll| poll["Result"]["BadRows"]["Count"] == 1), "{polls:?}");
    let ran = run(&world, &RANGE).await;
    assert!(ran.code == Some(1) && ran.printed.contains("1 row unusable"), "it stays so: {ran:?}");
    assert_settled(&world).await;
}

#[tokio::test]
async fn a_backfill_can_be_given_up_and_begun_again() {
    let world = three_days().await;
    let said = run_failing(&world, &range(&["--drop"]), 1).await;
    assert!(said.contains("there is no backfill of this range"), "{said}");
    world.hub.away(true).await;
    run_failing(&world, &range(&["--attempts=1"]), 1).await;
    let printed = run_ok(&world, &range(&["--drop"])).await;
    assert!(printed.contains("is dropped; 1 message that waited marked as rejected"), "{printed}");
    let poll = world.polls(SITE).await.remove(0);
    assert_eq!((&poll["Outcome"], &poll["Error"]["Kind"]), (&json!("rejected"), &json!("dropped")));
    assert!(poll["ttl"].is_u64(), "{poll}");
    let document = documents(&world).await.remove(0);
    assert!(document["Unforwarded"] == json!([]) && document["Backfill"]["DroppedAt"].is_string(), "{document}");
    world.hub.away(false).await;
    let ran = run(&world, &RANGE).await;
    assert!(ran.code == Some(1) && ran.printed.contains("was dropped at"), "{ran:?}");
    assert!(ids(&world).await.is_empty());
    run_ok(&world, &range(&["--again"])).await;
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..3 * DAY).step_by(60)));
    assert!(documents(&world).await[0]["Backfill"]["FinishedAt"].is_string());
}

#[tokio::test]
async fn ctrl_c_ends_it_and_the_same_command_goes_on() {
    let world = three_days().await;
    world.hub.put("faults", json!({ "httpDelayMs": 60_000 })).await;
    let child = Command::from(command(&world.settings, &RANGE)).kill_on_drop(true).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    // The command is at work when its first record is pending.
    let recorded = async { while world.all_documents().await.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(60), recorded).await.expect("it records");
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), printed: text(output.stdout), said: text(output.stderr) };
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.said.contains("Interrupted. Run the same command to resume"), "{ran:?}");
    world.hub.heal().await;
    run_ok(&world, &RANGE).await;
    assert_eq!(rows_of(&backfilled(&world).await), rows((0..3 * DAY).step_by(60)));
    assert_settled(&world).await;
}

#[tokio::test]
async fn options_and_settings_that_are_wrong_are_named() {
    let mut world = three_days().await;
    for (arguments, expected) in [
        (&["backfill", SITE][..], "--from"),
        (&["backfill", "--from=2024-03-01"], "SITE"),
        (&["backfill", SITE, "--from=7d"], "--from must be a date or a time, such as 20"),
        (&["backfill", SITE, "--from=2024-03-01", "--drop", "--again"], "--drop"),
    ] {
        let said = run_failing(&world, arguments, 2).await;
        assert!(said.contains(expected), "{said}");
    }
    for (arguments, expected) in [
        (&["--from=2024-03-01", "--until=2024-02-01"][..], "must be later than --from"),
        (&["--from=2024-03-01", "--until=9998-01-01"], "is in the future"),
    ] {
        let said = run_failing(&world, &[&["backfill", SITE], arguments].concat(), 2).await;
        assert!(said.contains(expected), "{said}");
    }
    world.set("EmulationMode", "true");
    let said = run_failing(&world, &RANGE, 2).await;
    assert!(said.contains("EmulationMode is true: there is no backend"), "{said}");
    world.unset("M2MDocumentsDBUri");
    let said = run_failing(&world, &RANGE, 2).await;
    assert!(said.starts_with("error: ") && said.contains("M2MDocumentsDBUri"), "{said}");
}

/// The operator can choose the app's transport. Without that choice the command uses its own.
#[tokio::test]
async fn messages_go_over_https_unless_told_otherwise() {
    let world = three_days().await;
    run_ok(&world, &RANGE).await;
    run_ok(&world, &range(&["--again", "--transport=mqtt"])).await;
    let received = world.hub.get("received").await;
    let transports: Vec<_> = received.as_array().unwrap().iter().map(|message| message["transport"].clone()).collect();
    assert_eq!(transports, ["https", "https", "https", "mqtt", "mqtt", "mqtt"].map(Value::from));
    let created = |message: &Value| message["systemProperties"]["$.ct"].clone();
    assert_eq!(created(&received[0]), created(&received[3]));
}

#[tokio::test]
async fn a_backfill_that_is_dropped_ends_in_every_process() {
    let world = three_days().await;
    world.hub.away(true).await;
    let mut running =
        Command::from(command(&world.settings, &range(&["--attempts=50"]))).kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(running.stderr.take().unwrap()).lines();
    while !said.next_line().await.unwrap().expect("it tries again").contains("trying again in") {}
    run_ok(&world, &range(&["--drop"])).await;
    let mut last = String::new();
    while let Some(line) = said.next_line().await.unwrap() {
        last = line;
    }
    assert!(last.contains("was dropped by hand"), "{last}");
    assert_eq!(running.wait().await.unwrap().code(), Some(1));
    assert_eq!(world.outcomes(SITE).await, ["rejected"]);
    let replayed = run(&world, &["replay", SITE, "--all", "--dry-run"]).await;
    assert!(replayed.said.contains("1 messages of dropped backfills"), "{replayed:?}");
    assert!(!replayed.printed.contains("would be put back"), "what was given up stays so: {replayed:?}");
    let asked_for = run_ok(&world, &["replay", SITE, "--all", "--kind=dropped", "--dry-run"]).await;
    assert_eq!(asked_for.matches("would be put back").count(), 1, "{asked_for}");
    let again = run_failing(&world, &range(&["--drop"]), 1).await;
    assert!(again.contains("is over: there is nothing to drop"), "{again}");
}

#[tokio::test]
async fn a_record_that_somebody_deletes_is_no_success() {
    let world = three_days().await;
    world.hub.away(true).await;
    run_failing(&world, &range(&["--attempts=1"]), 1).await;
    let (endpoint, key) = (world.cosmos.ready("endpoint"), world.cosmos.ready("key"));
    let ledger = Ledger::open(endpoint, key, "M2MBackendForwarderData", "pollingAttempts").await;
    let waiting = world.polls(SITE).await.remove(0);
    ledger.delete(CUSTOMER, SITE, waiting["id"].as_str().unwrap()).await;
    world.hub.away(false).await;

    let ran = run(&world, &RANGE).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.printed.contains("1 message rejected"), "{ran:?}");
    assert_eq!(documents(&world).await[0]["Backfill"]["Rejected"], 1);
    let note = world.polls(SITE).await.remove(0);
    assert_eq!((&note["Error"]["Kind"], &note["Backfill"]), (&json!("record_lost"), &waiting["Backfill"]));
    assert_eq!(ids(&world).await.len(), 2, "the others go on");
}
