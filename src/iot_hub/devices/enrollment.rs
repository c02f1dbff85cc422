//! The origins of the devices of sites and LoRaWAN applications: a Device Provisioning Service with an enrollment
//! group, or a hub that has them in its registry.

use std::{collections::HashMap, sync::Arc};

use secrecy::{ExposeSecret as _, SecretBox};

use crate::iot_hub::{Endpoint, Policy};

/// An enrollment group of a Device Provisioning Service. `config/dps.rs` reads its settings.
#[derive(Debug)]
pub struct EnrollmentGroup {
    /// The service. Without a port, 443 is used.
    pub endpoint: Endpoint,
    /// The ID scope of the service instance, such as `0ne00111111`.
    pub id_scope: String,
    /// The group's primary or secondary key, decoded.
    pub group_key: SecretBox<Vec<u8>>,
}

/// The origin of devices.
#[derive(Debug)]
pub enum Enrollment {
    /// The devices are registered with a Device Provisioning Service.
    Dps(EnrollmentGroup),
    /// The devices are in a hub's registry. The connector connects with the key of one of the hub's policies.
    Hub(HubPolicy),
}

/// A hub, and the policy whose key signs the tokens.
#[derive(Clone, Debug)]
pub struct HubPolicy {
    /// Tokens are signed for its host name, and connections go to it.
    pub hub: Endpoint,
    pub policy: Arc<Policy>,
}

/// The enrollments of all applications, or values that were made from them.
#[derive(Debug)]
pub struct Enrollments<T = Enrollment> {
    /// Each value once, even if several suffixes lead to it.
    pub all: Vec<T>,
    /// Indices by `{application}-{port}`.
    pub ports: HashMap<String, usize>,
    pub applications: HashMap<String, usize>,
    pub default: Option<usize>,
}

impl<T> Enrollments<T> {
    /// The value for an application's uplinks with this fPort. Contains the port only if the value differs from that of
    /// the application's other uplinks.
    #[must_use]
    pub fn of(&self, application: &str, port: u8) -> Option<(&T, Option<u8>)> {
        let of_port = self.ports.get(&format!("{application}-{port}")).copied();
        let of_application = self.applications.get(application).copied().or(self.default);
        match of_port.filter(|index| Some(*index) != of_application) {
            Some(index) => Some((&self.all[index], Some(port))),
            None => Some((&self.all[of_application?], None)),
        }
    }

    /// Each value once.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter()
    }

    /// Each value once, with the suffixes that lead to it: `Default`, `pumps`, `pumps-10`.
    #[must_use]
    pub fn named(&self) -> Vec<(String, &T)> {
        let suffixes = self.applications.iter().chain(&self.ports);
        let mut suffixes: Vec<_> = suffixes.map(|(suffix, index)| (suffix.as_str(), *index)).collect();
        suffixes.sort_unstable();
        let default = self.default.map(|index| ("Default", index));
        let names = |index| {
            let of_it = default.iter().chain(&suffixes).filter(|(_, other)| *other == index);
            of_it.map(|(suffix, _)| *suffix).collect::<Vec<_>>().join(", ")
        };
        self.all.iter().enumerate().map(|(index, enrollment)| (names(index), enrollment)).collect()
    }

    /// Converts each value.
    #[must_use]
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Enrollments<U> {
        let Self { all, ports, applications, default } = self;
        Enrollments { all: all.into_iter().map(make).collect(), ports, applications, default }
    }
}

impl Enrollment {
    /// Whether both enrollments give the same devices.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dps(one), Self::Dps(other)) => {
                one.id_scope == other.id_scope && one.group_key.expose_secret() == other.group_key.expose_secret()
            }
            (Self::Hub(HubPolicy { hub, policy }), Self::Hub(other)) => {
                *hub == other.hub
                    && policy.name == other.policy.name
                    && policy.key.expose_secret() == other.policy.key.expose_secret()
            }
            _ => false,
        }
    }
}

impl From<EnrollmentGroup> for Enrollment {
    fn from(group: EnrollmentGroup) -> Self {
        Self::Dps(group)
    }
}
