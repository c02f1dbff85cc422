//! Why The Things Stack did not accept a downlink, and whether it may accept it later. Pure.
//!
//! An error has gRPC's code, and details that name it: its package and its name there, which never change.
//! <https://www.thethingsindustries.com/docs/api/reference/http/>

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::{
    iot_hub::devices::StoreError,
    support::{http, kind::Kind},
};

/// gRPC's codes. <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>
const INVALID_ARGUMENT: u32 = 3;
const FAILED_PRECONDITION: u32 = 9;
const ABORTED: u32 = 10;
/// The packages of payload formatters.
const FORMATTERS: [&str; 2] = ["pkg/messageprocessors", "pkg/scripting"];
const NOT_CONFIGURED: &str = "formatter_not_configured";
/// A refusal that is not known to be final, and not known to pass, is final when it came so often.
const PATIENCE: u32 = 3;

/// Why a downlink was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The user must correct the configuration. Nothing was sent.
    #[error("{0}")]
    Unusable(String),
    #[error("The Things Stack refused the downlink for good ({status}): {text}")]
    Rejected { status: u16, text: String },
    #[error("the device's payload formatter in The Things Stack refused the downlink ({status}, {name}): {text}")]
    Formatter { status: u16, name: String, text: String },
    #[error(
        "the device has no payload formatter for downlinks in The Things Stack ({status}, {NOT_CONFIGURED}): give it one, or \
         send bytes with the property Payload (hex, base64 or raw): {text}"
    )]
    NoFormatter { status: u16, text: String },
    #[error(
        "The Things Stack refused the API key ({status}): the webhook's downlink API key needs the right to write downlink \
         traffic: {text}"
    )]
    Unauthorized { status: u16, text: String },
    #[error("the webhook is paused in The Things Stack (406): resume it in the console; until then commands wait")]
    Paused,
    #[error("The Things Stack did not take the downlink ({status}): {text}")]
    Status { status: u16, text: String, wait: Option<Duration> },
    /// Whether the downlink was accepted is unknown, unless it `is_unsent`.
    #[error("The Things Stack cannot be reached at {place}: {text}")]
    Unreachable { place: String, text: String, is_unsent: bool },
    #[error("it waited too long for earlier downlinks: The Things Stack is slow to accept them")]
    Busy,
    #[error("the container of devices cannot be asked how far it has come: {0}")]
    Unnoted(StoreError),
}

/// An error of The Things Stack.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    namespace: String,
    name: String,
}

impl Refusal {
    /// The name of an error of a payload formatter that the same command meets again. Other errors of formatters, such as
    /// a script that took too long, may pass.
    fn of_formatter(&self) -> Option<&str> {
        let is_formatter = |detail: &&Detail| FORMATTERS.iter().any(|package| detail.namespace.starts_with(package));
        let is_final = matches!(self.code, INVALID_ARGUMENT | FAILED_PRECONDITION | ABORTED);
        self.details.iter().find(is_formatter).filter(|_| is_final).map(|detail| detail.name.as_str())
    }
}

impl PushError {
    /// Explains an answer that is no success. `wait` is its `Retry-After`.
    #[must_use]
    pub fn of_answer(status: StatusCode, body: &[u8], wait: Option<Duration>) -> Self {
        let (_, text) = http::error_text(body);
        let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
        let (code, status) = (status, status.as_u16());
        match refusal.of_formatter() {
            Some(NOT_CONFIGURED) => return Self::NoFormatter { status, text },
            Some(name) => return Self::Formatter { status, name: name.to_owned(), text },
            None => {}
        }
        match code {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unauthorized { status, text },
            StatusCode::NOT_ACCEPTABLE => Self::Paused,
            // Status 400 also covers passing conditions, such as a device that is just joining (code 9).
            StatusCode::BAD_REQUEST if refusal.code == INVALID_ARGUMENT => Self::Rejected { status, text },
            _ => Self::Status { status, text, wait },
        }
    }

    /// Whether The Things Stack will never accept this downlink. `deliveries` counts how often it was tried, this time
    /// included: what nobody knows to pass must not hold up the device's later commands for hours.
    #[must_use]
    pub fn condemns_downlink(&self, deliveries: u32) -> bool {
        match self {
            Self::Rejected { .. } | Self::Formatter { .. } | Self::NoFormatter { .. } => true,
            Self::Status { status, .. } => !may_pass(*status) && deliveries >= PATIENCE,
            _ => false,
        }
    }

