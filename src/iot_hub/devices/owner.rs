//! The owner of a device.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Tenant, documents::Document, naming};

/// The owner of a device: one site, or one LoRaWAN device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub system: &'static str,
    /// The scope in which the name is unique: the customer, or the application.
    pub group: String,
    pub name: String,
    /// The text from which the device's id at the hub is made.
    named_after: String,
    /// The tenant of a LoRaWAN device, if it is known: ids are unique within a tenant only.
    tenant: Option<Tenant>,
    /// The device's id contains the DevEUI: whoever has this id is the same LoRaWAN device, whatever it is called now.
    is_named_by_dev_eui: bool,
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
        Self {
            system: Self::RAPIDM2M,
            group,
            named_after: name.clone(),
            name,
            tenant: None,
            is_named_by_dev_eui: false,
            port: None,
        }
    }

    /// A LoRaWAN device, identified by its application's id and its own. `named_after` is the text that the setting
    /// `DeviceIdTemplate` makes from them.
    #[must_use]
    pub fn things_network(application: &str, device: &str, named_after: impl Into<String>) -> Self {
        let (group, name) = (application.to_owned(), device.to_owned());
        let (named_after, tenant) = (named_after.into(), None);
        Self { system: Self::THINGS_NETWORK, group, name, named_after, tenant, is_named_by_dev_eui: false, port: None }
    }

    /// Sets the tenant, if the webhook names it.
    #[must_use]
    pub fn of_tenant(self, tenant: Option<Tenant>) -> Self {
        Self { tenant, ..self }
    }

    /// Says that the text after which the device is named contains its DevEUI.
    #[must_use]
    pub fn named_by_dev_eui(self, is_named_by_dev_eui: bool) -> Self {
        Self { is_named_by_dev_eui, ..self }
    }

    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// What a document under this owner's registration id means to the owner.
    #[must_use]
    pub(super) fn claim_to(&self, document: &Document) -> Claim {
        let (mine, other) = (StoredOwner::from(self), &document.owner);
        let is_same_device = self.is_named_by_dev_eui && other.system == self.system;
        let tenants = self.tenant.as_ref().zip(document.tenant.as_ref());
        if mine != *other && !is_same_device || tenants.is_some_and(|(one, other)| one.differs(other)) {
            return Claim::Taken;
        }
        let tenant = match tenants {
            Some((mine, other)) => Some(other.and(mine)),
            None => document.tenant.clone().or_else(|| self.tenant.clone()),
        };
        if mine == *other && tenant == document.tenant {
            return Claim::Mine;
        }
        Claim::Changed(Box::new(Document { owner: mine, tenant, ..document.clone() }))
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
            Self::THINGS_NETWORK => {
                "set DeviceIdTemplate to {application_id}-{device_id}, with tenants to \
                 {tenant_id}-{application_id}-{device_id}, or rename one of them; if it is the same device, which has moved, run \
                 `iothub-connector devices move`"
            }
            _ => "rename one of them",
        }
    }

    /// The registration id of the owner's device.
    #[must_use]
    pub fn registration_id(&self) -> String {
        naming::registration_id(&self.named_after)
    }
}

/// What a document means to an owner whose registration id it has.
#[derive(Debug, PartialEq)]
pub(super) enum Claim {
    /// It is the owner's.
    Mine,
    /// It is the owner's, and must first be replaced by this one: the LoRaWAN device has another name or application, or
    /// its tenant was not known.
    Changed(Box<Document>),
    Taken,
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
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_document_is_its_owners_within_a_tenant_and_follows_the_dev_eui() {
        let tenant = Tenant::of_domain;
        let (north, south) = ("north.eu1.cloud.thethings.industries", "south.nam1.cloud.thethings.industries");
        let now = DateTime::UNIX_EPOCH;
        let document =
            |owner: &Owner| Document::claim(&owner.registration_id(), owner.into(), owner.tenant.clone(), now);
        let owner = |application: &str, domain: &str| {
            Owner::things_network(application, "d", "0004a30b001c0530").of_tenant(tenant(domain))
        };
        let (mine, unknown) = (owner("a", north), owner("a", ""));
        assert_eq!(mine.claim_to(&document(&mine)), Claim::Mine);
        assert_eq!(unknown.claim_to(&document(&mine)), Claim::Mine, "the tenant stays");
        assert_eq!(mine.claim_to(&document(&unknown)), Claim::Changed(Box::new(document(&mine))), "it is learned once");
        assert_eq!(owner("a", south).claim_to(&document(&mine)), Claim::Taken);
        assert_eq!(owner("b", north).claim_to(&document(&mine)), Claim::Taken);
        let moved = owner("b", north).named_by_dev_eui(true);
        assert_eq!(moved.claim_to(&document(&mine)), Claim::Changed(Box::new(document(&moved))));
        assert_eq!(owner("b", south).named_by_dev_eui(true).claim_to(&document(&mine)), Claim::Taken);
        let site = Owner::rapidm2m_site("c", "0004a30b001c0530");
        assert_eq!(moved.claim_to(&document(&site)), Claim::Taken, "a site is no LoRaWAN device");
    }

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
