//! `/c2d`: what a service does with messages to devices.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderName, HeaderValue, StatusCode},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answer, Control, Parameters, Refused, parse, time_to_wait};
use crate::iot_hub::{
    c2d::{MAX_MESSAGE, Message, Stage, Status},
    login,
    telemetry::Properties,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceParameters {
    pub device: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusParameters {
    device: String,
    wait: Option<String>,
    timeout_ms: Option<u64>,
}

/// A message as a service posts it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Posted {
    body: Option<String>,
    body_base64: Option<String>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    properties: BTreeMap<String, String>,
    ttl_seconds: Option<u32>,
}

/// Enqueues a message. 201 with its id, which is made up if there is none; 404 if the hub does not know the device, 409 if 50
/// messages wait, 413 if it is too large.
pub async fn post(
    State(control): State<Control>,
    query: Parameters<DeviceParameters>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let Query(query) = query?;
    if !login::is_device_id(&query.device) {
        return Err(Refused::bad_request(format!("no device can have the id {:?}", query.device)));
    }
    if control.hub.registry.device(&query.device).is_err() {
        let reason = format!("404001 DeviceNotFound: the hub knows no device {:?}", query.device);
        return Err(Refused(StatusCode::NOT_FOUND, reason));
    }
    let message = parse::<Posted>(&body)?.into_message().map_err(Refused::bad_request)?;
    if message.size() > MAX_MESSAGE {
        let reason = format!("a message of {} bytes; {MAX_MESSAGE} are allowed", message.size());
        return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    let id = message.id().to_owned();
    let full = |_| Refused(StatusCode::CONFLICT, "403004 DeviceMaximumQueueDepthExceeded: 50 messages wait".into());
    control.hub.c2d.mailbox(&query.device).with(|queue| queue.enqueue(message)).map_err(full)?;
    Ok((StatusCode::CREATED, Json(json!({ "messageId": id }))))
}

/// `?device=ID&wait=completed:K&timeout_ms=T`: what became of the messages to a device, oldest first; with `wait`, when so
/// many have come to that state, or when the time is over.
pub async fn get(State(control): State<Control>, query: Parameters<StatusParameters>) -> Answer<Json<Vec<Status>>> {
    let Query(query) = query?;
    let mailbox = control.hub.c2d.mailbox(&query.device);
    if let Some(wait) = &query.wait {
        let (stage, number) = parse_wait(wait).ok_or_else(|| {
            Refused::bad_request(format!("wait is {wait:?}, not a state and a number as in `completed:3`"))
        })?;
        mailbox.wait(stage, number, Instant::now() + time_to_wait(query.timeout_ms)?).await;
    }
    Ok(Json(mailbox.with(|queue| queue.statuses())))
}

/// `?device=ID`: ends every lock as if its minute were over. Tells how many.
pub async fn unlock(State(control): State<Control>, query: Parameters<DeviceParameters>) -> Answer<Json<Value>> {
    let Query(query) = query?;
    let unlocked = control.hub.c2d.mailbox(&query.device).with(|queue| queue.unlock_all());
    Ok(Json(json!({ "unlocked": unlocked })))
}

fn parse_wait(wait: &str) -> Option<(Stage, usize)> {
    let (stage, number) = wait.split_once(':')?;
    Some((serde_json::from_value(json!(stage)).ok()?, number.parse().ok()?))
}

impl Posted {
    fn into_message(self) -> Result<Message, String> {
        let body = match (self.body, self.body_base64) {
            (Some(body), None) => body.into_bytes(),
            (None, Some(body)) => BASE64_STANDARD.decode(body).map_err(|_| "bodyBase64 is not Base64")?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => return Err("there is a body and a bodyBase64".into()),
        };
        for (name, value) in &self.properties {
            let header = HeaderName::from_bytes(name.as_bytes());
            if header.is_err() || name.is_empty() || HeaderValue::from_str(value).is_err() {
                return Err(format!("the property {name:?} cannot stand in an HTTP header"));
            }
        }
        let expiry = self.ttl_seconds.map(|seconds| Utc::now() + Duration::from_secs(seconds.into()));
        let message_id = self.message_id.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let system = [
            ("$.mid", Some(message_id)),
            ("$.cid", self.correlation_id),
            ("$.ct", self.content_type),
            ("$.ce", self.content_encoding),
            ("$.exp", expiry.map(|expiry| expiry.to_rfc3339_opts(SecondsFormat::Millis, true))),
        ];
        let system = system.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        Ok(Message {
            properties: Properties { application: self.properties, system },
            body: body.into(),
            ttl: self.ttl_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}
