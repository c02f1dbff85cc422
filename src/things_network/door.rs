//! Finds the webhook in what people and other services post in its place: a line of the Storage Integration, and a webhook
//! whose ids a field mask has removed.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ids::{Invalid, in_downlink_url},
    object::Object,
    time,
    webhook::Webhook,
};

/// A line of the Storage Integration, as its API writes it.
/// <https://www.thethingsindustries.com/docs/integrations/storage/retrieve/>
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    result: &'a RawValue,
}

/// The uplink in a line of the Storage Integration; any other body as it is.
#[must_use]
pub fn unwrapped(body: &str) -> &str {
    let inner = body.trim_ascii_start().strip_prefix('{').unwrap_or_default();
    if !inner.trim_ascii_start().starts_with("\"result\"") {
        return body;
    }
    serde_json::from_str::<Line<'_>>(body).map_or(body, |line| line.result.get())
}

/// When The Things Stack passed an uplink on, of which perhaps nothing else can be read.
#[must_use]
pub fn received_at(webhook: &str) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    struct Envelope {
        received_at: String,
    }
    time::read(&serde_json::from_str::<Envelope>(webhook).ok()?.received_at)
}

/// Whether ids are missing that [`with_ids`] may find.
#[must_use]
pub fn lacks_ids(parsed: &Result<Webhook<'_>, Invalid>) -> bool {
    match parsed {
        Ok(Webhook::Uplink(_)) => false,
        Ok(Webhook::Event(event)) => matches!(event.ids(), Err(Invalid::NoIds(_))),
        Err(invalid) => matches!(invalid, Invalid::NoIds(_)),
    }
}

/// The webhook with the ids that its downlink URL names. `None` if the URL names none, or others than the webhook has.
#[must_use]
pub fn with_ids(body: &str, downlink_url: &str) -> Option<String> {
    let (application, device) = in_downlink_url(downlink_url)?;
    let mut webhook = Object::read(body)?;
    let text = {
        let mut ids = webhook.object("end_device_ids");
        let mut application_ids = ids.object("application_ids");
        let is_other = |object: &Object<'_>, name, id: &str| {
            let own = object.get(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
            own.is_some_and(|own| !own.is_empty() && own != id)
        };
        if is_other(&application_ids, "application_id", application) || is_other(&ids, "device_id", device) {
            return None;
        }
        application_ids.set("application_id", &application);
        let application_ids = application_ids.raw();
        ids.set("device_id", &device);
        ids.set("application_ids", &application_ids);
        ids.raw()
    };
    webhook.set("end_device_ids", &text);
    Some(webhook.text())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "https://eu1.cloud.example/api/v3/as/applications/city/webhooks/w/devices/mask-1/down/push";

    #[test]
    fn a_line_of_the_storage_integration_is_unwrapped() {
        for (body, inner) in [
            (r#"{"result":{"a":1.0}}"#, r#"{"a":1.0}"#),
            (" {\n \"result\" : {\"a\":1.0} }\n", r#"{"a":1.0}"#),
            (r#"{"a":1,"result":{}}"#, r#"{"a":1,"result":{}}"#),
            (r#"{"result":{"#, r#"{"result":{"#),
            ("", ""),
        ] {
            assert_eq!(unwrapped(body), inner, "{body}");
        }
    }

    #[test]
    fn ids_are_taken_from_the_url_for_downlinks() {
        let of = |webhook: Value| with_ids(&webhook.to_string(), URL).map(|text| serde_json::from_str(&text).unwrap());
        let full = json!({"device_id": "mask-1", "application_ids": {"application_id": "city"}});
        for ids in [
            json!({}),
            json!(null),
            json!({"device_id": ""}),
            json!({"device_id": "mask-1", "application_ids": {}}),
            json!({"application_ids": {"application_id": "city"}}),
        ] {
            let expected = json!({"end_device_ids": full, "uplink_message": {}});
            assert_eq!(of(json!({"end_device_ids": ids, "uplink_message": {}})), Some(expected), "{ids}");
        }
        let kept = of(json!({"end_device_ids": {"dev_eui": "00"}, "x": 1})).unwrap();
        assert_eq!((&kept["end_device_ids"]["dev_eui"], &kept["x"]), (&json!("00"), &json!(1)));
        assert_eq!(of(json!({"uplink_message": {}})).unwrap()["end_device_ids"], full);
        assert_eq!(of(json!({"end_device_ids": {"device_id": "other"}})), None, "another device's URL");
        assert_eq!(with_ids("{}", "https://eu1.cloud.example/"), None);
    }
}
