//! The contract of all transports. Each function is a test that runs against every transport.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::{StreamExt as _, future::join_all};
use iothub_connector::iot_hub::{
    Credential, Message, SendError, Transport, device::decode_key, message::MAX_PORTABLE_SIZE,
};
use serde_json::json;

use super::support::{SITE, World, ids, message, messages, soon, within};

macro_rules! for_each_transport {
    ($($test:ident),* $(,)?) => {
        mod mqtt {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Transport::Mqtt).await })*
        }
        mod mqtt_ws {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Transport::MqttWs).await })*
        }
        mod https {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Transport::Https).await })*
        }
    };
}

for_each_transport!(
    messages_arrive_in_order_with_everything_they_had,
    the_largest_message_passes_and_a_larger_one_holds_up_nothing_before_it,
    a_wrong_key_is_a_refusal_of_that_device_only,
    a_ready_token_serves_until_it_ends,
    a_hub_that_is_away_is_found_so_once_and_messages_go_when_it_is_back,
    what_was_not_acknowledged_is_sent_again_under_the_same_id,
    a_hub_that_is_silent_is_left_at_the_deadline,
    an_unknown_authority_is_named,
    many_devices_at_once_each_keep_their_order,
    an_overloaded_hub_is_tried_again,
    a_quota_that_is_used_up_is_said_and_nothing_is_lost,
    tokens_are_renewed_before_they_end,
    a_call_that_is_dropped_half_way_leaves_the_sender_usable,
    a_hub_that_stays_silent_is_given_up_for_everybody,
    a_hub_that_swallows_what_is_sent_to_it_is_called_unreachable,
);

async fn messages_arrive_in_order_with_everything_they_had(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device, sent) = (world.sender(), world.device("d-1(x)"), messages(100));
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (100, Ok(())));
    let received = world.received("d-1(x)").await;
    assert_eq!(received.iter().map(|message| message["messageId"].as_str().unwrap()).collect::<Vec<_>>(), ids(&sent));
    let expected: &str = transport.into();
    // HTTPS allows fewer characters in a property.
    let site = if transport == Transport::Https { "Z%C3%A4hler%207%2F%C3%B6%20%2B%26%3D%25%3F%22" } else { SITE };
    for (message, sent) in received.iter().zip(&sent) {
        assert_eq!(message["transport"], expected);
        assert_eq!(message["body"].as_str().unwrap().as_bytes(), sent.body);
        assert_eq!(message["properties"], json!({"Customer_Id": "Stadtwerke", "Site_Id": site}));
        assert_eq!(
            message["systemProperties"],
            json!({"$.mid": sent.id, "$.ct": "application/json", "$.ce": "utf-8", "$.ctime": "2023-11-14T22:13:20.120Z"})
        );
    }
    // The connection is kept: another call needs no new connection.
    let before = world.counts().connections;
    assert_eq!(sender.send_in_order(&device, &messages(1), soon()).await, (1, Ok(())));
    assert_eq!(world.counts().connections, before);
}

async fn the_largest_message_passes_and_a_larger_one_holds_up_nothing_before_it(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device) = (world.sender(), world.device("d"));
    let room = MAX_PORTABLE_SIZE - message("large", "").size();
    let sent = [message("small", "{}"), message("large", vec![b'x'; room]), message("huge", vec![b'x'; 256 * 1024])];
    let (acknowledged, outcome) = sender.send_in_order(&device, &sent, soon()).await;
    assert!(matches!(&outcome, Err(SendError::TooLarge { .. })), "{outcome:?}");
    assert!(outcome.unwrap_err().condemns_message());
    assert_eq!(acknowledged, 2);
    assert_eq!(world.distinct("d").await, ["small", "large"]);
    assert_eq!(sender.send_in_order(&device, &messages(1), soon()).await, (1, Ok(())), "the sender is not blocked");
}

async fn a_wrong_key_is_a_refusal_of_that_device_only(transport: Transport) {
    let world = World::start(transport).await;
    let sender = world.sender();
    let wrong = world.device_with("wrong", Credential::Key(decode_key("d3Jvbmc=").unwrap()));
    let (acknowledged, outcome) = sender.send_in_order(&wrong, &messages(3), soon()).await;
    let error = outcome.unwrap_err();
    assert!(error.refuses_device() && error.to_string().contains("refused device wrong"), "{error}");
    assert!(!error.to_string().contains("d3Jvbmc") && !error.to_string().contains("sig="), "{error}");
    assert_eq!(acknowledged, 0);
    assert_eq!(sender.send_in_order(&world.device("right"), &messages(3), soon()).await, (3, Ok(())));
    assert!(world.received("wrong").await.is_empty());
}

