//! Faults on demand: the switches of the control endpoint's `/faults`, and their effects.
//!
//! | Switch | MQTT, also over WebSocket | HTTPS |
//! |---|---|---|
//! | `refuse`, `refuseTimes` | CONNECT is answered with return code 5 | 401, 401003 |
//! | `ignoreConnects` | CONNECT is not answered | – |
//! | `serverUnavailable` | CONNECT is answered with return code 3 | 503 |
//! | `cutAfterConnectTimes` | accepted, then cut at once | 403, 403002 |
//! | `ignorePublishes` | messages and twin requests are neither recorded nor answered | a message is neither recorded nor answered |
//! | `pubackDelayMs` | acknowledgements come late, in order | a message is recorded, its answer comes late |
//! | `dropBeforePubackTimes` | a message at QoS 1 ends its connection | – |
//! | `httpDropBeforeAnswerTimes` | – | a message ends its connection |
//! | `recordDropped` | whether those messages are recorded | the same |
//! | `cutAfterMessages` | the connection is cut after this many messages | – |
//! | `cutAfterMs` | the connection is cut this long after its first message | – |
//! | `noSessionPresent` | the session is lost | – |
//! | `cutOnSubscribe` | SUBSCRIBE ends the connection, as a hub without commands may do | – |
//! | `httpStatus`, `httpStatusTimes`, `retryAfterSeconds` | – | this many requests are answered with this status |
//! | `httpErrorCode` | – | these answers have this error code of the hub, and the status that belongs to it |
//! | `httpDelayMs` | – | a request waits before it is processed |
//! | `misspellTopics` | twin answers and messages to devices go to a wrong topic | – |
//! | `acceptAnyToken` | tokens are not checked | tokens are not checked |
//!
//! `pubackDelayMs` with `cutAfterMs` gives "throttled, then cut". HTTPS here means the requests of devices: sending
//! messages and receiving them. The last two switches break the emulator itself, for tests that must notice it.

use std::{num::NonZeroU64, time::Duration};

use serde::{Deserialize, Serialize};

/// The switches of `PUT /faults`, all off by default. Members named `…Times` count down, once per use. The table of
/// `faults.rs` lists their effects over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// Every CONNECT is answered with return code 5, as for a wrong token or a disabled device, and every request with
    /// 401.
    pub refuse: bool,
    /// Like `refuse`, for this many CONNECTs or requests.
    pub refuse_times: u64,
    /// No CONNECT is answered.
    pub ignore_connects: bool,
    /// Every CONNECT is answered with return code 3, every request with 503.
    pub server_unavailable: bool,
    /// This many messages at QoS 1 end their connection instead of being acknowledged.
    pub drop_before_puback_times: u64,
    /// This many messages over HTTPS end their connection instead of being answered.
    pub http_drop_before_answer_times: u64,
    /// Whether those messages are recorded, that is, whether the hub had them when the connection broke. On by default.
    pub record_dropped: bool,
    /// Acknowledgements come this many milliseconds late, still in order, as with throttling.
    pub puback_delay_ms: u32,
    /// This many connections are accepted, then cut at once, or this many requests are answered with 403, as for the
    /// daily quota.
    pub cut_after_connect_times: u64,
    /// Every connection is cut after this many messages were recorded and acknowledged on it. Acknowledgements that
    /// `puback_delay_ms` still holds back are lost.
    pub cut_after_messages: Option<NonZeroU64>,
    /// Every connection is cut this many milliseconds after its first message. Messages not acknowledged by then never
    /// are.
    pub cut_after_ms: Option<u32>,
    /// Messages are neither recorded nor acknowledged, as by a hub that hangs.
    pub ignore_publishes: bool,
    /// Every CONNACK says that there is no session, and there is none, as from a hub that lost it.
    pub no_session_present: bool,
    /// Every SUBSCRIBE ends its connection.
    pub cut_on_subscribe: bool,
    /// The status of the answers that `http_status_times` counts: 400 to 599, 503 by default.
    pub http_status: HttpStatus,
    /// This many HTTPS requests are answered with `http_status`.
    pub http_status_times: u64,
    /// The code of those answers, such as 400004, whose first three digits are their status. Absent: one that fits
    /// `http_status`.
    pub http_error_code: Option<ErrorCode>,
    /// The header `Retry-After` of those answers, in seconds. Absent: they have no such header.
    pub retry_after_seconds: Option<u32>,
    /// HTTPS requests wait this many milliseconds before they are processed.
    pub http_delay_ms: u32,
    /// Twin answers and messages to devices go to a wrong topic: this breaks the emulator.
    pub misspell_topics: bool,
    /// Tokens are not checked: this breaks the emulator.
    pub accept_any_token: bool,
    /// The devices with these faults. Absent: all.
    pub devices: Option<Vec<String>>,
}

/// The status of an error, 400 to 599; 503 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct HttpStatus(u16);

impl Default for Faults {
    fn default() -> Self {
        Self {
            refuse: false,
            refuse_times: 0,
            ignore_connects: false,
            server_unavailable: false,
            drop_before_puback_times: 0,
            http_drop_before_answer_times: 0,
            record_dropped: true,
            puback_delay_ms: 0,
            cut_after_connect_times: 0,
            cut_after_messages: None,
            cut_after_ms: None,
            ignore_publishes: false,
            no_session_present: false,
            cut_on_subscribe: false,
            http_status: HttpStatus::default(),
            http_status_times: 0,
            http_error_code: None,
            retry_after_seconds: None,
            http_delay_ms: 0,
            misspell_topics: false,
            accept_any_token: false,
            devices: None,
        }
    }
}

