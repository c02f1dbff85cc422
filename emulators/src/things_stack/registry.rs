//! The webhooks of the applications.
//!
//! Source: lorawan-stack `pkg/applicationserver/io/web/grpc_webhooks.go` (rights, implicit members),
//! `pkg/applicationserver/io/web/redis/registry.go` (what a field mask does) and
//! `api/ttn/lorawan/v3/applicationserver_web.proto` (members and their limits).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{SecondsFormat, Utc};
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// The messages that a webhook can be enabled for.
const MESSAGES: [&str; 11] = [
    "uplink_message",
    "uplink_normalized",
    "join_accept",
    "downlink_ack",
    "downlink_nack",
    "downlink_sent",
    "downlink_failed",
    "downlink_queued",
    "downlink_queue_invalidated",
    "location_solved",
    "service_data",
];
/// The other members that may be set.
const MEMBERS: [&str; 10] = [
    "base_url",
    "headers",
    "format",
    "template_ids",
    "template_fields",
    "downlink_api_key",
    "health_status",
    "field_mask",
    "paused",
    "ids",
];
/// Members that every answer has.
const IMPLICIT: [&str; 5] = ["created_at", "ids", "updated_at", "base_url", "format"];
const FORMATS: [&str; 2] = ["json", "protobuf"];
/// Characters of an id, of a path, of a header's name and value, of the downlink key; headers.
const LONGEST_ID: usize = 36;
const LONGEST_PATH: usize = 64;
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 4096;
const LONGEST_KEY: usize = 128;
const MOST_HEADERS: usize = 50;

pub type Webhook = Map<String, Value>;

/// By application and id.
#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<(String, String), Webhook>>);

impl Registry {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, String), Webhook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole webhook.
    pub fn find(&self, application: &str, id: &str) -> Option<Webhook> {
        self.all().get(&(application.to_owned(), id.to_owned())).cloned()
    }

    pub fn of_application(&self, application: &str) -> Vec<(String, Webhook)> {
        let all = self.all();
        let own = all.iter().filter(|((of, _), _)| of == application);
        own.map(|((_, id), webhook)| (id.clone(), webhook.clone())).collect()
    }

    pub fn get(&self, application: &str, id: &str, mask: &[String]) -> Result<Value, Refusal> {
        check_mask(mask)?;
        let webhook = self.find(application, id).ok_or_else(Refusal::not_found)?;
        Ok(masked(&webhook, mask))
    }

    pub fn list(&self, application: &str, mask: &[String]) -> Result<Value, Refusal> {
        check_mask(mask)?;
        let webhooks: Vec<_> =
            self.of_application(application).iter().map(|(_, webhook)| masked(webhook, mask)).collect();
        Ok(json!({ "webhooks": webhooks }))
    }

    /// Sets the members that the mask names. Without a mask nothing is changed.
    pub fn set(&self, application: &str, id: &str, given: &Webhook, mask: &[String]) -> Result<Value, Refusal> {
        check_mask(mask)?;
        check_id("application_id", application)?;
        check_id("webhook_id", id)?;
        let key = (application.to_owned(), id.to_owned());
        let mut all = self.all();
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
        let mut webhook = match all.get(&key) {
            Some(webhook) if mask.is_empty() => return Ok(masked(webhook, mask)),
            Some(webhook) => webhook.clone(),
            None => {
                let ids = json!({"application_ids": {"application_id": application}, "webhook_id": id});
                Webhook::from_iter([("ids".to_owned(), ids), ("created_at".to_owned(), now.clone().into())])
            }
        };
        for path in mask.iter().filter(|path| *path != "ids" && !path.starts_with("ids.")) {
            let (member, below) = path.split_once('.').unwrap_or((path, ""));
            let value = given.get(member).cloned().unwrap_or_default();
            let value = if below.is_empty() { value } else { json!({ below: value[below] }) };
            match value {
                Value::Null => drop(webhook.remove(member)),
                value => drop(webhook.insert(member.to_owned(), value)),
            }
        }
        check(&webhook)?;
        webhook.insert("updated_at".to_owned(), now.into());
        let answer = masked(&webhook, mask);
        all.insert(key, webhook);
        Ok(answer)
    }

    pub fn delete(&self, application: &str, id: &str) {
        self.all().remove(&(application.to_owned(), id.to_owned()));
    }

    /// Notes how a webhook fares, if it is still there.
    pub fn set_health(&self, application: &str, id: &str, health: impl FnOnce(&Value) -> Value) {
        if let Some(webhook) = self.all().get_mut(&(application.to_owned(), id.to_owned())) {
            let health = health(webhook.get("health_status").unwrap_or(&Value::Null));
            webhook.insert("health_status".to_owned(), health);
        }
    }
}

fn masked(webhook: &Webhook, mask: &[String]) -> Value {
    let is_wanted =
        |name: &str| IMPLICIT.contains(&name) || mask.iter().any(|path| path.split('.').next() == Some(name));
    let members = webhook.iter().filter(|(name, _)| is_wanted(name));
    members.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>().into()
}

