//! Reads the body of a cloud-to-device message: bytes, or JSON for the device's payload formatter. Pure.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::support::http::one_line;

/// The longest payload of any data rate in any region, in bytes.
const MAX_PAYLOAD: usize = 242;
/// What IoT Central sends as the body of a command that has no parameter, and what other services send.
const NO_PARAMETER: [&str; 4] = ["@", "", "null", "{}"];

/// What a downlink carries.
#[derive(Debug, Serialize)]
pub enum Payload {
    /// Base64.
    #[serde(rename = "frm_payload")]
    Bytes(String),
    /// An object. Its text is not changed, so that numbers keep their digits.
    #[serde(rename = "decoded_payload")]
    Json(Box<RawValue>),
}

/// A command of IoT Central, which cannot set the property `Payload`.
pub struct Command<'a> {
    pub name: &'a str,
    /// The object for a command without a parameter.
    pub payload: Option<&'a RawValue>,
}

impl Payload {
    /// Reads a body of the kind that the property `Payload` names.
    ///
    /// Without the property, a JSON object is for the payload formatter, and all else is bytes. But a text that may stand
    /// for other bytes is refused: a guess could send a valve another command.
    ///
    /// # Errors
    /// Why there is no payload, in words for the message's sender.
    pub fn read(kind: Option<&str>, body: &[u8]) -> Result<Self, String> {
        let text = || str::from_utf8(body).map(str::trim_ascii);
        let bytes = match kind.map(str::to_ascii_lowercase).as_deref() {
            None => match object(body) {
                Ok(object) => return Ok(Self::Json(object)),
                Err(_) => match text().ok().and_then(other_meaning) {
                    Some(why) => return Err(why),
                    None => body.to_vec(),
                },
            },
            Some("raw") => body.to_vec(),
            Some("json") => {
                let object = object(body)
                    .map_err(|why| format!("the body is not a JSON object, as property Payload says: {why}"))?;
                return Ok(Self::Json(object));
            }
            Some("hex") => text()
                .ok()
                .and_then(unhex)
                .ok_or("the body has no pairs of hexadecimal digits, as property Payload says")?,
            Some("base64") => {
                let decoded = text().ok().and_then(|text| BASE64_STANDARD.decode(text).ok());
                decoded.ok_or("the body is not Base64, as property Payload says")?
            }
            Some(other) => {
                return Err(format!("property Payload is {:?}: write raw, hex, base64 or json", one_line(other, 40)));
            }
        };
        if bytes.len() > MAX_PAYLOAD {
            return Err(format!("the payload has {} bytes, LoRaWAN takes {MAX_PAYLOAD} at the most", bytes.len()));
        }
        if bytes.is_empty() {
            return Err("the body is empty".into());
        }
        Ok(Self::Bytes(BASE64_STANDARD.encode(bytes)))
    }

    /// Reads the parameter of a command: an object as it is, any other value under the command's name.
    ///
    /// # Errors
    /// The body is no text.
    pub fn of_command(command: &Command<'_>, body: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(body).map_err(|_| "the command's parameter is not text")?.trim_ascii();
        let parameter = if NO_PARAMETER.contains(&text) {
            match command.payload {
                Some(payload) => return Ok(Self::Json(payload.to_owned())),
                None => "null".to_owned(),
            }
        } else if let Ok(object) = object(body) {
            return Ok(Self::Json(object));
        } else if serde_json::from_str::<&RawValue>(text).is_ok() {
            text.to_owned()
        } else {
            serde_json::Value::from(text).to_string()
        };
        let name = serde_json::Value::from(command.name);
        let object = RawValue::from_string(format!("{{{name}:{parameter}}}"));
        Ok(Self::Json(object.expect("a name and a value in braces are JSON")))
    }
}

/// Reads a JSON object, unchanged.
///
/// # Errors
/// Why it is none.
pub fn object(body: &[u8]) -> Result<Box<RawValue>, String> {
    let value: &RawValue = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if value.get().starts_with('{') { Ok(value.to_owned()) } else { Err("it is another kind of JSON".into()) }
}

/// Why a text without the property `Payload` may not stand for its characters: what to do, in one sentence.
///
/// A text reads as hex if it consists of pairs of hexadecimal digits, and as Base64 if it has Base64's length, padding and
/// last bits. An exception are words of small letters, such as `open`: bytes hardly ever have such a Base64.
fn other_meaning(text: &str) -> Option<String> {
    // A text in JSON.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_word = text.bytes().all(|letter| letter.is_ascii_lowercase());
    let is_hex = unhex(text).is_some_and(|bytes| !bytes.is_empty());
    let is_base64 = !is_word && !text.is_empty() && BASE64_STANDARD.decode(text).is_ok();
    let (what, kinds) = match (is_hex, is_base64) {
        (false, false) => return None,
        (true, false) => ("hexadecimal digits", "hex"),
        (false, true) => ("Base64", "base64"),
        (true, true) => ("hexadecimal digits and as Base64", "hex or base64"),
    };
    Some(format!(
        "the body reads as {what}, but may also be a text: set property Payload to {kinds} if it stands for bytes, or to raw \
         if its characters are the payload"
    ))
}

