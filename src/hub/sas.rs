//! Shared access signatures, the passwords of devices.
//! <https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use secrecy::SecretString;
use sha2::Sha256;

/// Everything is encoded but the unreserved characters of RFC 3986.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The resource that a device's token is for.
#[must_use]
pub fn device_resource(hub_host: &str, device: &str) -> String {
    format!("{hub_host}/devices/{device}")
}

/// A token for `resource` that holds until `expires`, signed with the decoded device key.
#[must_use]
pub fn mint(resource: &str, key: &[u8], expires: DateTime<Utc>) -> SecretString {
    let resource = utf8_percent_encode(resource, RESERVED).to_string();
    let expires = expires.timestamp();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{resource}\n{expires}").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let signature = percent_encode(signature.as_bytes(), RESERVED);
    SecretString::from(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}"))
}

/// When a token ends (`se`); `None` if it does not say so.
#[must_use]
pub fn expiry(token: &str) -> Option<DateTime<Utc>> {
    let fields = token.strip_prefix("SharedAccessSignature ")?;
    let seconds = fields.split('&').find_map(|field| field.trim().strip_prefix("se="))?;
    DateTime::from_timestamp(seconds.parse().ok()?, 0)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Computed with Python's hmac and with Microsoft's device SDK, byte-equal.
    #[test]
    fn the_token_is_the_one_that_microsofts_sdk_makes() {
        let device = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
        let key = BASE64_STANDARD.decode("Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=").unwrap();
        let expires = DateTime::from_timestamp(1_767_229_200, 0).unwrap();
        let token = mint(&device_resource("myhub.azure-devices.net", device), &key, expires);
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
             &sig=4HmOE0kNLfBnUW9M41HvDXrhJ81HELrriABwN84lyIY%3D&se=1767229200"
        );
        assert_eq!(expiry(token.expose_secret()), Some(expires));
    }

    #[test]
    fn a_text_without_expiry_has_none() {
        for text in ["", "SharedAccessSignature sr=a&sig=b", "SharedAccessSignature sr=a&se=soon", "se=1"] {
            assert_eq!(expiry(text), None, "{text:?}");
        }
    }
}
