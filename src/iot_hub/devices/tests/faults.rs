//! Failures of the service, and the errors that all callers get.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use serde_json::json;

use tokio::time::Instant;

use super::{
    super::{CONCURRENCY, LOOKUP_WAIT},
    Reply, World, device, error,
    service::{Asked, assigned_to, assigning, reply, well},
    site, soon,
};
use crate::support::clock::Clock;

fn refusal(status: u16) -> Reply {
    reply(status, json!({ "errorCode": u32::from(status) * 1000, "trackingId": "x", "message": "No, thanks" }))
}

fn is_known(error: &super::DeviceError, kind: &str, says: &str) {
    assert_eq!(error.kind().as_str(), kind, "{error}");
    assert!(error.to_string().contains(says), "{says:?} is missing in: {error}");
}

#[tokio::test]
async fn a_wrong_key_is_said_to_everybody_after_few_requests() {
    let world = World::start(|_| refusal(401)).await;
    let devices = world.devices();
    let sites: Vec<_> = (0..200).map(|number| site(&format!("well-{number}"))).collect();
    for error in join_all(sites.iter().map(|owner| error(&devices, owner))).await {
        is_known(&error, "dps_unauthorized", "DPSEnrollmentGroupSymmetricKey");
        is_known(&error, "dps_unauthorized", "No, thanks (401000)");
    }
    let asked = world.service.asked().len();
    assert!(asked <= CONCURRENCY, "{asked}");
    error(&devices, &sites[0]).await;
    assert_eq!(world.service.asked().len(), asked, "nothing is asked before the next invocation");
    world.service.follow(well);
    devices.try_again();
    device(&devices, &sites[0]).await;
}

#[tokio::test]
async fn one_device_with_a_refused_token_does_not_keep_the_others_out() {
    let world = World::start(|asked| if asked.id == "odd-one" { refusal(401) } else { well(asked) }).await;
    let devices = world.devices();
    device(&devices, &site("well-1")).await;
    error(&devices, &site("odd-one")).await;
    device(&devices, &site("well-2")).await;
    let asked = world.service.asked().len();
    devices.try_again();
    error(&devices, &site("odd-one")).await;
    assert_eq!(world.service.asked().len(), asked, "a device that failed is left alone for a minute");
}

#[tokio::test]
async fn a_wrong_clock_and_an_unknown_scope_are_named() {
    let world = World::start(|_| {
        let date = (Utc::now() + TimeDelta::seconds(30 * 60 + 30)).format("%a, %d %b %Y %H:%M:%S GMT");
        refusal(401).with("Date", date)
    })
    .await;
    let devices = world.devices();
    is_known(&error(&devices, &site("a")).await, "dps_clock_wrong", "clock is 30 min slow");
    world.service.follow(|_| refusal(404));
    devices.try_again();
    is_known(&error(&devices, &site("b")).await, "dps_unknown_scope", "check DPSIDScope");
    is_known(&error(&devices, &site("c")).await, "dps_unknown_scope", "check DPSIDScope");
    assert_eq!(world.service.asked().len(), 2);
}