async fn a_ready_token_serves_until_it_ends(transport: Transport) {
    let world = World::start(transport).await;
    let sender = world.sender();
    let good = world.device_with("d", world.token("d", Utc::now() + TimeDelta::hours(1)));
    assert_eq!(sender.send_in_order(&good, &messages(1), soon()).await, (1, Ok(())));
    let ended = world.device_with("e", world.token("e", Utc::now() - TimeDelta::seconds(1)));
    let (_, outcome) = sender.send_in_order(&ended, &messages(1), soon()).await;
    assert!(matches!(&outcome, Err(SendError::TokenExpired { device, .. }) if device == "e"), "{outcome:?}");
    let foreign = world.device_with("f", world.token("d", Utc::now() + TimeDelta::hours(1)));
    let (_, outcome) = sender.send_in_order(&foreign, &messages(1), soon()).await;
    assert!(outcome.unwrap_err().refuses_device());
}

async fn a_hub_that_is_away_is_found_so_once_and_messages_go_when_it_is_back(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(5));
    assert_eq!(sender.send_in_order(&device, &sent[..2], soon()).await, (2, Ok(())));
    world.set_away(true).await;
    let (_, outcome) = sender.send_in_order(&device, &sent[2..], soon()).await;
    assert!(matches!(&outcome, Err(SendError::Unreachable(_))), "{outcome:?}");
    // Other callers get the result at once.
    let began = std::time::Instant::now();
    let (_, outcome) = sender.send_in_order(&world.device("other"), &messages(1), soon()).await;
    assert!(matches!(&outcome, Err(SendError::Unreachable(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    world.set_away(false).await;
    sender.try_again();
    assert_eq!(sender.send_in_order(&device, &sent[2..], soon()).await, (3, Ok(())));
    assert_eq!(world.distinct("d").await, ids(&sent));
}

async fn what_was_not_acknowledged_is_sent_again_under_the_same_id(transport: Transport) {
    for recorded in [true, false] {
        let world = World::start(transport).await;
        world
            .set_faults(json!({
                "dropBeforePubackTimes": 2, "httpDropBeforeAnswerTimes": 2, "recordDropped": recorded
            }))
            .await;
        let (sender, device, sent) = (world.sender(), world.device("d"), messages(40));
        assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (40, Ok(())), "recorded: {recorded}");
        assert_eq!(world.distinct("d").await, ids(&sent));
        let repeated = world.received("d").await.len() - 40;
        assert_eq!(repeated > 0, recorded, "{repeated} repeated");
    }
}

async fn a_hub_that_is_silent_is_left_at_the_deadline(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device) = (world.sender(), world.device("d"));
    world.set_faults(json!({"ignorePublishes": true})).await;
    assert_eq!(sender.send_in_order(&device, &messages(3), within(0.5)).await, (0, Err(SendError::TimedOut)));
    world.set_faults(json!({})).await;
    assert_eq!(sender.send_in_order(&device, &messages(3), soon()).await, (3, Ok(())));
    assert_eq!(world.distinct("d").await, ids(&messages(3)));
}

async fn an_unknown_authority_is_named(transport: Transport) {
    let world = World::start(transport).await;
    let mut options = world.options();
    options.http = Vec::new().into();
    let sender = iothub_connector::iot_hub::Sender::new(options);
    let (_, outcome) = sender.send_in_order(&world.device("d"), &messages(1), soon()).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, SendError::Untrusted(_)) && error.to_string().contains("IoTHubTrustedCa"), "{error}");
}

