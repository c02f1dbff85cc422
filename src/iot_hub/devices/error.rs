//! Why an owner has no device, in words for the operator.

use std::sync::Arc;

use super::{Owner, StoredOwner, dps::DpsError, store::StoreError};

use crate::support::kind::Kind;

/// The tenants of two owners, as the rest of a sentence. Empty if they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants {
    pub own: String,
    pub other: String,
}

/// Why an owner has no device at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No failure: the registration continues.
    #[error("device {id} for {owner} is still being registered: its messages go when it is")]
    Underway { owner: Arc<Owner>, id: String },
    #[error("device {id} for {owner} cannot be registered: {error}")]
    Dps { owner: Arc<Owner>, id: String, error: DpsError },
    #[error(
        "device {id} for {owner}{} stands for {other}{} already: {}; if the other one is gone, run `iothub-connector devices \
         forget`",
        .tenants.own, .tenants.other, .owner.how_to_rename()
    )]
    Taken { owner: Arc<Owner>, id: String, other: StoredOwner, tenants: Box<Tenants> },
    /// The device is not registered by the connector: it belongs to a hub whose connection string is in the settings.
    #[error(
        "hub {hub} refused device {id} for {owner}: create the device in the hub's registry, or enable it, or have devices \
         registered through DPS (DPSIDScope…); if it is there, check that policy {policy} of AzureIotHubConnectionString… \
         has this key and the permission Device Connect"
    )]
    RefusedByHub { owner: Arc<Owner>, id: String, hub: String, policy: String },
    #[error("device {id} for {owner} cannot be looked up: {error}")]
    Store { owner: Arc<Owner>, id: String, error: StoreError },
    /// A fault of the connector itself: the task panicked.
    #[error(
        "the lookup or registration of device {id} for {owner} ended unexpectedly, it is tried again: \
         if that does not help, report it with the panic's lines in the log"
    )]
    Unexpected { owner: Arc<Owner>, id: String },
}

impl DeviceError {
    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Underway { .. } => Kind::DeviceUnderway,
            Self::Dps { error, .. } => error.kind(),
            Self::Taken { .. } => Kind::DeviceTaken,
            Self::RefusedByHub { .. } => Kind::DeviceRefused,
            Self::Store { error, .. } => error.kind(),
            Self::Unexpected { .. } => Kind::DeviceUnexpected,
        }
    }
}
