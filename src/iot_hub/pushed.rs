//! Cloud-to-device messages that the hub pushes over a device's own MQTT connection.
//! <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#receiving-cloud-to-device-messages>
//!
//! A pushed message is locked as a fetched one is. Its PUBACK completes it; MQTT has neither reject nor abandon.

use std::{sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use rumqttc::{AsyncClient, Publish};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{CloudMessage, Device, SendError};

/// How long the hub keeps a message locked for the device, unless its settings say otherwise. Then it pushes it again.
pub const LOCK: Duration = Duration::from_secs(60);
/// No attempt begins later than this after the message came: it takes up to ten seconds, and the PUBACK must reach the hub
/// before the lock ends.
const LATEST: Duration = Duration::from_secs(45);

/// Where a device's connections put what the hub pushes.
#[derive(Clone)]
pub struct Inbox {
    pub device: Arc<Device>,
    pub arrivals: mpsc::Sender<Arrival>,
}

/// What happens on a connection that listens.
pub enum Arrival {
    Message(Box<Pushed>),
    /// The connection has ended after so much time: nothing is pushed until there is another one.
    Ended(Arc<Device>, Duration),
}

/// A message that the hub has pushed.
pub struct Pushed {
    pub device: Arc<Device>,
    pub message: CloudMessage,
    came: Instant,
    publish: Publish,
    client: AsyncClient,
    ended: watch::Receiver<Option<SendError>>,
}

impl Pushed {
    pub(super) fn new(
        device: Arc<Device>,
        publish: Publish,
        client: AsyncClient,
        ended: watch::Receiver<Option<SendError>>,
    ) -> Self {
        let message = message(&String::from_utf8_lossy(&publish.topic), &publish);
        Self { device, message, came: Instant::now(), publish, client, ended }
    }

    /// Whether the connection on which it came has ended. Then the hub pushes the message again on the next one.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// When the last attempt may begin. Later, the hub may take the message back before it is handled.
    #[must_use]
    pub fn latest(&self) -> Instant {
        self.came + LATEST
    }

    /// Completes the message, unless its lock has ended: then the hub has taken it back. Returns whether the acknowledgement was
    /// handed to a connection that lives; whether the hub gets it is not told.
    pub async fn complete(&self) -> bool {
        self.came.elapsed() < LOCK && self.client.ack(&self.publish).await.is_ok() && !self.is_gone()
    }
}

/// Reads the property bag at the end of the topic.
fn message(topic: &str, publish: &Publish) -> CloudMessage {
    let bag = topic.split_once("/messages/devicebound/").map_or("", |(_, bag)| bag);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = bag.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    let mut message = CloudMessage {
        delivery_count: if publish.dup { 2 } else { 1 },
        body: publish.payload.clone(),
        ..CloudMessage::default()
    };
    for (name, value) in pairs {
        match name.as_str() {
            "$.mid" => message.message_id = Some(value),
            "$.ct" => message.content_type = Some(value),
            // `iothub-ack` is how the sender requests feedback.
            _ if name.starts_with("$.") || name == "iothub-ack" => {}
            // As over HTTPS, where the names are in lower case.
            _ => drop(message.properties.insert(name.to_ascii_lowercase(), value)),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;

    use super::*;

    #[test]
    fn the_topic_has_the_properties() {
        let topic = "devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&%24.mid=a%20b%2F1\
                     &%24.ct=application%2Fjson&Port=15&note=100%25%20%C3%BC&flag&iothub-ack=full";
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, "body");
        let read = message(topic, &publish);
        let properties = [("flag", ""), ("note", "100% ü"), ("port", "15")];
        assert_eq!(read.properties, properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(
            (read.message_id.as_deref(), read.content_type.as_deref()),
            (Some("a b/1"), Some("application/json"))
        );
        assert_eq!((&*read.body, read.delivery_count, read.sequence_number), (&b"body"[..], 1, None));
        publish.dup = true;
        let read = message("devices/d/messages/devicebound/", &publish);
        assert_eq!((read.message_id, read.properties.len(), read.delivery_count), (None, 0, 2));
    }
}
