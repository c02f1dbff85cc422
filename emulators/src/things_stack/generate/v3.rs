//! Uplinks as The Things Stack sends them: protobuf's JSON, where zero, `false` and empty members are left out.
//!
//! Source: The Things Stack's documentation, "Data Formats"; `uplink_message` is `ApplicationUplink` of its API.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    json::{is_default, stamp},
    reception::{Reception, location, reception},
    ulid,
};
use crate::things_stack::devices::Device;

/// What the generator has decided about an uplink.
pub struct Content {
    pub f_port: u8,
    pub f_cnt: u32,
    pub payload: Vec<u8>,
    pub decoded: Option<Value>,
    pub confirmed: bool,
    pub simulated: bool,
    /// Heard by so many gateways that it does not fit a storage queue.
    pub oversized: bool,
    /// No members and modulations but those that every uplink has.
    pub plain: bool,
}

#[derive(Serialize)]
struct Envelope<'a> {
    end_device_ids: Value,
    correlation_ids: Vec<String>,
    received_at: String,
    uplink_message: Uplink<'a>,
    #[serde(skip_serializing_if = "is_default")]
    simulated: bool,
    #[serde(skip_serializing_if = "is_default")]
    delivery_hints: Option<Value>,
}

#[derive(Serialize)]
struct Uplink<'a> {
    session_key_id: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    f_port: u8,
    #[serde(skip_serializing_if = "is_default")]
    f_cnt: u32,
    #[serde(skip_serializing_if = "is_default")]
    frm_payload: String,
    #[serde(skip_serializing_if = "is_default")]
    decoded_payload: Option<&'a Value>,
    #[serde(skip_serializing_if = "is_default")]
    decoded_payload_warnings: Vec<&'static str>,
    #[serde(skip_serializing_if = "is_default")]
    normalized_payload: Vec<Value>,
    rx_metadata: Vec<Reception>,
    settings: Settings,
    received_at: String,
    #[serde(skip_serializing_if = "is_default")]
    confirmed: bool,
    consumed_airtime: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    packet_error_rate: f64,
    #[serde(skip_serializing_if = "is_default")]
    locations: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    version_ids: Option<Value>,
    network_ids: NetworkIds<'a>,
    #[serde(skip_serializing_if = "is_default")]
    attributes: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    last_a_f_cnt_down: u32,
    #[serde(skip_serializing_if = "is_default")]
    last_battery_percentage: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    signal_history: Vec<[i32; 2]>,
}

#[derive(Serialize)]
struct Settings {
    data_rate: Value,
    #[serde(skip_serializing_if = "is_default")]
    coding_rate: Option<&'static str>,
    /// In hertz.
    frequency: String,
    timestamp: u32,
    time: String,
}

#[derive(Serialize)]
struct NetworkIds<'a> {
    net_id: &'static str,
    ns_id: &'static str,
    tenant_id: &'a str,
    cluster_id: &'static str,
    cluster_address: &'static str,
}

/// Where the applications are.
pub struct Network {
    pub tenant: String,
    pub cluster_address: &'static str,
}

/// The gateways that hear an uplink which is too large for a storage queue.
const TOO_MANY_GATEWAYS: usize = 200;
/// The eight channels of most gateways in Europe, in hertz.
const FREQUENCIES: [u32; 8] =
    [868_100_000, 868_300_000, 868_500_000, 867_100_000, 867_300_000, 867_500_000, 867_700_000, 867_900_000];
/// Time on air of 20 bytes with spreading factors 7 to 12.
const AIRTIMES: [&str; 6] = ["0.077056s", "0.133632s", "0.246784s", "0.452608s", "0.987136s", "1.810432s"];

