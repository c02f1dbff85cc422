//! Tests the webhooks that a target receives.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use emulators::things_stack::{Event, Options, Sending, Wanted};
use serde_json::{Value, json};

use crate::support::{Stack, Target, uplinks_only};

#[tokio::test]
async fn headers_are_those_of_the_things_stack() {
    let target = Target::start().await;
    let headers = vec!["X-Functions-Key: k3y".parse().unwrap()];
    let stack = Stack::start(Options { headers, webhook: "hook".to_owned(), ..uplinks_only() }).await;
    let answer = json!({ "application": "app-9", "device": "pump-7", "target": target.url });
    let answer = crate::support::json(stack.post("uplink", answer).await).await;
    assert_eq!(answer, json!({ "marker": 1, "status": 202, "body": "noted", "error": null, "attempts": 1 }));
    let got = &target.got()[0];
    let header = |name: &str| got.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let ready = stack.emulator.ready();
    let down = format!("{}as/applications/app-9/webhooks/hook/devices/pump-7/down/", ready.endpoint);
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-tts-domain", "eu1.cloud.thethings.network"),
        ("x-functions-key", "k3y"),
        ("x-downlink-apikey", &ready.apikey),
        ("x-downlink-push", &format!("{down}push")),
        ("x-downlink-replace", &format!("{down}replace")),
        ("content-length", &got.body.len().to_string()),
    ] {
        assert_eq!(header(name).as_deref(), Some(value), "{name}");
    }
    assert!(header("user-agent").unwrap().starts_with("TheThingsStack/3."));
    assert_eq!(header("transfer-encoding"), None);

    // The old format has no such headers.
    let v2 = json!({ "application": "app-9", "device": "pump-7", "target": target.url, "version": 2 });
    assert_eq!(stack.post("uplink", v2).await.status(), 200);
    let got = &target.got()[1];
    assert_eq!((got.json()["counter"].clone(), got.headers.get("x-downlink-apikey")), (json!(1), None));

    let silent = Stack::start(Options { no_downlink_key: true, ..uplinks_only() }).await;
    assert_eq!(silent.send(json!({ "target": target.url, "count": 1 })).await["sent"], 1);
    let names: Vec<_> = target.got()[2].headers.keys().map(ToString::to_string).collect();
    assert!(!names.iter().any(|name| name.starts_with("x-downlink")), "{names:?}");
}

#[tokio::test]
async fn a_run_sends_what_it_counts() {
    let target = Target::start().await;
    let stack = Stack::start(Options { devices: 20, ..Options::default() }).await;
    let sent = stack.send(json!({ "target": target.url, "count": 2000, "rate": 0, "malformedShare": 0.05 })).await;
    let got = target.got();
    assert_eq!((got.len(), &sent["sent"], &sent["inFlight"]), (2000, &json!(2000), &json!(0)));
    let number = |name: &str| sent[name].as_u64().unwrap();
    let kinds = ["uplinks", "repeats", "malformed", "events"].map(number);
    assert_eq!(kinds.iter().sum::<u64>(), 2000);
    assert!(kinds.iter().all(|count| *count > 50), "{sent}");
    assert_eq!(sent["statuses"], json!({ "202": 2000 - no_device(&got), "400": no_device(&got) }));
    assert!(sent["latencyMs"]["p50"].as_f64() > Some(0.0) && sent["latencyMs"]["max"].as_f64() < Some(30_000.0));
    assert_eq!(sent["scheduledLatencyMs"]["max"], 0.0, "without a schedule");

    // Every uplink is listed as it was sent, and nothing else is listed.
    let listed = stack.get("uplinks").await;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len() as u64, number("uplinks"));
    let bodies: HashSet<String> =
        got.iter().filter(|got| got.device().is_some()).map(|got| got.json().to_string()).collect();
    let markers: HashSet<_> = listed.iter().map(|uplink| uplink["marker"].as_u64().unwrap()).collect();
    assert_eq!(markers.len(), listed.len());
    let repeated = listed.iter().filter(|uplink| uplink["attempts"].as_u64() > Some(1)).count();
    assert!(repeated > 0 && repeated as u64 <= number("repeats"));
    for uplink in listed {
        assert!(bodies.contains(&uplink["body"].to_string()), "{uplink}");
        assert_eq!(uplink["status"], 202);
        let ids = &uplink["body"]["end_device_ids"];
        let name = if uplink["version"] == 2 { &uplink["body"]["dev_id"] } else { &ids["device_id"] };
        assert_eq!(&uplink["device"], name);
    }
}

