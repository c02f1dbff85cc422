//! Parses uplinks of The Things Stack (V3). The Things Stack omits members that are zero or empty.
//! <https://www.thethingsindustries.com/docs/the-things-stack/concepts/data-formats/>

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ids::{EndDeviceIds, Invalid},
    reception::Reception,
    uplink::Uplink,
};
use crate::support::clock;

/// The names of an uplink's ids in the webhook.
const IDS: [&str; 2] = ["end_device_ids.application_ids.application_id", "end_device_ids.device_id"];

#[derive(Deserialize)]
struct Envelope<'a> {
    end_device_ids: Option<EndDeviceIds>,
    received_at: Option<String>,
    #[serde(borrow)]
    uplink_message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    session_key_id: Option<String>,
    f_port: Option<u8>,
    f_cnt: Option<u32>,
    frm_payload: Option<String>,
    received_at: Option<String>,
    #[serde(borrow)]
    decoded_payload: Option<&'a RawValue>,
    // Reception data that cannot be read is left out; it is no reason to refuse an uplink.
    #[serde(borrow)]
    rx_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    settings: Option<&'a RawValue>,
}

/// `None` if it is no uplink of The Things Stack.
pub fn parse(body: &str) -> Result<Option<Uplink<'_>>, Invalid> {
    let envelope: Envelope<'_> = serde_json::from_str(body).map_err(|error| Invalid::malformed(&error))?;
    let Some(message) = envelope.uplink_message else { return Ok(None) };
    let mut ids = envelope.end_device_ids.unwrap_or_default();
    let (application, device) = Invalid::ids(ids.application(), ids.device_id, IDS)?;
    // The network server's time of reception. The time in the envelope is when the application server passed the uplink
    // on.
    let received_at =
        [message.received_at, envelope.received_at].into_iter().flatten().find_map(|text| clock::read_rfc3339(&text));
    Ok(Some(Uplink {
        application,
        device,
        dev_eui: ids.dev_eui.filter(|eui| !eui.is_empty()),
        port: message.f_port.unwrap_or_default(),
        counter: message.f_cnt.unwrap_or_default(),
        is_retry: false,
        payload: message.frm_payload.unwrap_or_default(),
        decoded: message.decoded_payload,
        received_at,
        session: message.session_key_id,
        reception: Reception::Raw { receptions: message.rx_metadata, settings: message.settings },
        body,
    }))
}
