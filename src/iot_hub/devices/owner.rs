//! The owner of a device.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::naming;

/// The owner of a device: one site, or one LoRaWAN device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub system: &'static str,
    /// The scope in which the name is unique: the customer, or the application.
    pub group: String,
    pub name: String,
    /// The text from which the device's id at the hub is made.
    named_after: String,
    /// The fPort, if the device is only for uplinks with it. That is so if this port has its own enrollment.
    port: Option<u8>,
}

impl Owner {
    /// The `system` of rapidM2M sites.
    pub const RAPIDM2M: &str = "rapidM2M";
    /// The `system` of LoRaWAN devices of The Things Network.
    pub const THINGS_NETWORK: &str = "thingsNetwork";

    /// A site. Its device is named after it.
    #[must_use]
    pub fn rapidm2m_site(customer: &str, site: &str) -> Self {
        let (group, name) = (customer.to_owned(), site.to_owned());
        Self { system: Self::RAPIDM2M, group, named_after: name.clone(), name, port: None }
    }

    /// A LoRaWAN device, identified by its application's id and its own. `named_after` is the text that the setting
    /// `DeviceIdTemplate` makes from them.
    #[must_use]
    pub fn things_network(application: &str, device: &str, named_after: impl Into<String>) -> Self {
        let (group, name) = (application.to_owned(), device.to_owned());
        Self { system: Self::THINGS_NETWORK, group, name, named_after: named_after.into(), port: None }
    }

    /// Sets the port that [`PerApplication::of`](super::PerApplication::of) returns.
    #[must_use]
    pub fn at_port(self, port: Option<u8>) -> Self {
        Self { port, ..self }
    }

    #[must_use]
    pub fn port(&self) -> Option<u8> {
        self.port
    }

    /// What to do if another owner's device has the same name.
    pub(super) fn how_to_rename(&self) -> &'static str {
        match self.system {
            Self::THINGS_NETWORK => "set DeviceIdTemplate to {application_id}-{device_id}, or rename one of them",
            _ => "rename one of them",
        }
    }

    /// The registration id of the owner's device.
    #[must_use]
    pub fn registration_id(&self) -> String {
        naming::registration_id(&self.named_after)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        StoredOwner::from(self).fmt(out)?;
        self.port.map_or(Ok(()), |port| write!(out, ", port {port}"))
    }
}

/// An [`Owner`] as it is stored in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StoredOwner {
    pub system: String,
    pub group: String,
    pub name: String,
}

impl From<&Owner> for StoredOwner {
    fn from(owner: &Owner) -> Self {
        Self { system: owner.system.to_owned(), group: owner.group.clone(), name: owner.name.clone() }
    }
}

impl fmt::Display for StoredOwner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, group, name } = self;
        match system.as_str() {
            Owner::RAPIDM2M => write!(out, "rapidM2M site {name:?} of customer {group:?}"),
            Owner::THINGS_NETWORK => write!(out, "The Things Network device {name:?} of application {group:?}"),
            _ => write!(out, "{system} device {name:?} of {group:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_named_for_people() {
        let owner = Owner::rapidm2m_site("Demo \"Water\"", "Well 7");
        assert_eq!(owner.to_string(), r#"rapidM2M site "Well 7" of customer "Demo \"Water\"""#);
        let owner = Owner::things_network("app", "s-1", "app-s-1");
        assert_eq!(owner.to_string(), r#"The Things Network device "s-1" of application "app""#);
        let owner = owner.at_port(Some(10));
        assert_eq!(owner.to_string(), r#"The Things Network device "s-1" of application "app", port 10"#);
        assert_eq!(owner.registration_id(), "app-s-1");
        let other = StoredOwner { system: "other".into(), group: "app".into(), name: "s-1".into() };
        assert_eq!(other.to_string(), r#"other device "s-1" of "app""#);
    }
}
