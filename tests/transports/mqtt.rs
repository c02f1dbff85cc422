//! Tests what only MQTT has: connections that are kept, taken over and cut, and a session that may bring commands.

use futures::future::join_all;
use iothub_connector::iot_hub::{Devicebound, SendError, Sender, Settlement, Transport};
use rumqttc::QoS;
use serde_json::json;

use super::support::{World, ids, messages, soon};

const BOTH: [Transport; 2] = [Transport::Mqtt, Transport::MqttWs];

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_a_hub_is_told_from_a_second_client_by_several_devices() {
    let world = World::start(Transport::Mqtt).await;
    let (sender, sent) = (world.sender(), messages(1));
    world.set_faults(json!({"cutAfterConnectTimes": 1_000})).await;
    let devices = ["a", "b", "c", "d"].map(|id| world.device(id));
    let outcomes = join_all(devices.iter().map(|device| sender.send_in_order(device, &sent, soon()))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == (0, Err(SendError::AllCut))), "{outcomes:?}");
    let before = world.counts().connects;
    let (_, outcome) = sender.send_in_order(&world.device("e"), &sent, soon()).await;
    assert_eq!(outcome, Err(SendError::AllCut), "told without trying");
    assert_eq!(world.counts().connects, before);
    world.set_faults(json!({})).await;
    sender.try_again();
    for device in &devices {
        assert_eq!(sender.send_in_order(device, &sent, soon()).await, (1, Ok(())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_for_one_device_however_many_send() {
    let world = World::start(Transport::Mqtt).await;
    let mut options = world.options();
    options.max_connections = 1.try_into().unwrap();
    let (sender, device, sent) = (Sender::new(options), world.device("d"), messages(20));
    let all = (0..16).map(|_| sender.send_in_order(&device, &sent, soon()));
    let outcomes = futures::future::join_all(all).await;
    assert!(outcomes.iter().all(|outcome| *outcome == (20, Ok(()))), "{outcomes:?}");
    assert_eq!((world.counts().connects, world.counts().messages), (1, 320));
}

/// The hub pushes commands onto the telemetry connection of a device whose session has a subscription.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_session_brings_is_left_to_the_hub_and_comes_over_https() {
    for transport in BOTH {
        let world = World::start(transport).await;
        let (sender, device) = (world.sender(), world.device("d"));
        world.subscribe_as("d", QoS::AtLeastOnce).await;
        world.post_command("d", "1").await;
        for sent in messages(2) {
            assert_eq!(sender.send_in_order(&device, &[sent], soon()).await, (1, Ok(())));
        }
        // The hub pushed the first one before the client could unsubscribe.
        assert_eq!(world.commands("d", "locked:1").await, ["locked"], "{transport:?}");
        world.post_command("d", "2").await;
        world.unlock_commands("d").await;
        assert_eq!(world.commands("d", "enqueued:2").await, ["enqueued", "enqueued"], "{transport:?}");
        world.cut().await;
        assert_eq!(sender.send_in_order(&device, &messages(1), soon()).await, (1, Ok(())));
        assert_eq!(world.commands("d", "enqueued:2").await, ["enqueued", "enqueued"], "the subscription is gone");

        let devicebound = Devicebound::new(world.options().http);
        for (id, deliveries) in [("1", 2), ("2", 1)] {
            let command = devicebound.receive(&device, soon()).await.unwrap().expect("a command");
            assert_eq!((command.message_id.as_deref(), command.delivery_count), (Some(id), deliveries));
            devicebound.settle(&device, &command, Settlement::Complete, soon()).await.unwrap();
        }
        assert_eq!(world.commands("d", "completed:2").await, ["completed", "completed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_nobody_acknowledges_hold_up_no_telemetry() {
    let world = World::start(Transport::Mqtt).await;
    let (sender, device, sent) = (world.sender(), world.device("d"), messages(200));
    world.subscribe_as("d", QoS::AtLeastOnce).await;
    // More messages than the hub has in flight at once.
    for number in 0..30 {
        world.post_command("d", &number.to_string()).await;
    }
    assert_eq!(sender.send_in_order(&device, &sent, soon()).await, (200, Ok(())));
    let states = world.commands("d", "locked:20").await;
    let count = |state: &str| states.iter().filter(|found| *found == state).count();
    assert_eq!((count("locked"), count("enqueued")), (20, 10), "{states:?}");
}

/// At QoS 0 the hub counts a sent message as done: messages that it pushed at once are lost, later ones are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_at_qos_0_takes_no_more_commands() {
    let world = World::start(Transport::Mqtt).await;
    let (sender, device) = (world.sender(), world.device("d"));
    world.subscribe_as("d", QoS::AtMostOnce).await;
    for sent in messages(2) {
        assert_eq!(sender.send_in_order(&device, &[sent], soon()).await, (1, Ok(())));
    }
    world.post_command("d", "1").await;
    assert_eq!(sender.send_in_order(&device, &messages(1), soon()).await, (1, Ok(())));
    assert_eq!(world.commands("d", "enqueued:1").await, ["enqueued"]);
}

/// As two apps with the same settings: the hub keeps one connection for each device, so each app cuts the other's.
#[tokio::test(flavor = "multi_thread")]
async fn two_senders_that_take_each_others_devices_over_both_finish() {
    let contest = async |count: usize| {
        let world = World::start(Transport::Mqtt).await;
        let senders = [world.sender(), world.sender()];
        let devices: Vec<_> = (0..count).map(|n| world.device(&format!("d{n}"))).collect();
        let sent = messages(20);
        for round in 0..10 {
            let send = |device| senders.each_ref().map(|sender| sender.send_in_order(device, &sent, soon()));
            let outcomes = join_all(devices.iter().flat_map(send)).await;
            let failed: Vec<_> = outcomes.iter().filter(|outcome| **outcome != (20, Ok(()))).collect();
            assert!(failed.is_empty(), "{count} devices, round {round}: {} failed: {failed:?}", failed.len());
        }
        for device in &devices {
            assert_eq!(world.distinct(&device.id).await, ids(&sent), "in order");
        }
    };
    tokio::join!(contest(1), contest(4), contest(20));
}