async fn many_devices_at_once_each_keep_their_order(transport: Transport) {
    let world = World::start(transport).await;
    let mut options = world.options();
    options.max_connections = 8.try_into().unwrap();
    let (sender, sent) = (iothub_connector::iot_hub::Sender::new(options), messages(5));
    // Two rounds, so that evicted devices come back; and more devices at once than there is room for.
    for round in 0..2 {
        let devices: Vec<_> = (0..50).map(|n| world.device(&format!("d{n}"))).collect();
        let sending = futures::stream::iter(&devices).map(|device| sender.send_in_order(device, &sent, soon()));
        let outcomes: Vec<_> = sending.buffer_unordered(16).collect().await;
        assert!(outcomes.iter().all(|outcome| *outcome == (5, Ok(()))), "round {round}: {outcomes:?}");
    }
    let twice = [ids(&sent), ids(&sent)].concat();
    for n in 0..50 {
        let received = world.received(&format!("d{n}")).await;
        assert_eq!(received.iter().map(|message| message["messageId"].as_str().unwrap()).collect::<Vec<_>>(), twice);
    }
    let counts = world.counts();
    match transport {
        Transport::Https => assert!(counts.connections < 50, "{} connections", counts.connections),
        _ => assert!(counts.most_connected <= 8, "{} connected at a time", counts.most_connected),
    }
}

async fn an_overloaded_hub_is_tried_again(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(20));
    // The connection is accepted and cut; requests get the answer 503.
    world.set_faults(json!({"cutAfterMessages": 7, "httpStatus": 503, "httpStatusTimes": 2})).await;
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (20, Ok(())));
    assert_eq!(world.distinct("d").await, ids(&sent));
}

async fn a_quota_that_is_used_up_is_said_and_nothing_is_lost(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(3));
    world.set_faults(json!({"cutAfterConnectTimes": 100})).await;
    // Over MQTT another client might hold the device for a moment only, so the sender retries until the time is over.
    let (acknowledged, outcome) = sender.send_in_order(&device, &sent, within(3.0)).await;
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("daily quota is used up"), "{error}");
    assert_eq!(acknowledged, 0);
    world.set_faults(json!({})).await;
    sender.try_again();
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (3, Ok(())));
    assert_eq!(world.distinct("d").await, ids(&sent));
}

async fn tokens_are_renewed_before_they_end(transport: Transport) {
    let world = World::start(transport).await;
    let mut options = world.options();
    options.token_lifetime = Duration::from_secs(2);
    let (sender, device) = (iothub_connector::iot_hub::Sender::new(options), world.device("d"));
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let mut sent: Vec<Message> = Vec::new();
    while std::time::Instant::now() < until {
        let next = [message(&format!("m{}", sent.len()), "{}")];
        assert_eq!(sender.send_in_order(&device, &next, soon()).await, (1, Ok(())));
        sent.extend(next);
    }
    let received = world.received("d").await;
    assert_eq!(received.len(), sent.len(), "nothing was cut off by a token's end");
    if transport != Transport::Https {
        assert!(world.counts().connects >= 3, "{} connections", world.counts().connects);
    }
}

async fn a_call_that_is_dropped_half_way_leaves_the_sender_usable(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(5));
    world.set_faults(json!({"ignorePublishes": true})).await;
    let call = sender.send_in_order(&device, &sent, soon());
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    world.set_faults(json!({})).await;
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (5, Ok(())));
    assert_eq!(world.distinct("d").await, ids(&sent));
}

async fn a_hub_that_stays_silent_is_given_up_for_everybody(transport: Transport) {
    let world = World::start(transport).await;
    let (sender, sent) = (world.sender(), messages(3));
    world.set_faults(json!({"ignorePublishes": true})).await;
    let devices = ["a", "b", "c"].map(|id| world.device(id));
    let outcomes = join_all(devices.iter().map(|device| sender.send_in_order(device, &sent, soon()))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == (0, Err(SendError::Stalled))), "{outcomes:?}");
    let began = std::time::Instant::now();
    let late = world.device("late");
    assert_eq!(sender.send_in_order(&late, &sent, soon()).await, (0, Err(SendError::Stalled)));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    world.set_faults(json!({})).await;
    sender.try_again();
    for device in devices.iter().chain([&late]) {
        assert_eq!(sender.send_in_order(device, &sent, soon()).await, (3, Ok(())));
        assert_eq!(world.distinct(&device.id).await, ids(&sent));
    }
}

async fn a_hub_that_swallows_what_is_sent_to_it_is_called_unreachable(transport: Transport) {
    let world = World::start(transport).await;
    // Accepts connections and never sends a byte.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut device = world.device("d");
    device.endpoint.port = Some(silent.local_addr().unwrap().port());
    let (_, outcome) = world.sender().send_in_order(&device, &messages(1), soon()).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("did not answer"), "{error}");
    assert_eq!(error.to_string().contains("mqtt-ws"), transport == Transport::Mqtt, "{error}");
}
