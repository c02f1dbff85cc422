//! Records the messages that devices send, in order of arrival.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer, ser::SerializeMap};
use tokio::sync::broadcast;

use super::telemetry::{self, Properties};

/// How many messages a subscriber of [`Log::subscribe`] may fall behind before it misses some.
const LIVE_QUEUE: usize = 4096;

/// Size of the pieces of a JSON array, in bytes.
const CHUNK: usize = 64 * 1024;

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// MQTT over TLS.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    Https,
}

/// A message from a device.
///
/// As JSON:
/// `{"sequence":0,"receivedAt":"…Z","deviceId":"…","transport":"mqtt"|"mqtt-ws"|"https","messageId":"…"|null,"properties":{…},
/// "systemProperties":{"$.mid":"…"},"body":"…","dup":false}`. A body that is not UTF-8 is Base64; then there is a
/// member `"bodyEncoding":"base64"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The hub counts all its messages from 0.
    pub sequence: u64,
    pub received_at: DateTime<Utc>,
    pub device_id: String,
    pub transport: Transport,
    /// Application properties.
    pub properties: BTreeMap<String, String>,
    /// System properties, with keys such as `$.mid`.
    pub system_properties: BTreeMap<String, String>,
    pub body: Bytes,
    /// Whether the device marked the message as a repetition.
    pub dup: bool,
}

impl Received {
    /// The message id, system property `$.mid`.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.system_properties.get("$.mid").map(String::as_str)
    }
}

impl Serialize for Received {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("sequence", &self.sequence)?;
        map.serialize_entry("receivedAt", &self.received_at.to_rfc3339_opts(SecondsFormat::Millis, true))?;
        map.serialize_entry("deviceId", &self.device_id)?;
        map.serialize_entry("transport", &self.transport)?;
        map.serialize_entry("messageId", &self.message_id())?;
        map.serialize_entry("properties", &self.properties)?;
        map.serialize_entry("systemProperties", &self.system_properties)?;
        match std::str::from_utf8(&self.body) {
            Ok(text) => map.serialize_entry("body", text)?,
            Err(_) => {
                map.serialize_entry("body", &BASE64_STANDARD.encode(&self.body))?;
                map.serialize_entry("bodyEncoding", "base64")?;
            }
        }
        map.serialize_entry("dup", &self.dup)?;
        map.end()
    }
}

/// A message that will be recorded.
pub struct Draft {
    pub device_id: String,
    pub transport: Transport,
    pub properties: Properties,
    pub body: Bytes,
    pub dup: bool,
}

/// Keeps the newest messages.
pub struct Log {
    kept: Mutex<Kept>,
    keep_messages: usize,
    keep_bytes: usize,
    live: broadcast::Sender<Arc<Received>>,
}

#[derive(Default)]
struct Kept {
    /// Each message with its size as the hub counts it.
    messages: VecDeque<(usize, Arc<Received>)>,
    bytes: usize,
    next_sequence: u64,
}

impl Log {
    /// Keeps at most `keep_messages` messages with `keep_bytes` bytes in total.
    pub fn new(keep_messages: usize, keep_bytes: usize) -> Self {
        let live = broadcast::Sender::new(LIVE_QUEUE);
        Self { kept: Mutex::default(), keep_messages, keep_bytes, live }
    }

    /// Records messages without a gap between them. The oldest messages make room for them.
    pub fn append(&self, drafts: impl IntoIterator<Item = Draft>) {
        let mut kept = self.kept();
        for draft in drafts {
            self.append_one(&mut kept, draft);
        }
    }

    fn append_one(&self, kept: &mut Kept, draft: Draft) {
        let size = telemetry::size(&draft.body, &draft.properties);
        let message = Arc::new(Received {
            sequence: kept.next_sequence,
            received_at: Utc::now(),
            device_id: draft.device_id,
            transport: draft.transport,
            properties: draft.properties.application,
            system_properties: draft.properties.system,
            body: draft.body,
            dup: draft.dup,
        });
        kept.next_sequence += 1;
        kept.bytes += size;
        // An error means that there is no subscriber.
        let _ = self.live.send(Arc::clone(&message));
        kept.messages.push_back((size, message));
        while kept.messages.len() > self.keep_messages || kept.bytes > self.keep_bytes {
            let Some((size, _)) = kept.messages.pop_front() else { break };
            kept.bytes -= size;
        }
    }

