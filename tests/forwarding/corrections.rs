//! Tests that a row whose values change after it was recorded is forwarded again, once, as a correction.

use serde_json::{Value, json};

use super::support::{Handler, World, row, rows, stamp};

const SITE: &str = "Well 7";

/// The backend has these minutes with these values now, and no other rows.
async fn replace(world: &World, values: &[(i64, i64)]) {
    world.backend.delete("rows?site=Well%207").await;
    let rows: Vec<_> = values.iter().map(|(minute, value)| json!([stamp(*minute), value, 0.5])).collect();
    world.add_raw(SITE, json!(rows)).await;
}

async fn world_after_a_run(settings: &[(&str, &str)]) -> (World, Handler) {
    let mut world = World::with_sites(&[SITE]).await;
    settings.iter().for_each(|(name, value)| world.set(name, value));
    let handler = world.handler().await;
    world.add(SITE, 0..5).await;
    handler.invoke_ok().await;
    (world, handler)
}

/// The received messages that are corrections: their rows and ids.
async fn corrections(world: &World) -> Vec<(Value, String)> {
    let messages = world.hub.get("received").await;
    let messages = messages.as_array().unwrap().iter().filter(|message| message["properties"]["Correction"] == "true");
    let read = |message: &Value| {
        let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        (body["Timeseries"].clone(), message["messageId"].as_str().unwrap().to_owned())
    };
    messages.map(read).collect()
}

fn corrected(minute: i64, value: i64) -> Value {
    row(minute, json!({ "ch0": value, "ch1": 0.5 }))
}

#[tokio::test]
async fn a_changed_value_is_forwarded_once_and_before_newer_rows() {
    let (world, handler) = world_after_a_run(&[]).await;
    replace(&world, &[(0, 0), (1, 1), (2, 20), (3, 30), (4, 4), (5, 5)]).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    // Another process knows what was recorded.
    handler.kill().await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    let [(rows, _)] = &corrections(&world).await[..] else { panic!("one: {}", world.output()) };
    assert_eq!(*rows, json!([corrected(2, 20), corrected(3, 30)]));
    let messages = world.hub.get("received").await;
    let order: Vec<_> =
        messages.as_array().unwrap().iter().map(|message| &message["properties"]["Correction"]).collect();
    assert_eq!(order, [&Value::Null, &json!("true"), &Value::Null]);
    let polls = world.polls(SITE).await;
    let marks: Vec<_> = polls.iter().map(|poll| poll.get("Correction").is_some()).collect();
    assert_eq!(marks, [false, true, false, false, false]);
    let cursor = world.cursor(SITE).await;
    assert_eq!(
        (&cursor["Activity"]["CorrectedRows"], &cursor["LastValueFrom"]),
        (&json!(2), &corrected(5, 5)["Timestamp"])
    );
    assert!(world.output().contains("2 rows of the site have other values than before"), "{}", world.output());

    // Back to the first value: that is a change, too, and another message.
    replace(&world, &[(0, 0), (1, 1), (2, 2), (3, 30), (4, 4), (5, 5)]).await;
    handler.invoke_ok().await;
    let corrections = corrections(&world).await;
    assert_eq!((corrections.len(), &corrections[1].0), (2, &json!([corrected(2, 2)])));
    assert_ne!(corrections[0].1, corrections[1].1);
}

#[tokio::test]
async fn a_value_that_comes_back_is_no_repeat() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    for value in [1, 2, 1, 2] {
        replace(&world, &[(0, value)]).await;
        handler.invoke_ok().await;
    }
    let messages = world.hub.get("received").await;
    let ids: std::collections::BTreeSet<_> =
        messages.as_array().unwrap().iter().map(|message| message["messageId"].to_string()).collect();
    assert_eq!((messages.as_array().unwrap().len(), ids.len()), (4, 4), "{messages}");
}

#[tokio::test]
async fn corrections_that_the_hub_does_not_take_wait_their_turn() {
    let (world, handler) = world_after_a_run(&[]).await;
    handler.kill().await;
    world.hub.put("faults", json!({ "refuse": true })).await;
    let handler = world.handler().await;
    replace(&world, &[(0, 0), (1, 10), (2, 2), (3, 3), (4, 4), (5, 5)]).await;
    handler.invoke_failing().await;
    handler.kill().await;
    world.hub.heal().await;
    world.handler().await.invoke_ok().await;
    assert_eq!(corrections(&world).await.len(), 1);
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]));
}

#[tokio::test]
async fn without_forwarding_they_are_counted_once() {
    let (world, handler) = world_after_a_run(&[("ForwardCorrections", "false"), ("RUST_LOG", "info")]).await;
    replace(&world, &[(0, 0), (1, 10), (2, 2), (3, 3), (4, 4)]).await;
    handler.invoke_ok().await;
    handler.invoke_ok().await;
    assert!(corrections(&world).await.is_empty());
    assert_eq!(world.output().matches("1 corrected rows").count(), 1, "{}", world.output());
    world.assert_rows(SITE, &rows(0..5)).await;
}

#[tokio::test]
async fn other_channels_are_no_corrections() {
    let (mut world, handler) = world_after_a_run(&[]).await;
    handler.kill().await;
    world.set("Channelnames", "ch1,ch0");
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.add(SITE, 5..7).await;
    handler.invoke_ok().await;
    replace(&world, &[(4, 4), (5, 50), (6, 6)]).await;
    handler.invoke_ok().await;
    let corrections = corrections(&world).await;
    assert_eq!(corrections.len(), 1, "{corrections:?}");
    assert_eq!(corrections[0].0[0]["Channels"]["ch0"], 50);
}
