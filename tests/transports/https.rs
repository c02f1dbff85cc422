//! What only HTTPS has: statuses, waits that the hub asks for, batches of which one message is bad.

use std::time::{Duration, Instant};

use iothub_connector::hub::{SendError, Transport};
use serde_json::json;

use super::support::{World, ids, messages, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_wait_that_the_hub_asks_for_is_kept() {
    let world = World::start(Transport::Https).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(2));
    world.set_faults(json!({"httpStatus": 429, "httpStatusTimes": 1, "retryAfterSeconds": 1})).await;
    let began = Instant::now();
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (2, Ok(())));
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert_eq!(world.counts().https_requests, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_wait_that_the_hub_asks_for_is_kept_over_invocations() {
    let world = World::start(Transport::Https).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(2));
    world.set_faults(json!({"httpStatus": 429, "httpStatusTimes": 1, "retryAfterSeconds": 6})).await;
    let throttled = Err(SendError::Throttled { wait: Some(Duration::from_secs(6)) });
    let began = Instant::now();
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (0, throttled.clone()));
    sender.try_again();
    assert_eq!(sender.send_in_order(&world.device("other"), &sent, soon()).await, (0, throttled));
    assert_eq!(world.counts().https_requests, 1);
    // With less than five seconds left it is waited for.
    tokio::time::sleep_until((began + Duration::from_millis(1_500)).into()).await;
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (2, Ok(())));
    assert!(began.elapsed() >= Duration::from_secs(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttling_hub_that_names_no_time_is_tried_again() {
    let world = World::start(Transport::Https).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(20));
    world.set_faults(json!({"httpStatus": 429, "httpStatusTimes": 2})).await;
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (20, Ok(())));
    assert_eq!(world.distinct("d").await, ids(&sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_goes_again_one_by_one_and_the_bad_message_is_found() {
    let world = World::start(Transport::Https).await;
    let (sender, device) = (world.sender(), world.device("d"));
    let mut sent = messages(10);
    // The hub takes no property with this name; it refuses the batch as a whole.
    sent[4].properties.push(("", "x".into()));
    let (acknowledged, outcome) = sender.send_in_order(&device, &sent, soon()).await;
    assert_eq!(acknowledged, 4, "{outcome:?}");
    assert!(matches!(outcome, Err(SendError::Rejected { status: 400, .. })), "{outcome:?}");
    assert_eq!(sender.send_in_order(&device, &sent[5..], soon()).await, (5, Ok(())));
    assert_eq!(world.distinct("d").await, [&ids(&sent)[..4], &ids(&sent)[5..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_named_as_such() {
    let world = World::start(Transport::Https).await;
    world.set_faults(json!({"cutAfterConnectTimes": 1})).await;
    let (_, outcome) = world.sender().send_in_order(&world.device("d"), &messages(1), soon()).await;
    assert_eq!(outcome, Err(SendError::QuotaUsedUp));
}
