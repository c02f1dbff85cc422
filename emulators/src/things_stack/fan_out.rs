//! Sends a message to the webhooks of its application, and notes how they fare.
//!
//! Source: lorawan-stack `pkg/applicationserver/io/web/request.go` (URL, headers, field mask), `sink/health.go` (when a webhook is
//! disabled, what is noted) and `sink/http.go` (what is said of a failure), all in `pkg/applicationserver/io/web`. What is
//! disabled is not `paused`: that is a person's doing. The thresholds are settings of the original; without them it notes no
//! health at all.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::{Stack, registry::Webhook};

/// How long the original waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are noted.
const NOTED: usize = 1024;

/// When webhooks are disabled.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// Failed attempts in a row; 0: health is not noted.
    pub attempts: u64,
    /// How long nothing is sent after that.
    pub pause: TimeDelta,
}

/// A message on its way to the webhooks of its application.
pub struct Message {
    pub application: String,
    pub device: String,
    /// The member that holds the message, such as `uplink_message`.
    pub kind: &'static str,
    /// The whole envelope.
    pub envelope: Map<String, Value>,
}

/// Sends the message to all webhooks that are enabled for it.
pub async fn send(stack: &Arc<Stack>, message: Arc<Message>) {
    let hooks = stack.registry.of_application(&message.application);
    let each = hooks.into_iter().map(|(id, webhook)| {
        let (stack, message) = (stack.clone(), message.clone());
        async move { to_one(&stack, &message, &id, &webhook).await }
    });
    futures::future::join_all(each).await;
}

async fn to_one(stack: &Stack, message: &Message, id: &str, webhook: &Webhook) {
    let is_paused = webhook.get("paused") == Some(&Value::Bool(true));
    let Some(path) = webhook.get(message.kind).filter(|settings| settings.is_object() && !is_paused) else { return };
    let path = path["path"].as_str().unwrap_or_default();
    if is_disabled(webhook, stack.threshold, Utc::now()) {
        tracing::debug!(webhook = id, "webhook disabled");
        return;
    }
    let Some(url) = url(webhook["base_url"].as_str().unwrap_or_default(), path) else {
        tracing::warn!(webhook = id, "failed to create request");
        return;
    };
    let headers = headers(stack, message, id, webhook);
    let body = masked(message, webhook).to_string().into_bytes();
    let failure = match stack.poster.post_to(url.clone(), headers, body, TIMEOUT).await {
        Ok((status, _)) if (200..300).contains(&status) => None,
        Ok((status, answer)) => Some(refused(id, &url, status, &answer)),
        Err(error) => Some(unreachable(id, &url, &error)),
    };
    if stack.threshold.attempts > 0 {
        stack.registry.set_health(&message.application, id, |before| health(before, failure));
    }
}

fn is_disabled(webhook: &Webhook, threshold: Threshold, now: DateTime<Utc>) -> bool {
    let unhealthy = &webhook.get("health_status").unwrap_or(&Value::Null)["unhealthy"];
    let attempts = attempts(unhealthy);
    let last: Option<DateTime<Utc>> = unhealthy["last_failed_attempt_at"].as_str().and_then(|text| text.parse().ok());
    threshold.attempts > 0 && attempts >= threshold.attempts && last.is_some_and(|last| now <= last + threshold.pause)
}