fn check_mask(mask: &[String]) -> Result<(), Refusal> {
    let is_known = |path: &&String| {
        let member = path.split('.').next().unwrap_or_default();
        MEMBERS.contains(&member) || MESSAGES.contains(&member) || IMPLICIT.contains(&member)
    };
    let forbidden: Vec<_> = mask.iter().filter(|path| !is_known(path)).map(String::as_str).collect();
    if forbidden.is_empty() { Ok(()) } else { Err(Refusal::forbidden_paths(&forbidden)) }
}

/// `^[a-z0-9](?:[-]?[a-z0-9]){2,}$`
fn check_id(member: &str, id: &str) -> Result<(), Refusal> {
    let is_plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let letters = id.bytes().filter(|letter| is_plain(*letter)).count();
    let is_good = (3..=LONGEST_ID).contains(&id.len())
        && letters >= 3
        && id.bytes().all(|letter| is_plain(letter) || letter == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-')
        && !id.contains("--");
    if is_good { Ok(()) } else { Err(Refusal::invalid(member, "value does not match the pattern of ids")) }
}

fn check(webhook: &Webhook) -> Result<(), Refusal> {
    let text = |name: &str| webhook.get(name).and_then(Value::as_str).unwrap_or_default();
    if Url::parse(text("base_url")).is_err() {
        return Err(Refusal::invalid("base_url", "value must be absolute"));
    }
    if !FORMATS.contains(&text("format")) {
        return Err(Refusal::invalid("format", "value does not match the pattern of formats"));
    }
    if text("downlink_api_key").chars().count() > LONGEST_KEY {
        return Err(Refusal::invalid("downlink_api_key", "value length must be at most 128 runes"));
    }
    let headers = webhook.get("headers").and_then(Value::as_object);
    let is_long = |(name, value): (&String, &Value)| {
        name.chars().count() > LONGEST_NAME || value.as_str().is_none_or(|value| value.chars().count() > LONGEST_VALUE)
    };
    if headers.is_some_and(|headers| headers.len() > MOST_HEADERS || headers.iter().any(is_long)) {
        return Err(Refusal::invalid("headers", "there are too many, or one is too long"));
    }
    let paths = MESSAGES.iter().filter_map(|message| webhook.get(*message)?["path"].as_str());
    if paths.map(|path| path.chars().count()).max() > Some(LONGEST_PATH) {
        return Err(Refusal::invalid("path", "value length must be at most 64 runes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_mask_decides_what_is_set_and_what_is_shown() {
        let registry = Registry::default();
        let full = json!({"base_url": "https://a.example/x", "format": "json", "uplink_message": {"path": "/u"}, "paused": true});
        let full = full.as_object().unwrap();
        registry.set("app", "hook", full, &mask(&["base_url", "format", "uplink_message"])).unwrap();
        let shown = registry.get("app", "hook", &mask(&["uplink_message.path", "paused"])).unwrap();
        assert_eq!((&shown["uplink_message"], &shown["paused"]), (&json!({"path": "/u"}), &Value::Null));
        assert_eq!(shown["ids"]["webhook_id"], "hook");
        assert!(registry.get("app", "hook", &[]).unwrap().get("uplink_message").is_none());
        registry.set("app", "hook", &Map::new(), &mask(&["uplink_message"])).unwrap();
        assert!(registry.find("app", "hook").unwrap().get("uplink_message").is_none(), "what is not given is removed");
        assert_eq!(registry.set("app", "hook", full, &[]).unwrap()["base_url"], "https://a.example/x");
        assert!(!registry.find("app", "hook").unwrap().contains_key("paused"), "no mask, no change");
        registry.delete("app", "hook");
        assert_eq!(registry.get("app", "hook", &[]).unwrap_err(), Refusal::not_found());
    }

    #[test]
    fn what_is_no_webhook_is_refused() {
        let registry = Registry::default();
        let all = mask(&["base_url", "format", "uplink_message", "headers"]);
        for wrong in [
            json!({"format": "json"}),
            json!({"base_url": "nowhere", "format": "json"}),
            json!({"base_url": "https://a.example", "format": "xml"}),
            json!({"base_url": "https://a.example", "format": "json", "uplink_message": {"path": "x".repeat(65)}}),
            json!({"base_url": "https://a.example", "format": "json", "headers": {"a": "x".repeat(4097)}}),
        ] {
            let refusal = registry.set("app", "hook", wrong.as_object().unwrap(), &all).unwrap_err();
            assert_eq!(refusal.status, 400, "{wrong}");
        }
        let right = json!({"base_url": "https://a.example", "format": "json"});
        let right = right.as_object().unwrap();
        for id in ["ab", "-abc", "abc-", "a--bc", "Abc", &"x".repeat(37)] {
            assert_eq!(registry.set("app", id, right, &all).unwrap_err().status, 400, "{id}");
        }
        assert!(registry.set("app", "hook", right, &mask(&["base_url", "queue.enabled"])).is_err());
        assert!(registry.of_application("app").is_empty());
    }
}