    /// Every message from now on. A subscriber that falls 4096 messages behind misses the oldest of them.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Received>> {
        self.live.subscribe()
    }

    /// The kept messages of one device or of all, after a sequence number or from the beginning.
    pub fn select(&self, device_id: Option<&str>, after: Option<u64>) -> Vec<Arc<Received>> {
        let kept = self.kept();
        let start = kept.messages.partition_point(|(_, message)| after.is_some_and(|after| message.sequence <= after));
        let wanted = |message: &Received| device_id.is_none_or(|device_id| message.device_id == device_id);
        kept.messages.range(start..).map(|(_, message)| message).filter(|message| wanted(message)).cloned().collect()
    }

    /// Deletes the kept messages. The sequence continues.
    pub fn clear(&self) {
        let mut kept = self.kept();
        kept.messages = VecDeque::new();
        kept.bytes = 0;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes messages as a JSON array in pieces: the whole array may have hundreds of megabytes.
pub fn json_array(messages: Vec<Arc<Received>>) -> impl Iterator<Item = Bytes> {
    let mut rest = Some(messages.into_iter());
    let mut before = b"[".as_slice();
    std::iter::from_fn(move || {
        let messages = rest.as_mut()?;
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let Some(message) = messages.next() else {
                // An empty array still needs its opening bracket.
                chunk.extend_from_slice(if before == b"[" { b"[]\n" } else { b"]\n" });
                rest = None;
                break;
            };
            chunk.extend_from_slice(before);
            before = b",\n";
            serde_json::to_writer(&mut chunk, &*message)
                .expect("strings, numbers and maps of strings always serialize");
        }
        Some(chunk.into())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn draft(device_id: &str, body: &'static [u8]) -> [Draft; 1] {
        let system = [("$.mid".to_owned(), format!("m-{device_id}"))].into();
        let properties = Properties { application: [("k".to_owned(), "v".to_owned())].into(), system };
        let body = Bytes::from_static(body);
        [Draft { device_id: device_id.into(), transport: Transport::MqttWs, properties, body, dup: false }]
    }

    fn sequences(messages: &[Arc<Received>]) -> Vec<u64> {
        messages.iter().map(|message| message.sequence).collect()
    }

    #[test]
    fn selects_by_device_and_sequence() {
        let log = Log::new(10, 1000);
        for device in ["a", "b", "a", "b"] {
            log.append(draft(device, b"x"));
        }
        assert_eq!(sequences(&log.select(None, None)), [0, 1, 2, 3]);
        assert_eq!(sequences(&log.select(None, Some(1))), [2, 3]);
        assert_eq!(sequences(&log.select(Some("b"), Some(1))), [3]);
        assert!(log.select(None, Some(u64::MAX)).is_empty());
        log.clear();
        log.append(draft("a", b"x"));
        assert_eq!(sequences(&log.select(None, None)), [4], "the sequence goes on");
    }

    #[test]
    fn the_oldest_make_room() {
        let by_count = Log::new(2, 1000);
        // 2 (key and value) + 3 (message id) + 5 = 10 bytes each.
        let by_bytes = Log::new(10, 25);
        for _ in 0..4 {
            by_count.append(draft("a", b"12345"));
            by_bytes.append(draft("a", b"12345"));
        }
        assert_eq!(sequences(&by_count.select(None, None)), [2, 3]);
        assert_eq!(sequences(&by_bytes.select(None, None)), [2, 3]);
        let nothing = Log::new(0, 0);
        nothing.append(draft("a", b"12345"));
        assert!(nothing.select(None, None).is_empty());
    }

    #[test]
    fn subscribers_see_what_is_not_kept() {
        let log = Log::new(0, 0);
        let mut live = log.subscribe();
        log.append(draft("a", b"x"));
        assert_eq!(live.try_recv().unwrap().message_id(), Some("m-a"));
    }

    #[test]
    fn the_json_array_is_whole_however_it_is_cut() {
        let log = Log::new(10, 10_000_000);
        let parse =
            |messages| serde_json::from_slice::<Value>(&json_array(messages).flatten().collect::<Vec<u8>>()).unwrap();
        assert_eq!(parse(log.select(None, None)), json!([]));
        log.append(draft("a", "Grüße \"\n".as_bytes()));
        log.append(draft("b", b"\xFF\x00"));
        log.append(draft("c", &[b'x'; 2 * CHUNK]));
        assert!(json_array(log.select(None, None)).count() > 1);
        let array = parse(log.select(None, None));
        assert_eq!(array[0]["body"], "Grüße \"\n");
        assert_eq!(array[0].get("bodyEncoding"), None);
        assert_eq!((&array[0]["messageId"], &array[0]["transport"]), (&json!("m-a"), &json!("mqtt-ws")));
        assert_eq!(array[0]["systemProperties"], json!({"$.mid": "m-a"}));
        assert_eq!(array[0]["properties"], json!({"k": "v"}));
        assert!(array[0]["receivedAt"].as_str().unwrap().ends_with('Z'));
        assert_eq!((&array[1]["body"], &array[1]["bodyEncoding"]), (&json!("/wA="), &json!("base64")));
        assert_eq!(array[2]["body"].as_str().unwrap().len(), 2 * CHUNK);
    }
}
