//! Makes and reads shared access signatures, the passwords of devices.
//! <https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use secrecy::SecretString;
use sha2::Sha256;

/// Encodes all characters except the unreserved ones of RFC 3986.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The resource of a device's token.
#[must_use]
pub fn device_resource(hub_host: &str, device: &str) -> String {
    format!("{hub_host}/devices/{device}")
}

/// The resource of a registration's token.
#[must_use]
pub fn registration_resource(id_scope: &str, registration_id: &str) -> String {
    format!("{id_scope}/registrations/{registration_id}")
}

/// The key of a device that is enrolled through a group. Both keys are decoded.
/// <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#group-enrollments>
#[must_use]
pub fn derive_key(group_key: &[u8], registration_id: &str) -> Vec<u8> {
    sign(group_key, registration_id.as_bytes())
}

/// A token for `resource` that is valid until `expires`, signed with the decoded key. `policy` is `None` for a device's
/// own key, `registration` for a registration, and the policy's name for the key of a hub's policy.
#[must_use]
pub fn mint(resource: &str, key: &[u8], expires: DateTime<Utc>, policy: Option<&str>) -> SecretString {
    let resource = utf8_percent_encode(resource, RESERVED).to_string();
    let expires = expires.timestamp();
    let signature = BASE64_STANDARD.encode(sign(key, format!("{resource}\n{expires}").as_bytes()));
    let signature = percent_encode(signature.as_bytes(), RESERVED);
    let policy = policy.map(|name| format!("&skn={}", utf8_percent_encode(name, RESERVED))).unwrap_or_default();
    SecretString::from(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}{policy}"))
}

fn sign(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// The expiry of a token (`se`). `None` if it has none.
#[must_use]
pub fn expiry(token: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(field(token, "se=")?.parse().ok()?, 0)
}

/// The resource of a token (`sr`), decoded. `None` if it has none.
#[must_use]
pub fn resource(token: &str) -> Option<String> {
    Some(percent_decode_str(field(token, "sr=")?).decode_utf8().ok()?.into_owned())
}

fn field<'a>(token: &'a str, name: &str) -> Option<&'a str> {
    let fields = token.strip_prefix("SharedAccessSignature ")?;
    fields.split('&').find_map(|field| field.trim().strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Microsoft's documentation of group enrollments contains this key.
    const GROUP_KEY: &str = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";

    #[test]
    fn the_device_key_is_derived_as_documented() {
        let key = derive_key(&BASE64_STANDARD.decode(GROUP_KEY).unwrap(), "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");
        assert_eq!(BASE64_STANDARD.encode(&key), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn the_token_of_a_registration_is_the_one_that_microsofts_sdk_makes() {
        let registration = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
        let key = derive_key(&BASE64_STANDARD.decode(GROUP_KEY).unwrap(), registration);
        let expires = DateTime::from_timestamp(1_767_229_200, 0).unwrap();
        let token = mint(&registration_resource("0ne00111111", registration), &key, expires, Some("registration"));
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=0ne00111111%2Fregistrations%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
             &sig=aI1mILHhIBmAXY%2B3WcWilF9kQm8iL5ayGrmZ%2B1S1x4U%3D&se=1767229200&skn=registration"
        );
        let resource = resource(token.expose_secret());
        assert_eq!(resource.unwrap(), format!("0ne00111111/registrations/{registration}"));
    }

    /// Computed with Python's hmac and with Microsoft's device SDK; both results are equal byte for byte.
    #[test]
    fn the_token_is_the_one_that_microsofts_sdk_makes() {
        let device = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
        let key = BASE64_STANDARD.decode("Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=").unwrap();
        let expires = DateTime::from_timestamp(1_767_229_200, 0).unwrap();
        let token = mint(&device_resource("myhub.azure-devices.net", device), &key, expires, None);
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
             &sig=4HmOE0kNLfBnUW9M41HvDXrhJ81HELrriABwN84lyIY%3D&se=1767229200"
        );
        assert_eq!(expiry(token.expose_secret()), Some(expires));
    }

    /// Computed with Python's hmac.
    #[test]
    fn the_token_of_a_policy_names_it() {
        let expires = DateTime::from_timestamp(1_767_229_200, 0).unwrap();
        let token = mint(&device_resource("myhub.azure-devices.net", "pump-7"), b"secret", expires, Some("my device"));
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fpump-7\
             &sig=IiF%2FecfBLNKmrklQCRCx4SP3vuTDze1or%2FHgEVXH%2Bv0%3D&se=1767229200&skn=my%20device"
        );
    }

    #[test]
    fn a_text_without_expiry_has_none() {
        for text in ["", "SharedAccessSignature sr=a&sig=b", "SharedAccessSignature sr=a&se=soon", "se=1"] {
            assert_eq!(expiry(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_token_is_for_and_when_it_ends_is_read_back(
            resource: String,
            key: Vec<u8>,
            seconds in 0_i64..253_402_300_800,
            policy: Option<String>,
        ) {
            let expires = DateTime::from_timestamp(seconds, 0).unwrap();
            let token = mint(&resource, &key, expires, policy.as_deref());
            let token = token.expose_secret();
            prop_assert!(token["SharedAccessSignature ".len()..].bytes().all(|byte| byte.is_ascii_graphic()), "{}", token);
            prop_assert_eq!(super::resource(token), Some(resource));
            prop_assert_eq!(expiry(token), Some(expires));
        }
    }
}
