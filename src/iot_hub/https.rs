//! Sends telemetry over HTTPS: one connection pool for all devices, messages in batches.
//! <https://learn.microsoft.com/rest/api/iothub/device/send-device-event>
//!
//! Single messages use the batch form too: headers would lose the case of the property names. Over HTTPS the hub takes
//! only some characters in properties ([`PLAIN`]). A value with any other character is percent-encoded and arrives so:
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct>. The system properties (message id,
//! content type and encoding, creation time) are placed beside the application properties, under the names of their
//! headers, as in Microsoft's own SDK for Java.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use percent_encoding::utf8_percent_encode;
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use secrecy::SecretString;
use serde::Serialize;

use super::{
    Device, Message, SendError,
    message::{self, MAX_BATCH_SIZE},
    rest,
    sas::RESERVED,
};
use crate::support::http_client::HttpClient;

pub const BATCH_CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.json";
/// Characters that the hub takes in a property over HTTPS, beside letters and digits. `%` is left out on purpose: a
/// value with `%` is encoded, so that decoding always gives back the value.
const PLAIN: &[u8] = b"!#$&'*+-.^_`|~";

pub struct Client(rest::Client);

/// A message in the batch form.
#[derive(Serialize)]
struct Event<'a> {
    body: String,
    #[serde(rename = "base64Encoded")]
    base64_encoded: bool,
    properties: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Client {
    #[must_use]
    pub fn new(http: HttpClient) -> Self {
        Self(rest::Client::new(http))
    }

    /// Sends a batch. One answer acknowledges all its messages, or none.
    ///
    /// # Errors
    /// Why they are not acknowledged.
    pub async fn send(&self, device: &Device, token: &SecretString, batch: Vec<u8>) -> Result<(), SendError> {
        let request = self.0.request(Method::POST, device, token, "messages/events", "")?;
        let request = request.header(CONTENT_TYPE, BATCH_CONTENT_TYPE).body(batch);
        let response = request.send().await.map_err(|error| rest::no_answer(&error, device))?;
        // No other status is an acknowledgement: a proxy's "200" must not count as one.
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(rest::explain(response, device, Utc::now()).await)
    }
}

/// Takes messages from the first on, as many as fit into one request, at most `most`. Returns their number and the
/// request's body. The first message alone may be too large.
///
/// # Errors
/// [`SendError::TooLarge`], for the first message.
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

/// Encodes the value for a property.
fn plain(value: &str) -> Cow<'_, str> {
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || PLAIN.contains(&byte)) {
        return value.into();
    }
    utf8_percent_encode(value, RESERVED).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;
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
}
