//! Laws for the way from a Things Network webhook to a message.

use std::{collections::BTreeMap, net::IpAddr};

use chrono::{DateTime, SubsecRound as _, TimeDelta};
use iothub_connector::{
    iot_hub::{
        device::check_id,
        devices::naming::{check_registration_id, registration_id},
        message::MAX_PORTABLE_SIZE,
    },
    things_network::{
        cut, door,
        downlinks::stack,
        forwarding::{message::Forwardable, rejected},
        members::Members,
        queued::{DownlinkKeys, MAX_TEXT, Queued},
        template::{Parts, Template},
        uplink::MEMBERS,
        webhook::Webhook,
    },
};
use secrecy::ExposeSecret as _;
use serde_json::value::RawValue;

use super::bounds::{check_error, is_json, now};

const URL: &str = "https://localhost/api/v3/as/applications/a/webhooks/w/devices/d/down/push";

/// Turns a body of V2 or V3, an uplink or an event, into a message.
pub fn webhook(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    let body = door::unwrapped(body);
    let completed = door::with_ids(body, URL);
    assert!(completed.is_none_or(|text| is_json(&text)));
    let queued_at = |time| Queued { received_at: Some(time), downlink: None, domain: None, webhook: body.into() };
    let queued = queued_at(now());
    let all = Members::all();
    let webhook = match Webhook::parse(body) {
        Ok(webhook) => webhook,
        Err(invalid) => {
            check_error(&invalid.to_string());
            assert!(Forwardable::read(&queued, now(), &all).is_err());
            return;
        }
    };
    let forwardable = match Forwardable::read(&queued, now(), &all) {
        Ok(forwardable) => forwardable,
        Err(invalid) => {
            assert!(matches!(webhook, Webhook::Event(_)), "what was accepted at the door is forwarded");
            return check_error(&invalid.to_string());
        }
    };
    check_cut(body, &queued, &forwardable);
    for id in [&forwardable.application, &forwardable.device] {
        let is_valid = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter);
        assert!((1..=36).contains(&id.len()) && id.chars().all(is_valid), "{id:?}");
    }
    check_message(&webhook, &forwardable, body);
    // Taken from the queue again, at another time, with white space, with other members: the message id stays the same.
    let text = queued.text();
    let unwrapped = Queued::parse(&text).expect("our own text");
    let later = now() + TimeDelta::days(1);
    let again = Forwardable::read(&unwrapped, later, &Members::default()).expect("the same webhook");
    assert_eq!(again.message.id, forwardable.message.id);
    let spaced = Queued { webhook: format!("\n {body} ").into(), ..queued_at(now()) };
    let spaced = Forwardable::read(&spaced, later, &all).expect("the same webhook");
    assert_eq!((&spaced.message.id, &spaced.message.body), (&forwardable.message.id, &forwardable.message.body));
}

/// What is cut down for the queue is the same uplink, and fits.
fn check_cut(body: &str, queued: &Queued<'_>, forwardable: &Forwardable) {
    let Some(cut) = cut::down(body, body.len() / 2) else { return };
    assert!(cut.len() <= body.len() / 2);
    let cut = Queued { webhook: cut.into(), ..queued.clone() };
    let Ok(cut) = Forwardable::read(&cut, now(), &Members::default()) else {
        return assert!(!forwardable.is_uplink, "an uplink stays one");
    };
    let ids = |of: &Forwardable| (of.application.clone(), of.device.clone(), of.dev_eui.clone(), of.port);
    assert_eq!(ids(&cut), ids(forwardable));
}

