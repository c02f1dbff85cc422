//! Converts a cloud-to-device message to a downlink of The Things Stack.
//!
//! | Property | Meaning |
//! |---|---|
//! | `Port` | fPort, 1 to 223. Required, except with the payload `json`: the device's payload formatter may choose it |
//! | `Payload` | format of the body: `raw` bytes, `hex` digits, `base64`, or `json` for the payload formatter. Without it, a JSON object is `json`, any other body is `raw`, and a text that reads as hex or Base64 is refused |
//! | `Confirmed` | `true` or `false` (default) |
//! | `Priority` | `LOWEST`, `LOW`, `BELOW_NORMAL`, `NORMAL` (default), `ABOVE_NORMAL`, `HIGH` or `HIGHEST` |
//! | `Queue` | `push` (default): after the pending downlinks; `replace`: instead of them |
//! | `method-name` | a command of IoT Central: [`Methods`] has what is not set otherwise, and the body is its parameter |
//!
//! Names and values are case-insensitive.
//! <https://www.thethingsindustries.com/docs/integrations/webhooks/scheduling-downlinks/>

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    method::Methods,
    payload::{Command, Payload},
};
use crate::{support::http::one_line, things_network::correlation};

/// fPorts for applications. <https://lora-alliance.org/resource_hub/lorawan-104-specification-package/>
const PORTS: std::ops::RangeInclusive<u8> = 1..=223;
/// The longest correlation id that The Things Stack accepts, in bytes.
const MAX_CORRELATION_ID: usize = 100;
const PRIORITIES: [&str; 7] = ["LOWEST", "LOW", "BELOW_NORMAL", "NORMAL", "ABOVE_NORMAL", "HIGH", "HIGHEST"];

/// A downlink, ready to be posted.
#[derive(Clone, Debug, PartialEq)]
pub struct Downlink {
    pub operation: Operation,
    /// JSON: `{"downlinks":[…]}`.
    pub body: String,
    /// Whether the device confirms it, and it can be told from the event that says so which message it is.
    pub is_confirmed: bool,
}

/// How a downlink affects the downlinks that are already pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Push,
    Replace,
}

#[derive(Serialize)]
struct Request<'a> {
    downlinks: [Message<'a>; 1],
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

impl Downlink {
    /// Reads a cloud-to-device message: its properties by lower-case names, and its body.
    ///
    /// # Errors
    /// Why the message cannot be a downlink, in words for its sender.
    ///
    /// # Panics
    /// Never.
    pub fn new(
        message_id: Option<&str>,
        properties: &BTreeMap<String, String>,
        body: &[u8],
        methods: &Methods,
    ) -> Result<Self, String> {
        let property = |name: &str| properties.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let name = property("method-name");
        let method = name.and_then(|name| methods.get(name));
        let payload = match (property("payload"), name) {
            (None, Some(name)) => {
                let payload = method.and_then(|method| method.payload.as_deref());
                Payload::of_command(&Command { name, payload }, body)?
            }
            (kind, _) => Payload::read(kind, body)?,
        };
        let of_port = |why| format!("property Port {why}");
        let f_port = property("port").map(port).transpose().map_err(of_port)?;
        let f_port = f_port.or_else(|| method?.port);
        if f_port.is_none() && matches!(payload, Payload::Bytes(_)) {
            return Err("property Port is missing: set the fPort, 1 to 223".into());
        }
        let of_confirmed = |why| format!("property Confirmed {why}");
        let confirmed = property("confirmed").map(confirmed).transpose().map_err(of_confirmed)?;
        let of_priority = |why| format!("property Priority {why}");
        let priority = property("priority").map(priority).transpose().map_err(of_priority)?;
        let of_queue = |why| format!("property Queue {why}");
        let operation = property("queue").map(operation).transpose().map_err(of_queue)?;
        let correlation_ids = message_id
            .filter(|id| id.is_ascii())
            .map(|id| format!("{}{id}", correlation::PREFIX))
            .filter(|id| id.len() <= MAX_CORRELATION_ID)
            .map(|id| [id]);
        let confirmed = confirmed.or_else(|| method?.confirmed).unwrap_or(false);
        let is_confirmed = confirmed && correlation_ids.is_some();
        let message = Message {
            f_port,
            payload,
            confirmed,
            priority: priority.or_else(|| method?.priority).unwrap_or("NORMAL"),
            correlation_ids,
        };
        let body = serde_json::to_string(&Request { downlinks: [message] }).expect("every key is a string");
        let operation = operation.or_else(|| method?.operation).unwrap_or(Operation::Push);
        Ok(Self { operation, body, is_confirmed })
    }
}

/// Shortens a property's value for an error text.
fn shown(value: &str) -> String {
    one_line(value, 40)
}

/// # Errors
/// The fault, as the rest of a sentence that begins with the name of the property or setting. The same for the others.
pub fn port(text: &str) -> Result<u8, String> {
    let port = text.parse().ok().filter(|port| PORTS.contains(port));
    port.ok_or_else(|| format!("is {:?}: write a number from {} to {}", shown(text), PORTS.start(), PORTS.end()))
}

pub fn confirmed(text: &str) -> Result<bool, String> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(format!("is {:?}: write true or false", shown(text))),
    }
}

