//! Telemetry over HTTPS: one pool of connections for all devices, messages in batches.
//! <https://learn.microsoft.com/rest/api/iothub/device/send-device-event>
//!
//! The batch form is used for single messages too: headers would lose the case of the properties' names. Over HTTPS the hub
//! takes only some characters in properties ([`PLAIN`]), so that a value with any other is percent-encoded, and arrives so:
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct>. That the system properties (message id, content
//! type and encoding, creation time) stand beside the application properties, under the names of their headers, is how
//! Microsoft's own SDK for Java sends them.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use percent_encoding::utf8_percent_encode;
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    Device, Message, SendError,
    message::{self, MAX_BATCH_SIZE},
    sas::RESERVED,
};
use crate::http;

/// The version of the device API that requests ask for.
const API_VERSION: &str = "2021-04-12";
const HTTPS_PORT: u16 = 443;
/// Below the time that the sender waits for a hub that acknowledges nothing: what is out of reach is to be called so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request may take this long. Longer than the sender waits for a hub that acknowledges nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const BATCH_CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.json";
/// What may stand in a property over HTTPS beside letters and digits. `%` is not among them here: a value that has one is
/// encoded, so that decoding gives the value back, whatever it was.
const PLAIN: &[u8] = b"!#$&'*+-.^_`|~";

pub struct Client {
    http: reqwest::Client,
}

/// A message as the batch form has it.
#[derive(Serialize)]
struct Event<'a> {
    body: String,
    #[serde(rename = "base64Encoded")]
    base64_encoded: bool,
    properties: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Client {
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(tls: &Arc<ClientConfig>) -> Result<Self, SendError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(tls))
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| SendError::Untrusted(format!("TLS cannot be set up: {error}")))?;
        Ok(Self { http })
    }

    /// Sends a batch. All its messages are acknowledged by one answer, or none.
    ///
    /// # Errors
    /// Why they are not.
    pub async fn send(&self, device: &Device, token: &SecretString, batch: Vec<u8>) -> Result<(), SendError> {
        let (host, port) = (&device.endpoint.host, device.endpoint.port.unwrap_or(HTTPS_PORT));
        let id = utf8_percent_encode(&device.id, RESERVED);
        let url = format!("https://{host}:{port}/devices/{id}/messages/events?api-version={API_VERSION}");
        let mut authorization = HeaderValue::from_str(token.expose_secret())
            .map_err(|_| SendError::Refused { device: device.id.clone() })?;
        authorization.set_sensitive(true);
        let request = self.http.post(url).header(AUTHORIZATION, authorization).header(CONTENT_TYPE, BATCH_CONTENT_TYPE);
        let response =
            request.body(batch).send().await.map_err(|error| unreachable(&error, &format!("{host}:{port}")))?;
        // Nothing else is an acknowledgement: a proxy's "200" must not pass for one.
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(explain(response, device, Utc::now()).await)
    }
}

/// As many messages, from the first on, as fit into one request of at most `most` messages: their number and the request's
/// body. The first one alone may be too large.
///
/// # Errors
/// [`SendError::TooLarge`], of the first message.
pub fn batch(messages: &[Message], most: usize) -> Result<(usize, Vec<u8>), SendError> {
    let mut batch = vec![b'['];
    let mut count = 0;
    for message in messages.iter().take(most) {
        let before = batch.len();
        if count > 0 {
            batch.push(b',');
        }
        serde_json::to_writer(&mut batch, &event(message)).expect("strings always serialize");
        if batch.len() + b"]".len() > MAX_BATCH_SIZE {
            batch.truncate(before);
            break;
        }
        count += 1;
    }
    if let (0, Some(message)) = (count, messages.first()) {
        return Err(SendError::TooLarge { size: message.size(), limit: message::MAX_PORTABLE_SIZE });
    }
    batch.push(b']');
    Ok((count, batch))
}

fn event(message: &Message) -> Event<'_> {
    let system: [(_, Cow<'_, str>); 4] = [
        ("iothub-messageid", message.id.as_str().into()),
        ("iothub-contenttype", message::CONTENT_TYPE.into()),
        ("iothub-contentencoding", message::CONTENT_ENCODING.into()),
        ("iothub-creationtimeutc", message.created_text().into()),
    ];
    let application = message.properties.iter();
    let application = application.map(|(name, value)| (format!("iothub-app-{name}").into(), plain(value)));
    let properties = system.into_iter().map(|(name, value)| (name.into(), value)).chain(application).collect();
    Event { body: BASE64_STANDARD.encode(&message.body), base64_encoded: true, properties }
}

/// The value as it may stand in a property.
fn plain(value: &str) -> Cow<'_, str> {
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || PLAIN.contains(&byte)) {
        return value.into();
    }
    utf8_percent_encode(value, RESERVED).into()
}

