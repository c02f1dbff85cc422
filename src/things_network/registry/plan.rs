//! What has to change, so that a webhook leads to this app and all arrives that the app uses. Pure.
//!
//! It never takes away: other headers, messages that are not forwarded, a downlink API key and what a field mask lets through
//! stay.

use std::{collections::BTreeMap, fmt};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use url::Url;

use super::{
    Webhook, address,
    document::{MESSAGES, UPLINK},
    health::State,
    mask,
};
use crate::things_network::members::Members;

const JSON: &str = "json";
/// The header in which the Functions host looks for the function key.
pub const FUNCTION_KEY: &str = "x-functions-key";
/// The header of `ThingsNetworkWebhookSecret`.
pub const SECRET: &str = "X-Webhook-Secret";
/// The parameter of the URL in which the host looks for the function key, too.
const CODE: &str = "code";

/// What a webhook shall be.
pub struct Wanted {
    /// The address of the function that takes webhooks.
    pub address: Url,
    /// `None`: whatever the webhook has stays.
    pub function_key: Option<SecretString>,
    /// `ThingsNetworkWebhookSecret`.
    pub secret: Option<SecretString>,
    /// `None`: whatever the webhook has stays.
    pub downlink_api_key: Option<SecretString>,
    /// `ThingsNetworkEvents`.
    pub events: bool,
    /// `ThingsNetworkMembers`.
    pub members: Members,
}

/// A part of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    BaseUrl,
    Format,
    Header(&'static str),
    DownlinkApiKey,
    Message(&'static str),
    FieldMask,
    Paused,
    Health,
}

/// A difference between what is there and what shall be there. Keys are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub what: Part,
    /// `None`: it is not there.
    pub now: Option<String>,
    pub wanted: String,
}

/// What is asked of The Things Stack. Does not print: there are keys in it.
#[derive(Default)]
pub struct Request {
    pub webhook: Value,
    /// The field mask: what is set.
    pub paths: Vec<&'static str>,
}

#[derive(Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// What a person should know, although nothing is done about it.
    pub remarks: Vec<&'static str>,
    pub request: Request,
}

/// Why no plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "no function key: set FunctionAppKey, or pipe the key of function thingsNetworkUplink into --function-key-stdin: \
         without it the app answers 401"
    )]
    NoFunctionKey,
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseUrl => out.write_str("base URL"),
            Self::Format => out.write_str("format"),
            Self::Header(name) => write!(out, "header {name}"),
            Self::DownlinkApiKey => out.write_str("downlink API key"),
            Self::Message(name) => write!(out, "event {}", name.replace('_', " ")),
            Self::FieldMask => out.write_str("field mask"),
            Self::Paused => out.write_str("paused"),
            Self::Health => out.write_str("health"),
        }
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Part {
    /// Its path in the field mask.
    fn path(&self) -> &'static str {
        match self {
            Self::BaseUrl => "base_url",
            Self::Format => "format",
            Self::Header(_) => "headers",
            Self::DownlinkApiKey => "downlink_api_key",
            Self::Message(name) => name,
            Self::FieldMask => "field_mask",
            Self::Paused => "paused",
            Self::Health => "health_status",
        }
    }
}

impl Plan {
    fn change(&mut self, what: Part, now: Option<&str>, wanted: impl Into<String>, value: Value) {
        let path = what.path();
        if !self.request.paths.contains(&path) {
            self.request.paths.push(path);
        }
        self.request.webhook[path] = value;
        self.changes.push(Change { what, now: now.map(str::to_owned), wanted: wanted.into() });
    }
}

/// Forgets what The Things Stack notes of a webhook's health. So it sends at once, and what it notes next is about what it
/// sends next. (The console does the same when a webhook is reactivated.)
#[must_use]
pub fn forget_health() -> Request {
    Request { webhook: json!({"health_status": null}), paths: vec![Part::Health.path()] }
}

