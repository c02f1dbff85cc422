//! The Shared Key signature of a request.
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{
    Method, Url,
    header::{CONTENT_TYPE, HeaderMap},
};
use sha2::Sha256;

use crate::queues::account::StorageAccount;

/// The value of `Authorization`. `headers` are the request's; only `Content-Type` and `x-ms-…` matter.
pub fn authorization(
    account: &StorageAccount,
    method: &Method,
    url: &Url,
    body_length: usize,
    headers: &HeaderMap,
) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&account.key).expect("HMAC takes keys of any length");
    mac.update(text_to_sign(&account.name, method, url, body_length, headers).as_bytes());
    format!("SharedKey {}:{}", account.name, BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

fn text_to_sign(account: &str, method: &Method, url: &Url, body_length: usize, headers: &HeaderMap) -> String {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let length = if body_length == 0 { String::new() } else { body_length.to_string() };
    let mut own: Vec<&str> =
        headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-ms-")).collect();
    own.sort_unstable();
    let own: String = own.into_iter().map(|name| format!("{name}:{}\n", header(name))).collect();
    let mut query: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.to_lowercase(), value.into_owned())).collect();
    query.sort();
    let query: String = query.into_iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
    let (content_type, path) = (header(CONTENT_TYPE.as_str()), url.path());
    // Empty lines: encoding, language, MD5; date, the conditions, range.
    format!("{method}\n\n\n{length}\n\n{content_type}\n\n\n\n\n\n\n{own}/{account}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_headers_path_and_query_in_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-ms-version", "V"), ("content-type", "application/xml"), ("x-ms-date", "D")] {
            headers.insert(name, value.parse().unwrap());
        }
        let url = Url::parse("http://h:1/a/q/messages?visibilitytimeout=30&popreceipt=A%2BB%3D").unwrap();
        assert_eq!(
            text_to_sign("a", &Method::POST, &url, 12, &headers),
            "POST\n\n\n12\n\napplication/xml\n\n\n\n\n\n\nx-ms-date:D\nx-ms-version:V\n\
             /a/a/q/messages\npopreceipt:A+B=\nvisibilitytimeout:30"
        );
        let url = Url::parse("https://a.queue.core.windows.net/q").unwrap();
        assert_eq!(
            text_to_sign("a", &Method::PUT, &url, 0, &HeaderMap::new()),
            "PUT\n\n\n\n\n\n\n\n\n\n\n\n/a/q",
            "no length for an empty body"
        );
    }
}
