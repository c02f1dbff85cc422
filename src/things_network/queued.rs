//! Defines the form in which a webhook passes through the storage queue.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::support::{
    clock,
    http::{MAX_ERROR_TEXT, one_line},
};

/// The longest text that fits into a queue message. The limit is 64 KiB in Base64, which the Functions host uses.
/// <https://learn.microsoft.com/azure/storage/queues/scalability-targets>
pub const MAX_TEXT: usize = 48 * 1024;

/// Where to send downlinks for the webhook's device, from the headers of the webhook.
/// <https://www.thethingsindustries.com/docs/integrations/webhooks/scheduling-downlinks/>
#[derive(Clone, Debug)]
pub struct DownlinkKeys {
    /// `X-Downlink-Apikey`
    pub api_key: SecretString,
    /// `X-Downlink-Push`
    pub push: Option<String>,
    /// `X-Downlink-Replace`
    pub replace: Option<String>,
}

/// A webhook as the queue holds it.
#[derive(Clone, Debug)]
pub struct Queued<'a> {
    /// When the webhook was received. Unknown if the C# sample queued it.
    pub received_at: Option<DateTime<Utc>>,
    pub downlink: Option<DownlinkKeys>,
    /// `X-Tts-Domain`: the domain of the tenant. Messages of earlier versions do not have it.
    pub domain: Option<String>,
    /// The body as received.
    pub webhook: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(rename = "ReceivedAtUTC", skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downlink: Option<WireKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(borrow, skip_serializing)]
    webhook: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireKeys {
    api_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replace: Option<String>,
}

impl<'a> Queued<'a> {
    /// The text of the queue message. The webhook is not checked again: it must be JSON, as everything is that
    /// [`Webhook::parse`](super::webhook::Webhook::parse) accepts.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn text(&self) -> String {
        let head = serde_json::to_string(&Wire {
            received_at: self.received_at.map(stamp),
            downlink: self.downlink.as_ref().map(|keys| WireKeys {
                api_key: keys.api_key.expose_secret().to_owned(),
                push: keys.push.clone(),
                replace: keys.replace.clone(),
            }),
            domain: self.domain.clone(),
            webhook: None,
        });
        with_member(&head.expect("texts are JSON"), "Webhook", &self.webhook)
    }

    /// Reads the text of a queue message. Also reads a webhook's body alone, which the C# sample queues.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let no_webhook = |why: &str| format!("the queue message is not a webhook: {}", one_line(why, MAX_ERROR_TEXT));
        let wire = serde_json::from_str::<Wire<'a>>(text).map_err(|error| no_webhook(&error.to_string()))?;
        // serde would read an array as a struct.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(no_webhook("it is another kind of JSON"));
        }
        let Some(webhook) = wire.webhook else {
            return Ok(Self { received_at: None, downlink: None, domain: None, webhook: text.into() });
        };
        let keys =
            |keys: WireKeys| DownlinkKeys { api_key: keys.api_key.into(), push: keys.push, replace: keys.replace };
        Ok(Self {
            received_at: wire.received_at.and_then(|text| clock::read_rfc3339(&text)),
            downlink: wire.downlink.map(keys),
            domain: wire.domain,
            webhook: webhook.get().into(),
        })
    }
}

/// A time as the queue holds it: in microseconds, so that two webhooks have different ones, for a message id can depend on
/// it. A time of whole milliseconds has no more digits than an earlier version wrote, so that its text does not grow.
#[must_use]
pub fn stamp(time: DateTime<Utc>) -> String {
    let is_whole = time.timestamp_subsec_micros().is_multiple_of(1000);
    time.to_rfc3339_opts(if is_whole { SecondsFormat::Millis } else { SecondsFormat::Micros }, true)
}

/// Adds one member to a JSON object. The JSON of its value is not changed.
#[must_use]
pub fn with_member(object: &str, name: &str, json: &str) -> String {
    let open = object.strip_suffix('}').unwrap_or(object);
    let comma = if open.len() > 1 { "," } else { "" };
    format!(r#"{open}{comma}"{name}":{json}}}"#)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEBHOOK: &str = "{ \"a\":1.0,\n \"b\":\"ü\\u0000\" }";

    #[test]
    fn a_webhook_comes_out_as_it_went_in() {
        let keys = DownlinkKeys { api_key: "NNSXS.secret".into(), push: Some("https://p".into()), replace: None };
        let received_at = "2026-01-31T12:00:00.125Z".parse().ok();
        let queued =
            Queued { received_at, downlink: Some(keys), domain: Some("d.example".into()), webhook: WEBHOOK.into() };
        let text = queued.text();
        let begin = r#"{"ReceivedAtUTC":"2026-01-31T12:00:00.125Z","Downlink":{"ApiKey":"NNSXS.secret","Push":"https://p"},"Domain":"d.example","Webhook":{ "a":1.0,"#;
        assert!(text.starts_with(begin), "{text}");
        let read = Queued::parse(&text).unwrap();
        assert_eq!((read.received_at, &*read.webhook), (received_at, WEBHOOK));
        assert_eq!(read.domain.as_deref(), Some("d.example"));
        let earlier = Queued::parse(r#"{"ReceivedAtUTC":"2026-01-31T12:00:00.125Z","Webhook":{}}"#).unwrap();
        assert_eq!((earlier.received_at, earlier.domain), (received_at, None), "a message of an earlier version");
        let keys = read.downlink.as_ref().unwrap();
        assert_eq!(keys.api_key.expose_secret(), "NNSXS.secret");
        assert!(!format!("{read:?}").contains("NNSXS"), "keys must not print");
    }

    #[test]
    fn what_the_sample_has_queued_is_read() {
        let read = Queued::parse(r#"{"app_id":"a","dev_id":"d"}"#).unwrap();
        assert_eq!((read.received_at, &*read.webhook), (None, r#"{"app_id":"a","dev_id":"d"}"#));
        for text in ["hello", "7", "", "\"{}\"", r#"[null,null,{"a":1}]"#] {
            assert!(Queued::parse(text).unwrap_err().contains("not a webhook"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_webhook_with_any_keys_is_read_back(
            member: String,
            number: i64,
            key: String,
            push: Option<String>,
            replace: Option<String>,
            millis in prop::option::of(0_i64..253_402_300_800_000),
        ) {
            let webhook = serde_json::json!({ member: [number, null, {"Webhook": 1}] }).to_string();
            let received_at = millis.and_then(DateTime::from_timestamp_millis);
            let downlink = DownlinkKeys { api_key: key.clone().into(), push: push.clone(), replace: replace.clone() };
            let text = Queued { received_at, downlink: Some(downlink), domain: None, webhook: (&*webhook).into() }.text();
            let read = Queued::parse(&text).unwrap();
            prop_assert_eq!((read.received_at, &*read.webhook), (received_at, &*webhook));
            let keys = read.downlink.unwrap();
            prop_assert_eq!((keys.api_key.expose_secret(), keys.push, keys.replace), (&*key, push, replace));
        }
    }
}
