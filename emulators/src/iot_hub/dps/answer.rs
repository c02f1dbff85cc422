//! What the Device Provisioning Service answers. The bodies are the same over HTTPS and MQTT.
//!
//! Source: <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::registrations::{Outcome, Registration};

#[derive(Debug)]
pub struct Answer {
    /// As over HTTP.
    pub status: u16,
    /// In seconds.
    pub retry_after: Option<u32>,
    pub body: String,
}

pub enum Reply {
    Answer(Answer),
    /// The connection ends without an answer.
    HangUp,
}

impl Reply {
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::HangUp | Self::Answer(Answer { status: 400.., .. }))
    }
}

impl Answer {
    fn new(status: u16, body: &Value) -> Self {
        Self { status, retry_after: None, body: body.to_string() }
    }

    pub fn assigning(operation_id: &str, retry_after: u32) -> Self {
        let body = json!({ "operationId": operation_id, "status": "assigning" });
        Self { retry_after: Some(retry_after), ..Self::new(202, &body) }
    }

    pub fn finished(operation_id: &str, registration: &Registration) -> Self {
        let state = state(registration);
        let body = json!({ "operationId": operation_id, "status": state["status"], "registrationState": state });
        Self::new(200, &body)
    }

    pub fn state(registration: &Registration) -> Self {
        Self::new(200, &state(registration))
    }

    pub fn error(status: u16, message: &str, now: DateTime<Utc>) -> Self {
        let number = match status {
            404 => 404_201,
            429 => 429_001,
            other => u32::from(other) * 1000,
        };
        let tracking_id = format!("{:032x}", fastrand::u128(..));
        let body = json!({
            "errorCode": number, "trackingId": tracking_id, "message": message, "timestampUtc": time(now),
        });
        Self::new(status, &body)
    }

    /// What a proxy in between might answer.
    pub fn garbage() -> Self {
        Self { status: 200, retry_after: None, body: "<html>please log in</html>".into() }
    }
}

fn state(registration: &Registration) -> Value {
    let mut state = json!({
        "registrationId": registration.registration_id,
        "status": registration.status(),
        "createdDateTimeUtc": registration.created.map(time),
        "lastUpdatedDateTimeUtc": registration.updated.map(time),
        "etag": registration.etag,
    });
    match registration.outcome {
        Some(Outcome::Assigned) => {
            state["assignedHub"] = json!(registration.assigned_hub);
            state["deviceId"] = json!(registration.registration_id);
            state["substatus"] = json!("initialAssignment");
        }
        Some(Outcome::Failed) => {
            state["errorCode"] = json!(400_209);
            state["errorMessage"] = json!("The allocation failed, as asked for.");
        }
        Some(Outcome::Disabled) | None => {}
    }
    state
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
