//! Parses the service's responses. No I/O.
//! <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>

use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

use super::DpsError;
use crate::{
    iot_hub::{Endpoint, device::check_id},
    support::http,
};

/// A successful response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The operation is not finished: request its result later.
    Assigning {
        operation: String,
    },
    Assigned(Assignment),
}

/// The hub and device that the service assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Host name of the hub, with a port if it is not the default one.
    pub hub: String,
    /// Device id at that hub.
    pub device_id: String,
}

/// A response without success.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// This machine's clock minus the service's clock.
    pub skew: Option<TimeDelta>,
    /// Whether the request was for the result of a registration that the service had accepted.
    pub is_poll: bool,
    pub retry_after: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation_id: Option<String>,
    status: Option<String>,
    registration_state: Option<Registration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    status: Option<String>,
    assigned_hub: Option<String>,
    device_id: Option<String>,
    error_code: Option<u64>,
    error_message: Option<String>,
}

/// Reads a 2xx response. `operation` is the operation whose result was requested, if any.
///
/// # Errors
/// [`DpsError::Refused`] if the registration failed, [`DpsError::Garbage`] if the response has another form.
pub fn progress(body: &[u8], operation: Option<&str>) -> Result<Progress, DpsError> {
    let answer: Operation =
        serde_json::from_slice(body).map_err(|error| DpsError::Garbage(format!("no registration: {error}")))?;
    let state = answer.registration_state.unwrap_or_default();
    let status = answer.status.or(state.status.clone()).unwrap_or_default();
    match status.as_str() {
        "assigning" | "unassigned" => {
            let operation = answer.operation_id.filter(|id| !id.is_empty()).or(operation.map(str::to_owned));
            let operation = operation.ok_or_else(|| DpsError::Garbage("no operationId".into()))?;
            Ok(Progress::Assigning { operation })
        }
        "assigned" => assignment(state).map(Progress::Assigned),
        "failed" | "disabled" => Err(DpsError::Refused {
            how: status,
            said: with_code(state.error_code, short(state.error_message.as_deref().unwrap_or_default())),
        }),
        other => Err(DpsError::Garbage(format!("status {:?}", short(other)))),
    }
}

fn assignment(state: Registration) -> Result<Assignment, DpsError> {
    let (Some(hub), Some(device_id)) = (state.assigned_hub, state.device_id) else {
        return Err(DpsError::Garbage("assigned, but to no hub or device".into()));
    };
    Endpoint::parse(&hub).map_err(|_| DpsError::Garbage(format!("assignedHub is {:?}", short(&hub))))?;
    check_id(&device_id).map_err(|_| DpsError::Garbage(format!("deviceId is {:?}", short(&device_id))))?;
    Ok(Assignment { hub, device_id })
}

/// The error for a response without success.
#[must_use]
pub fn refusal(refusal: Refusal<'_>) -> DpsError {
    let said = said(refusal.body);
    match refusal.status {
        401 => match refusal.skew.filter(|skew| skew.abs() > http::CLOCK_TOLERANCE) {
            Some(skew) => DpsError::ClockWrong { minutes: skew.num_minutes() },
            None => DpsError::Unauthorized { said },
        },
        404 if refusal.is_poll => DpsError::OperationGone { said },
        404 => DpsError::UnknownScope { said },
        429 => DpsError::Throttled { wait: refusal.retry_after.unwrap_or_default() },
        status @ (408 | 500..) => DpsError::Status { status, said },
        status @ 400..500 => DpsError::Refused { how: status.to_string(), said },
        status => DpsError::Garbage(format!("status {status}")),
    }
}

pub fn said(body: &[u8]) -> String {
    let (code, text) = http::error_text(body);
    with_code(code, text)
}

fn with_code(code: Option<u64>, text: String) -> String {
    match code {
        Some(code) if text.is_empty() => format!("error {code}"),
        Some(code) => format!("{text} ({code})"),
        None => text,
    }
}

