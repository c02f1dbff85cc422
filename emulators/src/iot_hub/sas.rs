//! Checks shared access signatures: `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={policy}]`.
//!
//! Source: <https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas>. The signature is HMAC-SHA256 over `sr +
//! "\n" + se`, with `sr` exactly as sent: a new encoding could spell the same resource differently.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

/// A token from a password. Nothing is verified yet.
pub struct Token<'a> {
    /// `sr`, percent-encoded as sent.
    resource: &'a str,
    /// `se` as sent. It is part of the signed text.
    expiry_text: &'a str,
    /// `se` in seconds since 1970.
    pub expiry: u64,
    /// `skn`, percent-encoded as sent. A device's own token for the hub does not have it.
    pub policy: Option<&'a str>,
    /// `sig`. A well-formed one has 32 bytes.
    pub signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Splits a token into its fields. They may come in any order. Unknown fields are ignored (a newer SDK may add
    /// some).
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let fields = text
            .strip_prefix("SharedAccessSignature ")
            .ok_or("the password is not a token: it does not begin with `SharedAccessSignature `")?;
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=').ok_or("a field of the token has no `=`")?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(format!("the token has `{name}` twice"));
            }
        }
        let resource = resource.ok_or("the token has no `sr`")?;
        let signature = signature.ok_or("the token has no `sig`")?;
        let expiry_text = expiry.ok_or("the token has no `se`")?;
        let expiry = expiry_text.parse().map_err(|_| "the token's `se` is not a time in seconds")?;
        let signature = BASE64_STANDARD
            .decode(percent_decode_str(signature).collect::<Vec<u8>>())
            .map_err(|_| "the token's `sig` is not percent-encoded Base64")?;
        Ok(Self { resource, expiry_text, expiry, policy, signature })
    }

    /// The name of the policy that signed the token. Some SDKs write an empty one into a device's own token.
    pub fn policy_name(&self) -> Option<String> {
        let name = self.policy.filter(|name| !name.is_empty())?;
        Some(percent_decode_str(name).decode_utf8_lossy().into_owned())
    }

    /// Whether `key` (raw bytes) signed this token.
    pub fn is_signed_by(&self, key: &[u8]) -> bool {
        let mac = authentication(key, &format!("{}\n{}", self.resource, self.expiry_text));
        mac.verify_slice(&self.signature).is_ok()
    }

    /// Whether the token is for this device of this hub, or for a resource that contains it: `{host}`,
    /// `{host}/devices`, `{host}/devices/{device id}`. Case and port of the host do not matter; the device's case does.
    pub fn covers(&self, host: &str, device_id: &str) -> bool {
        let Ok(resource) = percent_decode_str(self.resource).decode_utf8() else { return false };
        let (named_host, path) = resource.split_once('/').unwrap_or((&resource, ""));
        same_host(named_host, host)
            && (path.is_empty() || path == "devices" || path.strip_prefix("devices/") == Some(device_id))
    }

    /// Whether the token is for this registration: `{id scope}/registrations/{registration id}`. Case does not matter.
    pub fn covers_registration(&self, scope: &str, registration_id: &str) -> bool {
        let Ok(resource) = percent_decode_str(self.resource).decode_utf8() else { return false };
        resource.eq_ignore_ascii_case(&format!("{scope}/registrations/{registration_id}"))
    }
}

/// HMAC-SHA256 of a text.
pub fn sign(key: &[u8], text: &str) -> Vec<u8> {
    authentication(key, text).finalize().into_bytes().to_vec()
}

fn authentication(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

/// Compares two host names. Their ports and their case do not matter.
pub fn same_host(one: &str, other: &str) -> bool {
    without_port(one).eq_ignore_ascii_case(without_port(other))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The device key and token of Microsoft's documented example device. Its Python SDK signs this token.
    const KEY: &str = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=";
    const DEVICE: &str = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
    const TOKEN: &str = "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
                         &sig=4HmOE0kNLfBnUW9M41HvDXrhJ81HELrriABwN84lyIY%3D&se=1767229200";

    fn key() -> Vec<u8> {
        BASE64_STANDARD.decode(KEY).unwrap()
    }

    #[test]
    fn a_token_of_microsofts_sdk_verifies() {
        let token = Token::parse(TOKEN).unwrap();
        assert!(token.is_signed_by(&key()));
        assert_eq!(token.expiry, 1_767_229_200);
        assert!(token.covers("MyHub.azure-devices.net:8883", DEVICE));
        assert!(!token.covers("other.azure-devices.net", DEVICE));
        assert!(!token.covers("myhub.azure-devices.net", &DEVICE.to_uppercase()));
    }

    #[test]
    fn any_change_breaks_the_signature() {
        for (from, to) in [("1767229200", "1767229201"), ("%2F", "%2f"), ("sn-007", "sn-008"), ("4Hm", "4Hn")] {
            let changed = TOKEN.replace(from, to);
            assert_ne!(changed, TOKEN);
            assert!(!Token::parse(&changed).unwrap().is_signed_by(&key()), "{from} -> {to}");
        }
        assert!(!Token::parse(TOKEN).unwrap().is_signed_by(b"another key"));
    }

    #[test]
    fn the_order_of_fields_and_a_policy_name_do_not_matter() {
        let fields: Vec<_> = TOKEN.strip_prefix("SharedAccessSignature ").unwrap().split('&').collect();
        let turned = format!("SharedAccessSignature skn=registration&{}&{}&{}", fields[2], fields[1], fields[0]);
        let token = Token::parse(&turned).unwrap();
        assert!(token.is_signed_by(&key()));
        assert_eq!(token.policy, Some("registration"));
    }

    #[test]
    fn a_token_for_the_whole_hub_covers_its_devices() {
        for (resource, covers) in [
            ("hub", true),
            ("hub%2Fdevices", true),
            ("hub%2Fdevices%2Fa", true),
            ("hub%2Fdevices%2Fab", false),
            ("hub%2Fmodules", false),
            ("hub2", false),
            ("%FF", false),
        ] {
            let text = format!("SharedAccessSignature sr={resource}&sig=AAAA&se=1");
            assert_eq!(Token::parse(&text).unwrap().covers("hub", "a"), covers, "{resource}");
        }
    }

    #[test]
    fn a_token_for_a_registration_covers_it_and_nothing_else() {
        let text = "SharedAccessSignature sr=0ne00111111%2Fregistrations%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
                    &sig=aI1mILHhIBmAXY%2B3WcWilF9kQm8iL5ayGrmZ%2B1S1x4U%3D&se=1767229200&skn=registration";
        let token = Token::parse(text).unwrap();
        assert!(token.is_signed_by(&key()));
        assert!(token.covers_registration("0ne00111111", DEVICE));
        assert!(token.covers_registration("0ne00111111", &DEVICE.to_uppercase()));
        assert!(!token.covers_registration("0ne00111112", DEVICE));
        assert!(!token.covers_registration("0ne00111111", "sn-007"));
        assert!(!token.covers("0ne00111111", DEVICE));
    }

    #[test]
    fn what_is_no_token_says_why() {
        for (text, reason) in [
            ("secret", "does not begin"),
            ("SharedAccessSignature ", "no `=`"),
            ("SharedAccessSignature sr=a&se=1", "no `sig`"),
            ("SharedAccessSignature sr=a&sr=b&sig=AAAA&se=1", "twice"),
            ("SharedAccessSignature sr=a&sig=%&se=1", "Base64"),
            ("SharedAccessSignature sr=a&sig=AAAA&se=tomorrow", "not a time"),
        ] {
            let error = Token::parse(text).err().unwrap();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
