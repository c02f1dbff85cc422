//! The kinds of failures: the short names that records, summaries and log lines share. `docs/troubleshooting.md`
//! explains each. Decisions compare kinds, never their texts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! kinds {
    ($($kind:ident = $text:literal,)+) => {
        /// What failed, and how.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($kind,)+
            /// A kind that another version of the app wrote. It is written back as it was.
            Other(Box<str>),
        }

        impl Kind {
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$kind => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for Kind {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$kind,)+
                    other => Self::Other(other.into()),
                }
            }
        }
    };
}

kinds! {
    // The backend.
    Unauthorized = "unauthorized",
    Forbidden = "forbidden",
    NotFound = "not_found",
    RateLimited = "rate_limited",
    HttpStatus = "http_status",
    Connect = "connect",
    Timeout = "timeout",
    CutOff = "cut_off",
    TooLarge = "too_large",
    EmptyAnswer = "empty_answer",
    Html = "html",
    NotJson = "not_json",
    WrongShape = "wrong_shape",
    BadRows = "bad_rows",
    NoSites = "no_sites",
    NoChannels = "no_channels",
    SiteMixedUp = "site_mixed_up",
    SitesUnlisted = "sites_unlisted",
    // Cosmos DB.
    LedgerUnauthorized = "ledger_unauthorized",
    LedgerMissing = "ledger_missing",
    LedgerUnfit = "ledger_unfit",
    LedgerThrottled = "ledger_throttled",
    LedgerTimeout = "ledger_timeout",
    LedgerUnreachable = "ledger_unreachable",
    LedgerError = "ledger_error",
    LedgerConflict = "ledger_conflict",
    LedgerForeignDocument = "ledger_foreign_document",
    // The records of messages.
    MessageTooLarge = "message_too_large",
    RecordLost = "record_lost",
    RecordUnreadable = "record_unreadable",
    NoMessage = "no_message",
    Dropped = "dropped",
    // IoT Hub.
    HubMessageTooLarge = "hub_message_too_large",
    HubMessageRejected = "hub_message_rejected",
    HubBadRequest = "hub_bad_request",
    HubRejectsAll = "hub_rejects_all",
    HubRefused = "hub_refused",
    HubClockWrong = "hub_clock_wrong",
    HubTokenExpired = "hub_token_expired",
    HubUntrusted = "hub_untrusted",
    HubUnreachable = "hub_unreachable",
    HubCut = "hub_cut",
    HubAcceptedThenCut = "hub_accepted_then_cut",
    HubQuota = "hub_quota",
    HubThrottled = "hub_throttled",
    HubTimeout = "hub_timeout",
    HubStalled = "hub_stalled",
    C2dLockLost = "c2d_lock_lost",
    C2dUnusable = "c2d_unusable",
    // Devices and the Device Provisioning Service.
    DeviceUnderway = "device_underway",
    DeviceTaken = "device_taken",
    DeviceRefused = "device_refused",
    DeviceUnexpected = "device_unexpected",
    DeviceForeignDocument = "device_foreign_document",
    DpsUnauthorized = "dps_unauthorized",
    DpsClockWrong = "dps_clock_wrong",
    DpsUnknownScope = "dps_unknown_scope",
    DpsRefused = "dps_refused",
    DpsThrottled = "dps_throttled",
    DpsStatus = "dps_status",
    DpsUnreachable = "dps_unreachable",
    DpsTimeout = "dps_timeout",
    DpsUntrusted = "dps_untrusted",
    DpsTls = "dps_tls",
    DpsGarbage = "dps_garbage",
    DpsNotAssigned = "dps_not_assigned",
    // The Things Network.
    Malformed = "malformed",
    NoDevice = "no_device",
    Turn = "turn",
    QueueUnusable = "queue_unusable",
    DownlinkUnusable = "downlink_unusable",
    DownlinkRejected = "downlink_rejected",
    DownlinkUnauthorized = "downlink_unauthorized",
    DownlinkPaused = "downlink_paused",
    DownlinkStatus = "downlink_status",
    DownlinkUnreachable = "downlink_unreachable",
    DownlinkBusy = "downlink_busy",
    // The queue of sites.
    BatchesNotTaken = "batches_not_taken",
    BatchRefused = "batch_refused",
    BatchTooOld = "batch_too_old",
    // The app itself.
    Rest = "rest",
    Deadline = "deadline",
    Panic = "panic",
}

