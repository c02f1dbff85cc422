//! Checks that no output contains a secret, in any encoding.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::Sha256;

use crate::support::World;

/// Texts that no log, answer or document may contain, each with a name to report in its place.
#[derive(Clone, Default)]
pub struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// The credentials in use, and those that are derived from them for `devices`.
    pub fn of(world: &World, devices: &[&str]) -> Self {
        let mut secrets = Self::of_settings(&world.settings);
        secrets.add("the backend's password", world.backend.ready("password"));
        for (name, key) in
            [("the account's key", world.cosmos.ready("key")), ("the policy's key", world.hub.ready("policyKey"))]
        {
            secrets.add(name, key);
        }
        secrets.add("the device's key", world.hub.ready("key"));
        let group = world.hub.ready("groupKey");
        secrets.add("the group's key", group);
        for device in devices {
            secrets.add_derived(group, device);
        }
        secrets
    }

    /// The credentials in the settings, and every text that looks like a credential.
    pub fn of_settings(settings: &BTreeMap<String, String>) -> Self {
        let mut secrets = Self::default();
        secrets.add_settings(settings);
        // Every token has one, and each has a new signature.
        secrets.add("a signature", "&sig=");
        secrets.add("a header", "Basic ZG");
        secrets
    }

    pub fn add(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 4, "{name} is too short to be looked for");
        self.0.push((name.to_owned(), secret.to_owned()));
        self.0.push((format!("{name}, percent-encoded"), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()));
        // As Rust's debug format shows bytes.
        let numbers: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
        self.0.push((format!("{name}, as numbers"), numbers.join(", ")));
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.0.push((format!("{name}, in hex"), hex));
        if let Ok(bytes) = BASE64_STANDARD.decode(secret)
            && bytes.len() >= 16
        {
            let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
            self.0.push((format!("{name}, decoded"), numbers.join(", ")));
        }
    }

    pub fn add_derived(&mut self, group_key: &str, device: &str) {
        self.add("a derived key", &derived(group_key, device));
    }

    fn add_settings(&mut self, settings: &BTreeMap<String, String>) {
        for (name, value) in settings {
            if name.contains("Key")
                || name.contains("Password")
                || name.ends_with("Signature")
                || name.contains("Secret")
            {
                self.add(name, value);
            }
        }
    }

    /// Asserts that a text contains none of the secrets.
    pub fn assert_absent(&self, place: &str, text: &str) {
        // A redacted signature leaves this text.
        let mut text = text.replace("sig=[REDACTED]", "").replace("sig%3D[REDACTED]", "");
        // A text may be cut off inside this mark. Then nothing of the text follows.
        for length in 0.."[REDACTED]".len() {
            for end in ['"', '\\', ' ', '\n'] {
                text = text.replace(&format!("sig%3D{}{end}", &"[REDACTED]"[..length]), "");
            }
        }
        for (name, secret) in &self.0 {
            if let Some(at) = text.find(secret.as_str()) {
                let line = text[..at].lines().next_back().unwrap_or_default();
                let start: String = line.chars().take(300).collect();
                panic!("{name} stands in {place}, behind {start:?}");
            }
        }
    }

    pub fn assert_absent_in(&self, place: &str, values: &[Value]) {
        for value in values {
            self.assert_absent(place, &value.to_string());
        }
    }
}

/// A device's key, as a device of an enrollment group derives it.
/// <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation>
fn derived(group_key: &str, registration_id: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(group_key).unwrap()).unwrap();
    mac.update(registration_id.as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

#[test]
#[should_panic(expected = "the key, as numbers stands in the log, behind \"b \"")]
fn a_secret_is_found_in_any_spelling() {
    let mut secrets = Secrets::default();
    secrets.add("the key", "c2VjcmV0");
    secrets.assert_absent("the log", "a\nb 99, 50, 86, 106, 99, 109, 86, 48 c");
}
