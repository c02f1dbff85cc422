//! The account key's signature.
//! <https://learn.microsoft.com/rest/api/cosmos-db/access-control-on-cosmosdb-resources>

use axum::extract::Request;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

/// Whether the request's `Authorization` is the master-key signature that `key` makes of it.
pub fn is_signed_with(key: &[u8], request: &Request) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = percent_decode_str(header("authorization")).decode_utf8_lossy().into_owned();
    let Some(signature) = token.split('&').find_map(|part| part.strip_prefix("sig=")) else { return false };
    let Ok(signature) = BASE64_STANDARD.decode(signature) else { return false };
    let text = text_to_sign(request.method().as_str(), request.uri().path(), header("x-ms-date"));
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.verify_slice(&signature).is_ok()
}

fn text_to_sign(verb: &str, path: &str, date: &str) -> String {
    let path = percent_decode_str(path.trim_matches('/')).decode_utf8_lossy().into_owned();
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", &path));
    // `dbs/a/colls` is a feed of the type that its last segment names; `dbs/a` is a resource of the type before its id.
    let is_feed = !path.is_empty() && path.split('/').count() % 2 == 1;
    let (kind, link) =
        if is_feed { (last, parent) } else { (parent.rsplit('/').next().unwrap_or_default(), path.as_str()) };
    format!("{}\n{}\n{link}\n{}\n\n", verb.to_lowercase(), kind.to_lowercase(), date.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_resources_and_the_account_are_told_apart() {
        assert_eq!(text_to_sign("GET", "/", "D"), "get\n\n\nd\n\n");
        assert_eq!(text_to_sign("POST", "/dbs", "D"), "post\ndbs\n\nd\n\n");
        assert_eq!(text_to_sign("GET", "/dbs/My%20Db", "D"), "get\ndbs\ndbs/My Db\nd\n\n");
        assert_eq!(text_to_sign("POST", "/dbs/a/colls/b/docs", "D"), "post\ndocs\ndbs/a/colls/b\nd\n\n");
    }
}
