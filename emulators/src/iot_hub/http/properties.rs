//! The properties of a message over HTTPS. They are headers of a request, or members of `properties` in a batch, under
//! the same names. They are recorded under the keys that MQTT uses.

use axum::http::HeaderMap;

use super::error::Failure;
use crate::iot_hub::telemetry::Properties;

/// Prefix of application properties.
pub const APPLICATION: &str = "iothub-app-";

/// System properties: the names over HTTPS and over MQTT.
pub const SYSTEM: [(&str, &str); 7] = [
    ("iothub-messageid", "$.mid"),
    ("iothub-correlationid", "$.cid"),
    ("iothub-userid", "$.uid"),
    ("iothub-contenttype", "$.ct"),
    ("iothub-contentencoding", "$.ce"),
    ("iothub-creationtimeutc", "$.ctime"),
    ("iothub-expiry", "$.exp"),
];

/// Characters that application properties may have over HTTPS besides letters and digits:
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct>.
const PUNCTUATION: &[u8] = b"!#$%&'*+-.^_`|~";

/// Checks that name and value of an application property are allowed over HTTPS.
fn check(name: &str, value: &str) -> Result<(), Failure> {
    let allowed = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || PUNCTUATION.contains(&byte));
    if name.is_empty() {
        return Err(Failure::bad_request("an application property has no name"));
    }
    if !allowed(name) || !allowed(value) {
        let reason = format!("the property {name:?} has a character that HTTPS does not take in properties");
        return Err(Failure::bad_request(reason));
    }
    Ok(())
}

/// The properties among the headers of a request, with values read as UTF-8. Other headers are ignored.
pub fn of_headers(headers: &HeaderMap) -> Result<Properties, Failure> {
    let mut properties = Properties::default();
    for (name, value) in headers {
        let name = name.as_str();
        let (kind, key) = if let Some(key) = name.strip_prefix(APPLICATION) {
            (&mut properties.application, key)
        } else if let Some(key) = system(name) {
            (&mut properties.system, key)
        } else {
            continue;
        };
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Failure::bad_request(format!("the header {name} is not UTF-8")))?;
        if name.starts_with(APPLICATION) {
            check(key, value)?;
        }
        if kind.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::bad_request(format!("the header {name} comes twice")));
        }
    }
    Ok(properties)
}

/// The properties of one message of a batch. An unknown name is kept as an application property, where the user can see
/// a misspelling.
///
/// # Errors
/// An application property has no name, or has a character that is not allowed.
pub fn of_members<'a>(members: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Properties, Failure> {
    let mut properties = Properties::default();
    for (name, value) in members {
        if let Some(key) = system(name) {
            properties.system.insert(key.to_owned(), value.clone());
        } else {
            let key = name.strip_prefix(APPLICATION).unwrap_or(name);
            check(key, value)?;
            properties.application.insert(key.to_owned(), value.clone());
        }
    }
    Ok(properties)
}

/// MQTT's key of a system property. The case of the HTTPS name does not matter.
fn system(name: &str) -> Option<&'static str> {
    SYSTEM.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::HeaderValue;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn headers_become_the_properties_mqtt_would_carry() {
        let mut headers = HeaderMap::new();
        headers.insert("iothub-app-Site_Id", HeaderValue::from_static("Br%C3%BCcke-1"));
        headers.insert("iothub-messageid", HeaderValue::from_static("a b"));
        headers.insert("iothub-to", HeaderValue::from_static("/devices/d/messages/events"));
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let properties = of_headers(&headers).unwrap();
        assert_eq!(properties.application, map(&[("site_id", "Br%C3%BCcke-1")]));
        assert_eq!(properties.system, map(&[("$.mid", "a b")]));
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        let not_utf8 = HeaderValue::from_bytes(b"\xFF").unwrap();
        for (name, values) in [
            ("iothub-app-a", vec![not_utf8]),
            ("iothub-app-", vec![HeaderValue::from_static("x")]),
            ("iothub-messageid", vec![HeaderValue::from_static("1"), HeaderValue::from_static("2")]),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name, value);
            }
            assert!(of_headers(&headers).is_err(), "{name}");
        }
    }

    #[test]
    fn members_keep_their_case_and_misspelt_ones_are_seen() {
        let members = map(&[("iothub-app-Site_Id", "1"), ("iothub-contentType", "text/plain"), ("iothub-apK", "2")]);
        let properties = of_members(&members).unwrap();
        assert_eq!(properties.application, map(&[("Site_Id", "1"), ("iothub-apK", "2")]));
        assert_eq!(properties.system, map(&[("$.ct", "text/plain")]));
        for (name, value) in
            [("iothub-app-", "x"), ("iothub-app-a", "ü"), ("iothub-app-a b", "x"), ("iothub-app-a", "1 2")]
        {
            assert!(of_members(&map(&[(name, value)])).is_err(), "{name}: {value}");
        }
    }
}
