//! Tests every fault switch of the emulated hub, over the transports that it concerns: what the user sees, and that
//! nothing is lost.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{World, rows};

const SITES: [&str; 2] = ["Well 7", "Tank"];

/// The visible result of a run under a fault.
#[derive(Clone, Copy)]
enum Seen {
    /// Nothing: the sender handles the fault.
    Nothing,
    /// The run fails with this kind for each site.
    Kind(&'static str),
}
use Seen::{Kind, Nothing};

/// Makes a run under `faults` and a run after them. Then every row must be there, in order, with repeats only under the
/// same id.
async fn holds(transport: &str, faults: Value, seen: Seen) {
    let mut world = World::with_sites(&SITES).await;
    world.set("IoTHubTransport", transport);
    world.set("PollTimeoutSeconds", "8");
    for site in SITES {
        world.add(site, 0..4).await;
    }
    world.hub.put("faults", faults.clone()).await;
    let handler = world.handler().await;
    let began = std::time::Instant::now();
    match seen {
        Nothing => {
            handler.invoke_ok().await;
            assert_hit(&world, &faults, began.elapsed()).await;
        }
        Kind(kind) => {
            let failed = handler.invoke_failing().await;
            assert!(
                failed.len() == SITES.len() && failed.iter().all(|(_, found)| found == kind),
                "{transport} {faults}: {failed:?}\n{}",
                world.output()
            );
            for site in SITES {
                assert_eq!(world.outcomes(site).await, ["pending"], "{transport} {faults}: recorded, and waiting");
            }
        }
    }
    world.hub.heal().await;
    for site in SITES {
        world.add(site, 4..7).await;
    }
    // The same process: what it learnt from the fault must not outlast the fault.
    handler.invoke_ok().await;
    for site in SITES {
        world.assert_rows(site, &rows(0..7)).await;
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

/// Asserts that an invisible fault really happened: it was used up, took its time, or cut a connection.
async fn assert_hit(world: &World, faults: &Value, took: Duration) {
    let (left, counts) = (world.hub.get("faults").await, world.hub.get("counts").await);
    for (switch, value) in faults.as_object().unwrap() {
        if switch.ends_with("Times") {
            assert!(left[switch].as_u64() < value.as_u64(), "{switch} was not used");
        } else if switch.ends_with("DelayMs") {
            assert!(took >= Duration::from_millis(value.as_u64().unwrap()), "{switch}: {took:?}");
        } else if switch == "cutAfterMessages" {
            assert!(counts["connects"].as_u64() >= Some(2), "{switch}: {counts}");
        }
    }
}

/// One test for each line: its name, the switches, and the visible result.
macro_rules! switches {
    ($transport:ident: $($name:ident $faults:tt $seen:expr;)*) => {
        mod $transport {
            use super::*;
            $(#[tokio::test] async fn $name() { holds(stringify!($transport), json!($faults), $seen).await })*
        }
    };
}

switches! { mqtt:
    refuse {"refuse": true} Kind("hub_refused");
    server_unavailable {"serverUnavailable": true} Kind("hub_unreachable");
    drop_before_acknowledging {"dropBeforePubackTimes": 2} Nothing;
    drop_without_recording {"dropBeforePubackTimes": 2, "recordDropped": false} Nothing;
    acknowledgements_late {"pubackDelayMs": 700} Nothing;
    acknowledgements_very_late {"pubackDelayMs": 600_000} Kind("hub_timeout");
    quota {"cutAfterConnectTimes": 1_000_000} Kind("hub_accepted_then_cut");
    cut_after_each_message {"cutAfterMessages": 1} Nothing;
    throttle_then_cut {"pubackDelayMs": 3_000, "cutAfterMs": 200} Kind("hub_accepted_then_cut");
    silence {"ignorePublishes": true} Kind("hub_timeout");
    session_lost {"noSessionPresent": true, "cutAfterMessages": 1} Nothing;
}

switches! { https:
    refuse {"refuse": true} Kind("hub_refused");
    server_unavailable {"serverUnavailable": true} Kind("hub_unreachable");
    drop_before_answering {"httpDropBeforeAnswerTimes": 2} Nothing;
    drop_without_recording {"httpDropBeforeAnswerTimes": 2, "recordDropped": false} Nothing;
    recorded_but_answered_late {"pubackDelayMs": 700} Nothing;
    recorded_but_answered_very_late {"pubackDelayMs": 600_000} Kind("hub_timeout");
    slow {"httpDelayMs": 700} Nothing;
    quota {"cutAfterConnectTimes": 1_000_000} Kind("hub_quota");
    silence {"ignorePublishes": true} Kind("hub_timeout");
    too_many_requests {"httpStatus": 429, "httpStatusTimes": 1_000_000} Kind("hub_throttled");
    too_many_requests_for_a_while {"httpStatus": 429, "httpStatusTimes": 2, "retryAfterSeconds": 1} Nothing;
    internal_error {"httpStatus": 500, "httpStatusTimes": 1_000_000} Kind("hub_unreachable");
    internal_error_once {"httpStatus": 500, "httpStatusTimes": 1} Nothing;
    bad_request {"httpErrorCode": 400_000, "httpStatusTimes": 1_000_000} Kind("hub_bad_request");
    protocol_version {"httpErrorCode": 400_001, "httpStatusTimes": 1_000_000} Kind("hub_bad_request");
    forbidden {"httpStatus": 403, "httpStatusTimes": 1_000_000} Kind("hub_quota");
    unknown_device {"httpStatus": 404, "httpStatusTimes": 1_000_000} Kind("hub_refused");
}

#[tokio::test]
async fn a_message_that_the_hub_refuses_for_good_is_kept_as_rejected_and_the_next_one_goes() {
    let mut world = World::with_sites(&SITES[..1]).await;
    world.set("IoTHubTransport", "https");
    let site = SITES[0];
    world.add(site, 0..4).await;
    world.hub.put("faults", json!({"httpStatus": 400, "httpStatusTimes": 1})).await;
    let handler = world.handler().await;
    // A run with a rejected message is not a success: an alert must see the run.
    let rejected = [(site.to_owned(), "hub_message_rejected".to_owned())];
    assert_eq!(handler.invoke_failing().await, rejected);
    world.add(site, 4..7).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(4..7)).await;
    let polls = world.polls(site).await;
    assert_eq!((&polls[0]["Outcome"], &polls[1]["Outcome"]), (&json!("rejected"), &json!("forwarded")));
    assert_eq!(polls[0]["Error"]["Kind"], "hub_message_rejected");
    assert!(polls[0]["IoTHubMessage"].as_str().unwrap().contains("Timeseries"), "kept, to be sent again by hand");
    let output = world.output();
    assert_eq!(output.matches("the hub refused the message for good").count(), 1, "told once: {output}");
    assert!(output.contains("error: a message is rejected") && output.contains("1 messages rejected"), "{output}");
}

/// A hub that refuses everything has a fault of its own, whatever it says about the messages.
#[tokio::test]
async fn a_hub_that_refuses_every_message_condemns_one_at_most() {
    let sites: Vec<String> = (0..20).map(|number| format!("well-{number}")).collect();
    let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
    let mut world = World::with_sites(&sites).await;
    world.provision_sites().await;
    world.set("IoTHubTransport", "https");
    let handler = world.handler().await;
    world.hub.put("faults", json!({"httpErrorCode": 400_004, "httpStatusTimes": 1_000_000})).await;
    for round in 0..3 {
        for site in &sites {
            world.add(site, round * 2..round * 2 + 2).await;
        }
        assert_eq!(handler.invoke_failing().await.len(), 20, "{}", world.output());
    }
    world.hub.heal().await;
    handler.invoke_ok().await;
    let mut outcomes = Vec::new();
    for site in &sites {
        outcomes.extend(world.outcomes(site).await);
    }
    // A site is not polled while a message waits: the rows of the rounds after the first left together.
    let count = |wanted: &str| outcomes.iter().filter(|outcome| *outcome == wanted).count();
    assert_eq!((count("rejected"), count("forwarded")), (1, 40), "{outcomes:?}");
}

#[tokio::test]
async fn tokens_that_expire_are_replaced_over_every_transport() {
    for transport in ["mqtt", "mqtt-ws", "https"] {
        let mut world = World::with_sites(&SITES).await;
        world.set("IoTHubTransport", transport);
        let handler = world.handler().await;
        for round in 0..3 {
            for site in SITES {
                world.add(site, round * 3..round * 3 + 3).await;
            }
            handler.invoke_ok().await;
            world.hub.post("expire", Value::Null).await;
        }
        for site in SITES {
            world.assert_rows(site, &rows(0..9)).await;
        }
        world.assert_settled().await;
    }
}
