//! A client for the service's REST API for devices. Each call makes one request; the caller retries.
//! <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::utf8_percent_encode;
use reqwest::{
    Method, RequestBuilder,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::ExposeSecret as _;

use super::{
    DpsError,
    wire::{self, Progress, Refusal},
};
use crate::{
    iot_hub::{
        Endpoint,
        devices::enrollment::EnrollmentGroup,
        sas::{self, RESERVED},
    },
    support::{http, http_client::HttpClient},
};

const API_VERSION: &str = "2021-06-01";
const HTTPS_PORT: u16 = 443;
/// The policy name in the token of a registration.
const POLICY: &str = "registration";
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Time-out of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest response that is read, in bytes. The service's responses have less than one thousand.
const MAX_BODY: usize = 64 * 1024;

pub struct Client {
    config: EnrollmentGroup,
    http: HttpClient,
}

/// The result of a request, and the back-off that the service requests.
pub struct Answer {
    pub result: Result<Progress, DpsError>,
    pub retry_after: Option<Duration>,
}

/// The service's information about a device's registration.
pub struct Lookup {
    /// Whether there is a registration.
    pub is_known: bool,
    /// This machine's clock minus the service's clock.
    pub clock_skew: Option<TimeDelta>,
    /// The service's message.
    pub said: String,
}

impl Client {
    pub fn new(config: EnrollmentGroup, http: HttpClient) -> Self {
        Self { config, http }
    }

    pub fn config(&self) -> &EnrollmentGroup {
        &self.config
    }

    /// Registers a device, or requests the result of its registration.
    pub async fn ask(&self, registration_id: &str, operation: Option<&str>) -> Answer {
        let mut retry_after = None;
        let result = self.request(registration_id, operation, &mut retry_after).await;
        Answer { result, retry_after }
    }

    async fn request(
        &self,
        registration_id: &str,
        operation: Option<&str>,
        retry_after: &mut Option<Duration>,
    ) -> Result<Progress, DpsError> {
        let (method, action) = match operation {
            None => (Method::PUT, "register".to_owned()),
            Some(operation) => (Method::GET, format!("operations/{}", utf8_percent_encode(operation, RESERVED))),
        };
        let mut request = self.authorized(method, registration_id, &format!("/{action}"))?;
        if operation.is_none() {
            let body = serde_json::json!({ "registrationId": registration_id }).to_string();
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| self.explain(error))?;

        let (now, status, headers) = (Utc::now(), response.status(), response.headers());
        let skew = http::clock_skew(headers, now);
        *retry_after = http::retry_after(headers, now);
        if status.is_success() {
            // A response that is cut off is reported as a failed connection. Parsing it would report garbage instead.
            let body = http::body(response, MAX_BODY).await.map_err(|error| {
                // This header said when to request the result. It is no request to back off.
                *retry_after = None;
                self.explain(error)
            })?;
            return wire::progress(&body.bytes, operation);
        }
        let body = http::error_body(response).await;
        let (status, is_poll) = (status.as_u16(), operation.is_some());
        Err(wire::refusal(Refusal { status, body: &body, skew, is_poll, retry_after: *retry_after }))
    }

    /// Requests the state of a device's registration without registering the device.
    pub async fn look_up(&self, registration_id: &str, now: DateTime<Utc>) -> Result<Lookup, DpsError> {
        let body = serde_json::json!({ "registrationId": registration_id }).to_string();
        let request = self.authorized(Method::POST, registration_id, "")?;
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|error| self.explain(error))?;
        let (status, headers) = (response.status(), response.headers());
        let (clock_skew, retry_after) = (http::clock_skew(headers, now), http::retry_after(headers, now));
        let body = http::error_body(response).await;
        // Another kind of response does not come from this service.
        let is_registration = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
        match status.as_u16() {
            200 if is_registration => Ok(Lookup { is_known: true, clock_skew, said: String::new() }),
            404 if is_registration => Ok(Lookup { is_known: false, clock_skew, said: wire::said(&body) }),
            status @ (200..300 | 404) => Err(DpsError::Garbage(format!("no registration, status {status}"))),
            status => {
                Err(wire::refusal(Refusal { status, body: &body, skew: clock_skew, is_poll: false, retry_after }))
            }
        }
    }

    /// A request for a device, with the device's token. `action` is appended to the device's path.
    fn authorized(&self, method: Method, registration_id: &str, action: &str) -> Result<RequestBuilder, DpsError> {
        let EnrollmentGroup { id_scope, group_key, .. } = &self.config;
        let (place, id) = (self.place(), utf8_percent_encode(registration_id, RESERVED));
        let url = format!("https://{place}/{id_scope}/registrations/{id}{action}?api-version={API_VERSION}");
        let key = sas::derive_key(group_key.expose_secret(), registration_id);
        let resource = sas::registration_resource(id_scope, registration_id);
        let token = sas::mint(&resource, &key, Utc::now() + TOKEN_LIFETIME, Some(POLICY));
        let mut authorization =
            HeaderValue::from_str(token.expose_secret()).map_err(|error| DpsError::Tls(error.to_string()))?;
        authorization.set_sensitive(true);
        let http = self.http.get().map_err(DpsError::Tls)?;
        Ok(http.request(method, url).timeout(REQUEST_TIMEOUT).header(AUTHORIZATION, authorization))
    }

    fn place(&self) -> Endpoint {
        let endpoint = self.config.endpoint.clone();
        Endpoint { port: Some(endpoint.port.unwrap_or(HTTPS_PORT)), ..endpoint }
    }

    fn explain(&self, error: reqwest::Error) -> DpsError {
        if error.is_timeout() {
            return DpsError::Timeout;
        }
        let text = http::cause(&error.without_url());
        let is_untrusted = http::is_untrusted(&text);
        let text = format!("{}: {text}", self.place());
        if is_untrusted { DpsError::Untrusted(text) } else { DpsError::Unreachable(text) }
    }
}
