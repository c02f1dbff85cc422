//! Laws for tokens, topics and the hub's messages to devices.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta};
use iothub_connector::{
    iot_hub::{CloudMessage, Message, sas},
    support::retry_after,
    things_network::downlinks::{
        downlink::{Downlink, Operation},
        method::Methods,
    },
};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;
use serde_json::{Value, value::RawValue};

use super::bounds::{check_error, now};

/// Lines: resource, policy, key, expiry in seconds since 1970. The whole input is also read as a token from elsewhere.
pub fn sas(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if sas::expiry(text).is_some() || sas::resource(text).is_some() {
        assert!(text.starts_with("SharedAccessSignature "));
    }
    let mut lines = text.splitn(4, '\n');
    let [resource, policy, key, expires] = [(); 4].map(|()| lines.next().unwrap_or_default());
    let Some(expires) = expires.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)) else { return };
    let policy = Some(policy).filter(|policy| !policy.is_empty());
    let token = sas::mint(resource, key.as_bytes(), expires, policy);
    let token = token.expose_secret();
    assert!(
        token
            .strip_prefix("SharedAccessSignature sr=")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_graphic()))
    );
    assert_eq!(sas::resource(token).as_deref(), Some(resource));
    assert_eq!(sas::expiry(token), Some(expires));
    let field = |name: &str| token.split(['&', ' ']).find_map(|field| field.strip_prefix(name));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().expect("what was text").into_owned();
    assert_eq!(field("skn=").map(decoded).as_deref(), policy);
    let signature = BASE64_STANDARD.decode(decoded(field("sig=").expect("a signature"))).expect("Base64");
    assert_eq!(signature.len(), 32);
    // The key of a registration id depends on nothing else.
    assert_eq!(sas::derive_key(key.as_bytes(), resource), sas::derive_key(key.as_bytes(), resource));
}

/// Lines: message id, values of properties. The decoded topic holds the values that were encoded.
pub fn property_bag(data: &[u8]) {
    const NAMES: [&str; 4] = ["Customer_Id", "Site_Id", "Type", "iothub-creation-time-utc"];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let id = lines.next().unwrap_or_default();
    let properties: Vec<_> = NAMES.into_iter().zip(lines.map(str::to_owned)).collect();
    let message = Message { id: id.to_owned(), created: now(), properties, body: "{}".into() };
    let topic = message.topic("dev%1");
    let bag = topic.strip_prefix("devices/dev%1/messages/events/").expect("the hub's topic");
    assert!(bag.bytes().all(|byte| byte.is_ascii_graphic() && !b"#+/".contains(&byte)), "{bag}");
    let decode = |text: &str| percent_decode_str(text).decode_utf8().expect("what was text").into_owned();
    let read: Vec<_> = bag.split('&').map(|pair| pair.split_once('=').expect("a pair")).collect();
    let read: Vec<_> = read.into_iter().map(|(name, value)| (decode(name), decode(value))).collect();
    let system =
        [("$.mid", id), ("$.ctime", "2026-01-31T12:00:00.125Z"), ("$.ct", "application/json"), ("$.ce", "utf-8")];
    let application = message.properties.iter().map(|(name, value)| (*name, value.as_str()));
    let expected: Vec<_> =
        system.into_iter().chain(application).map(|(name, value)| (name.into(), value.into())).collect();
    assert_eq!(read, expected);
    let values = read.iter().map(|(_, value)| value.len()).sum::<usize>();
    let names = message.properties.iter().map(|(name, _)| name.len()).sum::<usize>();
    assert_eq!(message.size(), values + names + message.body.len());
}

