//! The hub's error answers.
//!
//! Microsoft's bodies have two shapes. Both are used here, so that clients see both:
//! `{"Message":"ErrorCode:ArgumentInvalid;…","ExceptionMessage":"Tracking ID:…"}`, and a `Message` that holds JSON
//! itself: `{"Message":"{\"errorCode\":401003,…}","ExceptionMessage":""}`. In both, the header `iothub-errorcode` names
//! the error.
//!
//! Source: <https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes>.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{SecondsFormat, Utc};
use serde_json::json;

use crate::iot_hub::{denied::Denied, faults::OnRequest};

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    /// Microsoft's number, for errors that have one in their body.
    number: Option<u32>,
    /// Microsoft's name.
    name: &'static str,
    text: String,
    /// For the header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl Failure {
    fn named(status: StatusCode, name: &'static str, text: impl Into<String>) -> Self {
        Self { status, number: None, name, text: text.into(), retry_after: None }
    }

    fn numbered(number: u32, name: &'static str, text: impl Into<String>) -> Self {
        let status = u16::try_from(number / 1000).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { number: Some(number), ..Self::named(status, name, text) }
    }

    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::named(StatusCode::BAD_REQUEST, "ArgumentInvalid", text)
    }

    pub fn unauthorized(text: impl Into<String>) -> Self {
        Self::numbered(401_003, "IotHubUnauthorized", text)
    }

    pub fn no_such_resource(path: &str) -> Self {
        Self::named(StatusCode::NOT_FOUND, "NotFound", format!("there is nothing at {path}"))
    }

    pub fn lock_lost() -> Self {
        Self::numbered(412_002, "DeviceMessageLockLost", "there is no such lock, or not any more")
    }

    pub fn internal(text: impl Into<String>) -> Self {
        Self::named(StatusCode::INTERNAL_SERVER_ERROR, "ServerError", text)
    }

    pub fn too_large(text: impl Into<String>) -> Self {
        Self::named(StatusCode::PAYLOAD_TOO_LARGE, "MessageTooLarge", text)
    }

    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::named(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", text)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthorized(reason) => Self::unauthorized(reason),
            Denied::UnknownDevice(reason) => Self::numbered(404_001, "DeviceNotFound", reason),
            Denied::Disabled(reason) => Self::numbered(403_012, "DeviceDisabled", reason),
        }
    }
}

impl From<OnRequest> for Failure {
    fn from(fault: OnRequest) -> Self {
        let text = "a fault was asked for";
        match fault {
            OnRequest::Unauthorized => Self::unauthorized(text),
            OnRequest::QuotaExceeded => Self::numbered(403_002, "IotHubQuotaExceeded", text),
            OnRequest::Unavailable => Self::unavailable(text),
            OnRequest::Status { code: Some(code), retry_after, .. } => {
                Self { retry_after, ..Self::numbered(code, name(code), text) }
            }
            OnRequest::Status { status, code: None, retry_after } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let failure = match status.as_u16() {
                    401 => Self::unauthorized(text),
                    403 => Self::numbered(403_002, "IotHubQuotaExceeded", text),
                    404 => Self::numbered(404_001, "DeviceNotFound", text),
                    412 => Self::lock_lost(),
                    413 => Self::too_large(text),
                    429 => Self::numbered(429_001, "ThrottlingException", text),
                    503 => Self::unavailable(text),
                    500.. => Self::named(status, "ServerError", text),
                    _ => Self::named(status, "ArgumentInvalid", text),
                };
                Self { retry_after, ..failure }
            }
        }
    }
}

/// Microsoft's name of an error code.
/// <https://learn.microsoft.com/dotnet/api/microsoft.azure.devices.common.exceptions.errorcode>
fn name(code: u32) -> &'static str {
    match code {
        400_000 => "GenericBadRequest",
        400_001 => "InvalidProtocolVersion",
        400_003 => "InvalidOperation",
        400_004 => "ArgumentInvalid",
        400_103 => "InvalidContentEncodingOrType",
        413_001 => "MessageTooLarge",
        _ => "InvalidErrorCode",
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, number, name, text, retry_after } = self;
        let now = Utc::now();
        let tracking_id = format!("{:032X}", fastrand::u128(..));
        let body = match number {
            Some(number) => {
                let time = now.to_rfc3339_opts(SecondsFormat::Millis, true);
                let message =
                    json!({ "errorCode": number, "trackingId": tracking_id, "message": text, "timestampUtc": time });
                json!({ "Message": message.to_string(), "ExceptionMessage": "" })
            }
            None => {
                let tracking = format!("Tracking ID:{tracking_id}-TimeStamp:{}", now.format("%m/%d/%Y %H:%M:%S"));
                json!({ "Message": format!("ErrorCode:{name};{text}"), "ExceptionMessage": tracking })
            }
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("iothub-errorcode"), HeaderValue::from_static(name));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