impl Default for HttpStatus {
    fn default() -> Self {
        Self(503)
    }
}

impl TryFrom<u16> for HttpStatus {
    type Error = String;

    fn try_from(status: u16) -> Result<Self, String> {
        match status {
            400..600 => Ok(Self(status)),
            _ => Err(format!("{status} is not a status of an error; 400 to 599 are")),
        }
    }
}

impl From<HttpStatus> for u16 {
    fn from(status: HttpStatus) -> Self {
        status.0
    }
}

/// An error code of the hub: a status of 400 to 599 and three more digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ErrorCode(u32);

impl TryFrom<u32> for ErrorCode {
    type Error = String;

    fn try_from(code: u32) -> Result<Self, String> {
        match code {
            400_000..600_000 => Ok(Self(code)),
            _ => Err(format!("{code} is not an error code; 400000 to 599999 are")),
        }
    }
}

impl From<ErrorCode> for u32 {
    fn from(code: ErrorCode) -> Self {
        code.0
    }
}

/// How a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotAuthorized,
    ServerUnavailable,
}

/// The treatment of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPublish {
    Ignore,
    /// The connection ends without an acknowledgement.
    Cut {
        record: bool,
    },
    /// Recorded, and acknowledged after `delay`. Then the connection ends if `cut` is set, or later after `cut_after`.
    Accept {
        delay: Duration,
        cut: bool,
        cut_after: Option<Duration>,
    },
}

/// How an HTTPS request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRequest {
    Unauthorized,
    QuotaExceeded,
    Unavailable,
    Status { status: u16, code: Option<u32>, retry_after: Option<u32> },
}

/// The treatment of messages over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSend {
    Ignore,
    /// The connection ends without an answer.
    Cut {
        record: bool,
    },
    /// Recorded, and answered after `delay`.
    Accept {
        delay: Duration,
    },
}

impl Faults {
    /// Whether this CONNECT is refused before its credentials are checked.
    pub fn on_connect(&mut self, device_id: &str) -> Option<Refusal> {
        if !self.concern(device_id) {
            return None;
        }
        if self.server_unavailable {
            return Some(Refusal::ServerUnavailable);
        }
        (self.refuse || count_down(&mut self.refuse_times)).then_some(Refusal::NotAuthorized)
    }

    /// Whether this CONNECT gets no answer.
    pub fn ignores_connect(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.ignore_connects
    }

    /// Whether this accepted connection is cut at once.
    pub fn cuts_after_connect(&mut self, device_id: &str) -> bool {
        self.concern(device_id) && count_down(&mut self.cut_after_connect_times)
    }

    /// Whether the device's session is lost.
    pub fn loses_session(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.no_session_present
    }

    /// The treatment of a message. `before` messages were recorded on its connection before it.
    pub fn on_publish(&mut self, device_id: &str, wants_puback: bool, before: u64) -> OnPublish {
        if !self.concern(device_id) {
            return OnPublish::Accept { delay: Duration::ZERO, cut: false, cut_after: None };
        }
        if self.ignore_publishes {
            return OnPublish::Ignore;
        }
        if wants_puback && count_down(&mut self.drop_before_puback_times) {
            return OnPublish::Cut { record: self.record_dropped };
        }
        OnPublish::Accept {
            delay: milliseconds(self.puback_delay_ms),
            cut: self.cut_after_messages.is_some_and(|limit| before + 1 >= limit.get()),
            cut_after: self.cut_after_ms.map(milliseconds),
        }
    }

    /// How long an HTTPS request waits.
    pub fn request_delay(&self, device_id: &str) -> Duration {
        if self.concern(device_id) { milliseconds(self.http_delay_ms) } else { Duration::ZERO }
    }

    /// Whether an HTTPS request is refused before its token is checked.
    pub fn on_request(&mut self, device_id: &str) -> Option<OnRequest> {
        if let Some(refusal) = self.on_connect(device_id) {
            return Some(match refusal {
                Refusal::NotAuthorized => OnRequest::Unauthorized,
                Refusal::ServerUnavailable => OnRequest::Unavailable,
            });
        }
        if self.cuts_after_connect(device_id) {
            return Some(OnRequest::QuotaExceeded);
        }
        let answer = OnRequest::Status {
            status: self.http_status.0,
            code: self.http_error_code.map(u32::from),
            retry_after: self.retry_after_seconds,
        };
        (self.concern(device_id) && count_down(&mut self.http_status_times)).then_some(answer)
    }

    /// The treatment of the messages of an HTTPS request.
    pub fn on_send(&mut self, device_id: &str) -> OnSend {
        if !self.concern(device_id) {
            return OnSend::Accept { delay: Duration::ZERO };
        }
        if self.ignore_publishes {
            return OnSend::Ignore;
        }
        if count_down(&mut self.http_drop_before_answer_times) {
            return OnSend::Cut { record: self.record_dropped };
        }
        OnSend::Accept { delay: milliseconds(self.puback_delay_ms) }
    }

    /// Whether the device gets no answers.
    pub fn ignores(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.ignore_publishes
    }

    /// Whether the device's SUBSCRIBE ends its connection.
    pub fn cuts_subscription(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.cut_on_subscribe
    }

    /// Whether messages to the device go to wrong topics.
    pub fn misspells(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.misspell_topics
    }

    /// Whether the device's token is not checked.
    pub fn accepts_any_token(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.accept_any_token
    }

    fn concern(&self, device_id: &str) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.iter().any(|device| device == device_id))
    }
}

pub fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

pub fn count_down(times: &mut u64) -> bool {
    let left = *times > 0;
    *times = times.saturating_sub(1);
    left
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
