//! Reads a batch of messages: a JSON array of `{"body":"…","base64Encoded":true,"properties":{…}}`. Does no I/O.
//!
//! Bodies are Base64 unless `base64Encoded` is false: Microsoft's Node SDK never writes that member, but encodes.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{error::Failure, properties};
use crate::iot_hub::telemetry::Properties;

/// The content type of a batch.
pub const CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    body: String,
    base64_encoded: Option<bool>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

/// The messages of a batch, in order.
///
/// # Errors
/// One message is invalid; then the whole batch is refused.
pub fn parse(body: &[u8]) -> Result<Vec<(Properties, Vec<u8>)>, Failure> {
    let items: Vec<Item> = serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not a batch of messages: {error}")))?;
    if items.is_empty() {
        return Err(Failure::bad_request("the batch is empty"));
    }
    let message = |(index, item): (usize, Item)| {
        let body = if item.base64_encoded.unwrap_or(true) {
            let no_base64 = |_| Failure::bad_request(format!("the body of message {index} is not Base64"));
            BASE64_STANDARD.decode(&item.body).map_err(no_base64)?
        } else {
            item.body.into_bytes()
        };
        Ok((properties::of_members(&item.properties)?, body))
    };
    items.into_iter().enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_base64_or_text() {
        let messages = parse(
            r#"[{"body":"/wA=","base64Encoded":true,"properties":{"iothub-app-K":"%C3%BC","iothub-messageid":"1"}},
                {"body":"eA=="},{"body":"eA==","base64Encoded":false},{"body":"Grüße","base64Encoded":false}]"#
                .as_bytes(),
        )
        .unwrap();
        let bodies: Vec<_> = messages.iter().map(|(_, body)| body.as_slice()).collect();
        assert_eq!(bodies, [b"\xFF\0".as_slice(), b"x", b"eA==", "Grüße".as_bytes()]);
        assert_eq!((&messages[0].0.application["K"], &messages[0].0.system["$.mid"]), (&"%C3%BC".into(), &"1".into()));
    }

    #[test]
    fn one_bad_message_spoils_the_batch() {
        for (body, reason) in [
            (r#"[{"body":"eA==","base64Encoded":true},{"body":"?","base64Encoded":true}]"#, "message 1"),
            (r#"[{"body":"?"}]"#, "message 0"),
            (r#"[{"body":""},{}]"#, "missing field `body`"),
            (r#"[{"body":"x","properties":{"a":1}}]"#, "expected a string"),
            (r#"{"body":"x"}"#, "not a batch"),
            ("[]", "empty"),
            ("", "not a batch"),
        ] {
            let failure = format!("{:?}", parse(body.as_bytes()).unwrap_err());
            assert!(failure.contains(reason), "{body}: {failure}");
        }
    }
}
