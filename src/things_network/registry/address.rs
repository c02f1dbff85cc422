//! Finds out where a webhook leads. Pure.

use url::Url;

use super::{Webhook, document::UPLINK};
use crate::support::redact;

/// The path of the function that takes webhooks: its route behind the host's prefix.
pub const PATH: &str = "/api/uplink";

/// Where The Things Stack posts a message: a base URL, and the path of the message behind it. A path never replaces what the
/// base URL has. (The Things Stack's source: `NewRequest` in `pkg/applicationserver/io/web/request.go`.)
#[must_use]
pub fn of_message(base_url: &str, path: &str) -> Option<Url> {
    let mut base = Url::parse(base_url).ok()?;
    let relative = path.trim_start_matches('/');
    let has_path = path.starts_with('/') || !relative.is_empty() && !relative.starts_with('?');
    if has_path && !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    if path.is_empty() { Some(base) } else { base.join(relative).ok() }
}

/// Whether both are the same place. A query and a `/` at the end do not matter to the function's route.
#[must_use]
pub fn is_same(one: &Url, other: &Url) -> bool {
    is_same_server(one, other) && one.path().trim_end_matches('/') == other.path().trim_end_matches('/')
}

fn is_same_server(one: &Url, other: &Url) -> bool {
    (one.scheme(), one.host(), one.port_or_known_default())
        == (other.scheme(), other.host(), other.port_or_known_default())
}

/// What the webhook sends, and where to; what it would send if it sends nothing.
fn places(webhook: &Webhook) -> Vec<(&'static str, Option<Url>)> {
    let mut paths: Vec<_> = webhook.messages().collect();
    if paths.is_empty() {
        paths.push((UPLINK, ""));
    }
    paths.into_iter().map(|(message, path)| (message, of_message(&webhook.base_url, path))).collect()
}

/// Whether all that the webhook sends goes to this address.
#[must_use]
pub fn leads_to(webhook: &Webhook, address: &Url) -> bool {
    astray(webhook, address).is_none()
}

/// The first message that the webhook sends to another address, and that address.
#[must_use]
pub fn astray(webhook: &Webhook, address: &Url) -> Option<(&'static str, String)> {
    let is_astray = |place: &Option<Url>| place.as_ref().is_none_or(|place| !is_same(place, address));
    let (message, place) = places(webhook).into_iter().find(|(_, place)| is_astray(place))?;
    Some((message, shown(place.as_ref().map_or(webhook.base_url.as_str(), Url::as_str))))
}

/// Whether something that the webhook sends goes to the server of this address.
#[must_use]
pub fn leads_to_server(webhook: &Webhook, address: &Url) -> bool {
    places(webhook).iter().filter_map(|(_, place)| place.as_ref()).any(|place| is_same_server(place, address))
}

/// Where the webhook's uplinks go, if that is a function of this name in any app.
#[must_use]
pub fn of_any_app(webhook: &Webhook) -> Option<Url> {
    let place = of_message(&webhook.base_url, webhook.path(UPLINK)?)?;
    (place.path().trim_end_matches('/') == PATH).then_some(place)
}

/// The URL without what may be a key.
#[must_use]
pub fn shown(url: &str) -> String {
    redact::without_credentials(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_comes_behind_the_base_url() {
        for (base, path, expected) in [
            ("https://a.example/api/uplink", "", "https://a.example/api/uplink"),
            ("https://a.example/api/uplink?code=k", "", "https://a.example/api/uplink?code=k"),
            ("https://a.example", "/api/uplink", "https://a.example/api/uplink"),
            ("https://a.example/api", "uplink", "https://a.example/api/uplink"),
            ("https://a.example/api/", "/uplink", "https://a.example/api/uplink"),
            ("https://a.example/api/uplink", "/up", "https://a.example/api/uplink/up"),
            ("https://a.example/api/uplink", "/", "https://a.example/api/uplink/"),
            ("https://a.example/api/uplink", "?code=k", "https://a.example/api/uplink?code=k"),
        ] {
            assert_eq!(of_message(base, path).unwrap().as_str(), expected, "{base} {path}");
        }
        assert!(of_message("nowhere", "").is_none());
    }

    #[test]
    fn all_that_is_sent_must_lead_there() {
        let address: Url = "https://app.example/api/uplink".parse().unwrap();
        let webhook = |base: &str, messages: serde_json::Value| -> Webhook {
            let mut webhook = messages;
            webhook["base_url"] = base.into();
            serde_json::from_value(webhook).unwrap()
        };
        let uplink = || json!({"uplink_message": {}});
        for (base, messages, leads, is_server) in [
            ("https://app.example/api/uplink", uplink(), true, true),
            ("https://APP.example:443/api/uplink/", uplink(), true, true),
            ("https://app.example/api/uplink?code=k", uplink(), true, true),
            ("https://app.example/api/uplink", json!({}), true, true),
            ("https://app.example/", json!({"uplink_message": {"path": "api/uplink"}}), true, true),
            (
                "https://app.example/api/uplink",
                json!({"uplink_message": {}, "join_accept": {"path": "/join"}}),
                false,
                true,
            ),
            ("https://app.example/api/status", uplink(), false, true),
            ("http://app.example/api/uplink", uplink(), false, false),
            ("https://app.example:8443/api/uplink", uplink(), false, false),
            ("https://other.example/api/uplink", uplink(), false, false),
            ("nowhere", uplink(), false, false),
        ] {
            let webhook = webhook(base, messages);
            assert_eq!(
                (leads_to(&webhook, &address), leads_to_server(&webhook, &address)),
                (leads, is_server),
                "{base}"
            );
        }
        let joins = webhook(
            "https://app.example/api/uplink?code=k",
            json!({"uplink_message": {}, "join_accept": {"path": "/join"}}),
        );
        assert_eq!(astray(&joins, &address), Some(("join_accept", "https://app.example/api/uplink/join".into())));
        let elsewhere = webhook("https://other.example/x?code=hunter2", uplink());
        assert_eq!(astray(&elsewhere, &address).unwrap().1, "https://other.example/x?code=[REDACTED]");
        assert!(of_any_app(&webhook("https://other.example/api/uplink", uplink())).is_some());
        assert!(of_any_app(&webhook("https://other.example/up", uplink())).is_none());
    }
}