/// A service whose answers the connector needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Backend,
    CosmosDb,
    IotHub,
    ProvisioningService,
}

impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Backend => "The backend",
            Self::CosmosDb => "Cosmos DB",
            Self::IotHub => "IoT Hub",
            Self::ProvisioningService => "The Device Provisioning Service",
        })
    }
}

impl Kind {
    /// Whether it lasts until an operator changes something at the backend or in the settings for it.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::Forbidden | Self::NotFound)
    }

    /// Whether it concerns all sites alike, even if it was met at one of them.
    #[must_use]
    pub fn is_common(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::RateLimited
                | Self::LedgerUnauthorized
                | Self::LedgerMissing
                | Self::LedgerUnfit
                | Self::LedgerThrottled
                | Self::LedgerTimeout
                | Self::LedgerUnreachable
                | Self::LedgerError
                | Self::HubRejectsAll
                | Self::HubClockWrong
                | Self::HubUntrusted
                | Self::HubUnreachable
                | Self::HubQuota
                | Self::HubTimeout
                | Self::HubStalled
                | Self::DpsUnauthorized
                | Self::DpsClockWrong
                | Self::DpsUnknownScope
                | Self::DpsUnreachable
                | Self::DpsTimeout
                | Self::DpsUntrusted
                | Self::DpsTls
                | Self::DpsGarbage
                | Self::Deadline
                | Self::Panic
        )
    }

    /// Whether the backend gave no answer, or a broken one.
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::CutOff | Self::HttpStatus)
    }

    /// Whether it concerns all messages of a device.
    #[must_use]
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::HubRefused | Self::HubTokenExpired | Self::HubCut)
    }

    /// The service that gave no answer, if that is what failed.
    #[must_use]
    pub fn unanswered(&self) -> Option<Service> {
        match self {
            Self::Connect | Self::Timeout | Self::CutOff => Some(Service::Backend),
            Self::LedgerTimeout | Self::LedgerUnreachable => Some(Service::CosmosDb),
            Self::HubUnreachable | Self::HubTimeout | Self::HubStalled => Some(Service::IotHub),
            Self::DpsUnreachable | Self::DpsTimeout => Some(Service::ProvisioningService),
            _ => None,
        }
    }

    /// Whether no connection to the service came about.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect | Self::LedgerUnreachable | Self::HubUnreachable | Self::DpsUnreachable)
    }

    /// Whether both have the same cause. A service that is away fails now in one way, now in another.
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        self == other || self.unanswered().is_some() && self.unanswered() == other.unanswered()
    }

    /// Whether it only follows from an earlier failure: it says that something waits, not why.
    #[must_use]
    pub fn is_consequence(&self) -> bool {
        matches!(self, Self::Turn | Self::Rest | Self::Deadline | Self::DeviceUnderway | Self::DownlinkPaused)
    }

    /// Whether a service was asked for too much.
    #[must_use]
    pub fn is_throttling(&self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::LedgerThrottled | Self::HubThrottled | Self::HubQuota | Self::DpsThrottled
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_service_that_is_away_are_alike() {
        assert!(Kind::HubUnreachable.is_alike(&Kind::HubTimeout) && Kind::Connect.is_alike(&Kind::CutOff));
        assert!(!Kind::HubUnreachable.is_alike(&Kind::Connect) && !Kind::HubUnreachable.is_alike(&Kind::HubRefused));
        assert!(Kind::NoDevice.is_alike(&Kind::NoDevice) && !Kind::NoDevice.is_alike(&Kind::Malformed));
    }

    #[test]
    fn kinds_are_kept_as_documents_have_them() {
        for text in ["hub_message_rejected", "not_found", "a_kind_of_next_year", ""] {
            let json = format!("\"{text}\"");
            let kind: Kind = serde_json::from_str(&json).unwrap();
            assert_eq!(matches!(kind, Kind::Other(_)), !text.contains("hub_") && text != "not_found", "{text}");
            assert_eq!((kind.as_str(), serde_json::to_string(&kind).unwrap()), (text, json));
        }
    }
}
