//! Says why a message is not acknowledged, in words for the operator.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{message::MAX_SIZE, sender::PATIENCE};

use crate::support::kind::Kind;

/// Why a message is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the message has {size} bytes, the hub takes {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("the hub refused the message for good ({status}): {text}")]
    Rejected { status: u16, text: String },
    #[error(
        "the hub refuses the request (400), and does not say that it is the message's fault: {text}. The message waits"
    )]
    BadRequest { text: String },
    #[error(
        "the hub refuses every message ({status}), and acknowledged none since the last one that it refused: {text}. This \
         message waits"
    )]
    RejectsAll { status: u16, text: String },
    #[error(
        "the hub refused device {device}: the token or key is wrong or has expired, the device is unknown or disabled, \
         or this machine's clock is wrong by more than 5 minutes"
    )]
    Refused { device: String },
    #[error("the hub refused device {device} ({status}): {text}")]
    RefusedBecause { device: String, status: u16, text: String },
    #[error(
        "the hub refused the token of device {device}: this machine's clock is {} min {}, set it right",
        .minutes.abs(), if *.minutes > 0 { "fast" } else { "slow" }
    )]
    ClockWrong { device: String, minutes: i64 },
    #[error("the token of device {device} expired at {at}: replace it by a new one (IoTHubSharedAccessSignature)")]
    TokenExpired { device: String, at: DateTime<Utc> },
    #[error("the hub's certificate is not trusted ({0}): set IoTHubTrustedCa to the PEM file of its authority")]
    Untrusted(String),
    #[error("the hub cannot be reached ({0})")]
    Unreachable(String),
    #[error("the hub cut the connection before it acknowledged the message")]
    Cut,
    #[error(
        "the hub accepted the connection of device {device} and cut it before it acknowledged anything: \
         its daily quota is used up, or another client uses the same device id"
    )]
    AcceptedThenCut { device: String },
    #[error(
        "the hub accepts the connections of several devices and cuts them before it acknowledges anything: \
         its daily quota is used up, or it is throttling"
    )]
    AllCut,
    #[error("the hub's daily quota is used up: it takes messages again at 00:00 UTC, or sooner with more units")]
    QuotaUsedUp,
    #[error("the hub is throttling{}: send less often, or give it more units", wait_text(.wait.as_ref()))]
    Throttled { wait: Option<Duration> },
    #[error("the hub did not acknowledge in time")]
    TimedOut,
    #[error(
        "the hub has acknowledged nothing for {} s: it is overloaded, or something on the way swallows what is sent",
        PATIENCE.as_secs()
    )]
    Stalled,
}

impl SendError {
    /// For a message over the hub's limit.
    pub(super) fn too_large(size: usize) -> Self {
        Self::TooLarge { size, limit: MAX_SIZE }
    }

    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooLarge { .. } => Kind::HubMessageTooLarge,
            Self::Rejected { .. } => Kind::HubMessageRejected,
            Self::BadRequest { .. } => Kind::HubBadRequest,
            Self::RejectsAll { .. } => Kind::HubRejectsAll,
            Self::Refused { .. } | Self::RefusedBecause { .. } => Kind::HubRefused,
            Self::ClockWrong { .. } => Kind::HubClockWrong,
            Self::TokenExpired { .. } => Kind::HubTokenExpired,
            Self::Untrusted(_) => Kind::HubUntrusted,
            Self::Unreachable(_) => Kind::HubUnreachable,
            Self::Cut => Kind::HubCut,
            Self::AcceptedThenCut { .. } | Self::AllCut => Kind::HubAcceptedThenCut,
            Self::QuotaUsedUp => Kind::HubQuota,
            Self::Throttled { .. } => Kind::HubThrottled,
            Self::TimedOut => Kind::HubTimeout,
            Self::Stalled => Kind::HubStalled,
        }
    }

    /// Whether the hub will never take this message.
    #[must_use]
    pub fn condemns_message(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Rejected { .. })
    }

    /// Whether the hub may refuse the whole batch because of a single message.
    pub(super) fn may_be_one_message(&self) -> bool {
        self.condemns_message() || matches!(self, Self::BadRequest { .. })
    }

    /// Whether the hub does not accept this device, or no longer does.
    #[must_use]
    pub fn refuses_device(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::RefusedBecause { .. })
    }

    /// Whether an immediate retry could help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Cut | Self::AcceptedThenCut { .. } | Self::AllCut | Self::Throttled { .. }
        )
    }

    /// Whether it concerns every device of the hub.
    pub(super) fn concerns_hub(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Untrusted(_) | Self::QuotaUsedUp | Self::Throttled { .. })
    }
}

fn wait_text(wait: Option<&Duration>) -> String {
    wait.map(|wait| format!(" and asks to wait for {} s", wait.as_secs())).unwrap_or_default()
}
