//! The Device Provisioning Service over MQTT: a client whose user name is
//! `{scope}/registrations/{id}/api-version=…` publishes its requests and gets the answers on a topic that it subscribes to.
//!
//! | Client | Topic |
//! |---|---|
//! | subscribes to | `$dps/registrations/res/#` |
//! | registers | `$dps/registrations/PUT/iotdps-register/?$rid={n}` |
//! | polls | `$dps/registrations/GET/iotdps-get-operationstatus/?$rid={n}&operationId={id}` |
//! | is answered on | `$dps/registrations/res/{status}/?$rid={n}&retry-after={seconds}`, at QoS 0 |
//!
//! Every CONNECT is accepted: a bad token shows with the first request, as status 401. The same over WebSocket.
//!
//! Source: <https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support>.

use std::{borrow::Cow, io, net::SocketAddr};

use mqtt_protocol_core::mqtt::{
    packet::{
        Qos,
        v3_1_1::{Connect, Publish, Subscribe},
    },
    result_code::{ConnectReturnCode, SubackReturnCode},
};
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    MAX_BODY,
    answer::Reply,
    reply,
    state::{Request, Step},
};
use crate::iot_hub::{
    conversation::Stop,
    hub::Hub,
    packets::{self, Malformed, Packet, PacketReader},
    stream::{End, patience, write},
};

const FILTER: &str = "$dps/registrations/res/#";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/";
const POLL: &str = "$dps/registrations/GET/iotdps-get-operationstatus/";

/// Who registers.
struct Registrant<'a> {
    scope: &'a str,
    id: &'a str,
    token: Option<&'a str>,
}

/// A connection and what has been agreed on it.
struct Talk<'a, S> {
    hub: &'a Hub,
    reader: &'a mut PacketReader<S>,
    registrant: Registrant<'a>,
    subscribed: bool,
}

/// Whether a CONNECT is for the Device Provisioning Service, not for the hub.
pub fn is_meant(connect: &Connect) -> bool {
    connect.user_name().and_then(split_user_name).is_some()
}

/// Serves such a client until its connection ends.
///
/// # Errors
/// It is not let in.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Hub,
    reader: &mut PacketReader<S>,
    connect: &Connect,
    peer: SocketAddr,
) -> Result<(), End> {
    let (scope, id) = connect.user_name().and_then(split_user_name).unwrap_or_default();
    if connect.client_id() != id {
        let reason = format!("the client id is {:?}, but the user name says {id:?}", connect.client_id());
        return Err(End::Refused(ConnectReturnCode::IdentifierRejected, reason));
    }
    let token = connect.password().and_then(|password| std::str::from_utf8(password).ok());
    tracing::info!(%peer, registration = id, "connected to the Device Provisioning Service");
    let mut talk = Talk { hub, reader, registrant: Registrant { scope, id, token }, subscribed: false };
    let end = talk.converse(connect.keep_alive()).await.unwrap_or_else(End::Failed);
    tracing::info!(%peer, registration = id, "disconnected from the Device Provisioning Service: {end}");
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    async fn converse(&mut self, keep_alive: u16) -> io::Result<End> {
        self.write(&packets::connack(false, ConnectReturnCode::Accepted)).await?;
        let mut deadline = Instant::now() + patience(keep_alive);
        loop {
            match self.reader.next() {
                Ok(Some(packet)) => {
                    let stop = self.take(packet).await?;
                    deadline = Instant::now() + patience(keep_alive);
                    if let Err(stop) = stop {
                        return Ok(End::Stopped(stop));
                    }
                }
                Ok(None) => match timeout_at(deadline, self.reader.fill()).await {
                    Ok(Ok(0)) => return Ok(End::Closed),
                    Ok(read) => drop(read?),
                    Err(_) => return Ok(End::Silent),
                },
                Err(Malformed::ProtocolLevel) => return Ok(violation("a second CONNECT")),
                Err(Malformed::Other(reason)) => return Ok(violation(&reason)),
            }
        }
    }

    async fn take(&mut self, packet: Packet) -> io::Result<Result<(), Stop>> {
        match packet {
            Packet::Publish(publish) => return self.publish(&publish).await,
            Packet::Subscribe(subscribe) => match self.subscribe(&subscribe) {
                Ok(suback) => self.write(&suback).await?,
                Err(reason) => return Ok(Err(Stop::Violation(reason))),
            },
            Packet::Unsubscribe(unsubscribe) => {
                self.subscribed = false;
                let Some(unsuback) = packets::unsuback(unsubscribe.packet_id()) else {
                    return Ok(Err(Stop::Violation("UNSUBSCRIBE with packet id 0".into())));
                };
                self.write(&unsuback).await?;
            }
            Packet::Pingreq => self.write(&packets::pingresp()).await?,
            Packet::Puback(_) => {}
            Packet::Disconnect => return Ok(Err(Stop::Disconnect)),
            Packet::Connect(_) => return Ok(Err(Stop::Violation("a second CONNECT".into()))),
        }
        Ok(Ok(()))
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Vec<u8>, String> {
        let entries = subscribe.entries();
        if let Some(other) = entries.iter().find(|entry| entry.topic_filter() != FILTER) {
            return Err(format!("SUBSCRIBE to {:?}; there is only {FILTER:?}", other.topic_filter()));
        }
        self.subscribed = true;
        let granted = entries.iter().map(|entry| match entry.sub_opts().qos() {
            Qos::AtMostOnce => SubackReturnCode::SuccessMaximumQos0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => SubackReturnCode::SuccessMaximumQos1,
        });
        packets::suback(subscribe.packet_id(), granted.collect()).ok_or("SUBSCRIBE with packet id 0".into())
    }

    async fn publish(&mut self, publish: &Publish) -> io::Result<Result<(), Stop>> {
        let body = publish.payload().as_slice();
        let asked = match ask(publish.topic_name(), body) {
            _ if publish.qos() == Qos::ExactlyOnce => Err("PUBLISH with QoS 2".into()),
            _ if body.len() > MAX_BODY => Err(format!("a body of more than {MAX_BODY} bytes")),
            asked => asked,
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(reason) => return Ok(Err(Stop::Violation(reason))),
        };
        if let Some(packet_id) = publish.packet_id() {
            self.write(&packets::puback(packet_id)).await?;
        }
        let Registrant { scope, id, token } = self.registrant;
        let request = Request { scope, registration_id: id, token, step: asked.step() };
        match reply(self.hub, &request).await {
            Reply::HangUp => return Ok(Err(Stop::Fault("cut instead of an answer"))),
            Reply::Answer(answer) if self.subscribed => {
                let retry_after = answer.retry_after.map(|seconds| format!("&retry-after={seconds}"));
                let topic = format!(
                    "$dps/registrations/res/{}/?$rid={}{}",
                    answer.status,
                    asked.rid,
                    retry_after.unwrap_or_default()
                );
                let packet = packets::publish(&topic, Qos::AtMostOnce, 0, false, answer.body.as_bytes());
                self.write(&packet.unwrap_or_default()).await?;
            }
            Reply::Answer(_) => tracing::warn!(registration = id, "asked without a subscription to {FILTER:?}"),
        }
        Ok(Ok(()))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write(&mut self.reader.stream, bytes).await
    }
}

/// Id scope and registration id of `{scope}/registrations/{id}/api-version=…[&…]`.
fn split_user_name(user_name: &str) -> Option<(&str, &str)> {
    let mut parts = user_name.splitn(4, '/');
    let (scope, kind, id, parameters) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (kind == "registrations" && parameters.contains("api-version=")).then_some((scope, id))
}

fn violation(reason: &str) -> End {
    End::Stopped(Stop::Violation(reason.into()))
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    /// The client's number of the request, as sent.
    rid: &'a str,
    /// Of a poll; without one it is a registration.
    operation_id: Option<Cow<'a, str>>,
    body: &'a [u8],
}

impl Asked<'_> {
    fn step(&self) -> Step<'_> {
        match &self.operation_id {
            Some(operation_id) => Step::Poll { operation_id },
            None => Step::Register { body: self.body },
        }
    }
}