fn check_message(webhook: &Webhook<'_>, forwardable: &Forwardable, body: &str) {
    let message = &forwardable.message;
    assert!(message.id.len() == 32 && message.id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let text = std::str::from_utf8(&message.body).expect("JSON is text");
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("telemetry is a JSON object");
    assert!(message.size() <= 3 * body.len() + 1024, "positions are repeated once, and so are ids");
    assert!(body.len() > MAX_TEXT || message.size() <= MAX_PORTABLE_SIZE);
    for (name, value) in &message.properties {
        assert!(value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_graphic()), "{name}: {value:?}");
    }
    let received_at: String = serde_json::from_str(members["ReceivedAtUTC"].get()).expect("text");
    for time in [received_at.as_str(), &message.created.to_rfc3339()] {
        assert!(time.as_bytes()[4] == b'-' && !time.contains(":60"), "{time} is a time that every consumer reads");
        assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
    let topic = message.topic(&"d".repeat(128));
    assert!(topic.len() < 4096, "what MQTT allows is more, what a proxy does may not be");
    let Webhook::Uplink(uplink) = webhook else { return };
    let Some(decoded) = uplink.decoded else { return };
    match serde_json::from_str::<BTreeMap<String, &RawValue>>(decoded.get()) {
        Ok(fields) => {
            let apart = members.get("PayloadFields").map(|raw| raw.get()).unwrap_or("{}");
            let apart: BTreeMap<String, &RawValue> = serde_json::from_str(apart).expect("an object of fields");
            for (name, value) in fields {
                // If positions are repeated, the message has more than the decoded fields.
                let may_change = decoded.get().to_ascii_lowercase().contains("\"gps") || decoded.get().contains('\\');
                assert!(
                    !MEMBERS.contains(&name.as_str()) || apart.contains_key(&name),
                    "{name} is the connector's own"
                );
                let place = apart.get(&name).or_else(|| members.get(&name)).expect("no field is lost");
                assert!(may_change || place.get() == value.get(), "{name}");
            }
        }
        Err(_) => assert_eq!(members["PayloadFields"].get(), decoded.get()),
    }
}

/// The text of a queue's message stays the same when it is read, written and read again. A rejected one still fits and
/// can be put back.
pub fn queued(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rejected = rejected::text(text, &"malformed".into(), text, now());
    assert!(text.len() > MAX_TEXT || rejected.len() <= MAX_TEXT);
    let queued = match Queued::parse(text) {
        Ok(queued) => queued,
        Err(error) => {
            check_error(&error);
            assert!(is_json(&rejected));
            return;
        }
    };
    assert!(text.trim_ascii_start().starts_with('{'), "a webhook is an object");
    let again = queued.text();
    let again = Queued::parse(&again).expect("our own text");
    assert_eq!(again.webhook, json_trimmed(&queued.webhook));
    assert_eq!(again.received_at, queued.received_at.map(|time| time.trunc_subsecs(6)));
    let keys = |queued: &Queued<'_>| {
        let keys =
            |keys: &DownlinkKeys| (keys.api_key.expose_secret().to_owned(), keys.push.clone(), keys.replace.clone());
        queued.downlink.as_ref().map(keys)
    };
    assert_eq!(keys(&again), keys(&queued));
    let put_back = Queued::parse(&rejected).expect("what is rejected can be put back");
    assert_eq!(put_back.webhook, json_trimmed(&queued.webhook));
    assert!(put_back.downlink.is_none(), "keys are not kept");
    if let Some((key, ..)) = keys(&queued) {
        // A key that also occurs in the webhook or in the program's own words would be found in any case.
        let is_telling = key.len() >= 12 && !queued.webhook.contains(&key) && text.matches(&key).count() == 1;
        let printed = format!("{:?}", queued.downlink);
        assert!(!is_telling || !printed.contains(&key), "keys do not print");
    }
}

fn json_trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// Lines: template, application, device, DevEUI. For any input, DPS and the hub accept the name.
pub fn device_ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(4, '\n');
    let [template, application, device, dev_eui] = [(); 4].map(|()| lines.next().unwrap_or_default());
    let name = match Template::parse(template) {
        Ok(parsed) => {
            assert_eq!(parsed.to_string(), template);
            let is_of_device = template.contains("{device_id}") || template.contains("{dev_eui}");
            assert!(is_of_device, "each device has an id of its own");
            let parts = Parts { application, device, dev_eui: Some(dev_eui), tenant: Some(application) };
            match parsed.expand(parts) {
                Ok(name) => name,
                Err(_) => {
                    let lacks = |text: &str, placeholder| text.is_empty() && template.contains(placeholder);
                    return assert!(lacks(dev_eui, "{dev_eui}") || lacks(application, "{tenant_id}"));
                }
            }
        }
        Err(error) => {
            assert!(!error.is_empty());
            template.to_owned()
        }
    };
    let id = registration_id(&name);
    assert_eq!((check_registration_id(&id), check_id(&id)), (Ok(()), Ok(())), "{id:?} of {name:?}");
    assert_eq!(id, id.to_ascii_lowercase(), "DPS knows no upper case");
    assert_eq!(registration_id(&id), id, "an id is its own id");
}

/// A webhook's header with the URL for downlinks is accepted only if that URL uses TLS or is on this machine.
pub fn downlink_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match stack::downlink_url(text) {
        Ok(url) => {
            let host = url.host_str().unwrap_or_default();
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            let is_here = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
            assert!(!host.is_empty() && (url.scheme() == "https" || (url.scheme() == "http" && is_here)), "{url}");
        }
        Err(error) => assert!(!error.is_empty()),
    }
}
