//! Converts a cloud-to-device message to a downlink of The Things Stack.
//!
//! | Property | Meaning |
//! |---|---|
//! | `Port` | fPort, 1 to 223. Required, except with the payload `json`: the device's payload formatter may choose it |
//! | `Payload` | format of the body: `raw` bytes, `hex` digits, `base64`, or `json` for the payload formatter. Without it, a JSON object is `json`, any other body is `raw` |
//! | `Confirmed` | `true` or `false` (default) |
//! | `Priority` | `LOWEST`, `LOW`, `BELOW_NORMAL`, `NORMAL` (default), `ABOVE_NORMAL`, `HIGH` or `HIGHEST` |
//! | `Queue` | `push` (default): after the pending downlinks; `replace`: instead of them |
//!
//! Names and values are case-insensitive.
//! <https://www.thethingsindustries.com/docs/integrations/webhooks/scheduling-downlinks/>

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::support::http::one_line;

/// fPorts for applications. <https://lora-alliance.org/resource_hub/lorawan-104-specification-package/>
const PORTS: std::ops::RangeInclusive<u8> = 1..=223;
/// The longest payload of any data rate in any region, in bytes.
const MAX_PAYLOAD: usize = 242;
/// The longest correlation id that The Things Stack accepts, in bytes.
const MAX_CORRELATION_ID: usize = 100;
const PRIORITIES: [&str; 7] = ["LOWEST", "LOW", "BELOW_NORMAL", "NORMAL", "ABOVE_NORMAL", "HIGH", "HIGHEST"];

/// A downlink, ready to be posted.
#[derive(Clone, Debug, PartialEq)]
pub struct Downlink {
    pub operation: Operation,
    /// JSON: `{"downlinks":[…]}`.
    pub body: String,
}

/// How a downlink affects the downlinks that are already pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Push,
    Replace,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    f_port: Option<u8>,
    #[serde(flatten)]
    payload: Payload,
    confirmed: bool,
    priority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_ids: Option<[String; 1]>,
}

#[derive(Debug, Serialize)]
enum Payload {
    #[serde(rename = "frm_payload")]
    Bytes(String),
    #[serde(rename = "decoded_payload")]
    Json(Map<String, Value>),
}

impl Downlink {
    /// Reads a cloud-to-device message: its properties by lower-case names, and its body.
    ///
    /// # Errors
    /// Why the message cannot be a downlink, in words for its sender.
    pub fn new(message_id: Option<&str>, properties: &BTreeMap<String, String>, body: &[u8]) -> Result<Self, String> {
        let property = |name: &str| properties.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let payload = payload(property("payload"), body)?;
        let f_port = match (property("port"), &payload) {
            (Some(text), _) => Some(port(text)?),
            (None, Payload::Json(_)) => None,
            (None, Payload::Bytes(_)) => return Err("property Port is missing: set the fPort, 1 to 223".into()),
        };
        let confirmed = match property("confirmed") {
            None => false,
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) if text.eq_ignore_ascii_case("false") => false,
            Some(text) => return Err(format!("property Confirmed is {:?}: write true or false", shown(text))),
        };
        let priority = property("priority").unwrap_or("NORMAL");
        let priority = PRIORITIES.into_iter().find(|known| known.eq_ignore_ascii_case(priority)).ok_or_else(|| {
            format!("property Priority is {:?}: write one of {}", shown(priority), PRIORITIES.join(", "))
        })?;
        let operation = match property("queue") {
            None => Operation::Push,
            Some(text) if text.eq_ignore_ascii_case("push") => Operation::Push,
            Some(text) if text.eq_ignore_ascii_case("replace") => Operation::Replace,
            Some(text) => return Err(format!("property Queue is {:?}: write push or replace", shown(text))),
        };
        let correlation_ids = message_id
            .filter(|id| id.is_ascii())
            .map(|id| format!("iothub:{id}"))
            .filter(|id| id.len() <= MAX_CORRELATION_ID)
            .map(|id| [id]);
        let message = Message { f_port, payload, confirmed, priority, correlation_ids };
        let body = serde_json::json!({ "downlinks": [message] }).to_string();
        Ok(Self { operation, body })
    }
}

/// Shortens a property's value for an error text.
fn shown(value: &str) -> String {
    one_line(value, 40)
}

fn port(text: &str) -> Result<u8, String> {
    let port = text.parse().ok().filter(|port| PORTS.contains(port));
    port.ok_or_else(|| {
        format!("property Port is {:?}: write a number from {} to {}", shown(text), PORTS.start(), PORTS.end())
    })
}

