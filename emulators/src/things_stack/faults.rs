//! What the downlink API is told to do wrong, and to how many requests.

use std::{collections::VecDeque, time::Duration};

use axum::http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// Longest delay, in milliseconds.
const LONGEST_DELAY: u64 = 600_000;

/// What happens to the next requests. Either a `status`, with which nothing is accepted; or `delayMs` or `cut` or both,
/// with which the request is treated as usual and then answered late or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Requests that are still hit.
    #[serde(default = "once")]
    pub times: u64,
    /// Only requests for this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `status`: seconds or an HTTP date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The connection is cut instead of an answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

fn once() -> u64 {
    1
}

/// What a fault does to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Refuse { status: StatusCode, retry_after: Option<HeaderValue> },
    Accept { delay: Duration, cut: bool },
}

impl Fault {
    /// # Errors
    /// It has no effect, or several.
    pub fn effect(&self) -> Result<Effect, String> {
        let retry_after = self.retry_after.as_deref().map(HeaderValue::from_str).transpose();
        let retry_after = retry_after.map_err(|_| "retryAfter is not a header value".to_owned())?;
        match (self.status, self.delay_ms, self.cut) {
            (Some(status), None, false) => match StatusCode::from_u16(status) {
                Ok(status) if status.as_u16() >= 400 => Ok(Effect::Refuse { status, retry_after }),
                _ => Err(format!("status {status} refuses nothing")),
            },
            (Some(_), ..) => Err("status goes with neither delayMs nor cut".to_owned()),
            _ if retry_after.is_some() => Err("retryAfter needs a status".to_owned()),
            (None, None, false) => Err("one of status, delayMs and cut must be given".to_owned()),
            (None, delay_ms, cut) => {
                let ms = delay_ms.unwrap_or(0);
                if ms > LONGEST_DELAY {
                    return Err(format!("delayMs must be at most {LONGEST_DELAY}"));
                }
                Ok(Effect::Accept { delay: Duration::from_millis(ms), cut })
            }
        }
    }
}

/// The faults that are not used up, in their order.
#[derive(Debug, Default)]
pub struct Faults(VecDeque<Fault>);

impl Faults {
    /// # Errors
    /// It has no effect, or several.
    pub fn add(&mut self, fault: Fault) -> Result<(), String> {
        fault.effect()?;
        if fault.times > 0 {
            self.0.push_back(fault);
        }
        Ok(())
    }

    pub fn list(&self) -> Vec<Fault> {
        self.0.iter().cloned().collect()
    }

    /// The effect on the next request, which is for this device.
    pub fn take(&mut self, device: &str) -> Option<Effect> {
        let is_meant = |fault: &Fault| fault.device.as_ref().is_none_or(|meant| meant == device);
        let index = self.0.iter().position(is_meant)?;
        let fault = &mut self.0[index];
        fault.times -= 1;
        let (effect, is_over) = (fault.effect().ok(), fault.times == 0);
        if is_over {
            self.0.remove(index);
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Result<Fault, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn faults_are_used_up_in_their_order() {
        let mut faults = Faults::default();
        for json in [r#"{"times":2,"status":429,"retryAfter":"1"}"#, r#"{"cut":true}"#, r#"{"times":0,"status":500}"#] {
            faults.add(fault(json).unwrap()).unwrap();
        }
        let refuse =
            Effect::Refuse { status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(HeaderValue::from_static("1")) };
        assert_eq!((faults.take("a"), faults.take("b")), (Some(refuse.clone()), Some(refuse)));
        assert_eq!(faults.take("a"), Some(Effect::Accept { delay: Duration::ZERO, cut: true }));
        assert_eq!(faults.take("a"), None);
    }

    #[test]
    fn a_fault_of_a_device_leaves_others_alone() {
        let mut faults = Faults::default();
        faults.add(fault(r#"{"device":"a","status":503}"#).unwrap()).unwrap();
        faults.add(fault(r#"{"cut":true}"#).unwrap()).unwrap();
        assert_eq!(faults.take("b"), Some(Effect::Accept { delay: Duration::ZERO, cut: true }));
        assert_eq!(faults.take("b"), None);
        assert!(matches!(faults.take("a"), Some(Effect::Refuse { .. })));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        for (json, reason) in [
            ("{}", "one of status"),
            (r#"{"status":200}"#, "refuses nothing"),
            (r#"{"status":500,"cut":true}"#, "neither delayMs nor cut"),
            (r#"{"cut":true,"retryAfter":"1"}"#, "needs a status"),
            (r#"{"status":429,"retryAfter":"a\nb"}"#, "not a header value"),
            (r#"{"delayMs":600001}"#, "at most"),
            (r#"{"delay":1}"#, "unknown field `delay`"),
        ] {
            let error = fault(json).and_then(|fault| Faults::default().add(fault)).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
