//! The origin of devices, and their credentials.

use secrecy::{ExposeSecret as _, SecretBox};

use super::enrollment::HubPolicy;
use super::{
    documents::Document,
    dps::{DpsError, Provisioner},
};
use crate::iot_hub::{Credential, sas};

pub enum Source {
    /// The devices are registered with the Device Provisioning Service. Their keys are derived from the group's key.
    Dps(Box<Provisioner>),
    /// The devices are already in the hub's registry. A missing device shows only when it connects.
    Hub(HubPolicy),
}

impl Source {
    /// The ID scope of the service instance.
    pub fn id_scope(&self) -> Option<&str> {
        match self {
            Self::Dps(provisioner) => Some(&provisioner.config().id_scope),
            Self::Hub(_) => None,
        }
    }

    /// Whether a device in the store comes from this source. If not, the settings have changed since.
    pub fn has_made(&self, document: &Document) -> bool {
        document.id_scope.as_deref() == self.id_scope()
            && match self {
                Self::Dps(_) => true,
                Self::Hub(policy) => document.assigned_hub == policy.hub.to_string(),
            }
    }

    /// The device's credential.
    pub fn credential(&self, document: &Document) -> Credential {
        match self {
            Self::Dps(provisioner) => {
                let group_key = provisioner.config().group_key.expose_secret();
                Credential::Key(SecretBox::new(Box::new(sas::derive_key(group_key, document.registration_id()))))
            }
            Self::Hub(policy) => Credential::Policy(policy.policy.clone()),
        }
    }

    /// Forgets transient failures of the service, but not a wait that it requested (`Retry-After`).
    pub fn try_again(&self) {
        if let Self::Dps(provisioner) = self {
            provisioner.try_again();
        }
    }

    /// The wait that the service requests, if any.
    pub fn throttled(&self) -> Option<DpsError> {
        match self {
            Self::Dps(provisioner) => provisioner.throttled(),
            Self::Hub(_) => None,
        }
    }
}
