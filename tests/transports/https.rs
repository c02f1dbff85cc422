//! Tests what only HTTPS has: statuses, waits that the hub requests, and batches with one bad message.

use std::time::{Duration, Instant};

use iothub_connector::iot_hub::{SendError, Transport};
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
    // This test is about time itself, so it sleeps: with less than five seconds left (six, with at most a tenth more)
    // the sender waits.
    tokio::time::sleep_until((began + Duration::from_millis(2_500)).into()).await;
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
    // The hub accepts no property with this name, and refuses the whole batch.
    sent[4].properties.push(("", "x".into()));
    let (acknowledged, outcome) = sender.send_in_order(&device, &sent, soon()).await;
    assert_eq!(acknowledged, 4, "{outcome:?}");
    assert!(matches!(outcome, Err(SendError::Rejected { status: 400, .. })), "{outcome:?}");
    assert_eq!(sender.send_in_order(&device, &sent[5..], soon()).await, (5, Ok(())));
    assert_eq!(world.distinct("d").await, [&ids(&sent)[..4], &ids(&sent)[5..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_hub_says_of_the_message_condemns_it() {
    for (code, kind) in [
        (400_004, "hub_message_rejected"),
        (400_103, "hub_message_rejected"),
        (413_001, "hub_message_rejected"),
        (400_000, "hub_bad_request"),
        (400_001, "hub_bad_request"),
        (400_003, "hub_bad_request"),
        (400_999, "hub_bad_request"),
    ] {
        let world = World::start(Transport::Https).await;
        let (sender, device, sent) = (world.sender(), world.device("d"), messages(3));
        world.set_faults(json!({"httpErrorCode": code, "httpStatusTimes": 1_000_000})).await;
        let (acknowledged, outcome) = sender.send_in_order(&device, &sent, soon()).await;
        let error = outcome.unwrap_err();
        assert_eq!((acknowledged, error.kind().as_str()), (0, kind), "{code}: {error}");
        assert_eq!(error.condemns_message(), kind == "hub_message_rejected", "{code}");
        assert!(error.to_string().contains(&format!("{}", code / 1000)), "{error}");
        // First the batch, then its first message alone.
        assert_eq!(world.counts().https_requests, 2, "{code}");
        world.set_faults(json!({})).await;
        assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (3, Ok(())), "nobody is kept waiting: {code}");
    }
}

/// A hub that refuses everything has a fault of its own, whatever it says about the messages.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_messages_in_a_row_only_one_is_condemned() {
    let world = World::start(Transport::Https).await;
    let (sender, sent) = (world.sender(), messages(3));
    world.set_faults(json!({"httpErrorCode": 400_004, "httpStatusTimes": 1_000_000})).await;
    let mut condemned = 0;
    for round in 0..10 {
        // Also for other devices, and in later invocations.
        let (_, outcome) = sender.send_in_order(&world.device(&format!("d{}", round % 4)), &sent, soon()).await;
        let error = outcome.unwrap_err();
        condemned += usize::from(error.condemns_message());
        assert!(error.condemns_message() || error.kind().as_str() == "hub_rejects_all", "{error}");
        sender.try_again();
    }
    assert_eq!(condemned, 1);
    world.set_faults(json!({})).await;
    assert_eq!(sender.send_in_order(&world.device("d1"), &sent[..1], soon()).await, (1, Ok(())));
    world.set_faults(json!({"httpErrorCode": 400_004, "httpStatusTimes": 1_000_000})).await;
    let (_, outcome) = sender.send_in_order(&world.device("d2"), &sent, soon()).await;
    assert!(outcome.unwrap_err().condemns_message(), "the hub has acknowledged something since");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_named_as_such() {
    let world = World::start(Transport::Https).await;
    world.set_faults(json!({"cutAfterConnectTimes": 1})).await;
    let (_, outcome) = world.sender().send_in_order(&world.device("d"), &messages(1), soon()).await;
    assert_eq!(outcome, Err(SendError::QuotaUsedUp));
}

/// A server between the sender and the hub, with a trusted certificate, answers everything in the hub's place.
async fn in_between(status: u16, header: &'static str) -> (String, u16) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut buffer = vec![0; 64 * 1024];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let answer =
                        format!("HTTP/1.1 {status} Whatever\r\n{header}content-length: 13\r\n\r\n<html></html>");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    (key.cert.pem(), port)
}

/// Sends three messages to the server at this port that has this certificate.
async fn send_to((ca, port): (String, u16), world: &World) -> (usize, Result<(), SendError>) {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut options = world.options();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    options.http = vec![world.ca(), ca].into();
    let mut device = world.device("d");
    device.endpoint.port = Some(port);
    iothub_connector::iot_hub::Sender::new(options).send_in_order(&device, &messages(3), soon()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named_when_a_token_is_refused() {
    let world = World::start(Transport::Https).await;
    let hub = in_between(401, "date: Thu, 01 Jan 2026 00:00:00 GMT\r\n").await;
    let error = send_to(hub, &world).await.1.unwrap_err();
    assert!(matches!(&error, SendError::ClockWrong { device, minutes } if device == "d" && *minutes > 5), "{error}");
    assert!(error.to_string().contains("min fast, set it right"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_hub_acknowledges_or_condemns_a_message() {
    for status in [200, 202, 400, 413] {
        let world = World::start(Transport::Https).await;
        let (acknowledged, outcome) = send_to(in_between(status, "").await, &world).await;
        let error = outcome.unwrap_err();
        assert!(acknowledged == 0 && matches!(error, SendError::Unreachable(_)), "{status}: {error}");
        assert!(error.to_string().contains(&format!("answered {status}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn being_told_to_wait_no_time_is_no_reason_to_hammer() {
    let world = World::start(Transport::Https).await;
    world.set_faults(json!({"httpStatus": 429, "httpStatusTimes": 1_000_000, "retryAfterSeconds": 0})).await;
    let (_, outcome) = world.sender().send_in_order(&world.device("d"), &messages(1), soon()).await;
    assert!(matches!(outcome, Err(SendError::Throttled { .. })), "{outcome:?}");
    assert!(world.counts().https_requests <= 5, "{} requests", world.counts().https_requests);
}
