//! Where the devices of LoRaWAN applications come from: which Device Provisioning Service and enrolment group, or which
//! hub, by application and port.
//!
//! Each setting comes with a suffix; `__` counts as `-` everywhere in a name, since many places refuse a `-`:
//!
//! | Suffix | Holds for |
//! |---|---|
//! | `-{application}-{port}` | uplinks of one application with one fPort |
//! | `-{application}` | the application's other uplinks |
//! | `Default`, or none | everything else |
//!
//! | Setting | |
//! |---|---|
//! | `DPSIDScope…`, `DPSEnrollmentGroupSymmetricKey…` | a service and an enrolment group in it |
//! | `AzureIotHubConnectionString…` | instead of these: a hub's own connection string, for devices that are in its registry |
//!
//! The most specific suffix wins. ID scope and group key are looked for separately, so that one service with a group for
//! each application needs `DPSIDScopeDefault` once. An application id may end in what looks like a port: `-pumps-1` is for
//! port 1 of `pumps` as well as for all of `pumps-1`.

mod connection_string;
mod families;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use secrecy::ExposeSecret as _;

use self::families::Families;
pub(super) use self::families::{CONNECTION_STRING, suffix};
use super::{Problems, Settings, dps};
use crate::iot_hub::{Endpoint, Policy};

/// Where devices come from.
#[derive(Debug)]
pub enum Enrolment {
    /// They are registered with a Device Provisioning Service.
    Dps(dps::Config),
    /// They are in a hub's registry, and we connect with the key of one of its policies.
    Hub(HubPolicy),
}

/// A hub, and the policy whose key tokens are made from.
#[derive(Clone, Debug)]
pub struct HubPolicy {
    /// Tokens are for its host name; connections go to it.
    pub hub: Endpoint,
    pub policy: Arc<Policy>,
}

/// The enrolments of all applications, or what was made of each of them.
#[derive(Debug)]
pub struct Enrolments<T = Enrolment> {
    /// Each of them once, however many suffixes lead to it.
    all: Vec<T>,
    /// Indices by `{application}-{port}`.
    ports: HashMap<String, usize>,
    applications: HashMap<String, usize>,
    default: Option<usize>,
}

impl<T> Enrolments<T> {
    /// What holds for an application's uplinks with this fPort; with the port if it is not what holds for the application's
    /// others.
    #[must_use]
    pub fn of(&self, application: &str, port: u8) -> Option<(&T, Option<u8>)> {
        let of_port = self.ports.get(&format!("{application}-{port}")).copied();
        let of_application = self.applications.get(application).copied().or(self.default);
        match of_port.filter(|index| Some(*index) != of_application) {
            Some(index) => Some((&self.all[index], Some(port))),
            None => Some((&self.all[of_application?], None)),
        }
    }

    /// Each of them once.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter()
    }

    /// Each of them once, with the suffixes that lead to it: `Default`, `pumps`, `pumps-10`.
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
        self.all.iter().enumerate().map(|(index, enrolment)| (names(index), enrolment)).collect()
    }

    /// Makes something of each of them.
    #[must_use]
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Enrolments<U> {
        let Self { all, ports, applications, default } = self;
        Enrolments { all: all.into_iter().map(make).collect(), ports, applications, default }
    }
}

impl Enrolments {
    /// Reads the settings. What is wrong with them goes to `problems`, also if there are none.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let mut found = Problems::default();
        let endpoint = dps::read_endpoint(settings, &mut found);
        let families = Families::read(settings, &mut found);
        families.check(&mut found);
        let is_good = found.is_empty();
        problems.append(found);
        if is_good { families.resolve(&endpoint?) } else { None }
    }
}

impl Enrolment {
    /// Whether devices that come from here and from there are the same.
    fn is_same(&self, other: &Self) -> bool {
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

impl From<dps::Config> for Enrolment {
    fn from(config: dps::Config) -> Self {
        Self::Dps(config)
    }
}
