//! Where devices come from, and what proves that we are them.

use secrecy::{ExposeSecret as _, SecretBox};

use super::enrollment::HubPolicy;
use super::{
    documents::Document,
    dps::{DpsError, Provisioner},
};
use crate::iot_hub::{Credential, sas};

pub enum Source {
    /// They are registered with the Device Provisioning Service, and have keys derived from their group's.
    Dps(Provisioner),
    /// They are in the hub's registry already. Whether one is shows when it connects.
    Hub(HubPolicy),
}

impl Source {
    /// The service instance.
    pub fn id_scope(&self) -> Option<&str> {
        match self {
            Self::Dps(provisioner) => Some(&provisioner.config().id_scope),
            Self::Hub(_) => None,
        }
    }

    /// Whether a device that is in the store came from here. If not, the settings have changed since.
    pub fn has_made(&self, document: &Document) -> bool {
        document.id_scope.as_deref() == self.id_scope()
            && match self {
                Self::Dps(_) => true,
                Self::Hub(policy) => document.assigned_hub == policy.hub.to_string(),
            }
    }

    /// What proves that we are the device.
    pub fn credential(&self, document: &Document) -> Credential {
        match self {
            Self::Dps(provisioner) => {
                let group_key = provisioner.config().group_key.expose_secret();
                Credential::Key(SecretBox::new(Box::new(sas::derive_key(group_key, document.registration_id()))))
            }
            Self::Hub(policy) => Credential::Policy(policy.policy.clone()),
        }
    }

    /// Passing failures of the service are forgotten; what it asked for (`Retry-After`) is not.
    pub fn try_again(&self) {
        if let Self::Dps(provisioner) = self {
            provisioner.try_again();
        }
    }

    /// How long the service wants to be left alone, if it does.
    pub fn throttled(&self) -> Option<DpsError> {
        match self {
            Self::Dps(provisioner) => provisioner.throttled(),
            Self::Hub(_) => None,
        }
    }
}