/// Header lines up to an empty line, then the body: a message to a device, and its downlink.
pub fn downlink(data: &[u8]) {
    let (headers, body) = split_head(data);
    let message = CloudMessage::of_headers(&headers);
    assert!(message.properties.keys().all(|name| *name == name.to_lowercase()));
    assert!(message.properties.len() <= headers.len());
    let id = message.message_id.as_deref();
    let is_command = message.properties.contains_key("method-name");
    match Downlink::new(id, &message.properties, body, &Methods::default()) {
        Ok(downlink) => check_downlink(&downlink, (!is_command).then_some(body)),
        Err(error) => check_error(&error),
    }
    check_spellings(body);
}

fn split_head(data: &[u8]) -> (HeaderMap, &[u8]) {
    let (mut headers, mut rest) = (HeaderMap::new(), data);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

/// `body` is absent if the payload is made from it: a command's parameter gets a name.
fn check_downlink(downlink: &Downlink, body: Option<&[u8]>) {
    let Ok(told) = serde_json::from_str::<Value>(&downlink.body) else {
        // A number that no type can hold, or nesting that no parser accepts: its text is passed on.
        return assert!(serde_json::from_str::<&RawValue>(&downlink.body).is_ok(), "a downlink is JSON");
    };
    let message = &told["downlinks"][0];
    assert_eq!(told["downlinks"].as_array().map(Vec::len), Some(1));
    if let Some(port) = message.get("f_port") {
        assert!(port.as_u64().is_some_and(|port| (1..=223).contains(&port)));
    }
    match (message.get("frm_payload"), message.get("decoded_payload")) {
        (Some(payload), None) => {
            assert!(message.get("f_port").is_some());
            let bytes = BASE64_STANDARD.decode(payload.as_str().expect("text")).expect("Base64");
            assert!((1..=242).contains(&bytes.len()) && body.is_none_or(|body| bytes.len() <= body.len()));
        }
        (None, Some(payload)) => {
            let is_body = |body| serde_json::from_slice::<Value>(body).is_ok_and(|body| body == *payload);
            assert!(payload.is_object() && body.is_none_or(is_body));
        }
        other => panic!("one payload, not {other:?}"),
    }
    if let Some(ids) = message.get("correlation_ids") {
        assert!(ids[0].as_str().is_some_and(|id| id.starts_with("iothub:") && id.len() <= 100));
    }
}

/// The same bytes give the same payload in every spelling.
fn check_spellings(bytes: &[u8]) {
    let payload = |kind: &str, body: &[u8]| {
        let properties = [("port", "7"), ("payload", kind)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Downlink::new(None, &properties.into(), body, &Methods::default())
    };
    let raw = payload("raw", bytes);
    assert_eq!(raw.is_ok(), (1..=242).contains(&bytes.len()));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}-")).collect();
    assert_eq!(payload("Hex", hex.as_bytes()), raw);
    assert_eq!(payload("BASE64", BASE64_STANDARD.encode(bytes).as_bytes()), raw);
    assert!(raw.is_err() || raw.is_ok_and(|downlink| downlink.operation == Operation::Push));
}

/// Seconds and dates: the wait is as long as the header says, counted from now, and never negative.
pub fn retry_after(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(wait) = retry_after::parse(text, now()) {
        let text = text.trim();
        match text.parse::<u64>() {
            Ok(seconds) => assert_eq!(wait.as_secs(), seconds),
            Err(_) => {
                let date = DateTime::parse_from_rfc2822(text).expect("a number or a date").to_utc();
                assert_eq!(TimeDelta::from_std(wait).expect("a date's"), (date - now()).max(TimeDelta::zero()));
            }
        }
    }
    let seconds = data.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(257).wrapping_add(u64::from(*byte)));
    assert_eq!(retry_after::parse(&seconds.to_string(), now()).map(|wait| wait.as_secs()), Some(seconds));
    let date = now() + TimeDelta::seconds(i64::try_from(seconds % (1 << 33)).expect("a few centuries"));
    let header = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let wait = retry_after::parse(&header, now()).expect("an HTTP date");
    assert_eq!(wait.as_secs(), (date - now()).num_seconds().saturating_sub(1).max(0).unsigned_abs(), "{header}");
}