    /// How long to wait before another attempt may help. `None` if it would not help, or if the downlink could be
    /// accepted twice.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        const SOON: Duration = Duration::from_millis(500);
        match self {
            Self::Status { status: 429 | 500.., wait, .. } => Some(wait.unwrap_or(SOON)),
            Self::Unreachable { is_unsent: true, .. } => Some(SOON),
            _ => None,
        }
    }

    /// The wait that The Things Stack requests.
    #[must_use]
    pub fn requested_wait(&self) -> Option<Duration> {
        match self {
            Self::Status { wait, .. } => *wait,
            _ => None,
        }
    }

    /// What is the matter, without the texts: two errors with the same cause tell a person the same.
    #[must_use]
    pub fn cause(&self) -> (Kind, Option<u16>) {
        let status = match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        };
        (self.kind(), status)
    }

    /// A short name for summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unusable(_) => Kind::DownlinkUnusable,
            Self::Rejected { .. } | Self::Formatter { .. } | Self::NoFormatter { .. } => Kind::DownlinkRejected,
            Self::Unauthorized { .. } => Kind::DownlinkUnauthorized,
            Self::Paused => Kind::DownlinkPaused,
            Self::Status { .. } => Kind::DownlinkStatus,
            Self::Unreachable { .. } => Kind::DownlinkUnreachable,
            Self::Busy => Kind::DownlinkBusy,
            Self::Unnoted(error) => error.kind(),
        }
    }
}

/// Whether a status says that something passes: an outage, a limit, or what an operator can mend, such as a webhook that
/// does not exist any more (404). Others are about this downlink.
fn may_pass(status: u16) -> bool {
    matches!(status, 404 | 408 | 425 | 429) || !(400..500).contains(&status)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(status: u16, code: u32, namespace: &str, name: &str) -> PushError {
        let body = json!({"code": code, "message": "no", "details": [
            {"@type": "type.googleapis.com/ttn.lorawan.v3.ErrorDetails", "namespace": namespace, "name": name, "code": code}
        ]});
        PushError::of_answer(StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes(), None)
    }

    #[test]
    fn what_a_formatter_refuses_is_refused_at_once() {
        for (status, code, namespace, name) in [
            (409, 10, "pkg/messageprocessors/javascript", "output_errors"),
            (409, 10, "pkg/scripting/javascript", "script"),
            (409, 10, "pkg/scripting/javascript", "runtime"),
            (400, 3, "pkg/messageprocessors/javascript", "input"),
            (400, 3, "pkg/messageprocessors/cayennelpp", "input"),
            (400, 9, "pkg/messageprocessors", "formatter_not_configured"),
            (400, 3, "pkg/applicationserver", "invalid_payload"),
        ] {
            assert!(refusal(status, code, namespace, name).condemns_downlink(1), "{namespace}:{name}");
        }
        let text = refusal(400, 9, "pkg/messageprocessors", "formatter_not_configured").to_string();
        assert!(text.contains("no payload formatter"), "{text}");
        let text = refusal(409, 10, "pkg/messageprocessors/javascript", "output_errors").to_string();
        assert!(text.contains("formatter") && text.contains("output_errors"), "{text}");
    }

    #[test]
    fn what_may_pass_waits_and_what_nobody_knows_is_tried_three_times() {
        for (status, code, namespace, name, is_final_at_last) in [
            (504, 4, "pkg/scripting/javascript", "script_timeout", false),
            (503, 14, "pkg/networkserver", "unavailable", false),
            (429, 8, "pkg/applicationserver/io/web", "rate_limit_exceeded", false),
            (404, 5, "pkg/applicationserver/io/web", "webhook_not_found", false),
            (400, 9, "pkg/applicationserver", "no_device_session", true),
            (409, 10, "pkg/networkserver/redis", "database_conflict", true),
        ] {
            let error = refusal(status, code, namespace, name);
            let is_final = [1, 2, 3, 9].map(|deliveries| error.condemns_downlink(deliveries));
            assert_eq!(is_final, [false, false, is_final_at_last, is_final_at_last], "{namespace}:{name}");
        }
        let paused = PushError::of_answer(StatusCode::NOT_ACCEPTABLE, b"", None);
        assert_eq!((&paused, paused.condemns_downlink(9)), (&PushError::Paused, false));
        let nonsense = PushError::of_answer(StatusCode::CONFLICT, b"<html>", None);
        assert!(!nonsense.condemns_downlink(1));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let status = |status, wait| PushError::Status { status, text: String::new(), wait };
        assert!(status(500, None).retry_after().is_some());
        assert_eq!(status(429, Some(Duration::from_secs(7))).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(status(404, None).retry_after(), None);
        let unauthorized = PushError::Unauthorized { status: 403, text: String::new() };
        assert!(unauthorized.retry_after().is_none() && !unauthorized.condemns_downlink(9));
        let unreachable = |is_unsent| PushError::Unreachable { place: String::new(), text: String::new(), is_unsent };
        assert!(unreachable(true).retry_after().is_some());
        assert_eq!(unreachable(false).retry_after(), None, "it may have been accepted");
    }
}
