//! Reads and writes MQTT 3.1.1 packets on a byte stream, as a server. The codec is `mqtt-protocol-core`'s. The
//! connector does not use it, so a mistake in one of the two codecs cannot be hidden by the same mistake in the other.

use std::io;

use bytes::{Buf, BytesMut};
use mqtt_protocol_core::mqtt::{
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket},
    packet::{
        Qos,
        v3_1_1::{Connack, Connect, Pingresp, Puback, Publish, Suback, Subscribe, Unsuback, Unsubscribe},
    },
    result_code::{ConnectReturnCode, MqttError, SubackReturnCode},
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::telemetry::MAX_MESSAGE;

/// Largest packet that is read, in bytes: the largest message with the longest topic.
const MAX_PACKET: u32 = MAX_MESSAGE as u32 + u16::MAX as u32 + 16;

/// Bytes requested from the stream at a time.
const READ_SIZE: usize = 64 * 1024;

/// A packet that a device may send.
#[derive(Debug)]
pub enum Packet {
    Connect(Connect),
    Publish(Publish),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    /// The acknowledged packet id.
    Puback(u16),
    Pingreq,
    Disconnect,
}

/// Why a packet is invalid.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A CONNECT of another version of MQTT.
    ProtocolLevel,
    Other(String),
}

/// Splits a stream into packets.
pub struct PacketReader<S> {
    pub stream: S,
    buffer: BytesMut,
    builder: PacketBuilder,
}

impl<S: AsyncRead + Unpin> PacketReader<S> {
    pub fn new(stream: S) -> Self {
        let builder = PacketBuilder::with_maximum_packet_size(MAX_PACKET);
        Self { stream, buffer: BytesMut::new(), builder }
    }

    /// Reads more bytes. Returns 0 if the stream has ended. Cancellation loses no bytes.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_SIZE);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// The next packet among the bytes read so far.
    pub fn next(&mut self) -> Result<Option<Packet>, Malformed> {
        let mut cursor = Cursor::new(&self.buffer[..]);
        let built = self.builder.feed(&mut cursor);
        let consumed = cursor.position() as usize;
        self.buffer.advance(consumed);
        match built {
            PacketBuildResult::Complete(raw) => parse(raw).map(Some),
            PacketBuildResult::Incomplete => Ok(None),
            PacketBuildResult::Error(error) => Err(malformed(error)),
        }
    }
}

fn parse(raw: RawPacket) -> Result<Packet, Malformed> {
    let kind = (raw.packet_type(), raw.flags());
    let empty = raw.remaining_length() == 0;
    match (kind, &raw.data) {
        ((1, 0), _) => raw.parse_exact(Connect::parse).map(Packet::Connect).map_err(malformed),
        ((3, flags), PacketData::Publish(data)) => {
            let (publish, _) = Publish::parse(flags, data.clone()).map_err(malformed)?;
            Ok(Packet::Publish(publish))
        }
        ((4, 0), _) => {
            raw.parse_exact(Puback::parse).map(|puback| Packet::Puback(puback.packet_id())).map_err(malformed)
        }
        ((8, 2), _) => raw.parse_exact(Subscribe::parse).map(Packet::Subscribe).map_err(malformed),
        ((10, 2), _) => raw.parse_exact(Unsubscribe::parse).map(Packet::Unsubscribe).map_err(malformed),
        ((12, 0), _) if empty => Ok(Packet::Pingreq),
        ((14, 0), _) if empty => Ok(Packet::Disconnect),
        _ => Err(Malformed::Other(format!(
            "a device does not send packets of type {} with flags {:#06b}",
            kind.0, kind.1
        ))),
    }
}

fn malformed(error: MqttError) -> Malformed {
    match error {
        MqttError::UnsupportedProtocolVersion => Malformed::ProtocolLevel,
        MqttError::PacketTooLarge => Malformed::Other(format!("a packet of more than {MAX_PACKET} bytes")),
        other => Malformed::Other(format!("not MQTT 3.1.1: {other:?}")),
    }
}

/// The answer to CONNECT.
pub fn connack(session_present: bool, code: ConnectReturnCode) -> Vec<u8> {
    let packet = Connack::builder().session_present(session_present).return_code(code).build();
    packet.expect("both members are set").to_continuous_buffer()
}

/// The answer to PUBLISH at QoS 1; `packet_id` is not 0.
pub fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [0x40, 2, high, low]
}

/// A message to the device. `None` if its topic is too long or invalid. `packet_id` matters only from QoS 1 on.
pub fn publish(topic: &str, qos: Qos, packet_id: u16, dup: bool, body: &[u8]) -> Option<Vec<u8>> {
    let mut publish = Publish::builder().topic_name(topic).ok()?.qos(qos).payload(body.to_vec());
    if qos != Qos::AtMostOnce {
        publish = publish.packet_id(packet_id).dup(dup);
    }
    Some(publish.build().ok()?.to_continuous_buffer())
}

