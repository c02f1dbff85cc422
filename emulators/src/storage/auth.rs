//! Checks the credential of a request: a Shared Key signature or a shared access signature (SAS) of the account.

use std::collections::BTreeMap;

use axum::http::{header, request::Parts};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The account's name and key.
pub struct Key {
    account: &'static str,
    mac: Hmac<Sha256>,
}

impl Key {
    pub fn new(account: &'static str, key: &[u8]) -> Self {
        Self { account, mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    /// Whether the request may be carried out. `permission` is the letter that a SAS needs.
    pub fn allows(&self, request: &Parts, query: &BTreeMap<String, String>, length: usize, permission: char) -> bool {
        match query.get("sig") {
            Some(signature) => {
                let part = |name: &str| query.get(name).map_or("", String::as_str);
                let expires = DateTime::parse_from_rfc3339(part("se")).is_ok_and(|expires| expires > Utc::now());
                expires && part("sp").contains(permission) && *signature == self.sign(&self.text_of_sas(part))
            }
            None => {
                let given = request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                let expected = self.sign(&self.text_of_request(request, query, length));
                given.is_some_and(|given| given == format!("SharedKey {}:{expected}", self.account))
            }
        }
    }

    fn sign(&self, text: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        BASE64_STANDARD.encode(mac.finalize().into_bytes())
    }

    /// <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
    fn text_of_sas<'a>(&self, part: impl Fn(&str) -> &'a str) -> String {
        let parts = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"].map(part).join("\n");
        format!("{}\n{parts}\n\n", self.account)
    }

    /// <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>
    fn text_of_request(&self, request: &Parts, query: &BTreeMap<String, String>, length: usize) -> String {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let length = if length == 0 { String::new() } else { length.to_string() };
        let query: String = query.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
        let mut own: Vec<&str> =
            request.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-ms-")).collect();
        own.sort_unstable();
        let own: String = own.into_iter().map(|name| format!("{name}:{}\n", header(name))).collect();
        let (method, kind, path) = (&request.method, header("content-type"), request.uri.path());
        format!("{method}\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\n{own}/{}{path}{query}", self.account)
    }
}