/// Compares a webhook (`None`: there is none) with what shall be there.
///
/// # Errors
/// There would be a webhook that cannot work.
pub fn plan(there: Option<&Webhook>, wanted: &Wanted) -> Result<Plan, Refused> {
    let none = Webhook::default();
    let (webhook, is_there) = (there.unwrap_or(&none), there.is_some());
    let mut plan = Plan { request: Request { webhook: json!({}), paths: Vec::new() }, ..Plan::default() };
    let has_code = has_code(&webhook.base_url);
    let has_key = webhook.header(FUNCTION_KEY).is_some() || has_code;
    if wanted.function_key.is_none() && !has_key && !crate::support::http::is_on_this_machine(&wanted.address) {
        return Err(Refused::NoFunctionKey);
    }
    // The Things Stack shows the URL of a failed request to all who may read the webhook.
    let keeps_url =
        is_there && address::leads_to(webhook, &wanted.address) && !(has_code && wanted.function_key.is_some());
    if !keeps_url {
        let now = is_there.then(|| address::shown(&webhook.base_url));
        plan.change(Part::BaseUrl, now.as_deref(), wanted.address.as_str(), wanted.address.as_str().into());
    }
    if webhook.format != JSON {
        let now = is_there.then_some(webhook.format.as_str());
        plan.change(Part::Format, now, JSON, JSON.into());
    }
    headers(&mut plan, webhook, wanted);
    if let Some(key) = &wanted.downlink_api_key {
        let (key, now) = (key.expose_secret(), webhook.downlink_api_key.as_str());
        if key != now {
            plan.change(Part::DownlinkApiKey, (!now.is_empty()).then_some("another one"), "set", key.into());
        }
    }
    let has_downlink_key = wanted.downlink_api_key.is_some() || !webhook.downlink_api_key.is_empty();
    if !has_downlink_key {
        plan.remarks.push("it has no downlink API key: messages from the hub to devices do not become downlinks");
    }
    messages(&mut plan, webhook, wanted, keeps_url);
    let mask = &webhook.field_mask.paths;
    let left_out = mask::left_out(mask, &wanted.members, wanted.events, has_downlink_key);
    if !left_out.is_empty() {
        let paths: Vec<_> = mask.iter().chain(&left_out).collect();
        let text = format!("also {}", left_out.join(", "));
        plan.change(Part::FieldMask, Some("leaves out what is used"), text, json!({ "paths": paths }));
    }
    if webhook.paused {
        plan.change(Part::Paused, Some("yes"), "no", false.into());
    }
    if let State::Unhealthy(failures) = webhook.health_status.state() {
        let wanted = "forgotten, so that it is tried at once";
        plan.change(Part::Health, Some(&failures.text()), wanted, Value::Null);
    }
    Ok(plan)
}

fn has_code(base_url: &str) -> bool {
    Url::parse(base_url).is_ok_and(|url| url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case(CODE)))
}

/// Headers are set as a whole, so that those of others are sent along.
fn headers(plan: &mut Plan, webhook: &Webhook, wanted: &Wanted) {
    let ours = [(FUNCTION_KEY, &wanted.function_key), (SECRET, &wanted.secret)];
    let exposed = |(name, value): (&String, &SecretString)| (name.clone(), value.expose_secret().to_owned());
    let mut headers: BTreeMap<String, String> = webhook.headers.iter().map(exposed).collect();
    for (name, value) in ours {
        let Some(value) = value.as_ref().map(|value| value.expose_secret()) else { continue };
        let now = webhook.header(name);
        if now.is_some_and(|(_, now)| now.expose_secret() == value) {
            continue;
        }
        headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
        headers.insert(name.to_owned(), value.to_owned());
        plan.change(Part::Header(name), now.map(|_| "another one"), "set", Value::Null);
    }
    if plan.request.paths.contains(&"headers") {
        plan.request.webhook["headers"] = json!(headers);
    }
}

