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

    /// The value for what has no port, if only single ports of the application have one: that of the lowest port.
    #[must_use]
    pub fn of_lowest_port(&self, application: &str) -> Option<(&T, Option<u8>)> {
        let port = |suffix: &str| suffix.strip_prefix(application)?.strip_prefix('-')?.parse::<u8>().ok();
        let ports = self.ports.iter().filter_map(|(suffix, index)| Some((port(suffix)?, *index)));
        ports.min().map(|(port, index)| (&self.all[index], Some(port)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_port_takes_the_lowest_one_of_its_application_only() {
        let ports = [("city-10", 0), ("city-2", 1), ("city-2-1", 2), ("other-1", 3)];
        let ports = ports.map(|(suffix, index)| (suffix.to_owned(), index)).into();
        let all = vec!["ten", "two", "one of city-2", "other"];
        let enrollments = Enrollments { all, ports, applications: HashMap::new(), default: None };
        assert_eq!(enrollments.of_lowest_port("city"), Some((&"two", Some(2))));
        assert_eq!(enrollments.of_lowest_port("city-2"), Some((&"one of city-2", Some(1))));
        assert_eq!(enrollments.of_lowest_port("cit"), None);
    }
}
