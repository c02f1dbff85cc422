//! Sends messages to a device on its MQTT connection while it is subscribed, and completes them when it acknowledges.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::packet::Qos;
use tokio::{sync::watch, time::Instant};

use super::{
    c2d::{Mailbox, Outcome},
    hub::{Hub, Presence},
    packets,
};

/// The most messages on a connection that are in flight without acknowledgement.
const MAX_IN_FLIGHT: usize = 20;

/// The messages for one device on one connection. Dropping it returns the unacknowledged ones to the queue.
pub struct Outbox<'a> {
    hub: &'a Hub,
    presence: &'a Presence,
    mailbox: Arc<Mailbox>,
    changed: watch::Receiver<()>,
    /// As granted. `None` without a subscription.
    qos: Option<Qos>,
}

/// The topic filter that a device must subscribe to for its messages.
pub fn filter(device_id: &str) -> String {
    format!("devices/{device_id}/messages/devicebound/#")
}

impl<'a> Outbox<'a> {
    pub fn new(hub: &'a Hub, presence: &'a Presence) -> Self {
        let mailbox = hub.c2d.mailbox(&presence.device_id);
        let changed = mailbox.subscribe();
        let mut outbox = Self { hub, presence, mailbox, changed, qos: None };
        outbox.resubscribed();
        outbox
    }

    /// Reads the device's subscriptions again.
    pub fn resubscribed(&mut self) {
        self.qos = self.presence.granted(&filter(&self.presence.device_id));
    }

    /// Writes the messages that may be sent now.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let Some(qos) = self.qos else { return };
        // Before the queue is read, so that a later change is noticed.
        self.changed.borrow_and_update();
        let holder = self.presence.number;
        let device_id = &self.presence.device_id;
        while let Some(delivery) = self.mailbox.with(|queue| {
            let next = if queue.in_flight(holder) < MAX_IN_FLIGHT { queue.lock(Some(holder)) } else { None };
            if let (Some(delivery), Qos::AtMostOnce) = (&next, qos) {
                let completed = queue.settle(&delivery.token, Outcome::Complete);
                debug_assert!(completed.is_ok(), "locked just now");
            }
            next
        }) {
            let place = if self.hub.faults().misspells(device_id) { "devicebounds" } else { "devicebound" };
            let topic = format!("devices/{device_id}/messages/{place}/{}", delivery.message.bag(device_id));
            match packets::publish(&topic, qos, delivery.packet_id, delivery.dup, &delivery.message.body) {
                Some(packet) => out.extend(packet),
                None => tracing::error!(device = device_id, "a message whose topic is too long for MQTT"),
            }
        }
    }

    /// The device acknowledged a message. An acknowledgement that is not due is only logged.
    pub fn acknowledged(&self, packet_id: u16) {
        if self.mailbox.with(|queue| queue.acknowledge(packet_id, self.presence.number)).is_err() {
            tracing::warn!(device = self.presence.device_id, packet_id, "PUBACK for nothing; was the lock lost?");
        }
    }

    /// When to write again even if nothing changes.
    pub fn next_due(&self) -> Option<Instant> {
        self.qos.and_then(|_| self.mailbox.with(|queue| queue.next_due()))
    }

    /// Waits for a reason to write again.
    pub async fn changed(&mut self) {
        if self.qos.is_none() || self.changed.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Outbox<'_> {
    fn drop(&mut self) {
        self.mailbox.with(|queue| queue.release(self.presence.number));
    }
}
