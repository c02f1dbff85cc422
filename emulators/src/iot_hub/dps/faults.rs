//! Trouble on demand: what `PUT /dps/faults` switches. The same over HTTPS and MQTT.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::registrations::{Outcome, Step};
use crate::iot_hub::faults::{HttpStatus, count_down, milliseconds};

/// The switches of `PUT /dps/faults`, all off by default. Members named `…Times` count down, once per use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// So many polls of an operation are answered `assigning` before it has come to an end; 1 by default.
    pub assigning_polls: u32,
    /// So many operations end with the status `failed`.
    pub fail_times: u64,
    /// So many operations end with the status `disabled`.
    pub disable_times: u64,
    /// The status of those answers that `status_times` counts; 400 to 599, 503 by default.
    pub status: HttpStatus,
    /// So many requests are answered with `status`.
    pub status_times: u64,
    /// How long those answers tell the device to wait, in seconds. Absent: they say nothing.
    pub retry_after_seconds: Option<u32>,
    /// So many answers are no JSON, but HTML with status 200.
    pub garbage_times: u64,
    /// So many requests end their connection instead of being answered.
    pub drop_times: u64,
    /// The requests that the three of them concern. Absent: all.
    pub step: Option<ConcernedStep>,
    /// Requests wait this many milliseconds before anything is done about them.
    pub delay_ms: u32,
    /// The registration ids concerned, in any case. Absent: all.
    pub devices: Option<Vec<String>>,
}

/// A step of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConcernedStep {
    Register,
    Poll,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRequest {
    Status { status: u16, retry_after: Option<u32> },
    Garbage,
    Drop,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            assigning_polls: Self::ASSIGNING_POLLS,
            fail_times: 0,
            disable_times: 0,
            status: HttpStatus::default(),
            status_times: 0,
            retry_after_seconds: None,
            garbage_times: 0,
            drop_times: 0,
            step: None,
            delay_ms: 0,
            devices: None,
        }
    }
}

impl Faults {
    const ASSIGNING_POLLS: u32 = 1;

    pub fn delay(&self, id: &str) -> Duration {
        if self.concern(id) { milliseconds(self.delay_ms) } else { Duration::ZERO }
    }

    pub fn assigning_polls(&self, id: &str) -> u32 {
        if self.concern(id) { self.assigning_polls } else { Self::ASSIGNING_POLLS }
    }

    /// What becomes of a request, before its token is looked at.
    pub fn on_request(&mut self, id: &str, step: Step<'_>) -> Option<OnRequest> {
        let this_step = match self.step {
            Some(ConcernedStep::Register) => matches!(step, Step::Register { .. }),
            Some(ConcernedStep::Poll) => matches!(step, Step::Poll { .. }),
            None => true,
        };
        if !this_step || !self.concern(id) {
            return None;
        }
        if count_down(&mut self.status_times) {
            return Some(OnRequest::Status { status: self.status.into(), retry_after: self.retry_after_seconds });
        }
        if count_down(&mut self.garbage_times) {
            return Some(OnRequest::Garbage);
        }
        count_down(&mut self.drop_times).then_some(OnRequest::Drop)
    }

    /// What an operation comes to.
    pub fn outcome(&mut self, id: &str) -> Outcome {
        if !self.concern(id) {
            Outcome::Assigned
        } else if count_down(&mut self.fail_times) {
            Outcome::Failed
        } else if count_down(&mut self.disable_times) {
            Outcome::Disabled
        } else {
            Outcome::Assigned
        }
    }

    fn concern(&self, id: &str) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.iter().any(|device| device.eq_ignore_ascii_case(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: Step<'_> = Step::Register { body: b"" };
    const POLL: Step<'_> = Step::Poll { operation_id: "" };

    fn faults(json: &str) -> Faults {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn without_faults_everything_passes() {
        let mut none = faults("{}");
        assert_eq!(none, Faults::default());
        assert_eq!((none.on_request("d", REGISTER), none.delay("d")), (None, Duration::ZERO));
        assert_eq!((none.outcome("d"), none.assigning_polls("d")), (Outcome::Assigned, 1));
    }

    #[test]
    fn counted_faults_run_out() {
        let json = r#"{"status":429,"statusTimes":1,"retryAfterSeconds":7,"garbageTimes":1,"dropTimes":1,"failTimes":1,"disableTimes":1}"#;
        let mut counted = faults(json);
        let answers: Vec<_> = (0..4).map(|_| counted.on_request("d", POLL)).collect();
        let status = OnRequest::Status { status: 429, retry_after: Some(7) };
        assert_eq!(answers, [Some(status), Some(OnRequest::Garbage), Some(OnRequest::Drop), None]);
        let outcomes: Vec<_> = (0..3).map(|_| counted.outcome("d")).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Disabled, Outcome::Assigned]);
    }

    #[test]
    fn faults_concern_only_the_step_and_the_devices_named() {
        let mut some =
            faults(r#"{"statusTimes":1,"step":"poll","devices":["A"],"assigningPolls":5,"failTimes":1,"delayMs":3}"#);
        assert_eq!(some.on_request("b", POLL), None);
        assert_eq!(some.on_request("a", REGISTER), None);
        assert_eq!(some.on_request("a", Step::Look), None);
        assert_eq!((some.assigning_polls("a"), some.assigning_polls("b")), (5, 1));
        assert_eq!((some.delay("a"), some.delay("b")), (Duration::from_millis(3), Duration::ZERO));
        assert_eq!((some.outcome("b"), some.outcome("a")), (Outcome::Assigned, Outcome::Failed));
        assert!(some.on_request("a", POLL).is_some());
    }

    #[test]
    fn a_misspelt_fault_is_refused() {
        for json in [r#"{"statusTime":1}"#, r#"{"status":200}"#, r#"{"step":"look"}"#, r#"{"failTimes":true}"#] {
            assert!(serde_json::from_str::<Faults>(json).is_err(), "{json}");
        }
    }
}
