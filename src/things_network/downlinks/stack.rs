//! Posts downlinks to The Things Stack and explains its answers.
//! <https://www.thethingsindustries.com/docs/integrations/webhooks/scheduling-downlinks/>

use std::time::Duration;

use chrono::Utc;
use reqwest::{
    Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};

use super::refusal::PushError;
use crate::support::{http, http_client::HttpClient};

/// Time-out of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a successful answer is read, in bytes. Its content is not used.
const MAX_ANSWER: usize = 4 * 1024;

/// A client for all servers. It connects with the first downlink.
pub struct Stack {
    http: HttpClient,
}

impl Stack {
    #[must_use]
    pub fn new(http: impl Into<HttpClient>) -> Self {
        Self { http: http.into() }
    }

    /// Posts a downlink to the URL that came with the device's last webhook. Success means that the downlink is
    /// accepted. After an error it may still be accepted.
    ///
    /// # Errors
    /// Why the downlink is not (known to be) accepted.
    pub async fn post(&self, url: &str, api_key: &SecretString, body: String) -> Result<(), PushError> {
        let url = downlink_url(url).map_err(|why| PushError::Unusable(format!("the webhook's downlink URL {why}")))?;
        let place = url.origin().ascii_serialization();
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", api_key.expose_secret()))
            .map_err(|_| PushError::Unusable("the webhook's downlink API key cannot stand in a header".into()))?;
        authorization.set_sensitive(true);
        let http = self.http.get().map_err(|text| PushError::Unusable(format!("TLS cannot be used: {text}")))?;
        let request = http.post(url).timeout(REQUEST_TIMEOUT).header(AUTHORIZATION, authorization);
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json").body(body);
        let response = request.send().await.map_err(|error| PushError::Unreachable {
            place,
            is_unsent: error.is_connect(),
            text: if error.is_timeout() { "no answer in time".into() } else { http::cause(&error) },
        })?;
        let status = response.status();
        if status.is_success() {
            return match http::body(response, MAX_ANSWER).await {
                Ok(body) if !is_answer(&body.bytes) => {
                    let (_, said) = http::error_text(&body.bytes);
                    let text = format!("what answered is not The Things Stack, but perhaps a proxy: {said}");
                    Err(PushError::Status { status: status.as_u16(), text, wait: None })
                }
                // The body may have broken off, but the status has arrived, and it counts.
                _ => Ok(()),
            };
        }
        let wait = http::retry_after(response.headers(), Utc::now());
        Err(PushError::of_answer(status, &http::error_body(response).await, wait))
    }
}

/// The Things Stack answers with an empty object. An empty body is accepted too.
fn is_answer(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.is_empty() || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).is_ok()
}

/// Checks the downlink URL of a webhook's headers. The API key is sent there, so it must use TLS or stay on this
/// machine.
///
/// # Errors
/// What is wrong, as the rest of a sentence that begins with the URL's name.
pub fn downlink_url(url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if http::is_on_this_machine(&url) => Ok(url),
        "http" => {
            Err(format!("leads to {}, without TLS: the API key is not sent there", url.origin().ascii_serialization()))
        }
        other => Err(format!("has the scheme {other:?}, not https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leaves_the_machine_in_the_clear() {
        for (url, is_taken) in [
            ("https://eu1.cloud.thethings.network/api/v3/as/applications/a/webhooks/w/devices/d/down/push", true),
            ("http://127.0.0.1:8080/push", true),
            ("http://localhost/push", true),
            ("http://[::1]/push", true),
            ("http://eu1.cloud.thethings.network/push", false),
            ("ftp://127.0.0.1/push", false),
            ("push", false),
        ] {
            assert_eq!(downlink_url(url).is_ok(), is_taken, "{url}");
        }
    }

    #[test]
    fn a_login_page_is_no_answer() {
        for (body, expected) in
            [("", true), ("{}\n", true), ("{\"a\":1}", true), ("<html>", false), ("[]", false), ("\0", false)]
        {
            assert_eq!(is_answer(body.as_bytes()), expected, "{body}");
        }
    }
}
