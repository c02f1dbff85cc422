//! How a webhook fares, as The Things Stack notes it. Pure.
//!
//! After the first webhook it is healthy or unhealthy. Failures count until a webhook succeeds; after so many as The Things
//! Stack is set up for, it sends nothing for some time, and what is not sent then is lost. (Its source:
//! `pkg/applicationserver/io/web/sink/health.go`.)

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    support::http::{MAX_ERROR_TEXT, one_line},
    things_network::time,
};

/// As The Things Stack has it: at most one of the members.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Health {
    healthy: Option<Value>,
    unhealthy: Option<Unhealthy>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Unhealthy {
    #[serde(deserialize_with = "number")]
    failed_attempts: u64,
    last_failed_attempt_at: Option<String>,
    last_failed_attempt_details: Option<Details>,
}

/// An error of The Things Stack.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Details {
    name: String,
    message_format: String,
    attributes: Option<Value>,
    cause: Option<Box<Details>>,
    details: Vec<Value>,
}

/// JSON has 64-bit numbers as strings.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().unwrap_or_default(),
        other => other.as_u64().unwrap_or_default(),
    })
}

/// What is known of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was sent since it was made, or The Things Stack notes nothing.
    Unknown,
    Healthy,
    Unhealthy(Failures),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    pub attempts: u64,
    pub last_at: Option<DateTime<Utc>>,
    /// What the app answered to the last one. `None`: it did not answer.
    pub status: Option<u16>,
    /// What the answer said, or why there was none. May be empty.
    pub text: String,
}

impl Health {
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.unhealthy, &self.healthy) {
            (Some(unhealthy), _) => State::Unhealthy(unhealthy.failures()),
            (None, Some(_)) => State::Healthy,
            (None, None) => State::Unknown,
        }
    }
}

impl Unhealthy {
    fn failures(&self) -> Failures {
        let details = self.last_failed_attempt_details.as_ref();
        let status = details.and_then(Details::status);
        let text = details.map(|details| if status.is_some() { details.body() } else { details.reason() });
        Failures {
            attempts: self.failed_attempts,
            last_at: self.last_failed_attempt_at.as_deref().and_then(time::read),
            status,
            text: one_line(text.unwrap_or_default(), MAX_ERROR_TEXT),
        }
    }
}

impl Details {
    fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.as_ref()?.get(name)
    }

    fn status(&self) -> Option<u16> {
        let status = self.attribute("status_code")?;
        let number = status.as_f64().or_else(|| status.as_str()?.parse().ok())?;
        (100.0..600.0).contains(&number).then_some(number as u16)
    }

    /// The begin of what the app answered.
    fn body(&self) -> &str {
        let contents = self.details.iter().map(|detail| detail.get("value").unwrap_or(detail));
        contents.filter_map(|content| content.get("body")?.as_str()).next().unwrap_or_default()
    }

    /// What the innermost error says: the outer ones only say that a request failed.
    fn reason(&self) -> &str {
        match &self.cause {
            Some(cause) => cause.reason(),
            None => {
                let said = self.attribute("message").or(self.attribute("error")).and_then(Value::as_str);
                said.unwrap_or(if self.message_format.is_empty() { &self.name } else { &self.message_format })
            }
        }
    }
}

impl Failures {
    /// What happened, as the rest of a sentence about the webhook.
    #[must_use]
    pub fn text(&self) -> String {
        let times = if self.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", self.attempts) };
        let at = self.last_at.map(|at| format!(", the last one at {}", at.to_rfc3339_opts(SecondsFormat::Secs, true)));
        let answer = match self.status {
            Some(status) => format!("the app answered {status}"),
            None => "the app could not be reached".to_owned(),
        };
        let colon = if self.text.is_empty() { "" } else { ": " };
        format!("{times} failed{}; {answer}{colon}{}", at.unwrap_or_default(), self.text)
    }

    /// What a person can do about it.
    #[must_use]
    pub fn to_do(&self) -> &'static str {
        match self.status {
            Some(401 | 403) => "give the webhook the right function key, and the secret of ThingsNetworkWebhookSecret",
            Some(404) => "check its base URL and paths, and that the app is deployed",
            Some(400) => "set its format to JSON; the answer says more",
            Some(413) => "make the payload smaller: one uplink is larger than a queue message holds",
            Some(_) => "look at the app's log and its status page",
            None => "check its base URL, and that the app runs and answers within 5 s",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failures(details: Value) -> Failures {
        let unhealthy = json!({
            "failed_attempts": "7", "last_failed_attempt_at": "2026-03-02T10:15:30.123456789Z",
            "last_failed_attempt_details": details
        });
        let health: Health = serde_json::from_value(json!({ "unhealthy": unhealthy })).unwrap();
        let State::Unhealthy(failures) = health.state() else { panic!("{health:?}") };
        failures
    }

    #[test]
    fn what_the_app_answered_is_told() {
        let said = failures(json!({
            "namespace": "pkg/applicationserver/io/web/sink", "name": "request", "message_format": "request",
            "attributes": {"webhook_id": "iot-hub", "url": "https://a.example/api/uplink?code=k", "status_code": 401},
            "details": [{"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"body": "no\n x-functions-key: hunter2"}}]
        }));
        assert_eq!(
            said.text(),
            "7 attempts failed, the last one at 2026-03-02T10:15:30Z; the app answered 401: no x-functions-key: [REDACTED]"
        );
        assert!(said.to_do().contains("function key"));
        let bare = failures(json!({"attributes": {"status_code": "500"}, "details": [{"other": 1}]}));
        assert!(bare.text().ends_with("the app answered 500"), "{}", bare.text());
    }

    #[test]
    fn why_nobody_answered_is_told() {
        let dns = json!({"name": "net_dns", "message_format": "{message}", "attributes": {"message": "no such host"}});
        let said = failures(
            json!({"name": "request", "message_format": "request", "cause": {"name": "request", "cause": dns}}),
        );
        assert!(said.text().ends_with("the app could not be reached: no such host"), "{}", said.text());
        let timeout = json!({"name": "net_timeout", "message_format": "operation timed out"});
        assert!(failures(json!({"name": "request", "cause": timeout})).text().ends_with(": operation timed out"));
        assert!(said.to_do().contains("base URL"));
    }

    #[test]
    fn nothing_is_known_before_the_first_webhook() {
        let state = |health: Value| serde_json::from_value::<Health>(health).unwrap().state();
        assert_eq!(state(json!({})), State::Unknown);
        assert_eq!(state(json!({"healthy": {}})), State::Healthy);
        let State::Unhealthy(one) = state(json!({"unhealthy": {"failed_attempts": 1}})) else { panic!() };
        assert_eq!(one.text(), "1 attempt failed; the app could not be reached");
    }
}
