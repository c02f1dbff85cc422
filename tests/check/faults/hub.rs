//! Tests faults of the hub when one device sends everything.

use serde_json::json;

use super::case::{Case, Service::Hub, Wrong, answer, failed, run, set};
use crate::{
    check::services::{Report, world},
    support::token,
};

const HUB: &str = "hub 127.0.0.1";

/// Without LoRaWAN devices, because they use the same hub.
fn alone(case: Case) -> Case {
    case.when(Wrong::Unset("UplinkQueueName"))
}

fn https(case: Case) -> Case {
    alone(case).when(set("IoTHubTransport", "https"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_mqtt() {
    let wrong = set("IoTHubDeviceKey", "d3Jvbmc=");
    let cut = Wrong::Faults(Hub, json!({"cutAfterConnectTimes": 1}));
    let untrusted = Wrong::Unset("IoTHubTrustedCa");
    run([
        failed(HUB).when(wrong).kind("hub_refused").says("refused device gateway-1", "check key or token"),
        alone(failed(HUB)).when(cut).kind("hub_accepted_then_cut").says("quota", "more units"),
        alone(failed(HUB)).when(Wrong::Away(Hub)).kind("hub_unreachable").says("cannot be reached", "IoTHubTransport"),
        alone(failed(HUB)).when(untrusted).kind("hub_untrusted").says("is not trusted", "set IoTHubTrustedCa"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_https() {
    let wrong = set("IoTHubDeviceKey", "d3Jvbmc=");
    let answered = |status| Wrong::Trouble(Hub, "/messages/events", answer(status));
    let quota = Wrong::Faults(Hub, json!({"cutAfterConnectTimes": 1}));
    run([
        failed(HUB).when(wrong).kind("hub_refused").says("(401)", "check key or token"),
        failed(HUB).when(Wrong::Away(Hub)).kind("hub_unreachable").says("cannot be reached", "IoTHubTransport"),
        failed(HUB).when(quota).kind("hub_quota").says("quota", "more units"),
        failed(HUB).when(answered(429)).kind("hub_throttled").says("throttling", "units"),
        failed(HUB).when(answered(200)).kind("hub_unreachable").says("is not a hub", "check the hub's name"),
    ]
    .map(https))
    .await;
}

#[tokio::test]
async fn a_ready_token_ends() {
    for (seconds, result, kind, text) in [
        (-60, "failed", Some("hub_token_expired"), "it expired at 20"),
        (3600, "warning", None, "it expires at 20"),
        (30 * 24 * 3600, "ok", None, "holds until 20"),
    ] {
        let mut world = world().await;
        let host = world.hub.ready("mqtt").split(':').next().unwrap().to_owned();
        let ready = token(&host, "gateway-1", world.hub.ready("key"), seconds);
        world.unset("IoTHubDeviceKey");
        world.set("IoTHubSharedAccessSignature", &ready);
        let report = Report::of(&world, &[]).await;
        let row = report.row("token of the device", result);
        assert_eq!(row["kind"].as_str(), kind);
        assert!(row["text"].as_str().unwrap().starts_with(text), "{row}");
        // This check needs no request.
        assert_eq!(Report::of(&world, &["--offline"]).await.row("token of the device", result), row);
        let of_hub = report.row(HUB, if seconds < 0 { "failed" } else { "ok" });
        assert_eq!(of_hub["kind"].as_str(), kind);
    }
}