/// The answer to SUBSCRIBE. `None` for packet id 0, which MQTT forbids.
pub fn suback(packet_id: u16, codes: Vec<SubackReturnCode>) -> Option<Vec<u8>> {
    Some(Suback::builder().packet_id(packet_id).return_codes(codes).build().ok()?.to_continuous_buffer())
}

/// The answer to UNSUBSCRIBE. `None` for packet id 0, which MQTT forbids.
pub fn unsuback(packet_id: u16) -> Option<Vec<u8>> {
    Some(Unsuback::builder().packet_id(packet_id).build().ok()?.to_continuous_buffer())
}

/// The answer to PINGREQ.
pub fn pingresp() -> Vec<u8> {
    Pingresp::new().to_continuous_buffer()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds bytes in pieces of a given length. Returns the packets up to the first error, and that error.
    async fn packets(bytes: &[u8], piece: usize) -> (Vec<Packet>, Option<Malformed>) {
        let mut found = vec![];
        let mut reader = PacketReader::new(io::Cursor::new(vec![]));
        for piece in bytes.chunks(piece) {
            reader.stream = io::Cursor::new(piece.to_vec());
            reader.fill().await.unwrap();
            loop {
                match reader.next() {
                    Ok(Some(packet)) => found.push(packet),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    #[tokio::test]
    async fn packets_come_out_however_they_are_cut() {
        let publish =
            [b"\x32\x07\x00\x01t\x00\x07hi".as_slice(), b"\xC0\x00", b"\x32\x07\x00\x01t\x00\x08ho", b"\xE0\x00"]
                .concat();
        for piece in [1, 2, 5, 100] {
            let (found, error) = packets(&publish, piece).await;
            assert_eq!(error, None);
            let [Packet::Publish(first), Packet::Pingreq, Packet::Publish(second), Packet::Disconnect] = &found[..]
            else {
                panic!("{found:?}")
            };
            assert_eq!(
                (first.topic_name(), first.packet_id(), first.payload().as_slice()),
                ("t", Some(7), b"hi".as_slice())
            );
            assert_eq!(second.packet_id(), Some(8));
        }
    }

    #[tokio::test]
    async fn nonsense_is_an_error_and_no_panic() {
        for bytes in [
            b"\x00\x00".as_slice(),       // reserved type
            b"\x20\x02\x00\x00",          // a server's packet
            b"\x36\x05\x00\x01t\x00\x01", // QoS 3
            b"\x80\x02\x00\x01",          // wrong flags
            b"\x82\x02\x00\x01",          // no topic filter
            b"\x32\x02\x00\x09",          // shorter than its topic
            b"\x30\x03\x00\x01\xFF",      // topic not UTF-8
            b"\xC0\x01\x00",              // a body where there is none
            b"\x10\x04\x00\x04MQ",        // CONNECT cut short
            b"\x30\xFF\xFF\xFF\xFF\x01",  // length of five bytes
            b"\x30\xFF\xFF\xFF\x7F",      // 256 MB
        ] {
            let (found, error) = packets(bytes, 100).await;
            assert!(found.is_empty(), "{bytes:?}: {found:?}");
            assert!(matches!(error, Some(Malformed::Other(_))), "{bytes:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn another_version_of_mqtt_is_told_apart() {
        let (_, error) = packets(b"\x10\x0D\x00\x04MQTT\x05\x00\x00\x3C\x00\x00\x00", 100).await;
        assert_eq!(error, Some(Malformed::ProtocolLevel));
    }

    #[tokio::test]
    async fn random_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut bytes: Vec<u8> = (0..random.usize(1..60)).map(|_| random.u8(..)).collect();
            bytes[0] = [0x10, 0x32, 0x82, 0xA2, 0x40][random.usize(..5)];
            if bytes.len() > 2 {
                bytes[1] = (bytes.len() - 2) as u8;
                bytes[2] = 0;
            }
            packets(&bytes, 7).await;
        }
    }

    #[test]
    fn answers_are_what_the_standard_says() {
        assert_eq!(connack(true, ConnectReturnCode::Accepted), b"\x20\x02\x01\x00");
        assert_eq!(connack(false, ConnectReturnCode::NotAuthorized), b"\x20\x02\x00\x05");
        assert_eq!(puback(0x0102), *b"\x40\x02\x01\x02");
        assert_eq!(suback(1, vec![SubackReturnCode::SuccessMaximumQos1]).unwrap(), b"\x90\x03\x00\x01\x01");
        assert_eq!(suback(0, vec![SubackReturnCode::SuccessMaximumQos1]), None);
        assert_eq!(unsuback(1).unwrap(), b"\xB0\x02\x00\x01");
        assert_eq!(pingresp(), b"\xD0\x00");
        assert_eq!(publish("t", Qos::AtLeastOnce, 7, true, b"hi").unwrap(), b"\x3A\x07\x00\x01t\x00\x07hi");
        assert_eq!(publish("t", Qos::AtMostOnce, 7, true, b"hi").unwrap(), b"\x30\x05\x00\x01thi");
        assert_eq!(publish(&"t".repeat(70_000), Qos::AtMostOnce, 0, false, b""), None);
    }
}
