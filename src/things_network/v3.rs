//! Parses uplinks of The Things Stack (V3). The Things Stack omits members that are zero or empty.
//! <https://www.thethingsindustries.com/docs/the-things-stack/concepts/data-formats/>

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    extras::{CutDown, Extras, is_true},
    ids::{EndDeviceIds, Invalid},
    reception::Reception,
    time,
    uplink::Uplink,
};
use crate::host::input::Text;

/// The names of an uplink's ids in the webhook.
const IDS: [&str; 2] = ["end_device_ids.application_ids.application_id", "end_device_ids.device_id"];
/// The member in which the connector notes what it has left out of a webhook.
pub const CUT_DOWN: &str = "cut_down";

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    end_device_ids: Option<EndDeviceIds<'a>>,
    #[serde(borrow)]
    received_at: Option<Text<'a>>,
    #[serde(borrow)]
    uplink_message: Option<Message<'a>>,
    #[serde(borrow)]
    simulated: Option<&'a RawValue>,
    #[serde(borrow)]
    cut_down: Option<&'a RawValue>,
}

/// Of another type than is expected, these are a reason to refuse an uplink.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    session_key_id: Option<Text<'a>>,
    f_port: Option<u8>,
    f_cnt: Option<u32>,
    #[serde(borrow)]
    frm_payload: Option<Text<'a>>,
    #[serde(borrow)]
    received_at: Option<Text<'a>>,
    #[serde(borrow)]
    decoded_payload: Option<&'a RawValue>,
    // All others are left out if they cannot be read.
    #[serde(borrow)]
    rx_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    settings: Option<&'a RawValue>,
    #[serde(borrow)]
    confirmed: Option<&'a RawValue>,
    #[serde(borrow)]
    consumed_airtime: Option<&'a RawValue>,
    #[serde(borrow)]
    packet_error_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    last_battery_percentage: Option<&'a RawValue>,
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
    #[serde(borrow)]
    locations: Option<&'a RawValue>,
    #[serde(borrow)]
    normalized_payload: Option<&'a RawValue>,
    #[serde(borrow)]
    normalized_payload_warnings: Option<&'a RawValue>,
    #[serde(borrow)]
    decoded_payload_warnings: Option<&'a RawValue>,
    #[serde(borrow)]
    version_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    network_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    app_s_key: Option<&'a RawValue>,
    #[serde(borrow)]
    last_a_f_cnt_down: Option<&'a RawValue>,
}

/// The members of an uplink that a message can have something of.
#[rustfmt::skip]
pub const USED: [&str; 21] = [
    "session_key_id", "f_port", "f_cnt", "frm_payload", "received_at", "decoded_payload", "rx_metadata", "settings",
    "confirmed", "consumed_airtime", "packet_error_rate", "last_battery_percentage", "attributes", "locations",
    "normalized_payload", "normalized_payload_warnings", "decoded_payload_warnings", "version_ids", "network_ids",
    "app_s_key", "last_a_f_cnt_down",
];

/// Whether a message can have something of this member of an uplink.
pub fn is_used(member: &str) -> bool {
    USED.contains(&member)
}

/// `None` if it is not a uplink of The Things Stack.
pub fn parse(body: &str) -> Result<Option<Uplink<'_>>, Invalid> {
    let envelope: Envelope<'_> = serde_json::from_str(body).map_err(|error| Invalid::malformed(&error))?;
    let Some(message) = envelope.uplink_message else { return Ok(None) };
    let mut ids = envelope.end_device_ids.unwrap_or_default();
    let (application, device) = Invalid::ids(ids.application(), ids.device(), IDS)?;
    let read_time = |text: Option<Text<'_>>| text.and_then(|Text(text)| time::read(&text));
    let published_at = read_time(envelope.received_at);
    let extras = Extras {
        simulated: is_true(envelope.simulated),
        join_eui: ids.join_eui,
        dev_addr: ids.dev_addr,
        confirmed: message.confirmed,
        consumed_airtime: message.consumed_airtime,
        packet_error_rate: message.packet_error_rate,
        last_battery_percentage: message.last_battery_percentage,
        attributes: message.attributes,
        locations: message.locations,
        normalized_payload: message.normalized_payload,
        normalized_payload_warnings: message.normalized_payload_warnings,
        decoded_payload_warnings: message.decoded_payload_warnings,
        version_ids: message.version_ids,
        network_ids: message.network_ids,
        app_s_key: message.app_s_key,
        last_a_f_cnt_down: message.last_a_f_cnt_down,
        cut_down: envelope.cut_down.and_then(|raw| serde_json::from_str::<CutDown<'_>>(raw.get()).ok()),
    };
    Ok(Some(Uplink {
        application,
        device,
        dev_eui: ids.dev_eui(),
        port: message.f_port.unwrap_or_default(),
        counter: message.f_cnt,
        is_retry: false,
        payload: message.frm_payload.map(|Text(payload)| payload).unwrap_or_default(),
        decoded: message.decoded_payload,
        // The network server's time of reception, if there is one.
        received_at: read_time(message.received_at).or(published_at),
        published_at,
        session: message.session_key_id.map(|Text(session)| session),
        reception: Reception::Raw { receptions: message.rx_metadata, settings: message.settings },
        extras,
        body,
    }))
}
