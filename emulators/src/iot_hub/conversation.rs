//! What is said on a connection after CONNECT: packets in, answers out, no I/O. The hub's rules are here.
//!
//! Source: <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    packet::{
        Qos,
        v3_1_1::{Publish, Subscribe, Unsubscribe},
    },
    result_code::SubackReturnCode,
};
use tokio::time::Instant;

use super::{
    devicebound::{self, Outbox},
    faults::OnPublish,
    hub::{Hub, MAX_SUBSCRIPTIONS, Presence},
    packets::{self, Packet},
    received::{Draft, Transport},
    telemetry, twin,
};
use crate::steps::Step;

/// Topics every device may subscribe to, apart from its own `devices/{device id}/messages/devicebound/#`.
const SHARED_FILTERS: [&str; 3] = [twin::FILTER, "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#"];

/// The name of the property that stands for MQTT's RETAIN flag.
const RETAIN_PROPERTY: &str = "mqtt-retain";

/// What ends a conversation.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// DISCONNECT.
    Disconnect,
    /// The device broke a rule, namely this one.
    Violation(String),
    /// A fault was asked for.
    Fault(&'static str),
}

pub struct Conversation<'a> {
    pub hub: &'a Hub,
    presence: &'a Presence,
    transport: Transport,
    /// Answers to be written.
    pub out: Vec<u8>,
    /// Acknowledgements of messages among them.
    pub acknowledged: usize,
    /// Acknowledgements held back, with the time at which they are due, earliest first.
    late: VecDeque<(Instant, u16)>,
    /// Messages recorded on this connection.
    messages: u64,
    /// When a fault cuts the connection.
    cut_at: Option<Instant>,
    outbox: Outbox<'a>,
}

impl<'a> Conversation<'a> {
    pub fn new(hub: &'a Hub, presence: &'a Presence, transport: Transport) -> Self {
        Self {
            hub,
            presence,
            transport,
            out: Vec::new(),
            acknowledged: 0,
            late: VecDeque::new(),
            messages: 0,
            cut_at: None,
            outbox: Outbox::new(hub, presence),
        }
    }

