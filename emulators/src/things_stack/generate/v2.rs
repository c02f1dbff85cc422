//! Uplinks as The Things Network sent them until 2021, which are still accepted.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{json::stamp, readings::spread, v3::Content};
use crate::things_stack::devices::Device;

/// In megahertz.
const FREQUENCIES: [f64; 3] = [868.1, 868.3, 868.5];

/// The body of a webhook. `downlinks` is where the old API for downlinks would be.
pub fn body(device: &Device, content: &Content, downlinks: &str, now: DateTime<Utc>, rng: &mut Rng) -> Vec<u8> {
    let mut body = json!({
        "app_id": device.application,
        "dev_id": device.id,
        "hardware_serial": format!("{:016X}", device.dev_eui),
        "port": content.f_port,
        "counter": content.f_cnt,
        "payload_raw": BASE64_STANDARD.encode(&content.payload),
        "metadata": metadata(device, content.plain, now, rng),
    });
    if let Some(decoded) = &content.decoded {
        body["payload_fields"] = decoded.clone();
    }
    // The device itself sent the uplink again.
    let is_retry = !content.plain && rng.u8(..20) == 0;
    for (name, flag) in [("is_retry", is_retry), ("confirmed", content.confirmed)] {
        if flag || device.number.is_multiple_of(2) {
            body[name] = flag.into();
        }
    }
    if device.number % 3 != 2 {
        let key = format!("ttn-account-v2.{}", device.session_key_id.replace(['+', '/', '='], "-"));
        body["downlink_url"] = format!("{downlinks}api/v2/down/{}/process?key={key}", device.application).into();
    }
    body.to_string().into_bytes()
}

fn metadata(device: &Device, plain: bool, now: DateTime<Utc>, rng: &mut Rng) -> Value {
    let gateways: Vec<_> = (0..1 + rng.usize(..3)).map(|rank| gateway(device, rank, now, rng)).collect();
    let mut metadata = json!({
        "time": stamp(now),
        "frequency": FREQUENCIES[rng.usize(..FREQUENCIES.len())],
        "modulation": "LORA",
        "data_rate": format!("SF{}BW125", rng.u8(7..13)),
        "coding_rate": "4/5",
        "gateways": gateways,
    });
    if !plain && rng.u8(..10) == 0 {
        let members = metadata.as_object_mut().expect("made as an object above");
        members.remove("data_rate");
        members.remove("coding_rate");
        members.insert("modulation".to_owned(), "FSK".into());
        members.insert("bit_rate".to_owned(), 50_000.into());
    }
    if !plain && rng.u8(..4) == 0 {
        metadata["latitude"] = device.latitude.into();
        metadata["longitude"] = device.longitude.into();
        metadata["airtime"] = 56_576_000.into();
    }
    metadata
}

fn gateway(device: &Device, rank: usize, now: DateTime<Utc>, rng: &mut Rng) -> Value {
    let number = (device.number / 10 + rank) as u64;
    let received = now - TimeDelta::milliseconds(rng.i64(200..1500));
    // Gateways without a clock of their own send an empty string.
    let time = if rng.u8(..4) == 0 { String::new() } else { received.to_rfc3339_opts(SecondsFormat::Micros, true) };
    json!({
        "gtw_id": format!("eui-{:016x}", 0xb827_ebff_fe6c_0000 + number),
        "timestamp": rng.u32(..),
        "time": time,
        "channel": rng.u8(..8),
        "rssi": -rng.i32(25..125),
        "snr": (spread(rng, 12.0) * 4.0).round() / 4.0,
        "rf_chain": rng.u8(..2),
        "latitude": device.latitude,
        "longitude": device.longitude,
        "altitude": 14,
    })
}
