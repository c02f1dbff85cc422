//! Shared by the clients of HTTP services: reads bodies within limits, reads headers, and makes one-line error texts.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{
    Response,
    header::{DATE, HeaderMap, HeaderName, RETRY_AFTER},
};
use serde_json::Value;
use url::{Host, Url};

use crate::support::{redact, retry_after};

/// Azure's services refuse tokens if the clocks differ by more.
pub const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// Longest part of an error's text that is shown, in characters.
pub const MAX_ERROR_TEXT: usize = 300;
/// Bytes of a text that are examined for each character that is shown.
const LOOKED_AT: usize = 16;
/// How much of an error answer is read, in bytes.
const MAX_ERROR_BODY: usize = 16 * 1024;

/// A body, cut at the caller's limit.
pub struct Body {
    pub bytes: Bytes,
    /// Whether there was more.
    pub is_cut: bool,
}

/// Reads up to `limit` bytes.
///
/// # Errors
/// The answer breaks off.
pub async fn body(mut response: Response, limit: usize) -> reqwest::Result<Body> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or_default().min(limit));
    while let Some(chunk) = response.chunk().await? {
        let room = limit - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Body { bytes: bytes.freeze(), is_cut: true });
        }
    }
    Ok(Body { bytes: bytes.freeze(), is_cut: false })
}

/// The beginning of an error answer. If the body is unreadable, this is empty: the status is what counts.
pub async fn error_body(response: Response) -> Bytes {
    body(response, MAX_ERROR_BODY).await.map(|body| body.bytes).unwrap_or_default()
}

/// How long the service requests to wait.
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    retry_after::parse(header(headers, &RETRY_AFTER)?, now)
}

/// This machine's clock minus the service's.
pub fn clock_skew(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let date = DateTime::parse_from_rfc2822(header(headers, &DATE)?).ok()?;
    Some(now - date.to_utc())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The root cause: reqwest hides it behind its chain of sources.
pub fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    // rustls adds a link to its documentation, which does not help the operator.
    match text.split_once(": https://docs.rs/") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Whether a [`cause`] is an untrusted certificate. rustls has no error type for it that reqwest passes on.
pub fn is_untrusted(cause: &str) -> bool {
    cause.contains("invalid peer certificate")
}

/// The error code of an Azure service, such as 401003, and its text. The code may be absent and the text may be empty.
///
/// The formats: `{"errorCode":…,"message":…}` of the Device Provisioning Service; `{"Message":…}` of IoT Hub, whose
/// text may itself be JSON of the first format. Anything else is text.
pub fn error_text(body: &[u8]) -> (Option<u64>, String) {
    let Some((code, text)) = said(body) else {
        return (None, one_line(&String::from_utf8_lossy(body), MAX_ERROR_TEXT));
    };
    let (inner_code, inner_text) = said(text.as_bytes()).unwrap_or_default();
    let text = if inner_text.is_empty() { text } else { inner_text };
    (inner_code.or(code), one_line(&text, MAX_ERROR_TEXT))
}

fn said(body: &[u8]) -> Option<(Option<u64>, String)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let members = body.as_object()?;
    let text = members.get("message").or(members.get("Message")).and_then(Value::as_str).unwrap_or_default();
    let code = members.get("errorCode").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    Some((code, text.to_owned()))
}

/// Whether a request to this URL stays on this machine.
pub fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Makes foreign text safe for logs and records: collapses white space, replaces control characters (terminals obey
/// them), cuts after `most` characters, and removes credentials. Careless services answer with a page that shows the
/// whole request.
pub fn one_line(text: &str, most: usize) -> String {
    // Cut first: texts can be megabytes. The cut leaves more than is shown, because a credential that is cut at the
    // end is still a credential.
    let text = &text[..redact::floor_char_boundary(text, most.saturating_mul(LOOKED_AT))];
    let one_line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let harmless = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    redact::without_credentials(&one_line).chars().map(harmless).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(body: &'static str) -> Response {
        axum::http::Response::new(body).into()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit() {
        for (limit, expected, is_cut) in [(3, "abc", true), (4, "abcd", false), (100, "abcd", false), (0, "", true)] {
            let body = body(response("abcd"), limit).await.unwrap();
            assert_eq!((&body.bytes[..], body.is_cut), (expected.as_bytes(), is_cut), "{limit}");
        }
        assert_eq!(error_body(response("no such site")).await, "no such site");
    }

    #[test]
    fn an_error_is_read_in_every_shape() {
        let text = |body: &str| error_text(body.as_bytes());
        let said = |code, text: &str| (code, text.to_owned());
        let dps =
            r#"{"errorCode":401000,"trackingId":"x","message":"Unauthorized","timestampUtc":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(text(dps), said(Some(401_000), "Unauthorized"));
        let flat =
            r#"{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized","ExceptionMessage":"Tracking ID:1"}"#;
        assert_eq!(text(flat), said(None, "ErrorCode:IotHubUnauthorizedAccess;Unauthorized"));
        let nested = r#"{"Message":"{\"errorCode\":404001,\"message\":\"no such\\n device\"}","ExceptionMessage":""}"#;
        assert_eq!(text(nested), said(Some(404_001), "no such device"));
        assert_eq!(text(r#"{"errorCode":"429001","message":null}"#), said(Some(429_001), ""));
        assert_eq!(text(r#"{"Message":"{\"errorCode\":500001}"}"#), said(Some(500_001), r#"{"errorCode":500001}"#));
        assert_eq!(text("<html>\n  Bad   Gateway</html>"), said(None, "<html> Bad Gateway</html>"));
        assert_eq!(text("[1]"), said(None, "[1]"));
        assert_eq!(text(""), said(None, ""));
        assert_eq!(text(&"ä".repeat(1000)).1.chars().count(), MAX_ERROR_TEXT);
    }

    #[test]
    fn foreign_text_is_harmless() {
        for (text, expected) in [
            ("a\n b\tc", "a b c"),
            ("\u{1b}[31mred\0", "\u{fffd}[31mred\u{fffd}"),
            ("authorization: Basic ZGVtbzpzZWNyZXQ= accept: */*", "authorization: Basic [REDACTED] accept: */*"),
        ] {
            assert_eq!(one_line(text, 100), expected);
        }
        assert_eq!(one_line("Basic ZGVtbzpzZWNyZXQ=", 12), "Basic [REDAC", "nothing of it, wherever the text is cut");
        let long = format!("{}Basic ZGVtbzpzZWNyZXQ=", "é ".repeat(50));
        for most in 1..20 {
            assert!(!one_line(&long, most).contains("ZGVt"), "{most}");
        }
    }

    #[test]
    fn headers_that_make_no_sense_say_nothing() {
        let now = DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").unwrap().to_utc();
        let headers = |name: HeaderName, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        assert_eq!(retry_after(&headers(RETRY_AFTER, "7"), now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers(RETRY_AFTER, "soon"), now), None);
        let date = headers(DATE, "Sat, 31 Jan 2026 11:54:00 GMT");
        assert_eq!(clock_skew(&date, now), Some(TimeDelta::minutes(6)));
        assert_eq!((clock_skew(&headers(DATE, "noon"), now), clock_skew(&HeaderMap::new(), now)), (None, None));
    }

    #[tokio::test]
    async fn the_cause_of_an_error_is_the_innermost() {
        // No server can listen on port 0.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let error = client.get("http://127.0.0.1:0/path").send().await.unwrap_err();
        let cause = cause(&error);
        assert!(!cause.is_empty() && !cause.contains("127.0.0.1") && !is_untrusted(&cause), "{cause}");
    }
}
