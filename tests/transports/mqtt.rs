//! What only MQTT has: connections that are kept, taken over and cut.

use iothub_connector::iot_hub::{SendError, Sender, Transport};
use serde_json::json;

use super::support::{World, messages, soon};

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_a_hub_is_told_from_a_second_client_by_three_devices() {
    let world = World::start(Transport::Mqtt).await;
    let sender = world.sender();
    world.set_faults(json!({"cutAfterConnectTimes": 100})).await;
    for id in ["a", "b", "c"] {
        let (_, outcome) = sender.send_in_order(&world.device(id), &messages(1), soon()).await;
        assert!(matches!(outcome, Err(SendError::AcceptedThenCut { .. } | SendError::AllCut)), "{outcome:?}");
    }
    let before = world.counts().connects;
    let (_, outcome) = sender.send_in_order(&world.device("d"), &messages(1), soon()).await;
    assert_eq!(outcome, Err(SendError::AllCut), "the fourth is told without trying");
    assert_eq!(world.counts().connects, before);
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