/// Reads pairs of hex digits, with or without white space, `:` or `-` between them, and with or without `0x` before them.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_between = |letter: char| letter.is_ascii_whitespace() || matches!(letter, ':' | '-');
    let without_prefix = |part| str::strip_prefix(part, "0x").or_else(|| part.strip_prefix("0X")).unwrap_or(part);
    let digits: String = text.split(is_between).map(without_prefix).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(payload: Payload) -> String {
        match payload {
            Payload::Bytes(bytes) => bytes,
            Payload::Json(object) => object.get().to_owned(),
        }
    }

    fn read(kind: Option<&str>, body: &[u8]) -> Result<String, String> {
        Payload::read(kind, body).map(text)
    }

    #[test]
    fn bodies_become_payloads() {
        for (kind, body, expected) in [
            (None, &[0xbe, 0xef][..], "vu8="),
            (Some("Hex"), b" be:EF-00\n", "vu8A"),
            (Some("hex"), b"0xBE 0xEF", "vu8="),
            (Some("base64"), b"vu8=", "vu8="),
            (Some("raw"), b"vu8=", "dnU4PQ=="),
            (Some("raw"), b"BEEF01", "QkVFRjAx"),
            (Some("raw"), b"{}", "e30="),
            (None, br#" {"open":true}"#, r#"{"open":true}"#),
            (Some("json"), b"{}", "{}"),
        ] {
            assert_eq!(read(kind, body).as_deref(), Ok(expected), "{kind:?} {body:?}");
        }
    }

    #[test]
    fn a_text_that_may_stand_for_bytes_is_not_guessed() {
        for (body, kinds) in [
            ("vu8=", "base64"),
            ("\"vu8=\"", "base64"),
            ("AQID", "base64"),
            ("AQIDBAUG", "base64"),
            ("Open", "base64"),
            ("led1", "base64"),
            ("BEEF01", "hex"),
            ("be:ef\n", "hex"),
            ("0xBE 0xEF", "hex"),
            ("beef", "hex"),
            ("22", "hex"),
            ("00", "hex"),
            ("BEEF", "hex or base64"),
        ] {
            let why = read(None, body.as_bytes()).unwrap_err();
            assert!(
                why.contains(&format!("set property Payload to {kinds} if")) && why.contains("raw"),
                "{body}: {why}"
            );
        }
    }

    #[test]
    fn other_texts_are_their_characters() {
        for body in
            ["on", "off", "open", "close", "stop", "\"open\"", "1", "22.5", "vu8", "SET 5", "T1=20", "[1,2]", "ü"]
        {
            assert_eq!(read(None, body.as_bytes()), Ok(BASE64_STANDARD.encode(body)), "{body}");
        }
    }

    #[test]
    fn a_commands_parameter_has_its_name() {
        let configured = RawValue::from_string(r#"{"lights":false}"#.into()).unwrap();
        let read = |payload, body: &str| {
            text(Payload::of_command(&Command { name: "SetPoint", payload }, body.as_bytes()).unwrap())
        };
        for (body, expected) in [
            ("22.50", r#"{"SetPoint":22.50}"#),
            ("\"vu8=\"", r#"{"SetPoint":"vu8="}"#),
            ("vu8=", r#"{"SetPoint":"vu8="}"#),
            ("say \"hi\"", r#"{"SetPoint":"say \"hi\""}"#),
            ("[1, 2]", r#"{"SetPoint":[1, 2]}"#),
            (r#"{"value_1":1}"#, r#"{"value_1":1}"#),
        ] {
            assert_eq!((read(None, body), read(Some(&configured), body)), (expected.into(), expected.into()), "{body}");
        }
        for body in NO_PARAMETER {
            assert_eq!(read(None, body), r#"{"SetPoint":null}"#, "{body:?}");
            assert_eq!(read(Some(&configured), body), r#"{"lights":false}"#, "{body:?}");
        }
    }

    #[test]
    fn a_json_object_keeps_its_digits() {
        let body = r#"{"big":123456789012345678901234567890,"f":21.50,"e":1e999,"a":null}"#;
        assert_eq!(read(None, body.as_bytes()).as_deref(), Ok(body));
        assert_eq!(
            serde_json::to_value(Payload::read(None, b"{\"a\":1}").unwrap()).unwrap(),
            json!({"decoded_payload": {"a": 1}})
        );
    }

    proptest! {
        #[test]
        fn hex_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text: String = bytes.iter().map(|byte| format!("{byte:02X} ")).collect();
            prop_assert_eq!(unhex(&text), Some(bytes));
        }

        /// Whoever sends bytes as digits or Base64 and forgets the property is told, except for Base64 that is a word.
        #[test]
        fn encoded_bytes_never_leave_as_characters(bytes in prop::collection::vec(any::<u8>(), 1..60)) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert!(read(None, hex.as_bytes()).is_err());
            let base64 = BASE64_STANDARD.encode(&bytes);
            let is_word = base64.bytes().all(|letter| letter.is_ascii_lowercase());
            prop_assert_eq!(read(None, base64.as_bytes()).is_err(), !is_word);
        }
    }
}
