//! Every fault switch of the emulated hub, over MQTT and over HTTPS: what the user sees, and that nothing is lost.

use serde_json::{Value, json};

use super::support::{World, rows};

const SITES: [&str; 2] = ["Well 7", "Tank"];

/// What a run under a fault comes to.
#[derive(Clone, Copy)]
enum Seen {
    /// Nothing: it is dealt with.
    Nothing,
    /// The run fails with this kind for each site.
    Kind(&'static str),
}
use Seen::{Kind, Nothing};

/// A run under `faults`, a run after them, and everything must be there, in order, nothing twice but under the same id.
async fn holds(transport: &str, faults: Value, seen: Seen) {
    let mut world = World::with_sites(&SITES).await;
    world.set("IoTHubTransport", transport);
    world.set("PollTimeoutSeconds", "8");
    for site in SITES {
        world.add(site, 0..4).await;
    }
    world.hub.put("faults", faults.clone()).await;
    let handler = world.handler().await;
    match seen {
        Nothing => handler.invoke_ok().await,
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
    // In the same process: what was learnt from the fault must not outlast it.
    handler.invoke_ok().await;
    for site in SITES {
        world.assert_rows(site, &rows(0..7)).await;
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

/// A test for each line: its name, the switches, and what is seen over MQTT and over HTTPS.
macro_rules! switches {
    ($($name:ident: $faults:tt, mqtt $mqtt:expr, https $https:expr;)*) => {
        mod mqtt {
            use super::*;
            $(#[tokio::test] async fn $name() { holds("mqtt", json!($faults), $mqtt).await })*
        }
        mod https {
            use super::*;
            $(#[tokio::test] async fn $name() { holds("https", json!($faults), $https).await })*
        }
    };
}

switches! {
    refuse: {"refuse": true}, mqtt Kind("hub_refused"), https Kind("hub_refused");
    server_unavailable: {"serverUnavailable": true}, mqtt Kind("hub_unreachable"), https Kind("hub_unreachable");
    drop_before_acknowledging: {"dropBeforePubackTimes": 2, "httpDropBeforeAnswerTimes": 2}, mqtt Nothing, https Nothing;
    drop_without_recording: {"dropBeforePubackTimes": 2, "httpDropBeforeAnswerTimes": 2, "recordDropped": false},
        mqtt Nothing, https Nothing;
    acknowledgements_late: {"pubackDelayMs": 700}, mqtt Nothing, https Nothing;
    acknowledgements_very_late: {"pubackDelayMs": 600_000}, mqtt Kind("hub_timeout"), https Kind("hub_timeout");
    answers_late: {"httpDelayMs": 700}, mqtt Nothing, https Nothing;
    quota: {"cutAfterConnectTimes": 1_000_000}, mqtt Kind("hub_accepted_then_cut"), https Kind("hub_quota");
    cut_after_each_message: {"cutAfterMessages": 1}, mqtt Nothing, https Nothing;
    throttle_then_cut: {"pubackDelayMs": 3_000, "cutAfterMs": 200}, mqtt Kind("hub_accepted_then_cut"), https Nothing;
    silence: {"ignorePublishes": true}, mqtt Kind("hub_timeout"), https Kind("hub_timeout");
    session_lost: {"noSessionPresent": true, "cutAfterMessages": 1}, mqtt Nothing, https Nothing;
    too_many_requests: {"httpStatus": 429, "httpStatusTimes": 1_000_000}, mqtt Nothing, https Kind("hub_throttled");
    too_many_requests_for_a_while: {"httpStatus": 429, "httpStatusTimes": 2, "retryAfterSeconds": 1},
        mqtt Nothing, https Nothing;
    internal_error: {"httpStatus": 500, "httpStatusTimes": 1_000_000}, mqtt Nothing, https Kind("hub_unreachable");
    internal_error_once: {"httpStatus": 500, "httpStatusTimes": 1}, mqtt Nothing, https Nothing;
    forbidden: {"httpStatus": 403, "httpStatusTimes": 1_000_000}, mqtt Nothing, https Kind("hub_quota");
    unknown_device: {"httpStatus": 404, "httpStatusTimes": 1_000_000}, mqtt Nothing, https Kind("hub_refused");
}

#[tokio::test]
async fn a_message_that_the_hub_refuses_for_good_is_kept_as_rejected_and_the_next_one_goes() {
    let mut world = World::with_sites(&SITES[..1]).await;
    world.set("IoTHubTransport", "https");
    let site = SITES[0];
    world.add(site, 0..4).await;
    world.hub.put("faults", json!({"httpStatus": 400, "httpStatusTimes": 1})).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.add(site, 4..7).await;
    handler.invoke_ok().await;
    world.assert_rows(site, &rows(4..7)).await;
    let polls = world.polls(site).await;
    assert_eq!((&polls[0]["Outcome"], &polls[1]["Outcome"]), (&json!("rejected"), &json!("forwarded")));
    assert_eq!(polls[0]["Error"]["Kind"], "hub_message_rejected");
    assert!(polls[0]["IoTHubMessage"].as_str().unwrap().contains("Timeseries"), "kept, to be sent again by hand");
    assert!(world.output().contains("error: a message is rejected"), "{}", world.output());
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