/// Malformed webhooks in which even the target's loose check finds no device.
fn no_device(got: &[crate::support::Got]) -> u64 {
    got.iter().filter(|got| got.device().is_none()).count() as u64
}

#[tokio::test]
async fn a_device_has_one_webhook_on_its_way_at_a_time() {
    let target = Target::start_with(0).await;
    let stack = Stack::start(uplinks_only()).await;
    let sending = json!({ "target": target.url, "count": 200, "concurrency": 40 });
    assert_eq!(stack.post("send", sending).await.status(), 202);
    assert_eq!(stack.post("send", json!({ "target": target.url })).await.status(), 409, "one run at a time");
    assert_eq!(target.wait(10).await.len(), 10, "one of each device");
    assert_eq!(stack.get("sent?wait=done&timeout_ms=1").await["isDone"], false);
    target.release(200);
    assert_eq!(stack.get("sent?wait=done&timeout_ms=30000").await["isDone"], true);
    let mut counters = HashMap::new();
    for got in target.got() {
        assert_eq!(got.at_a_time, 1);
        let counter = got.json()["uplink_message"]["f_cnt"].as_u64().unwrap_or(0);
        assert_eq!(counters.insert(got.device(), counter), counter.checked_sub(1), "in order");
    }
    assert_eq!(counters.len(), 10);
}

#[tokio::test]
async fn what_fails_is_tried_again_with_the_same_body() {
    let target = Target::start().await;
    target.answer_with(&[500, 429, 302]);
    let stack = Stack::start(uplinks_only()).await;
    let sending = json!({ "target": target.url, "count": 3, "concurrency": 1, "attempts": 4, "retryDelay": 0 });
    let sent = stack.send(sending).await;
    assert_eq!(sent["statuses"], json!({ "202": 3, "302": 1, "429": 1, "500": 1 }));
    assert_eq!((&sent["sent"], &sent["attempts"]), (&json!(3), &json!(6)));
    let got = target.got();
    assert!(got[..4].iter().all(|again| again.body == got[0].body) && got[4].body != got[0].body);
    let uplinks = stack.get("uplinks").await;
    assert_eq!((&uplinks[0]["attempts"], &uplinks[0]["status"]), (&json!(4), &json!(202)));

    // The default is one attempt.
    target.answer_with(&[500]);
    assert_eq!(stack.send(json!({ "target": target.url, "count": 1 })).await["attempts"], 7);
    assert_eq!(stack.get("uplinks").await[3]["status"], 500);

    // For a malformed one, 400 is the right answer.
    let malformed = json!({ "target": target.url, "count": 20, "malformedShare": 1, "attempts": 3, "retryDelay": 0 });
    let sent = stack.send(malformed).await;
    let accepted = sent["statuses"]["202"].as_u64().unwrap() - 3;
    assert_eq!(sent["statuses"]["400"], 20 - accepted, "{sent}");
    assert_eq!(sent["attempts"], 27);
}

#[tokio::test]
async fn who_does_not_answer_is_an_error_without_the_targets_key() {
    let target = Target::start_with(0).await;
    let stack = Stack::start(uplinks_only()).await;
    let sent = stack.send(json!({ "target": target.url, "count": 2, "timeout": 0.05 })).await;
    assert_eq!((&sent["errors"], &sent["statuses"], &sent["attempts"]), (&json!(2), &json!({}), &json!(2)));
    assert!(!sent["lastError"].as_str().unwrap().contains("s3cr3t"), "{sent}");
    assert_eq!(stack.get("uplinks").await[0]["status"], Value::Null);

    let url = target.url.clone();
    drop(target);
    let answer = json!({ "application": "a", "device": "b", "target": url });
    let answer = crate::support::json(stack.post("uplink", answer).await).await;
    assert_eq!(answer["status"], Value::Null);
    assert!(answer["error"].as_str().is_some_and(|error| !error.contains("s3cr3t")), "{answer}");
}