fn messages(plan: &mut Plan, webhook: &Webhook, wanted: &Wanted, keeps_url: bool) {
    // What leads here in a roundabout way may go on doing so.
    let path = webhook.messages().next().map_or("", |(_, path)| path).to_owned();
    let path = if keeps_url { path.as_str() } else { "" };
    for message in MESSAGES {
        let is_needed = message == UPLINK || wanted.events;
        match webhook.path(message) {
            None if is_needed => plan.change(Part::Message(message), None, "enabled", json!({ "path": path })),
            Some(now) if !keeps_url && !now.is_empty() => {
                let now = format!("with path {}", address::shown(now));
                plan.change(Part::Message(message), Some(&now), "without a path", json!({ "path": "" }));
            }
            _ => {}
        }
    }
    if !wanted.events && webhook.messages().any(|(message, _)| message != UPLINK) {
        plan.remarks.push("it also sends events, which are not forwarded: ThingsNetworkEvents is not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://app.example/api/uplink";

    fn wanted() -> Wanted {
        Wanted {
            address: ADDRESS.parse().unwrap(),
            function_key: Some("k3y".into()),
            secret: None,
            downlink_api_key: None,
            events: false,
            members: Members::default(),
        }
    }

    fn webhook(changes: Value) -> Webhook {
        let mut webhook = json!({
            "ids": {"webhook_id": "iot-hub"}, "base_url": ADDRESS, "format": "json", "uplink_message": {},
            "headers": {"X-Functions-Key": "k3y", "X-Other": "o"}, "downlink_api_key": "NNSXS.A.B"
        });
        for (name, value) in changes.as_object().unwrap() {
            webhook[name] = value.clone();
        }
        serde_json::from_value(webhook).unwrap()
    }

    fn planned(changes: Value, wanted: &Wanted) -> Plan {
        plan(Some(&webhook(changes)), wanted).unwrap()
    }

    /// The changes as text, one a line.
    fn text(plan: &Plan) -> String {
        let line = |change: &Change| format!("{}: {:?} -> {}", change.what, change.now, change.wanted);
        plan.changes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_new_webhook_has_all_that_it_needs() {
        let wanted =
            Wanted { secret: Some("0123456789abcdef".into()), downlink_api_key: Some("NNSXS.C.D".into()), ..wanted() };
        let plan = plan(None, &wanted).unwrap();
        let expected = json!({
            "base_url": ADDRESS, "format": "json", "uplink_message": {"path": ""}, "downlink_api_key": "NNSXS.C.D",
            "headers": {"x-functions-key": "k3y", "X-Webhook-Secret": "0123456789abcdef"}
        });
        assert_eq!(plan.request.webhook, expected);
        assert_eq!(plan.request.paths, ["base_url", "format", "headers", "downlink_api_key", "uplink_message"]);
        assert_eq!(plan.remarks, [""; 0]);
        assert!(plan.changes.iter().all(|change| change.now.is_none()));
        for secret in ["k3y", "0123456789abcdef", "NNSXS.C.D"] {
            assert!(!text(&plan).contains(secret) && !serde_json::to_string(&plan.changes).unwrap().contains(secret));
        }
    }

    #[test]
    fn what_is_right_stays() {
        for same in [
            json!({}),
            json!({"base_url": "https://app.example/api/uplink/"}),
            json!({"base_url": "https://app.example", "uplink_message": {"path": "/api/uplink"}}),
            json!({"health_status": {"healthy": {}}}),
        ] {
            let plan = planned(same.clone(), &wanted());
            assert_eq!((text(&plan).as_str(), plan.request.paths.len()), ("", 0), "{same}");
        }
        let unknown = Wanted { function_key: None, ..wanted() };
        assert_eq!(text(&planned(json!({"headers": {"x-functions-key": "other"}}), &unknown)), "");
        assert_eq!(text(&planned(json!({"base_url": format!("{ADDRESS}?code=k"), "headers": {}}), &unknown)), "");
    }

    #[test]
    fn each_difference_is_told_and_mended() {
        for (there, expected, paths) in [
            (
                json!({"base_url": "https://old.example/api/uplink?code=hunter2"}),
                "base URL: Some(\"https://old.example/api/uplink?code=[REDACTED]\") -> https://app.example/api/uplink",
                &["base_url"][..],
            ),
            (json!({"format": "protobuf"}), "format: Some(\"protobuf\") -> json", &["format"]),
            (
                json!({"headers": {"X-FUNCTIONS-KEY": "old"}}),
                "header x-functions-key: Some(\"another one\") -> set",
                &["headers"],
            ),
            (json!({"headers": null}), "header x-functions-key: None -> set", &["headers"]),
            (json!({"uplink_message": null}), "event uplink message: None -> enabled", &["uplink_message"]),
            (json!({"paused": true}), "paused: Some(\"yes\") -> no", &["paused"]),
            (
                json!({"health_status": {"unhealthy": {"failed_attempts": "5"}}}),
                "health: Some(\"5 attempts failed; the app could not be reached\") -> forgotten, so that it is tried at once",
                &["health_status"],
            ),
        ] {
            let plan = planned(there.clone(), &wanted());
            assert_eq!((text(&plan).as_str(), &plan.request.paths[..]), (expected, paths), "{there}");
        }
        let plan = planned(json!({"uplink_message": {"path": "/up"}, "join_accept": {"path": "join"}}), &wanted());
        assert_eq!(plan.request.paths, ["base_url", "uplink_message", "join_accept"]);
        assert_eq!(plan.request.webhook["join_accept"], json!({"path": ""}));
    }

    #[test]
    fn what_others_have_set_is_kept() {
        let plan = planned(json!({"headers": {"X-Functions-Key": "old", "X-Other": "o"}}), &wanted());
        assert_eq!(plan.request.webhook["headers"], json!({"X-Other": "o", "x-functions-key": "k3y"}));
        let masked = json!({"field_mask": {"paths": ["end_device_ids", "received_at", "up.uplink_message"]}});
        let plan = planned(masked, &wanted());
        let paths = json!({"paths": ["end_device_ids", "received_at", "up.uplink_message", "simulated"]});
        assert_eq!(plan.request.webhook, json!({ "field_mask": paths }));
        let events = json!({"join_accept": {}});
        let plan = planned(events.clone(), &wanted());
        assert!(plan.changes.is_empty() && plan.remarks[0].contains("ThingsNetworkEvents"), "{:?}", plan.remarks);
        let plan = planned(events, &Wanted { events: true, ..wanted() });
        assert_eq!((plan.changes.len(), &plan.remarks[..]), (MESSAGES.len() - 2, &[][..]));
    }

    #[test]
    fn a_key_leaves_the_url_for_a_header() {
        let there = json!({"base_url": format!("{ADDRESS}?code=hunter2"), "headers": {}});
        let plan = planned(there, &wanted());
        assert_eq!(plan.request.webhook, json!({"base_url": ADDRESS, "headers": {"x-functions-key": "k3y"}}));
        assert!(!text(&plan).contains("hunter2"));
    }

    #[test]
    fn a_webhook_that_the_app_would_refuse_is_not_made() {
        let wanted = Wanted { function_key: None, ..wanted() };
        assert_eq!(plan(None, &wanted).err(), Some(Refused::NoFunctionKey));
        let bare = webhook(json!({"headers": {}}));
        assert_eq!(plan(Some(&bare), &wanted).err(), Some(Refused::NoFunctionKey));
        let local = Wanted { address: "http://127.0.0.1:7071/api/uplink".parse().unwrap(), ..wanted };
        assert!(plan(None, &local).is_ok(), "func start asks for no key");
        let plan = plan(None, &local).unwrap();
        assert!(plan.remarks[0].contains("no downlink API key"), "{:?}", plan.remarks);
    }
}