fn payload(kind: Option<&str>, body: &[u8]) -> Result<Payload, String> {
    let object = || serde_json::from_slice::<Map<String, Value>>(body);
    let text = || str::from_utf8(body).map(str::trim_ascii);
    let bytes = match kind.map(str::to_ascii_lowercase).as_deref() {
        None => match object() {
            Ok(object) => return Ok(Payload::Json(object)),
            Err(_) => body.to_vec(),
        },
        Some("raw") => body.to_vec(),
        Some("json") => {
            let object =
                object().map_err(|error| format!("the body is no JSON object, as property Payload says: {error}"))?;
            return Ok(Payload::Json(object));
        }
        Some("hex") => text()
            .ok()
            .and_then(unhex)
            .ok_or("the body has no pairs of hexadecimal digits, as property Payload says")?,
        Some("base64") => {
            let decoded = text().ok().and_then(|text| BASE64_STANDARD.decode(text).ok());
            decoded.ok_or("the body is no Base64, as property Payload says")?
        }
        Some(other) => {
            return Err(format!("property Payload is {:?}: write raw, hex, base64 or json", shown(other)));
        }
    };
    if bytes.len() > MAX_PAYLOAD {
        return Err(format!("the payload has {} bytes, LoRaWAN takes {MAX_PAYLOAD} at the most", bytes.len()));
    }
    if bytes.is_empty() {
        return Err("the body is empty".into());
    }
    Ok(Payload::Bytes(BASE64_STANDARD.encode(bytes)))
}

/// Reads pairs of hex digits, with or without white space, `:` or `-` between them.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.bytes().filter(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b':' | b'-')).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn downlink(properties: &[(&str, &str)], body: &[u8]) -> Result<(Operation, Value), String> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let Downlink { operation, body } = Downlink::new(Some("m-1"), &properties, body)?;
        Ok((operation, serde_json::from_str::<Value>(&body).unwrap()["downlinks"][0].clone()))
    }

    #[test]
    fn bodies_become_payloads() {
        let bytes = |properties: &[_], body: &[u8]| {
            let all = [&[("port", "15")], properties].concat();
            downlink(&all, body).unwrap().1["frm_payload"].clone()
        };
        assert_eq!(bytes(&[], &[0xbe, 0xef]), "vu8=");
        assert_eq!(bytes(&[("payload", "Hex")], b" be:EF-00\n"), "vu8A");
        assert_eq!(bytes(&[("payload", "base64")], b"vu8="), "vu8=");
        assert_eq!(bytes(&[("payload", "raw")], b"{}"), "e30=");
        assert_eq!(bytes(&[], b"beef"), "YmVlZg==", "hex is never guessed");
        let expected = json!({"decoded_payload": {"open": true}, "confirmed": false, "priority": "NORMAL",
                              "correlation_ids": ["iothub:m-1"]});
        assert_eq!(downlink(&[], br#" {"open":true}"#).unwrap(), (Operation::Push, expected));
        assert_eq!(downlink(&[("payload", "json"), ("port", "3")], b"{}").unwrap().1["f_port"], 3);
    }

    #[test]
    fn properties_in_any_case_say_how() {
        let properties = [("port", " 223 "), ("confirmed", "TRUE"), ("priority", "above_normal"), ("queue", "Replace")];
        let expected = json!({"f_port": 223, "frm_payload": "AA==", "confirmed": true, "priority": "ABOVE_NORMAL",
                              "correlation_ids": ["iothub:m-1"]});
        assert_eq!(downlink(&properties, &[0]).unwrap(), (Operation::Replace, expected));
    }

    #[test]
    fn what_cannot_be_a_downlink_says_why() {
        let port = ("port", "1");
        let long = vec![1; 243];
        for (properties, body, problem) in [
            (&[][..], &b"x"[..], "Port is missing"),
            (&[("port", "0")], b"x", "1 to 223"),
            (&[("port", "224")], b"x", "1 to 223"),
            (&[("port", "one")], b"x", "1 to 223"),
            (&[port, ("confirmed", "yes")], b"x", "true or false"),
            (&[port, ("priority", "urgent")], b"x", "LOWEST, LOW"),
            (&[port, ("queue", "first")], b"x", "push or replace"),
            (&[port, ("payload", "cbor")], b"x", "raw, hex"),
            (&[port, ("payload", "hex")], b"abc", "hexadecimal"),
            (&[port, ("payload", "hex")], b"zz", "hexadecimal"),
            (&[port, ("payload", "hex")], "ää".as_bytes(), "hexadecimal"),
            (&[port, ("payload", "base64")], b"abc", "Base64"),
            (&[port, ("payload", "json")], b"[1]", "JSON object"),
            (&[port], b"", "empty"),
            (&[port], &long, "243 bytes"),
        ] {
            let error = downlink(properties, body).unwrap_err();
            assert!(error.contains(problem), "{problem:?} is missing in {error}");
        }
    }

    #[test]
    fn a_property_that_is_not_what_it_should_be_is_shown_up_to_a_point() {
        for name in ["port", "payload", "confirmed", "priority", "queue"] {
            let error = downlink(&[("port", "1"), (name, &"x".repeat(60_000))], b"x").unwrap_err();
            assert!(error.contains("is \"xxx") && error.len() < 200, "{name}: {} bytes", error.len());
        }
    }

    #[test]
    fn a_message_id_that_cannot_be_a_correlation_id_is_left_out() {
        for id in ["x".repeat(94), "ä".into()] {
            let body = Downlink::new(Some(&id), &BTreeMap::new(), b"{}").unwrap().body;
            assert!(!body.contains("correlation_ids"), "{body}");
        }
        assert!(Downlink::new(Some(&"x".repeat(93)), &BTreeMap::new(), b"{}").unwrap().body.contains("iothub:xxx"));
    }

    proptest! {
        #[test]
        fn hex_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text: String = bytes.iter().map(|byte| format!("{byte:02X} ")).collect();
            prop_assert_eq!(unhex(&text), Some(bytes));
        }
    }
}
