//! What else webhooks tell: the same envelope as an uplink's, with another member.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{json::stamp, reception::location, ulid, v3::end_device_ids};
use crate::things_stack::devices::Device;

/// All of them, as their member is called.
pub const NAMES: [&str; 10] = [
    "join_accept",
    "downlink_queued",
    "downlink_sent",
    "downlink_ack",
    "downlink_nack",
    "downlink_failed",
    "downlink_queue_invalidated",
    "location_solved",
    "service_data",
    "uplink_normalized",
];

/// The body of a webhook for the event with that name.
pub fn body(device: &Device, name: &str, now: DateTime<Utc>, rng: &mut Rng) -> Vec<u8> {
    let correlation_id = format!("as:downlink:{}", ulid(now, rng));
    let received_at = stamp(now - TimeDelta::milliseconds(200));
    let downlink = json!({
        "session_key_id": device.session_key_id, "f_port": 15, "f_cnt": rng.u32(1..1000),
        "frm_payload": BASE64_STANDARD.encode(rng.u16(..).to_be_bytes()), "confirmed": true, "priority": "NORMAL",
        "correlation_ids": [correlation_id],
    });
    let event: Value = match name {
        "join_accept" => json!({ "session_key_id": device.session_key_id, "received_at": received_at }),
        "downlink_failed" => json!({
            "downlink": downlink,
            "error": {
                "namespace": "pkg/networkserver", "name": "application_downlink_too_long", "code": 3,
                "message_format": "application downlink payload length `{length}` exceeds maximum '{max}'",
                "attributes": { "length": 60, "max": 51 }, "correlation_id": format!("{:032x}", rng.u128(..)),
            },
        }),
        "downlink_queue_invalidated" => json!({
            "downlinks": [downlink], "last_f_cnt_down": rng.u32(1..1000), "session_key_id": device.session_key_id,
        }),
        "location_solved" => json!({
            "service": "lora-cloud-geolocation-v3",
            "location": location(device.latitude, device.longitude, 0),
            "attributes": { "accuracy": "27" },
        }),
        "service_data" => json!({
            "service": "lora-cloud-device-management-v1", "data": { "result": { "pending_requests": [], "voltage": 3.6 } },
        }),
        "uplink_normalized" => json!({
            "session_key_id": device.session_key_id, "f_port": 1, "f_cnt": rng.u32(1..1000),
            "frm_payload": BASE64_STANDARD.encode(rng.u32(..).to_be_bytes()),
            "normalized_payload": { "air": { "temperature": 10 } }, "received_at": received_at,
        }),
        _ => downlink,
    };
    let mut body = json!({
        "end_device_ids": end_device_ids(device),
        "correlation_ids": [correlation_id],
        "received_at": stamp(now),
    });
    body[name] = event;
    body.to_string().into_bytes()
}
