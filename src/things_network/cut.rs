//! Cuts a webhook down that does not fit the queue: to the best reception, then to what messages use, then by what they
//! can do without. The payload always stays.

use std::borrow::Cow;

use super::{
    extras::CutDown,
    object::Object,
    queued::{MAX_TEXT, Queued},
    reception, v2, v3,
};
use crate::host::input::Text;

/// The members of an uplink's envelope that messages use.
const ENVELOPE: [&str; 4] = ["end_device_ids", "received_at", "simulated", UPLINK];
const UPLINK: &str = "uplink_message";
/// The members of a reception that messages use, in V3 and V2.
const RECEPTION: [&str; 7] = ["gateway_ids", "packet_broker", "rssi", "snr", "time", "received_at", "gtw_id"];
/// The members of an uplink that a message can do without. (`network_ids` is not one: it names the tenant.)
#[rustfmt::skip]
const SPARE: [&str; 12] = [
    "rx_metadata", "settings", "confirmed", "consumed_airtime", "packet_error_rate", "last_battery_percentage", "attributes",
    "locations", "normalized_payload", "normalized_payload_warnings", "decoded_payload_warnings", "version_ids",
];

/// A text that fits into a queue message.
pub struct Fitting {
    pub text: String,
    /// How many bytes it had before it was cut down.
    pub cut_from: Option<usize>,
}

/// The text of the queue message, cut down if it must be.
///
/// # Errors
/// How many bytes it has, if it cannot be cut down so far.
pub fn fit(queued: Queued<'_>) -> Result<Fitting, usize> {
    let text = queued.text();
    let length = text.len();
    let Some(excess) = length.checked_sub(MAX_TEXT).filter(|excess| *excess > 0) else {
        return Ok(Fitting { text, cut_from: None });
    };
    let room = queued.webhook.len().saturating_sub(excess);
    let webhook = down(&queued.webhook, room).ok_or(length)?.into();
    Ok(Fitting { text: Queued { webhook, ..queued }.text(), cut_from: Some(length) })
}

/// The webhook in at most `room` bytes. It says how many gateways received it, and what else was left out. `None` if that
/// is impossible.
pub fn down(webhook: &str, room: usize) -> Option<String> {
    let mut all = Object::read(webhook)?;
    if all.get(UPLINK).is_some() {
        return uplink(all, room);
    }
    let (part, list) = if v2::is_uplink(|name| all.get(name).is_some()) {
        all.retain(v2::is_used);
        ("metadata".to_owned(), "gateways")
    } else {
        // An event whose content has receptions.
        let mut parts = all.lengths().map(|(name, _)| name);
        (parts.find(|name| all.object(name).get("rx_metadata").is_some())?.to_owned(), "rx_metadata")
    };
    let best = all.get(&part).map(|content| {
        let mut content = Object::read(content.get()).unwrap_or_default();
        let receptions = keep_best(&mut content, list);
        (content.raw(), receptions)
    });
    if let Some((content, receptions)) = best {
        all.set(&part, &content);
        all.set(v3::CUT_DOWN, &CutDown { receptions, left_out: Vec::new() });
    }
    Some(all.text()).filter(|text| text.len() <= room)
}

fn uplink(mut all: Object<'_>, room: usize) -> Option<String> {
    all.retain(|name| ENVELOPE.contains(&name));
    let message = all.take(UPLINK);
    let mut message = Object::read(message.as_deref()?.get())?;
    message.retain(v3::is_used);
    let receptions = keep_best(&mut message, "rx_metadata");
    let mut left_out = Vec::new();
    loop {
        all.set(UPLINK, &message);
        all.set(v3::CUT_DOWN, &CutDown { receptions, left_out: left_out.clone() });
        let text = all.text();
        if text.len() <= room {
            return Some(text);
        }
        let spare = message.lengths().filter(|(name, _)| SPARE.contains(name));
        let largest = spare.max_by_key(|(_, length)| *length)?.0.to_owned();
        message.retain(|name| name != largest);
        left_out.push(Text(Cow::Owned(largest)));
    }
}

