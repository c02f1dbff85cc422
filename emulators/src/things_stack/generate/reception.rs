//! Which gateways received an uplink, and where things are.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    json::{is_default, stamp},
    readings::spread,
};
use crate::things_stack::devices::Device;

#[derive(Serialize)]
/// An entry of `rx_metadata`.
pub struct Reception {
    gateway_ids: GatewayIds,
    #[serde(skip_serializing_if = "is_default")]
    time: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    timestamp: u32,
    #[serde(skip_serializing_if = "is_default")]
    rssi: i32,
    #[serde(skip_serializing_if = "is_default")]
    channel_rssi: i32,
    #[serde(skip_serializing_if = "is_default")]
    snr: f64,
    #[serde(skip_serializing_if = "is_default")]
    location: Option<Value>,
    uplink_token: String,
    #[serde(skip_serializing_if = "is_default")]
    channel_index: u32,
    received_at: String,
}

#[derive(Serialize)]
struct GatewayIds {
    gateway_id: String,
    #[serde(skip_serializing_if = "is_default")]
    eui: Option<String>,
}

/// What the gateway says that is so many places behind the nearest one.
pub fn reception(device: &Device, rank: usize, concentrator: u32, received: DateTime<Utc>, rng: &mut Rng) -> Reception {
    let gateway = (device.number / 10 + rank) as u64;
    let rssi = if rng.u8(..100) == 0 { 0 } else { -rng.i32(25..125) };
    let knows_time = rng.u8(..4) > 0;
    Reception {
        gateway_ids: GatewayIds {
            gateway_id: format!("gateway-{gateway}"),
            eui: (gateway % 8 != 7).then(|| format!("{:016X}", 0x9C5C_8E00_001A_0000 + gateway)),
        },
        time: knows_time.then(|| received.to_rfc3339_opts(SecondsFormat::Micros, true)),
        timestamp: concentrator.wrapping_add(rng.u32(..2000)),
        rssi,
        channel_rssi: rssi,
        snr: (spread(rng, 12.0) * 4.0).round() / 4.0,
        location: (gateway.is_multiple_of(2)).then(|| location(device.latitude, device.longitude, 310)),
        uplink_token: BASE64_STANDARD.encode(rng.u128(..).to_be_bytes()),
        channel_index: rng.u32(..8),
        received_at: stamp(received),
    }
}

/// A position with its source; zero coordinates are left out as everywhere.
pub fn location(latitude: f64, longitude: f64, altitude: i32) -> Value {
    let mut location = Map::new();
    for (name, value) in [("latitude", json!(latitude)), ("longitude", json!(longitude)), ("altitude", json!(altitude))]
    {
        if value.as_f64() != Some(0.0) {
            location.insert(name.to_owned(), value);
        }
    }
    location.insert("source".to_owned(), "SOURCE_REGISTRY".into());
    location.into()
}