/// The body of a webhook.
pub fn body(device: &Device, network: &Network, content: &Content, now: DateTime<Utc>, rng: &mut Rng) -> Vec<u8> {
    let mut sometimes = |one_in: u32| !content.plain && rng.u32(..one_in) == 0;
    let has_warnings = content.decoded.is_some() && sometimes(30);
    let is_normalized = content.decoded.is_some() && sometimes(5);
    let (has_locations, has_versions, has_attributes, has_history, has_hints, has_battery) =
        (sometimes(3), !sometimes(3), sometimes(10), sometimes(20), sometimes(20), sometimes(8));
    let (data_rate, coding_rate, consumed_airtime) = modulation(content.plain, rng);
    let received = now - TimeDelta::milliseconds(rng.i64(180..260));
    let concentrator = rng.u32(..);
    let gateways = match content {
        Content { oversized: true, .. } => TOO_MANY_GATEWAYS,
        Content { simulated: true, .. } => 1,
        _ => 1 + rng.usize(..4) * rng.usize(..2),
    };
    let temperature = content.decoded.as_ref().and_then(|decoded| decoded.get("temperature")).cloned();
    let envelope = Envelope {
        end_device_ids: end_device_ids(device),
        correlation_ids: [format!("as:up:{}", ulid(now, rng)), format!("gs:uplink:{}", ulid(received, rng))].into(),
        received_at: stamp(now),
        uplink_message: Uplink {
            session_key_id: &device.session_key_id,
            f_port: content.f_port,
            f_cnt: content.f_cnt,
            frm_payload: BASE64_STANDARD.encode(&content.payload),
            decoded_payload: content.decoded.as_ref(),
            decoded_payload_warnings: if has_warnings { vec!["sensor value out of range"] } else { vec![] },
            normalized_payload: match temperature {
                Some(temperature) if is_normalized => vec![json!({ "air": { "temperature": temperature } })],
                _ => vec![],
            },
            rx_metadata: (0..gateways).map(|rank| reception(device, rank, concentrator, received, rng)).collect(),
            settings: Settings {
                data_rate,
                coding_rate,
                frequency: FREQUENCIES[rng.usize(..FREQUENCIES.len())].to_string(),
                timestamp: concentrator,
                time: received.to_rfc3339_opts(SecondsFormat::Millis, true),
            },
            received_at: stamp(now - TimeDelta::milliseconds(150)),
            confirmed: content.confirmed,
            consumed_airtime,
            packet_error_rate: f64::from(rng.u8(..4)) / 16.0,
            locations: has_locations.then(|| json!({ "user": location(device.latitude, device.longitude, 262) })),
            version_ids: has_versions.then(|| {
                json!({
                    "brand_id": "the-things-products", "model_id": "the-things-uno", "hardware_version": "1.0",
                    "firmware_version": "quickstart", "band_id": "EU_863_870",
                })
            }),
            network_ids: NetworkIds {
                net_id: "000013",
                ns_id: "EC656E0000000181",
                tenant_id: &network.tenant,
                cluster_id: "eu1",
                cluster_address: network.cluster_address,
            },
            attributes: has_attributes.then(|| json!({ "building": "7", "owner": "water-utility" })),
            last_a_f_cnt_down: rng.u32(..3),
            last_battery_percentage: (has_battery && content.f_cnt > 1).then(|| {
                json!({ "f_cnt": content.f_cnt / 2, "value": 98.42519, "received_at": stamp(now - TimeDelta::hours(5)) })
            }),
            // Not a member of today's API: clients must bear what is yet to come.
            signal_history: if has_history { vec![[-101, 7], [-98, 6]] } else { vec![] },
        },
        simulated: content.simulated,
        delivery_hints: has_hints.then(|| json!({ "priority": "LOW", "trace": [1, 2, 3] })),
    };
    serde_json::to_vec(&envelope).expect("strings, numbers and JSON values always serialize")
}

/// The identifiers that every event begins with.
pub fn end_device_ids(device: &Device) -> Value {
    let mut ids = Map::new();
    ids.insert("device_id".to_owned(), device.id.as_str().into());
    ids.insert("application_ids".to_owned(), json!({ "application_id": device.application }));
    ids.insert("dev_eui".to_owned(), format!("{:016X}", device.dev_eui).into());
    if let Some(join_eui) = device.join_eui {
        ids.insert("join_eui".to_owned(), format!("{join_eui:016X}").into());
    }
    ids.insert("dev_addr".to_owned(), format!("{:08X}", device.dev_addr).into());
    ids.into()
}

/// Data rate, the coding rate where older versions have it, and the time on air.
fn modulation(plain: bool, rng: &mut Rng) -> (Value, Option<&'static str>, &'static str) {
    let factor = rng.usize(..AIRTIMES.len());
    let lora = |coding_rate: Option<&str>| {
        let mut lora = json!({ "bandwidth": 125_000, "spreading_factor": 7 + factor });
        if let Some(coding_rate) = coding_rate {
            lora["coding_rate"] = coding_rate.into();
        }
        json!({ "lora": lora })
    };
    match if plain { 4 } else { rng.u8(..20) } {
        0 => (json!({ "fsk": { "bit_rate": 50_000 } }), None, "0.005760s"),
        1 => (json!({ "lrfhss": { "operating_channel_width": 137_000, "coding_rate": "1/3" } }), None, "2.662400s"),
        2..4 => (lora(None), Some("4/5"), AIRTIMES[factor]),
        _ => (lora(Some("4/5")), None, AIRTIMES[factor]),
    }
}