/// Reads a topic a client published to.
fn ask<'a>(topic: &'a str, body: &'a [u8]) -> Result<Asked<'a>, String> {
    let wrong = |what: &str| format!("PUBLISH to {topic:?}, {what}");
    let (poll, query) = match (topic.strip_prefix(REGISTER), topic.strip_prefix(POLL)) {
        (Some(query), _) => (false, query),
        (_, Some(query)) => (true, query),
        _ => return Err(wrong("which is not a topic of this service")),
    };
    let query = query.strip_prefix('?').ok_or_else(|| wrong("which has no `?`"))?;
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let rid = parameter("$rid").ok_or_else(|| wrong("which has no `$rid`"))?;
    if !poll {
        return Ok(Asked { rid, operation_id: None, body });
    }
    let operation_id = parameter("operationId").ok_or_else(|| wrong("which has no `operationId`"))?;
    let operation_id = percent_decode_str(operation_id).decode_utf8().map_err(|_| wrong("which is not UTF-8"))?;
    Ok(Asked { rid, operation_id: Some(operation_id), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_devices_of_the_hub_are_told_apart() {
        for name in
            ["0ne1/registrations/d/api-version=2019-03-31", "0ne1/registrations/d/api-version=1&ClientVersion=a/b"]
        {
            assert_eq!(split_user_name(name), Some(("0ne1", "d")), "{name}");
        }
        for name in ["hub/d/?api-version=2021-04-12", "hub/registrations/?api-version=1", "hub/d/m/?api-version=1", ""]
        {
            assert_eq!(split_user_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_topics_of_microsofts_sdks_are_read() {
        let register = ask("$dps/registrations/PUT/iotdps-register/?$rid=7", b"{}").unwrap();
        assert_eq!(register, Asked { rid: "7", operation_id: None, body: b"{}" });
        let poll = ask("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=a-b&operationId=5.1%2E2", b"").unwrap();
        assert_eq!(poll, Asked { rid: "a-b", operation_id: Some("5.1.2".into()), body: b"" });
    }

    #[test]
    fn other_topics_are_refused_with_a_reason() {
        for (topic, reason) in [
            ("devices/d/messages/events/", "not a topic of this service"),
            ("$dps/registrations/PUT/iotdps-register/$rid=7", "no `?`"),
            ("$dps/registrations/PUT/iotdps-register/?rid=7", "no `$rid`"),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=7", "no `operationId`"),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=7&operationId=%FF", "not UTF-8"),
        ] {
            let error = ask(topic, b"").unwrap_err();
            assert!(error.contains(reason), "{topic}: {error}");
        }
    }
}