pub fn priority(text: &str) -> Result<&'static str, String> {
    let priority = PRIORITIES.into_iter().find(|known| known.eq_ignore_ascii_case(text));
    priority.ok_or_else(|| format!("is {:?}: write one of {}", shown(text), PRIORITIES.join(", ")))
}

pub fn operation(text: &str) -> Result<Operation, String> {
    match text {
        _ if text.eq_ignore_ascii_case("push") => Ok(Operation::Push),
        _ if text.eq_ignore_ascii_case("replace") => Ok(Operation::Replace),
        _ => Err(format!("is {:?}: write push or replace", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn downlink(properties: &[(&str, &str)], body: &[u8]) -> Result<(Operation, Value), String> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let Downlink { operation, body, .. } = Downlink::new(Some("m-1"), &properties, body, &Methods::default())?;
        Ok((operation, serde_json::from_str::<Value>(&body).unwrap()["downlinks"][0].clone()))
    }

    #[test]
    fn json_is_for_the_payload_formatter_which_may_choose_the_port() {
        let expected = json!({"decoded_payload": {"open": true}, "confirmed": false, "priority": "NORMAL",
                              "correlation_ids": ["iothub:m-1"]});
        assert_eq!(downlink(&[], br#" {"open":true}"#).unwrap(), (Operation::Push, expected));
        assert_eq!(downlink(&[("payload", "json"), ("port", "3")], b"{}").unwrap().1["f_port"], 3);
        let digits = Downlink::new(None, &BTreeMap::new(), b"{\"f\":21.50}", &Methods::default()).unwrap().body;
        assert!(digits.contains(r#""decoded_payload":{"f":21.50}"#), "{digits}");
    }

    #[test]
    fn a_command_of_iot_central_is_sent_as_its_settings_say() {
        let mut methods = Methods::default();
        for (name, member, value) in [
            ("SetPoint", "Port", "15"),
            ("SetPoint", "Confirmed", "true"),
            ("SetPoint", "priority", "high"),
            ("LightsOff", "Port", "16"),
            ("LightsOff", "Queue", "Replace"),
            ("LightsOff", "Payload", r#"{"lights":false}"#),
        ] {
            methods.set(name, member, value).unwrap();
        }
        let sent = |properties: &[(&str, &str)], body: &[u8]| {
            let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let Downlink { operation, body, .. } = Downlink::new(None, &properties, body, &methods).unwrap();
            (operation, serde_json::from_str::<Value>(&body).unwrap()["downlinks"][0].clone())
        };
        let expected =
            json!({"f_port": 15, "decoded_payload": {"SetPoint": 22.5}, "confirmed": true, "priority": "HIGH"});
        assert_eq!(sent(&[("method-name", "SetPoint")], b"22.5"), (Operation::Push, expected));
        let expected =
            json!({"f_port": 16, "decoded_payload": {"lights": false}, "confirmed": false, "priority": "NORMAL"});
        assert_eq!(sent(&[("method-name", "lightsoff")], b"@"), (Operation::Replace, expected));
        let expected = json!({"f_port": 9, "frm_payload": "vu8=", "confirmed": false, "priority": "LOW"});
        let properties = [
            ("method-name", "SetPoint"),
            ("port", "9"),
            ("confirmed", "false"),
            ("priority", "low"),
            ("payload", "hex"),
        ];
        assert_eq!(sent(&properties, b"beef"), (Operation::Push, expected), "the message's own properties come first");
        let expected = json!({"decoded_payload": {"Reset": null}, "confirmed": false, "priority": "NORMAL"});
        assert_eq!(sent(&[("method-name", "Reset")], b"@"), (Operation::Push, expected));
    }

    #[test]
    fn settings_of_a_command_that_cannot_be_meant_say_why() {
        for (member, value, problem) in [
            ("Port", "0", "1 to 223"),
            ("Confirmed", "yes", "true or false"),
            ("Priority", "urgent", "LOWEST, LOW"),
            ("Queue", "first", "push or replace"),
            ("Payload", "[1]", "not a JSON object"),
            ("Payload", "{", "not a JSON object"),
            ("fPort", "1", "Port, Confirmed, Priority, Queue, Payload"),
        ] {
            let why = Methods::default().set("A", member, value).unwrap_err();
            assert!(why.contains(problem), "{member}: {why}");
        }
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
            let body = Downlink::new(Some(&id), &BTreeMap::new(), b"{}", &Methods::default()).unwrap().body;
            assert!(!body.contains("correlation_ids"), "{body}");
        }
        let longest = "x".repeat(93);
        let body = Downlink::new(Some(&longest), &BTreeMap::new(), b"{}", &Methods::default()).unwrap().body;
        assert!(body.contains("iothub:xxx"), "{body}");
    }
}