#[tokio::test]
async fn a_schedule_is_kept_without_drift() {
    let target = Target::start().await;
    let sending =
        Sending { target: Some(target.url.parse().unwrap()), count: Some(100), rate: 500.0, ..uplinks_only().sending };
    let began = Instant::now();
    let stack = Stack::start(Options { sending, ..uplinks_only() }).await;
    stack.emulator.done().await;
    let statistics = stack.emulator.statistics();
    assert_eq!((statistics.sent, statistics.is_done), (100, true));
    // The last one is due after 99 intervals of 2 ms. It may be later on a slow machine, but never earlier. (The first
    // one may be late, too, so `seconds` may be less.)
    assert!(began.elapsed() >= Duration::from_millis(198), "{statistics:?}");
    assert!(statistics.scheduled_latency_ms.max >= statistics.latency_ms.max, "{statistics:?}");
}

#[tokio::test]
async fn what_waits_for_others_is_late_by_its_schedule() {
    let target = Target::start_with(0).await;
    let stack = Stack::start(uplinks_only()).await;
    let sending = json!({ "target": target.url, "count": 2, "concurrency": 1, "rate": 1000 });
    assert_eq!(stack.post("send", sending).await.status(), 202);
    target.wait(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    target.release(2);
    let sent = stack.get("sent?wait=done&timeout_ms=30000").await;
    // Both were due at once, give or take what the timer is late. The median of two is the smaller one.
    assert!(sent["scheduledLatencyMs"]["p50"].as_f64() > Some(250.0), "{sent}");
}

#[tokio::test]
async fn it_is_driven_in_process_too() {
    let target = Target::start().await;
    let stack = Stack::start(uplinks_only()).await;
    let emulator = &stack.emulator;
    let wanted = || Wanted { application: "a".to_owned(), device: "b".to_owned(), ..Wanted::default() };
    assert!(emulator.send_uplink(wanted()).await.is_err(), "no target");
    assert!(emulator.send(Sending::default()).is_err(), "no target");
    let sending = Sending { target: Some(target.url.parse().unwrap()), rate: 1.0, ..uplinks_only().sending };
    emulator.send(sending.clone()).unwrap();
    assert!(emulator.send(sending).is_err(), "a run is under way");
    let answer = emulator.send_uplink(wanted()).await.unwrap();
    assert_eq!((answer.status, answer.attempts), (Some(202), 1));
    target.wait(2).await;
    emulator.stop().await;
    let statistics = emulator.statistics();
    assert!(statistics.is_done && statistics.sent >= 2 && statistics.errors == 0, "{statistics:?}");
}

#[tokio::test]
async fn an_endless_run_is_ended_and_subscribers_see_each_answer() {
    let target = Target::start().await;
    let stack = Stack::start(Options { shared_device_ids: true, ..uplinks_only() }).await;
    let mut events = stack.emulator.subscribe();
    assert_eq!(stack.post("send", json!({ "target": target.url, "rate": 0 })).await.status(), 202);
    let Event::Delivered(first) = events.recv().await.unwrap() else { panic!("no downlink was asked for") };
    assert_eq!((first.answer.status, first.answer.body.as_str(), first.version), (Some(202), "noted", 3));
    target.wait(100).await;
    stack.delete("send").await;
    let sent = stack.get("sent").await;
    assert_eq!((&sent["isDone"], &sent["inFlight"]), (&json!(true), &json!(0)));
    assert_eq!(sent["sent"], target.got().len());
    let devices: HashSet<_> = target.got().iter().map(|got| got.device().unwrap()).collect();
    let ids: HashSet<_> = devices.iter().map(|(_, device)| device).collect();
    assert_eq!((devices.len(), ids.len()), (10, 5));
    stack.delete("sent").await;
    assert_eq!((&stack.get("sent").await["sent"], stack.get("uplinks").await), (&json!(0), json!([])));
}