fn short(text: &str) -> String {
    http::one_line(text, http::MAX_ERROR_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(state: &str) -> Result<Progress, DpsError> {
        progress(format!(r#"{{"operationId":"4.x","status":"assigned","registrationState":{state}}}"#).as_bytes(), None)
    }

    #[test]
    fn a_registration_is_assigning_then_assigned() {
        let first =
            br#"{"operationId":"4.d0a671905ea5b2c8.42d78160-4c78-479e-8be7-61d5e55dac0d","status":"assigning"}"#;
        let operation = "4.d0a671905ea5b2c8.42d78160-4c78-479e-8be7-61d5e55dac0d".to_owned();
        assert_eq!(progress(first, None), Ok(Progress::Assigning { operation }));
        let again = br#"{"status":"assigning","registrationState":null}"#;
        assert_eq!(progress(again, Some("4.x")), Ok(Progress::Assigning { operation: "4.x".into() }));
        assert!(matches!(progress(again, None), Err(DpsError::Garbage(_))));

        let state = r#"{"registrationId":"d","assignedHub":"h.azure-devices.net","deviceId":"d","status":"assigned",
            "substatus":"initialAssignment","createdDateTimeUtc":"2026-01-01T00:00:00Z","etag":"x","payload":null}"#;
        let expected = Assignment { hub: "h.azure-devices.net".into(), device_id: "d".into() };
        assert_eq!(assigned(state), Ok(Progress::Assigned(expected)));
    }

    #[test]
    fn a_failed_registration_says_why() {
        for status in ["failed", "disabled"] {
            let body = format!(
                r#"{{"operationId":"1","status":"{status}","registrationState":{{"errorCode":400209,"errorMessage":"Custom allocation failed"}}}}"#
            );
            let error = progress(body.as_bytes(), None).unwrap_err();
            assert_eq!(error.kind().as_str(), "dps_refused");
            let text = error.to_string();
            assert!(text.contains(status) && text.contains("Custom allocation failed (400209)"), "{text}");
            assert!(!error.concerns_service());
        }
    }

    #[test]
    fn garbage_is_no_answer() {
        for body in ["", "<html>", "[]", "{}", r#"{"status":"odd"}"#, r#"{"status":7}"#] {
            assert!(matches!(progress(body.as_bytes(), Some("4.x")), Err(DpsError::Garbage(_))), "{body}");
        }
        for state in [
            "{}",
            "null",
            r#"{"assignedHub":"h.net"}"#,
            r#"{"assignedHub":"h/x","deviceId":"d"}"#,
            r#"{"assignedHub":"h.net","deviceId":"a b"}"#,
        ] {
            assert!(matches!(assigned(state), Err(DpsError::Garbage(_))), "{state}");
        }
    }

    #[test]
    fn the_status_tells_whom_a_refusal_concerns() {
        let body =
            br#"{"errorCode":401000,"trackingId":"x","message":"Unauthorized","timestampUtc":"2026-01-01T00:00:00Z"}"#;
        let minutes = |minutes| Some(TimeDelta::minutes(minutes));
        for (status, skew, is_poll, kind, concerns_service) in [
            (401, minutes(4), false, "dps_unauthorized", true),
            (401, minutes(6), false, "dps_clock_wrong", true),
            (401, minutes(-600), true, "dps_clock_wrong", true),
            (403, minutes(6), false, "dps_refused", false),
            (404, None, false, "dps_unknown_scope", true),
            (404, None, true, "dps_refused", false),
            (409, None, false, "dps_refused", false),
            (429, None, false, "dps_throttled", false),
            (400, None, false, "dps_refused", false),
            (500, None, false, "dps_status", true),
            (503, None, true, "dps_status", true),
            (302, None, false, "dps_garbage", false),
        ] {
            let error = refusal(Refusal { status, body, skew, is_poll, retry_after: None });
            assert_eq!((error.kind().as_str(), error.concerns_service()), (kind, concerns_service), "{status}");
        }
        assert!(
            refusal(Refusal { status: 401, body, skew: minutes(-7), is_poll: false, retry_after: None })
                .to_string()
                .contains("7 min slow")
        );
    }

    #[test]
    fn the_reason_has_its_code_behind_it() {
        assert_eq!(said(br#"{"errorCode":401000,"trackingId":"x","message":"Unauthorized"}"#), "Unauthorized (401000)");
        assert_eq!(said(br#"{"errorCode":401000}"#), "error 401000");
        assert_eq!(said(b"<html>"), "<html>");
        assert_eq!(said(b""), "");
    }
}
