//! Parses the format of The Things Network V2, which was shut down on 1 December 2021: private networks may still send
//! it, and a queue may still contain it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use super::{
    extras::Extras,
    ids::Invalid,
    reception::{Radio, Reception},
    time,
    uplink::Uplink,
};
use crate::host::input::Text;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    app_id: Option<Text<'a>>,
    #[serde(borrow)]
    dev_id: Option<Text<'a>>,
    #[serde(borrow)]
    hardware_serial: Option<Text<'a>>,
    port: Option<u8>,
    counter: Option<u32>,
    is_retry: Option<bool>,
    #[serde(borrow)]
    payload_raw: Option<Text<'a>>,
    #[serde(borrow)]
    payload_fields: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    cut_down: Option<&'a RawValue>,
}

fn of(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|Text(text)| text)
}

#[derive(Default, Deserialize)]
struct Metadata {
    time: Option<String>,
    frequency: Option<f64>,
    data_rate: Option<String>,
    #[serde(default)]
    gateways: Option<Vec<Gateway>>,
}

#[derive(Deserialize)]
struct Gateway {
    gtw_id: Option<String>,
    rssi: Option<Number>,
    snr: Option<Number>,
}

/// Whether an object with these members is of this format, as far as its names tell.
pub fn is_uplink(has: impl Fn(&str) -> bool) -> bool {
    ["app_id", "dev_id", "payload_raw"].into_iter().any(has)
}

/// Whether a message can have something of this member.
pub fn is_used(member: &str) -> bool {
    const MEMBERS: [&str; 9] = [
        "app_id",
        "dev_id",
        "hardware_serial",
        "port",
        "counter",
        "is_retry",
        "payload_raw",
        "payload_fields",
        "metadata",
    ];
    MEMBERS.contains(&member)
}

pub fn parse(text: &str) -> Result<Uplink<'_>, Invalid> {
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| Invalid::malformed(&error))?;
    let (application, device) = Invalid::ids(of(body.app_id), of(body.dev_id), ["app_id", "dev_id"])?;
    let metadata: Metadata =
        body.metadata.and_then(|metadata| serde_json::from_str(metadata.get()).ok()).unwrap_or_default();
    Ok(Uplink {
        application,
        device,
        dev_eui: of(body.hardware_serial).filter(|eui| !eui.is_empty()),
        port: body.port.unwrap_or_default(),
        counter: body.counter,
        is_retry: body.is_retry.unwrap_or_default(),
        payload: of(body.payload_raw).unwrap_or_default(),
        decoded: body.payload_fields,
        received_at: metadata.time.as_deref().and_then(time::read),
        published_at: None,
        session: None,
        reception: Reception::Read(radio(metadata)),
        extras: Extras {
            cut_down: body.cut_down.and_then(|raw| serde_json::from_str(raw.get()).ok()),
            ..Extras::default()
        },
        body: text,
    })
}

fn radio(metadata: Metadata) -> Radio<'static> {
    let gateways = metadata.gateways.unwrap_or_default();
    let receptions = gateways.len();
    let best = gateways.into_iter().max_by(|one, other| {
        let number = |value: &Option<Number>| value.as_ref().and_then(Number::as_f64).unwrap_or(f64::MIN);
        number(&one.snr).total_cmp(&number(&other.snr)).then(number(&one.rssi).total_cmp(&number(&other.rssi)))
    });
    let (gateway, rssi, snr) = best.map(|best| (best.gtw_id, best.rssi, best.snr)).unwrap_or_default();
    Radio {
        gateway: gateway.map(Into::into),
        rssi,
        snr,
        data_rate: metadata.data_rate.filter(|rate| !rate.is_empty()),
        frequency: metadata.frequency,
        receptions,
        packet_broker: None,
    }
}