/// 64-bit numbers are strings.
fn attempts(unhealthy: &Value) -> u64 {
    unhealthy["failed_attempts"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn health(before: &Value, failure: Option<Value>) -> Value {
    let Some(details) = failure else { return json!({ "healthy": {} }) };
    json!({"unhealthy": {
        "failed_attempts": (attempts(&before["unhealthy"]) + 1).to_string(),
        "last_failed_attempt_at": Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true),
        "last_failed_attempt_details": details,
    }})
}

fn details(id: &str, url: &Url, status: Option<u16>) -> Value {
    let mut details = json!({
        "namespace": "pkg/applicationserver/io/web/sink",
        "name": "request",
        "message_format": "request",
        "attributes": {"webhook_id": id, "url": url.as_str()},
        "correlation_id": format!("{:032x}", fastrand::u128(..)),
        "code": 14,
    });
    if let Some(status) = status {
        details["attributes"]["status_code"] = status.into();
    }
    details
}

fn refused(id: &str, url: &Url, status: u16, answer: &[u8]) -> Value {
    let mut details = details(id, url, Some(status));
    if let Ok(body) = std::str::from_utf8(&answer[..answer.len().min(NOTED)]) {
        details["details"] = json!([{"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"body": body}}]);
    }
    details
}

fn unreachable(id: &str, url: &Url, error: &str) -> Value {
    let mut details = details(id, url, None);
    details["cause"] = json!({
        "namespace": "pkg/errors",
        "name": "net_operation",
        "message_format": "net operation failed",
        "attributes": {"op": "dial", "error": error},
        "code": 14,
    });
    details
}

/// `NewRequest`: a path comes behind the base URL.
fn url(base: &str, path: &str) -> Option<Url> {
    let mut base = Url::parse(base).ok()?;
    if path.is_empty() {
        return Some(base);
    }
    if !path.starts_with('?') && !base.path().ends_with('/') {
        let with_end = format!("{}/", base.path());
        base.set_path(&with_end);
    }
    base.join(path.trim_start_matches('/')).ok()
}

fn headers(stack: &Stack, message: &Message, id: &str, webhook: &Webhook) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let given = webhook.get("headers").and_then(Value::as_object).into_iter().flatten();
    let parsed = given.filter_map(|(name, value)| {
        Some((name.parse::<HeaderName>().ok()?, value.as_str()?.parse::<HeaderValue>().ok()?))
    });
    headers.extend(parsed);
    if let Some(key) = webhook.get("downlink_api_key").and_then(Value::as_str).filter(|key| !key.is_empty()) {
        stack.poster.add_downlinks(&mut headers, key, id, &message.application, &message.device);
    }
    headers
}

/// What the field mask leaves. A path of the message begins with `up.`; what names no member is an error of the original, by
/// which the message is lost.
fn masked(message: &Message, webhook: &Webhook) -> Value {
    let paths = webhook.get("field_mask").and_then(|mask| mask["paths"].as_array()).cloned().unwrap_or_default();
    let whole = Value::Object(message.envelope.clone());
    if paths.is_empty() {
        return whole;
    }
    let mut left = json!({});
    for path in paths.iter().filter_map(Value::as_str) {
        // The whole message, for `up`.
        let path = if path == "up" { message.kind } else { path.strip_prefix("up.").unwrap_or(path) };
        let pointer = format!("/{}", path.replace('.', "/"));
        let Some(value) = whole.pointer(&pointer) else { continue };
        let mut place = &mut left;
        for part in path.split('.') {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[part];
        }
        *place = value.clone();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_disabled_for_some_time_after_enough_failures() {
        let threshold = Threshold { attempts: 3, pause: TimeDelta::minutes(5) };
        let now = Utc::now();
        let webhook = |attempts: u64, minutes: i64| {
            let at = (now - TimeDelta::minutes(minutes)).to_rfc3339();
            let unhealthy = json!({"failed_attempts": attempts.to_string(), "last_failed_attempt_at": at});
            Webhook::from_iter([("health_status".to_owned(), json!({ "unhealthy": unhealthy }))])
        };
        for (attempts, minutes, expected) in [(2, 1, false), (3, 1, true), (9, 4, true), (3, 6, false)] {
            assert_eq!(is_disabled(&webhook(attempts, minutes), threshold, now), expected, "{attempts} {minutes}");
        }
        assert!(!is_disabled(&webhook(9, 1), Threshold { attempts: 0, ..threshold }, now), "only watched");
        assert!(!is_disabled(&Webhook::new(), threshold, now));
    }

    #[test]
    fn a_mask_leaves_what_its_paths_name() {
        let envelope = json!({"end_device_ids": {"device_id": "d", "dev_eui": "00"}, "received_at": "t",
            "uplink_message": {"f_port": 1, "f_cnt": 2}});
        let message = Message {
            application: "a".into(),
            device: "d".into(),
            kind: "uplink_message",
            envelope: envelope.as_object().unwrap().clone(),
        };
        let with = |paths: Value| {
            masked(&message, &Webhook::from_iter([("field_mask".to_owned(), json!({ "paths": paths }))]))
        };
        assert_eq!(with(json!([])), envelope);
        assert_eq!(with(json!(["end_device_ids", "received_at", "up"])), envelope);
        let part = with(json!(["end_device_ids.device_id", "up.uplink_message.f_cnt", "up.join_accept"]));
        assert_eq!(part, json!({"end_device_ids": {"device_id": "d"}, "uplink_message": {"f_cnt": 2}}));
    }

    #[test]
    fn a_path_comes_behind_the_base_url() {
        for (base, path, expected) in [
            ("http://a/api/uplink", "", "http://a/api/uplink"),
            ("http://a/api", "/uplink", "http://a/api/uplink"),
            ("http://a/api/uplink?code=k", "", "http://a/api/uplink?code=k"),
            ("http://a/api/uplink", "up", "http://a/api/uplink/up"),
        ] {
            assert_eq!(url(base, path).unwrap().as_str(), expected);
        }
    }
}