    /// Takes a packet that came at `now`. After a [`Stop`], what is in `out` is still to be written.
    pub fn take(&mut self, packet: Packet, now: Instant) -> Result<(), Stop> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish, now),
            Packet::Subscribe(_) if self.hub.faults().cuts_subscription(&self.presence.device_id) => {
                Err(Stop::Fault("a fault: cut at SUBSCRIBE"))
            }
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe).map_err(Stop::Violation),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe).map_err(Stop::Violation),
            Packet::Pingreq => {
                self.out.extend(packets::pingresp());
                Ok(())
            }
            Packet::Puback(packet_id) => {
                self.outbox.acknowledged(packet_id);
                Ok(())
            }
            Packet::Disconnect => Err(Stop::Disconnect),
            Packet::Connect(_) => Err(Stop::Violation("a second CONNECT".into())),
        }
    }

    /// When [`Self::advance`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let late = self.late.front().map(|(due, _)| *due);
        [late, self.cut_at, self.outbox.next_due()].into_iter().flatten().min()
    }

    /// Waits for a reason to call [`Self::advance`] before that.
    pub async fn changed(&mut self) {
        self.outbox.changed().await
    }

    /// Lets go of the acknowledgements that are due and of the messages that wait for the device.
    pub fn advance(&mut self, now: Instant) -> Result<(), Stop> {
        while let Some((due, packet_id)) = self.late.front().copied()
            && due <= now
        {
            self.late.pop_front();
            self.puback(packet_id);
        }
        if self.cut_at.is_some_and(|cut_at| cut_at <= now) {
            return Err(Stop::Fault("cut some time after a message"));
        }
        self.outbox.write(&mut self.out);
        Ok(())
    }

    fn publish(&mut self, publish: &Publish, now: Instant) -> Result<(), Stop> {
        let packet_id = match (publish.qos(), publish.packet_id()) {
            (Qos::AtMostOnce, _) => None,
            (Qos::AtLeastOnce, Some(packet_id)) if packet_id != 0 => Some(packet_id),
            (Qos::AtLeastOnce, _) => return Err(Stop::Violation("PUBLISH with packet id 0".into())),
            (Qos::ExactlyOnce, _) => return Err(Stop::Violation("PUBLISH with QoS 2".into())),
        };
        if let Some(request) = twin::Request::of_topic(publish.topic_name()) {
            return self.twin(request, publish.payload().as_slice(), packet_id, now);
        }
        let draft = self.draft(publish).map_err(Stop::Violation)?;
        let device_id = &self.presence.device_id;
        let fate = self.hub.faults().on_publish(device_id, packet_id.is_some(), self.messages);
        match fate {
            OnPublish::Ignore => Ok(()),
            OnPublish::Cut { record } => {
                if record {
                    self.hub.record(device_id, [draft]);
                }
                Err(Stop::Fault("cut before PUBACK"))
            }
            OnPublish::Accept { delay, cut, cut_after } => {
                self.cut_at = self.cut_at.or(cut_after.map(|cut_after| now + cut_after));
                if self.hub.steps.loses(Step::MessageCame) {
                    return Err(Stop::Fault("a message was lost"));
                }
                self.hub.record(device_id, [draft]);
                self.hub.steps.reached(Step::MessageTaken);
                self.messages += 1;
                if let Some(packet_id) = packet_id {
                    self.acknowledge(packet_id, now, delay)?;
                }
                if cut { Err(Stop::Fault("cut after so many messages")) } else { Ok(()) }
            }
        }
    }

    fn twin(
        &mut self,
        request: twin::Request<'_>,
        body: &[u8],
        packet_id: Option<u16>,
        now: Instant,
    ) -> Result<(), Stop> {
        let device_id = &self.presence.device_id;
        let (ignores, misspells) = {
            let faults = self.hub.faults();
            (faults.ignores(device_id), faults.misspells(device_id))
        };
        if ignores {
            return Ok(());
        }
        if let Some(packet_id) = packet_id {
            self.acknowledge(packet_id, now, Duration::ZERO)?;
        }
        let mut answer = self.hub.twins.answer(device_id, request, body);
        if misspells {
            answer.topic = answer.topic.replace("/twin/res/", "/twin/result/");
        }
        // Without the subscription nobody hears the answer.
        if self.presence.granted(twin::FILTER).is_some() {
            let packet = packets::publish(&answer.topic, Qos::AtMostOnce, 0, false, &answer.body);
            self.out.extend(packet.ok_or_else(|| Stop::Violation("a $rid too long to answer to".into()))?);
        }
        Ok(())
    }

    fn draft(&self, publish: &Publish) -> Result<Draft, String> {
        let device_id = &self.presence.device_id;
        let body = publish.payload().as_slice();
        let mut properties = telemetry::parse_topic(publish.topic_name(), device_id)?;
        let size = telemetry::size(body, &properties);
        if size > telemetry::MAX_MESSAGE {
            return Err(format!("a message of {size} bytes; {} are allowed", telemetry::MAX_MESSAGE));
        }
        if publish.retain() {
            properties.application.insert(RETAIN_PROPERTY.into(), "true".into());
        }
        Ok(Draft {
            device_id: device_id.clone(),
            transport: self.transport,
            properties,
            body: Bytes::copy_from_slice(body),
            dup: publish.dup(),
        })
    }

    /// Acknowledgements keep the order of their messages, also when the delay is made shorter meanwhile.
    fn acknowledge(&mut self, packet_id: u16, now: Instant, delay: Duration) -> Result<(), Stop> {
        if delay.is_zero() && self.late.is_empty() {
            self.puback(packet_id);
            return Ok(());
        }
        if self.late.len() >= usize::from(u16::MAX) {
            return Err(Stop::Violation("more messages in flight than there are packet ids".into()));
        }
        let last = self.late.back().map_or(now, |(due, _)| *due);
        self.late.push_back((last.max(now + delay), packet_id));
        Ok(())
    }

    fn puback(&mut self, packet_id: u16) {
        self.out.extend(packets::puback(packet_id));
        self.acknowledged += 1;
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), String> {
        let entries = subscribe.entries();
        if entries.len() > MAX_SUBSCRIPTIONS {
            return Err(format!("more than {MAX_SUBSCRIPTIONS} subscriptions"));
        }
        for entry in entries {
            if !self.may_subscribe(entry.topic_filter()) {
                return Err(format!("SUBSCRIBE to {:?}", entry.topic_filter()));
            }
        }
        let granted = |qos| if qos == Qos::AtMostOnce { qos } else { Qos::AtLeastOnce };
        let grants = entries.iter().map(|entry| (entry.topic_filter(), granted(entry.sub_opts().qos())));
        self.presence.subscribe(grants.clone())?;
        self.outbox.resubscribed();
        let granted = grants.map(|(_, qos)| match qos {
            Qos::AtMostOnce => SubackReturnCode::SuccessMaximumQos0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => SubackReturnCode::SuccessMaximumQos1,
        });
        let answer = packets::suback(subscribe.packet_id(), granted.collect());
        self.out.extend(answer.ok_or("SUBSCRIBE with packet id 0")?);
        Ok(())
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) -> Result<(), String> {
        self.presence.unsubscribe(unsubscribe.entries().iter().map(|entry| entry.as_str()));
        self.outbox.resubscribed();
        let answer = packets::unsuback(unsubscribe.packet_id());
        self.out.extend(answer.ok_or("UNSUBSCRIBE with packet id 0")?);
        Ok(())
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        SHARED_FILTERS.contains(&filter) || filter == devicebound::filter(&self.presence.device_id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{login::Login, received::Log},
        *,
    };

    fn hub(faults: &str) -> Arc<Hub> {
        let hub = Arc::new(Hub::for_tests(Log::new(10, 10_000_000)));
        *hub.faults() = serde_json::from_str(faults).unwrap();
        hub
    }

    fn enter(hub: &Arc<Hub>) -> Presence {
        hub.enter(Login { device_id: "d".into(), expiry: 0, signature: vec![] }, true).0
    }

    fn message(packet_id: u16) -> Packet {
        message_to("devices/d/messages/events/", packet_id, Qos::AtLeastOnce, vec![b'x'])
    }

    fn message_to(topic: &str, packet_id: u16, qos: Qos, body: Vec<u8>) -> Packet {
        let publish = Publish::builder().topic_name(topic).unwrap().qos(qos).packet_id(packet_id).payload(body);
        Packet::Publish(publish.build().unwrap())
    }

    #[test]
    fn late_acknowledgements_keep_their_order() {
        let hub = hub(r#"{"pubackDelayMs":100}"#);
        let presence = enter(&hub);
        let mut talk = Conversation::new(&hub, &presence, Transport::Mqtt);
        let start = Instant::now();
        talk.take(message(1), start).unwrap();
        *hub.faults() = serde_json::from_str("{}").unwrap();
        talk.take(message(2), start).unwrap();
        assert!(talk.out.is_empty());
        assert_eq!(talk.next_due(), Some(start + Duration::from_millis(100)));
        talk.advance(start + Duration::from_millis(99)).unwrap();
        assert!(talk.out.is_empty());
        talk.advance(start + Duration::from_millis(100)).unwrap();
        assert_eq!(talk.out, [packets::puback(1), packets::puback(2)].concat());
        talk.take(message(3), start).unwrap();
        assert_eq!(talk.out.len(), 12, "nothing is held back any more");
        assert_eq!(hub.log.select(None, None).len(), 3);
    }

    #[test]
    fn a_message_of_the_largest_size_passes_and_one_byte_more_does_not() {
        let hub = hub("{}");
        let presence = enter(&hub);
        let mut talk = Conversation::new(&hub, &presence, Transport::Mqtt);
        let topic = "devices/d/messages/events/%24.mid=1234&k=v";
        let body = vec![0; telemetry::MAX_MESSAGE - 6];
        talk.take(message_to(topic, 1, Qos::AtLeastOnce, body.clone()), Instant::now()).unwrap();
        let too_long = [body, vec![0]].concat();
        let stop = talk.take(message_to(topic, 2, Qos::AtLeastOnce, too_long), Instant::now());
        assert_eq!(stop, Err(Stop::Violation("a message of 262145 bytes; 262144 are allowed".into())));
        assert_eq!((hub.log.select(None, None).len(), talk.out.len()), (1, 4));
    }

    #[test]
    fn each_device_has_four_topics_to_subscribe_to() {
        let hub = hub("{}");
        let presence = enter(&hub);
        let talk = Conversation::new(&hub, &presence, Transport::Mqtt);
        for filter in [&["devices/d/messages/devicebound/#"], &SHARED_FILTERS[..]].concat() {
            assert!(talk.may_subscribe(filter), "{filter}");
        }
        for filter in
            ["#", "devices/e/messages/devicebound/#", "devices/d/messages/events/#", "devices/d/messages/devicebound/"]
        {
            assert!(!talk.may_subscribe(filter), "{filter}");
        }
    }
}