/// Leaves the best reception in the list. Returns how many there were.
fn keep_best(of: &mut Object<'_>, list: &str) -> usize {
    let best = of.get(list).and_then(reception::best).map(|(best, count)| {
        let mut best = Object::read(best.get()).unwrap_or_default();
        best.retain(|name| RECEPTION.contains(&name));
        (best.raw(), count)
    });
    match best {
        Some((best, count)) => {
            of.set(list, &[best]);
            count
        }
        None => {
            of.retain(|name| name != list);
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cut(webhook: &Value, room: usize) -> Option<Value> {
        let text = down(&webhook.to_string(), room)?;
        assert!(text.len() <= room, "{}", text.len());
        Some(serde_json::from_str(&text).unwrap())
    }

    fn receptions(count: i32) -> Value {
        let one = |n: i32| json!({"gateway_ids": {"gateway_id": format!("gw-{n}")}, "rssi": -120 + n, "snr": 1.5, "uplink_token": "x".repeat(700)});
        (0..count).map(one).collect()
    }

    fn webhook(message: Value) -> Value {
        let ids = json!({"device_id": "d", "application_ids": {"application_id": "a"}});
        json!({"end_device_ids": ids, "correlation_ids": ["x"], "received_at": "t", "uplink_message": message})
    }

    #[test]
    fn the_best_reception_stays() {
        let full = webhook(json!({"f_cnt": 7, "frm_payload": "AA==", "unknown": 1, "rx_metadata": receptions(100)}));
        let best = json!({"gateway_ids": {"gateway_id": "gw-99"}, "rssi": -21, "snr": 1.5});
        let mut expected = webhook(json!({"f_cnt": 7, "frm_payload": "AA==", "rx_metadata": [best]}));
        expected.as_object_mut().unwrap().remove("correlation_ids");
        expected["cut_down"] = json!({"receptions": 100, "left_out": []});
        assert_eq!(cut(&full, 400), Some(expected));
    }

    #[test]
    fn what_can_be_done_without_goes_the_largest_first_and_the_payload_stays() {
        let message = json!({"frm_payload": "AA==", "attributes": {"a": "x".repeat(5000)}, "locations": {"user": "y".repeat(300)},
            "version_ids": {"brand_id": "b"}, "rx_metadata": "nonsense", "decoded_payload": {"t": 1}});
        let left = cut(&webhook(message.clone()), 600).unwrap();
        assert_eq!(left["cut_down"], json!({"receptions": 0, "left_out": ["attributes"]}));
        assert_eq!(left["uplink_message"]["locations"], message["locations"]);
        let least = cut(&webhook(message.clone()), 300).unwrap();
        assert_eq!(least["cut_down"]["left_out"], json!(["attributes", "locations"]));
        assert_eq!(least["uplink_message"]["decoded_payload"], json!({"t": 1}));
        assert_eq!(cut(&webhook(message), 100), None);
        assert_eq!(cut(&webhook(json!({"decoded_payload": {"t": "x".repeat(1000)}})), 500), None);
        let one = json!([{"gateway_ids": {"gateway_id": "x".repeat(1000)}, "rssi": -90}]);
        let left = cut(&webhook(json!({"frm_payload": "AA==", "rx_metadata": one})), 500).unwrap();
        assert_eq!(left["cut_down"], json!({"receptions": 1, "left_out": ["rx_metadata"]}));
    }

    #[test]
    fn events_and_uplinks_of_v2_are_cut_to_the_best_reception_too() {
        let event = json!({"end_device_ids": {}, "uplink_normalized": {"x": 1.5, "rx_metadata": receptions(50)}});
        let left = cut(&event, 300).unwrap();
        assert_eq!(left["uplink_normalized"]["rx_metadata"][0]["rssi"], -71);
        assert_eq!((&left["uplink_normalized"]["x"], &left["cut_down"]["receptions"]), (&json!(1.5), &json!(50)));
        let gateways: Value = (0..50).map(|n| json!({"gtw_id": format!("gw-{n}"), "rssi": -n, "snr": n})).collect();
        let v2 = json!({"app_id": "a", "dev_id": "d", "metadata": {"time": "t", "gateways": gateways}});
        let left = cut(&v2, 300).unwrap();
        let expected = json!({"time": "t", "gateways": [{"gtw_id": "gw-49", "rssi": -49, "snr": 49}]});
        assert_eq!((&left["metadata"], &left["cut_down"]["receptions"]), (&expected, &json!(50)));
        let spare = json!({"app_id": "a", "dev_id": "d", "payload_raw": "AA==", "unknown": "x".repeat(1000)});
        assert_eq!(cut(&spare, 100), Some(json!({"app_id": "a", "dev_id": "d", "payload_raw": "AA=="})));
        assert_eq!(cut(&json!({"service_data": {"data": "x".repeat(1000)}}), 500), None);
    }

    #[test]
    fn ten_thousand_receptions_are_cut() {
        let full = webhook(json!({"rx_metadata": receptions(10_000)}));
        assert_eq!(cut(&full, 1000).unwrap()["cut_down"]["receptions"], 10_000);
    }
}