#[tokio::test]
async fn a_device_that_is_refused_rests_and_the_others_go_on() {
    fn failed(asked: &Asked, status: &str) -> Reply {
        let state = json!({ "status": status, "errorCode": 403_017, "errorMessage": "Device is disabled" });
        reply(200, json!({ "operationId": asked.id, "status": status, "registrationState": state }))
    }
    let world = World::start(|asked| match (asked.id.as_str(), &asked.operation) {
        ("forbidden", _) => refusal(403),
        ("conflict", _) => refusal(409),
        (_, None) => assigning(asked),
        ("failed", _) => failed(asked, "failed"),
        ("disabled", _) => failed(asked, "disabled"),
        ("gone", _) => refusal(404),
        ("garbage", _) => Reply { status: 200, body: "<html>".into(), ..Reply::default() },
        ("endless", _) => Reply { status: 200, body: " ".repeat(10_000_000), ..Reply::default() },
        ("odd-hub", _) => assigned_to(asked, "hub/x"),
        ("login-page", _) => Reply { status: 302, ..Reply::default() }.with("Location", "https://127.0.0.1:1/"),
        _ => well(asked),
    })
    .await;
    let devices = world.devices();
    for (name, kind, says) in [
        ("forbidden", "dps_refused", "(403): look at it in the enrollment group; it says: No, thanks (403000)"),
        ("conflict", "dps_refused", "(409)"),
        ("failed", "dps_refused", "(failed): look at it in the enrollment group; it says: Device is disabled (403017)"),
        ("disabled", "dps_refused", "(disabled)"),
        ("gone", "dps_refused", "(404)"),
        ("garbage", "dps_garbage", "makes no sense"),
        ("endless", "dps_garbage", "makes no sense"),
        ("odd-hub", "dps_garbage", r#"assignedHub is "hub/x""#),
        ("login-page", "dps_garbage", "status 302"),
    ] {
        is_known(&error(&devices, &site(name)).await, kind, says);
        let asked = world.service.asked().len();
        devices.try_again();
        is_known(&error(&devices, &site(name)).await, kind, says);
        assert_eq!(world.service.asked().len(), asked, "{name} is left alone");
    }
    device(&devices, &site("well-1")).await;
}

#[tokio::test]
async fn a_service_that_is_away_is_tried_three_times_and_again_in_the_next_invocation() {
    let world = World::start(|asked| if asked.before < 2 { refusal(503) } else { well(asked) }).await;
    let devices = world.devices();
    device(&devices, &site("well-1")).await;
    assert_eq!(world.service.registrations(), 3);

    world.service.follow(|_| refusal(500));
    is_known(&error(&devices, &site("well-2")).await, "dps_status", "status 500; it says: No, thanks (500000)");
    assert_eq!(world.service.registrations(), 6);
    is_known(&error(&devices, &site("well-3")).await, "dps_status", "status 500");
    assert_eq!(world.service.registrations(), 6);

    world.service.stop().await;
    devices.try_again();
    let place = world.service.address.to_string();
    is_known(&error(&devices, &site("well-2")).await, "dps_unreachable", &place);
    is_known(&error(&devices, &site("well-2")).await, "dps_unreachable", "DPSGlobalDeviceEndpoint");
}

#[tokio::test]
async fn a_service_that_asks_to_slow_down_is_obeyed_by_all() {
    let world = World::start(|asked| match asked.before {
        0 => refusal(429).with("Retry-After", 1),
        _ => well(asked),
    })
    .await;
    let devices = world.devices();
    let start = Instant::now();
    device(&devices, &site("well-1")).await;
    assert!(start.elapsed() >= Duration::from_secs(1));

    world.service.follow(|_| refusal(429).with("Retry-After", 3000));
    is_known(&error(&devices, &site("well-2")).await, "dps_throttled", "to wait 2999 s");
    let asked = world.service.asked().len();
    devices.try_again();
    is_known(&error(&devices, &site("well-3")).await, "dps_throttled", "slow down");
    assert_eq!(world.service.asked().len(), asked);
}

#[tokio::test]
async fn a_service_that_refuses_and_says_come_back_at_once_is_not_asked_in_a_loop() {
    async fn asked(status: u16, retry_after: &'static str) -> (usize, String) {
        let mut world = World::start(move |_| refusal(status).with("Retry-After", retry_after)).await;
        world.limits.registration = Duration::from_secs(5);
        let error = error(&world.devices(), &site("well-1")).await;
        (world.service.asked().len(), error.kind().to_string())
    }
    let past = "Thu, 01 Jan 2026 00:00:00 GMT";
    let (zero, past, away) = tokio::join!(asked(429, "0"), asked(429, past), asked(503, "0"));
    for (count, kind) in [zero, past] {
        assert!((1..=20).contains(&count), "{count} requests in 5 s");
        assert!(["dps_throttled", "dps_not_assigned"].contains(&kind.as_str()), "{kind}");
    }
    assert_eq!(away, (3, "dps_status".to_owned()));
}

#[tokio::test]
async fn while_the_service_wants_to_be_left_alone_the_wait_is_said() {
    let world = World::start(|_| refusal(429).with("Retry-After", 30)).await;
    let devices = world.devices();
    let owner = site("well-1");
    assert_eq!(devices.device(&owner, Instant::now()).await.unwrap_err().kind().as_str(), "device_underway");
    world.service.wait_for(1).await;
    // Time for the service's answer to arrive, and less than the wait that it requests.
    let error = devices.device(&owner, Instant::now() + Duration::from_secs(2)).await.unwrap_err();
    is_known(&error, "dps_throttled", "slow down");
}

#[tokio::test]
async fn a_service_that_never_assigns_is_given_up() {
    let mut world = World::start(assigning).await;
    world.limits.registration = Duration::from_millis(500);
    let devices = world.devices();
    is_known(&error(&devices, &site("well-1")).await, "dps_not_assigned", "linked hubs");
    assert!(world.service.asked().len() <= 6, "five results in ten seconds: {:?}", world.service.asked());
    world.service.follow(|_| Reply { hangs: true, ..Reply::default() });
    is_known(&error(&devices, &site("well-2")).await, "dps_not_assigned", "well-2");
}

#[tokio::test]
async fn an_unknown_certificate_is_not_trusted() {
    let world = World::start(well).await;
    let devices = world.devices_with(world.service.config(), Vec::new());
    is_known(&error(&devices, &site("well-1")).await, "dps_untrusted", "IoTHubTrustedCa");
    let past = soon() - Duration::from_secs(30);
    drop(devices.device(&site("well-2"), past).await);
    assert_eq!(world.service.asked(), []);
}

#[tokio::test]
async fn a_panic_is_said_and_the_device_found_the_next_time() {
    static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
    let world = World::start(well).await;
    let devices = world.devices_at(Clock::of(|| {
        assert!(HAS_PANICKED.swap(true, Ordering::Relaxed), "the clock has stopped");
        Utc::now()
    }));
    let owner = site("well-1");
    for error in join_all((0..3).map(|_| error(&devices, &owner))).await {
        is_known(&error, "device_unexpected", "ended unexpectedly, it is tried again");
    }
    device(&devices, &owner).await;
    assert_eq!(world.service.registrations(), 1, "what was assigned before the panic is used");
}

#[tokio::test]
async fn a_lookup_is_not_waited_for_for_ever() {
    let world = World::start(well).await;
    let devices = world.devices();
    // A search begins and does not continue.
    assert!(devices.entry(&site("well-1")).begin());
    tokio::time::pause();
    let start = Instant::now();
    let early = devices.device(&site("well-1"), start).await;
    is_known(&early.unwrap_err(), "ledger_timeout", "cannot be looked up");
    assert_eq!(start.elapsed().as_secs(), LOOKUP_WAIT.as_secs());
    let late = devices.device(&site("well-1"), start + 10 * LOOKUP_WAIT).await;
    is_known(&late.unwrap_err(), "ledger_timeout", "cannot be looked up");
    assert_eq!(start.elapsed().as_secs(), 10 * LOOKUP_WAIT.as_secs());
}
