//! Tests rejected records of sites.

use std::time::Duration;

use iothub_connector::{app::App, config::Config};
use serde_json::{Value, json};
use tokio::join;

use crate::{
    replay::replay,
    support::{Handler, World, rows},
};

const SITE: &str = "Well 7";

/// A site with this many rejected records of three rows each.
async fn rejected(records: i64) -> (World, Handler) {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("IoTHubTransport", "https");
    let mut handler = world.handler().await;
    for record in 0..records {
        world.add(SITE, record * 3..record * 3 + 3).await;
        world.hub.put("faults", json!({ "httpStatus": 400, "httpStatusTimes": 1 })).await;
        handler.invoke_failing().await;
        // One process never gives up two messages in a row, so each record needs a new process.
        std::mem::replace(&mut handler, world.handler().await).kill().await;
    }
    world.hub.heal().await;
    assert_eq!(world.outcomes(SITE).await, vec!["rejected"; records as usize]);
    assert!(world.delivered().await.ids.is_empty());
    (world, handler)
}

fn without_trouble(mut polls: Vec<Value>) -> Vec<Value> {
    for poll in &mut polls {
        for member in ["Outcome", "Error", "ttl", "ForwardedAt", "_etag", "_ts"] {
            poll.as_object_mut().unwrap().remove(member);
        }
    }
    polls
}

