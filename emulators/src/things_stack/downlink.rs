//! What a request for downlinks may say. Pure.
//!
//! Source: `DownlinkQueueRequest` and `ApplicationDownlink` of The Things Stack's API, which it reads with unknown members
//! refused. In one point this is stricter than the original: that takes `frm_payload` and ignores `decoded_payload` when
//! both are given, and sends nothing when neither is.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

const PRIORITIES: [&str; 7] = ["LOWEST", "LOW", "BELOW_NORMAL", "NORMAL", "ABOVE_NORMAL", "HIGH", "HIGHEST"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    downlinks: Vec<Value>,
    #[serde(rename = "end_device_ids")]
    _end_device_ids: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Downlink {
    f_port: Option<i64>,
    frm_payload: Option<String>,
    decoded_payload: Option<Map<String, Value>>,
    priority: Option<String>,
    #[serde(rename = "confirmed")]
    _confirmed: Option<bool>,
    #[serde(rename = "correlation_ids")]
    _correlation_ids: Option<Vec<String>>,
    #[serde(rename = "session_key_id")]
    _session_key_id: Option<String>,
    #[serde(rename = "f_cnt")]
    _f_cnt: Option<u32>,
    #[serde(rename = "class_b_c")]
    _class_b_c: Option<IgnoredAny>,
    #[serde(rename = "confirmed_retry")]
    _confirmed_retry: Option<IgnoredAny>,
}

/// The downlinks of a request, as they were written.
///
/// # Errors
/// Why The Things Stack would not take them.
pub fn parse(body: &[u8]) -> Result<Vec<Value>, String> {
    let request: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    for (index, downlink) in request.downlinks.iter().enumerate() {
        check(downlink).map_err(|problem| format!("downlinks[{index}]: {problem}"))?;
    }
    Ok(request.downlinks)
}

fn check(downlink: &Value) -> Result<(), String> {
    let downlink = Downlink::deserialize(downlink).map_err(|error| error.to_string())?;
    match (&downlink.frm_payload, &downlink.decoded_payload) {
        (Some(_), Some(_)) => return Err("frm_payload and decoded_payload are both given".to_owned()),
        (None, None) => return Err("neither frm_payload nor decoded_payload is given".to_owned()),
        (Some(payload), None) => {
            BASE64_STANDARD.decode(payload).map_err(|error| format!("frm_payload is not Base64: {error}"))?;
        }
        (None, Some(_)) => {}
    }
    match downlink.f_port {
        Some(1..=255) => {}
        // The payload formatter may choose it.
        None if downlink.decoded_payload.is_some() => {}
        None => return Err("f_port is missing".to_owned()),
        Some(port) => return Err(format!("f_port {port} is not in 1..=255")),
    }
    match downlink.priority {
        Some(priority) if !PRIORITIES.contains(&priority.as_str()) => {
            Err(format!("priority {priority:?} is none of {PRIORITIES:?}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_documented_requests_are_taken_as_they_are() {
        for downlinks in [
            json!([{ "f_port": 15, "frm_payload": "vu8=", "priority": "NORMAL", "confirmed": false }]),
            json!([{ "f_port": 255, "frm_payload": "" }, { "f_port": 1, "frm_payload": "AA==", "priority": "HIGHEST" }]),
            json!([{ "decoded_payload": { "valve": "open" }, "correlation_ids": ["custom-id"] }]),
            json!([]),
        ] {
            let body = json!({ "downlinks": downlinks }).to_string();
            assert_eq!(parse(body.as_bytes()), Ok(downlinks.as_array().unwrap().clone()));
        }
        assert_eq!(parse(br#"{"end_device_ids":{"device_id":"a"}}"#), Ok(vec![]));
    }

    #[test]
    fn what_the_original_cannot_take_is_refused_with_the_reason() {
        for (body, reason) in [
            (r#"{"downlinks":[{"f_port":1,"frm_payload":"AA=="}"#, "EOF"),
            (r#"{"downlink":[]}"#, "unknown field `downlink`"),
            (r#"{"downlinks":[{"f_port":1,"frm_payload":"AA==","fport":1}]}"#, "downlinks[0]: unknown field `fport`"),
            (r#"{"downlinks":[{"f_port":1}]}"#, "neither frm_payload"),
            (r#"{"downlinks":[{"f_port":1,"frm_payload":"","decoded_payload":{}}]}"#, "both given"),
            (r#"{"downlinks":[{"f_port":1,"frm_payload":"AA="}]}"#, "not Base64"),
            (r#"{"downlinks":[{"frm_payload":"AA=="}]}"#, "f_port is missing"),
            (r#"{"downlinks":[{"f_port":0,"frm_payload":"AA=="}]}"#, "f_port 0"),
            (r#"{"downlinks":[{"f_port":256,"decoded_payload":{}}]}"#, "f_port 256"),
            (r#"{"downlinks":[{"f_port":1,"decoded_payload":[1]}]}"#, "invalid type"),
            (r#"{"downlinks":[{},{"f_port":1,"frm_payload":"","priority":"normal"}]}"#, "downlinks[0]: neither"),
            (r#"{"downlinks":[{"f_port":1,"frm_payload":"","priority":"normal"}]}"#, "\"normal\" is none of"),
            (r#"{"downlinks":[{"f_port":1,"frm_payload":"","confirmed":1}]}"#, "invalid type"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }
}
