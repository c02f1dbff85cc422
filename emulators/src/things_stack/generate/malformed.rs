//! Bodies that nobody can make sense of, made from a good one.

use fastrand::Rng;
use serde_json::{Value, json};

/// More than a storage queue takes, in the payload itself.
const TOO_LARGE: usize = 64 * 1024;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Cut somewhere, as by a proxy.
    Cut,
    /// A field mask that leaves out who sent it. Such a webhook has no downlink API key, whose headers would say it.
    NoIds,
    WrongTypes,
    TooLarge,
    Empty,
    /// The webhook's format is set to Protocol Buffers.
    Protobuf,
}

pub const FLAWS: [Flaw; 6] = [Flaw::Cut, Flaw::NoIds, Flaw::WrongTypes, Flaw::TooLarge, Flaw::Empty, Flaw::Protobuf];

impl Flaw {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/octet-stream",
            _ => "application/json",
        }
    }

    /// What the flaw makes of an uplink's body, V2 or V3.
    pub fn apply(self, good: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
        match self {
            Self::Cut => {
                let mut cut = good;
                cut.truncate(rng.usize(1..cut.len()));
                cut
            }
            Self::NoIds => changed(&good, |body| {
                body.retain(|name, _| {
                    !matches!(name.as_str(), "end_device_ids" | "dev_id" | "app_id" | "hardware_serial")
                });
            }),
            Self::WrongTypes => changed(&good, |body| {
                for (name, value) in body {
                    if matches!(name.as_str(), "end_device_ids" | "uplink_message" | "dev_id" | "metadata") {
                        *value = Value::from(vec![7]);
                    }
                }
            }),
            Self::TooLarge => changed(&good, |body| {
                let filling = std::iter::repeat_with(|| rng.alphanumeric()).take(TOO_LARGE).collect::<String>();
                match body.get_mut("uplink_message") {
                    Some(message) => message["decoded_payload"] = json!({ "trace": filling }),
                    None => drop(body.insert("payload_fields".to_owned(), json!({ "trace": filling }))),
                }
            }),
            Self::Empty => Vec::new(),
            // end_device_ids { device_id } and the first bytes of an uplink, as Protocol Buffers have them.
            Self::Protobuf => {
                b"\x0a\x14\x0a\x09dev\xe2\x88\x921\x12\x07\x0a\x05app-1\x1a\x06\x08\xff\xff\x03\x00\x80".to_vec()
            }
        }
    }
}

fn changed(good: &[u8], change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let mut body = serde_json::from_slice(good).expect("the generator's own JSON object");
    change(&mut body);
    Value::Object(body).to_string().into_bytes()
}
