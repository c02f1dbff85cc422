//! Failures of the Device Provisioning Service, in words for the operator.

use std::time::Duration;

use crate::support::kind::Kind;

const CHECK_GROUP: &str =
    "check DPSEnrollmentGroupSymmetricKey… and DPSIDScope…, and that the enrollment group is enabled";

/// Why a registration did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpsError {
    #[error("the Device Provisioning Service refused the token (401): {CHECK_GROUP}{}", quote(.said))]
    Unauthorized { said: String },
    #[error(
        "the Device Provisioning Service refused the token (401): this machine's clock is {} min {}, set it right",
        .minutes.abs(), if *.minutes > 0 { "fast" } else { "slow" }
    )]
    ClockWrong { minutes: i64 },
    #[error("the Device Provisioning Service does not know the ID scope (404): check DPSIDScope…{}", quote(.said))]
    UnknownScope { said: String },
    /// Concerns this device only.
    #[error("the Device Provisioning Service refused the registration ({how}): look at it in the enrollment group{}", quote(.said))]
    Refused { how: String, said: String },
    /// Its result cannot be asked for: the service has forgotten it, or another app has begun to register the same device.
    #[error("the Device Provisioning Service no longer knows the registration that it had begun (404){}", quote(.said))]
    OperationGone { said: String },
    #[error("the Device Provisioning Service asks to slow down and to wait {} s", .wait.as_secs().max(1))]
    Throttled { wait: Duration },
    #[error("the Device Provisioning Service answered with status {status}{}", quote(.said))]
    Status { status: u16, said: String },
    #[error("the Device Provisioning Service cannot be reached ({0}): check DPSGlobalDeviceEndpoint and the network")]
    Unreachable(String),
    #[error("the Device Provisioning Service did not answer in time")]
    Timeout,
    #[error(
        "the certificate of the Device Provisioning Service is not trusted ({0}): check DPSGlobalDeviceEndpoint, \
         or set IoTHubTrustedCa to the PEM file of its authority"
    )]
    Untrusted(String),
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    #[error("the answer of the Device Provisioning Service makes no sense ({0}): check DPSGlobalDeviceEndpoint")]
    Garbage(String),
    #[error("the Device Provisioning Service has not assigned a hub within {} min: look at its enrollment group and its linked hubs", .0.as_secs() / 60)]
    NotAssigned(Duration),
}

fn quote(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; it says: {text}") }
}

impl DpsError {
    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unauthorized { .. } => Kind::DpsUnauthorized,
            Self::ClockWrong { .. } => Kind::DpsClockWrong,
            Self::UnknownScope { .. } => Kind::DpsUnknownScope,
            Self::Refused { .. } | Self::OperationGone { .. } => Kind::DpsRefused,
            Self::Throttled { .. } => Kind::DpsThrottled,
            Self::Status { .. } => Kind::DpsStatus,
            Self::Unreachable(_) => Kind::DpsUnreachable,
            Self::Timeout => Kind::DpsTimeout,
            Self::Untrusted(_) => Kind::DpsUntrusted,
            Self::Tls(_) => Kind::DpsTls,
            Self::Garbage(_) => Kind::DpsGarbage,
            Self::NotAssigned(_) => Kind::DpsNotAssigned,
        }
    }

    /// Whether a retry soon may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout | Self::Status { status: 408 | 500.., .. })
    }

    /// Whether every other registration would end in the same way.
    pub(super) fn concerns_service(&self) -> bool {
        self.is_passing()
            || matches!(
                self,
                Self::Unauthorized { .. }
                    | Self::ClockWrong { .. }
                    | Self::UnknownScope { .. }
                    | Self::Untrusted(_)
                    | Self::Tls(_)
            )
    }
}