fn unreachable(error: &reqwest::Error, place: &str) -> SendError {
    let text = http::cause(error);
    if http::is_untrusted(&text) {
        return SendError::Untrusted(format!("{place}: {text}"));
    }
    if error.is_timeout() {
        return SendError::Unreachable(format!("{place} did not answer in time"));
    }
    if error.is_connect() {
        return SendError::Unreachable(format!("{place}: {text}"));
    }
    SendError::Cut
}

async fn explain(response: Response, device: &Device, now: DateTime<Utc>) -> SendError {
    let status = response.status();
    let wait = http::retry_after(response.headers(), now);
    let is_named = response.headers().contains_key("iothub-errorcode");
    let skew = http::clock_skew(response.headers(), now).filter(|skew| skew.abs() > http::CLOCK_TOLERANCE);
    let body = http::error_body(response).await;
    let (code, text) = error_text(&body);
    let id = device.id.clone();
    match status {
        StatusCode::UNAUTHORIZED => match skew {
            Some(skew) => SendError::ClockWrong { device: id, minutes: skew.num_minutes() },
            None => SendError::RefusedBecause { device: id, status: 401, text },
        },
        StatusCode::FORBIDDEN if code == Some(403_002) || text.contains("IotHubQuotaExceeded") => {
            SendError::QuotaUsedUp
        }
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            SendError::RefusedBecause { device: id, status: status.as_u16(), text }
        }
        StatusCode::TOO_MANY_REQUESTS => SendError::Throttled { wait },
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => SendError::Throttled { wait },
        // Only the hub itself can condemn a message, not whatever stands in between.
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE
            if is_named || code.is_some() || text.starts_with("ErrorCode:") =>
        {
            SendError::Rejected { status: status.as_u16(), text }
        }
        _ => SendError::Unreachable(format!("{}: it answered {}: {text}", device.endpoint, status.as_u16())),
    }
}

/// The hub's error code, such as 401003, and its text.
fn error_text(body: &[u8]) -> (Option<u64>, String) {
    let (code, text) = http::error_text(body);
    (code, if text.is_empty() { "no reason given".into() } else { text })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn message(id: &str, body: Vec<u8>) -> Message {
        let created = DateTime::from_timestamp_millis(1_700_000_000_120).unwrap();
        Message { id: id.into(), created, properties: vec![("Site_Id", "Zähler 1".into())], body: Bytes::from(body) }
    }

    #[test]
    fn a_batch_holds_what_a_message_has() {
        let (count, body) = batch(&[message("a/1", b"{}".to_vec()), message("a/2", b"[]".to_vec())], 16).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(count, 2);
        assert_eq!(
            body[0],
            json!({"body": "e30=", "base64Encoded": true, "properties": {
                "iothub-app-Site_Id": "Z%C3%A4hler%201", "iothub-messageid": "a/1", "iothub-contenttype": "application/json",
                "iothub-contentencoding": "utf-8", "iothub-creationtimeutc": "2023-11-14T22:13:20.120Z"}})
        );
        assert_eq!(body[1]["properties"]["iothub-messageid"], "a/2");
    }

    #[test]
    fn only_what_may_not_stand_in_a_property_is_encoded() {
        for value in ["", "Well-7", "a!#$&'*+-.^_`|~Z9"] {
            assert_eq!(plain(value), value);
        }
        assert_eq!((plain("100%"), plain("a/b")), ("100%25".into(), "a%2Fb".into()));
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_batch() {
        let messages = [vec![b'x'; 100_000], vec![b'x'; 100_000], vec![b'x'; 10]].map(|body| message("m", body));
        let (count, body) = batch(&messages, 16).unwrap();
        assert_eq!(count, 1);
        assert!(serde_json::from_slice::<Value>(&body).is_ok());
        assert_eq!(batch(&messages[1..], 16).unwrap().0, 2);
        assert_eq!(batch(&messages[1..], 1).unwrap().0, 1);
    }

    #[test]
    fn the_largest_portable_message_fits_and_a_larger_one_is_refused_here() {
        let envelope = message("m", vec![]).size();
        assert_eq!(batch(&[message("m", vec![0xFF; message::MAX_PORTABLE_SIZE - envelope])], 16).unwrap().0, 1);
        let error = batch(&[message("m", vec![0; 255 * 1024])], 16).unwrap_err();
        assert!(matches!(error, SendError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_hub_that_gives_no_reason_has_none() {
        assert_eq!(error_text(br#"{"errorCode":429001,"message":"slow down"}"#), (Some(429_001), "slow down".into()));
        assert_eq!(error_text(b""), (None, "no reason given".into()));
    }
}
