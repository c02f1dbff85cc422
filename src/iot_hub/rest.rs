//! Makes single requests to the hub's REST API for devices and explains its answers. The caller decides about retries.
//! <https://learn.microsoft.com/rest/api/iothub/device>

use std::time::Duration;

use chrono::{DateTime, Utc};
use percent_encoding::utf8_percent_encode;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Device, Endpoint, SendError, error_code::ErrorCode, sas::RESERVED};
use crate::support::{http, http_client::HttpClient};

/// Requests use this version of the device API.
const API_VERSION: &str = "2021-04-12";
const HTTPS_PORT: u16 = 443;
/// MQTT's port. A device that has it configured for telemetry uses the usual HTTPS port for REST.
const MQTT_PORT: u16 = 8883;
/// Time-out of a request. Longer than the sender's patience with a hub that acknowledges nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes requests as devices.
pub struct Client(HttpClient);

impl Client {
    #[must_use]
    pub fn new(http: HttpClient) -> Self {
        Self(http)
    }

    /// Builds a request as the device. `path` follows the device in the URL, for example `messages/events`. `query`
    /// follows the version: empty, or `&name`.
    ///
    /// # Errors
    /// The token cannot be used, or TLS cannot be set up.
    pub fn request(
        &self,
        method: Method,
        device: &Device,
        token: &SecretString,
        path: &str,
        query: &str,
    ) -> Result<RequestBuilder, SendError> {
        let mut authorization = HeaderValue::from_str(token.expose_secret())
            .map_err(|_| SendError::Refused { device: device.id.clone() })?;
        authorization.set_sensitive(true);
        let id = utf8_percent_encode(&device.id, RESERVED);
        let url = format!("https://{}/devices/{id}/{path}?api-version={API_VERSION}{query}", place(device));
        let http = self.0.get().map_err(SendError::Untrusted)?;
        Ok(http.request(method, url).timeout(REQUEST_TIMEOUT).header(AUTHORIZATION, authorization))
    }
}

fn place(device: &Device) -> Endpoint {
    let port = device.endpoint.port.filter(|port| *port != MQTT_PORT);
    Endpoint { port: Some(port.unwrap_or(HTTPS_PORT)), ..device.endpoint.clone() }
}

/// Why there is no answer, or only a part of one.
pub fn no_answer(error: &reqwest::Error, device: &Device) -> SendError {
    let (text, place) = (http::cause(error), place(device));
    if http::is_untrusted(&text) {
        return SendError::Untrusted(format!("{place}: {text}"));
    }
    if error.is_timeout() {
        return SendError::Unreachable(format!("{place} did not answer in time"));
    }
    if error.is_connect() {
        return SendError::Unreachable(format!("{place}: {text}"));
    }
    SendError::Cut
}

/// Explains an answer that is not the expected one.
pub async fn explain(response: Response, device: &Device, now: DateTime<Utc>) -> SendError {
    let status = response.status();
    let wait = http::retry_after(response.headers(), now);
    let name = response.headers().get("iothub-errorcode").and_then(|name| name.to_str().ok()).map(str::to_owned);
    let skew = http::clock_skew(response.headers(), now).filter(|skew| skew.abs() > http::CLOCK_TOLERANCE);
    let body = http::error_body(response).await;
    let (number, text) = error_text(&body);
    let code = ErrorCode::of_answer(number, name.as_deref(), &text);
    let id = device.id.clone();
    match status {
        StatusCode::UNAUTHORIZED => match skew {
            Some(skew) => SendError::ClockWrong { device: id, minutes: skew.num_minutes() },
            None => SendError::RefusedBecause { device: id, status: 401, text },
        },
        StatusCode::FORBIDDEN if code == Some(ErrorCode::QuotaExceeded) => SendError::QuotaUsedUp,
        StatusCode::FORBIDDEN if wait.is_some() => SendError::Throttled { wait },
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            SendError::RefusedBecause { device: id, status: status.as_u16(), text }
        }
        StatusCode::TOO_MANY_REQUESTS => SendError::Throttled { wait },
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => SendError::Throttled { wait },
        // Only the hub itself can judge a message, not a proxy in between.
        StatusCode::PAYLOAD_TOO_LARGE if code.is_some() => SendError::Rejected { status: 413, text },
        StatusCode::BAD_REQUEST if code.is_some_and(ErrorCode::concerns_message) => {
            SendError::Rejected { status: 400, text }
        }
        StatusCode::BAD_REQUEST if code.is_some() => SendError::BadRequest { text },
        _ if status.is_success() => {
            let place = &device.endpoint;
            SendError::Unreachable(format!(
                "{place}: what answered {} is not a hub, but perhaps a proxy in between: {text}",
                status.as_u16()
            ))
        }
        _ => SendError::Unreachable(format!("{}: it answered {}: {text}", device.endpoint, status.as_u16())),
    }
}