#[tokio::test]
async fn a_rejected_record_goes_with_a_next_run_once_as_it_was() {
    let (world, handler) = rejected(2).await;
    let before = world.polls(SITE).await;

    let dry = replay(&world.settings, &[SITE, "--all", "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert_eq!(dry.text.matches("would be put back").count(), 2, "{}", dry.text);
    assert_eq!(world.polls(SITE).await, before, "nothing is changed");

    let done = replay(&world.settings, &[SITE, "--all", "--json"]).await;
    assert_eq!((done.code, done.said.trim()), (Some(0), "2 put back, 0 refused"), "{done:?}");
    let lines = done.lines();
    assert_eq!((&lines[0]["site"], &lines[0]["kind"]), (&json!(SITE), &json!("hub_message_rejected")), "{lines:?}");
    assert_eq!((&lines[1]["id"], &lines[1]["replayed"]), (&before[1]["id"], &json!(true)));
    let waiting = world.polls(SITE).await;
    assert!(
        waiting
            .iter()
            .all(|poll| poll["Outcome"] == "pending" && poll.get("ttl").is_none() && poll.get("Error").is_none())
    );
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([before[0]["id"], before[1]["id"]]));

    // The app notices in its first run that the cursor has changed, and sends in its second.
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..6)).await;
    world.assert_settled().await;
    let sent: Vec<_> = before.iter().map(|poll| poll["MessageId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(world.delivered().await.ids[SITE], sent, "each once, with its id");
    let after: Vec<_> = world.polls(SITE).await.into_iter().filter(|poll| poll["Outcome"] == "forwarded").collect();
    assert_eq!(without_trouble(after), without_trouble(before));

    let again = replay(&world.settings, &[SITE, "--all"]).await;
    assert_eq!((again.code, again.text.as_str()), (Some(0), ""), "{again:?}");
    assert!(again.said.contains("nothing to put back at site Well 7"), "{}", again.said);
}

#[tokio::test]
async fn an_app_that_writes_at_the_same_time_loses_nothing() {
    let (world, handler) = rejected(20).await;
    world.add(SITE, 60..63).await;
    let polling = async {
        for minute in 63..83 {
            world.add(SITE, [minute]).await;
            handler.invoke_ok().await;
        }
    };
    let replaying = async {
        for poll in world.polls(SITE).await {
            let id = poll["id"].as_str().unwrap();
            let done = replay(&world.settings, &[SITE, "--poll", id]).await;
            assert!(done.code == Some(0) || done.said.contains("forwarded"), "{done:?}");
        }
    };
    join!(polling, replaying);
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    let delivered = world.delivered().await;
    let mut seconds: Vec<_> = delivered.rows[SITE].iter().map(|row| format!("{row:?}")).collect();
    seconds.sort();
    let mut expected: Vec<_> = rows(0..83).iter().map(|row| format!("{row:?}")).collect();
    expected.sort();
    assert_eq!(seconds, expected);
    let waiting: Vec<_> = world
        .outcomes(SITE)
        .await
        .into_iter()
        .filter(|outcome| outcome == "pending" || outcome == "rejected")
        .collect();
    assert!(waiting.is_empty(), "{waiting:?}");
}

/// Records of empty polls are off, so the app writes nothing that would show it that the cursor has changed. The app
/// runs in this process, because only here the test can let ten minutes pass at once.
#[tokio::test]
async fn an_app_that_writes_nothing_reads_the_cursor_again_after_ten_minutes() {
    let (world, handler) = rejected(1).await;
    handler.kill().await;
    let mut settings = world.settings.clone();
    settings.insert("RecordEmptyPolls".to_owned(), "false".to_owned());
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let config = Config::from_settings(&settings).unwrap_or_else(|problems| panic!("{problems}"));
    let app = App::new(config, iothub_connector::support::ending::Ending::default());
    let function = app.polling.as_ref().unwrap();
    assert!(function.run(None).await.is_success());
    let done = replay(&world.settings, &[SITE, "--all"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(function.run(None).await.messages_forwarded, 0, "nobody knows yet");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10 * 60)).await;
    tokio::time::resume();
    assert_eq!(function.run(None).await.messages_forwarded, 1);
    world.assert_rows(SITE, &rows(0..3)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn what_can_never_go_is_refused_and_says_why() {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("Channelnames", "ch0");
    world.add_raw(SITE, json!([["20240301000000000", "x".repeat(300_000)]])).await;
    let handler = world.handler().await;
    assert_eq!(handler.invoke_failing().await, [(SITE.to_owned(), "message_too_large".to_owned())]);
    assert_eq!(world.outcomes(SITE).await, ["rejected"]);
    for arguments in [&[SITE, "--all"][..], &[SITE, "--all", "--dry-run"]] {
        let done = replay(&world.settings, arguments).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(
            done.text.contains("message_too_large") && done.text.contains("name fewer Channelnames"),
            "{}",
            done.text
        );
    }
    assert_eq!(world.outcomes(SITE).await, ["rejected"]);
    let other = replay(&world.settings, &[SITE, "--all", "--kind", "hub_message_rejected"]).await;
    assert_eq!((other.code, other.text.as_str()), (Some(0), ""), "{other:?}");
}

#[tokio::test]
async fn what_is_missing_is_said_in_a_sentence() {
    let world = World::with_sites(&[SITE]).await;
    let none = replay(&world.settings, &[SITE, "--since", "2d"]).await;
    assert_eq!(none.code, Some(1));
    assert!(none.said.contains("M2MDocumentsDBCollection"), "{}", none.said);
    world.handler().await.invoke_ok().await;
    let unknown = replay(&world.settings, &[SITE, "--poll", "1"]).await;
    assert!(unknown.code == Some(1) && unknown.said.contains("there is no record 1"), "{unknown:?}");
    let slip = replay(&world.settings, &["wel 7", "--all"]).await;
    let said = "site \"wel 7\" of customer \"Demo Water Utility\" was never polled; similar ones that were: Well 7";
    assert!(slip.code == Some(1) && slip.said.contains(said), "{slip:?}");
    let unset = replay(&Default::default(), &[SITE, "--all"]).await;
    assert!(unset.said.contains("Customer_ID") && unset.said.contains("M2MDocumentsDBUri"), "{unset:?}");
    for wrong in [&[SITE][..], &[], &[SITE, "Tank", "--poll", "1"], &["--queue", "lost"], &[SITE, "--queue", "poison"]]
    {
        assert_ne!(replay(&world.settings, wrong).await.code, Some(0), "{wrong:?}");
    }
}

#[tokio::test]
async fn it_goes_at_once_also_at_a_site_that_is_left_alone() {
    let (world, handler) = rejected(1).await;
    world.backend.put("faults", json!({ "rules": [{ "site": SITE, "status": 404 }] })).await;
    handler.invoke_failing().await;
    assert!(world.cursor(SITE).await["NotBefore"].is_string());
    handler.invoke_failing().await;
    assert_eq!(replay(&world.settings, &[SITE, "--all"]).await.code, Some(0));
    handler.invoke_failing().await;
    assert_eq!(world.delivered().await.ids.len(), 1, "the site's rest is from the backend, not from the hub");
}

/// An operator damages a pending record, and repairs it after the app has reported it.
#[tokio::test]
async fn a_record_that_could_not_be_read_goes_once_it_is_mended() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.hub.away(true).await;
    world.add(SITE, 0..3).await;
    handler.invoke_failing().await;
    let mut whole = world.polls(SITE).await.remove(0);
    let id = &whole["id"].as_str().unwrap().to_owned();
    let mut damaged = whole.clone();
    damaged["Outcome"] = json!("perhaps");
    world.replace(SITE, &damaged).await;
    world.hub.away(false).await;
    handler.invoke_failing().await;
    let note = world.polls(SITE).await.into_iter().find(|poll| poll["Outcome"] == "rejected").unwrap();

    for arguments in [&[SITE, "--poll", id][..], &[SITE, "--poll", id, "--dry-run"]] {
        let done = replay(&world.settings, arguments).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.said.contains(id) && done.said.contains("not one of ours"), "{done:?}");
    }
    let done = replay(&world.settings, &[SITE, "--all"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.text.contains("record_unreadable") && done.text.contains("--poll"), "{}", done.text);

    // Follows the note's instructions.
    let text = note["Error"]["Text"].as_str().unwrap();
    assert!(
        text.contains("set its Outcome to rejected") && text.ends_with(&format!("replay \"{SITE}\" --poll {id}")),
        "{text}"
    );
    whole["Outcome"] = json!("rejected");
    world.replace(SITE, &whole).await;
    let done = replay(&world.settings, &[SITE, "--poll", id]).await;
    assert!(done.code == Some(0) && done.text.contains("put back"), "{done:?}");
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..3)).await;
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]));
}

/// The client has put it back, and is refused when it tries again.
#[tokio::test]
async fn what_is_put_back_late_is_put_back() {
    let (world, handler) = rejected(2).await;
    let late =
        json!([{"method": "POST", "header": "x-ms-cosmos-is-batch-request", "times": 1, "effect": {"delayMs": 7_000}}]);
    world.cosmos.put("trouble", late).await;
    let done = replay(&world.settings, &[SITE, "--all"]).await;
    assert_eq!(world.cosmos.get("trouble").await[0]["met"], 1, "nothing was late");
    assert_eq!((done.code, done.said.trim()), (Some(0), "2 put back, 0 refused"), "{done:?}");
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..6)).await;
    world.assert_settled().await;
}