/// The hub's error code, such as 401003, and its text.
fn error_text(body: &[u8]) -> (Option<u64>, String) {
    let (code, text) = http::error_text(body);
    (code, if text.is_empty() { "no reason given".into() } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iot_hub::Credential;

    fn device(place: &str) -> Device {
        let endpoint = Endpoint::parse(place).unwrap();
        let credential = Credential::Token("SharedAccessSignature sr=x".into());
        Device { hub_host: endpoint.host.clone(), endpoint, id: "a/b c".into(), credential }
    }

    #[test]
    fn the_port_of_mqtt_is_not_asked() {
        for (endpoint, expected) in
            [("h.net", "h.net:443"), ("h.net:8883", "h.net:443"), ("h.net:443", "h.net:443"), ("h.net:9", "h.net:9")]
        {
            assert_eq!(place(&device(endpoint)).to_string(), expected);
        }
    }

    #[test]
    fn a_request_is_the_devices() {
        let client = Client::new(HttpClient::default());
        let request = |token: &str| {
            client.request(Method::DELETE, &device("h.net"), &token.into(), "messages/devicebound/1", "&reject")
        };
        let request_of = request("token").unwrap().build().unwrap();
        let url = "https://h.net/devices/a%2Fb%20c/messages/devicebound/1?api-version=2021-04-12&reject";
        assert_eq!(request_of.url().as_str(), url);
        assert!(request_of.headers()[AUTHORIZATION].is_sensitive());
        assert!(matches!(request("to\nken"), Err(SendError::Refused { .. })));
    }

    #[tokio::test]
    async fn an_answer_that_asks_for_a_pause_is_throttling_unless_it_is_the_quota() {
        let explained = async |status: u16, retry_after: Option<&str>, body: &'static str| {
            let mut answer = axum::http::Response::builder().status(status);
            if let Some(seconds) = retry_after {
                answer = answer.header("Retry-After", seconds);
            }
            explain(answer.body(body).unwrap().into(), &device("h.net"), Utc::now()).await
        };
        let wait = Some(Duration::from_secs(7));
        for status in [403, 429, 503] {
            assert_eq!(explained(status, Some("7"), "").await, SendError::Throttled { wait });
        }
        assert_eq!(explained(429, None, "").await, SendError::Throttled { wait: None });
        assert_eq!(explained(403, Some("7"), r#"{"errorCode":403002}"#).await, SendError::QuotaUsedUp);
        assert_eq!(explained(403, None, "").await.kind().as_str(), "hub_refused");
    }

    #[tokio::test]
    async fn a_refused_request_condemns_its_message_only_if_the_hub_says_so() {
        let explained = async |status: u16, name: Option<&str>, body: &'static str| {
            let mut answer = axum::http::Response::builder().status(status);
            if let Some(name) = name {
                answer = answer.header("iothub-errorcode", name);
            }
            explain(answer.body(body).unwrap().into(), &device("h.net"), Utc::now()).await.kind().to_string()
        };
        assert_eq!(explained(400, Some("ArgumentInvalid"), "").await, "hub_message_rejected");
        assert_eq!(explained(400, None, r#"{"Message":"ErrorCode:ArgumentInvalid;no"}"#).await, "hub_message_rejected");
        assert_eq!(explained(400, None, r#"{"errorCode":400001}"#).await, "hub_bad_request");
        assert_eq!(explained(400, Some("InvalidProtocolVersion"), "").await, "hub_bad_request");
        assert_eq!(explained(413, Some("RequestEntityTooLarge"), "").await, "hub_message_rejected");
        for status in [400, 413] {
            assert_eq!(explained(status, None, "<html></html>").await, "hub_unreachable");
        }
        assert_eq!(explained(403, Some("IotHubQuotaExceeded"), "").await, "hub_quota");
    }

    #[test]
    fn a_hub_that_gives_no_reason_has_none() {
        assert_eq!(error_text(br#"{"errorCode":429001,"message":"slow down"}"#), (Some(429_001), "slow down".into()));
        assert_eq!(error_text(b""), (None, "no reason given".into()));
    }
}
