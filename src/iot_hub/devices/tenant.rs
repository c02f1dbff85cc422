//! The tenant of a LoRaWAN network that a device belongs to: ids of applications and devices are unique within a tenant only.
//! Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Tenants of The Things Stack Cloud are `{tenant}.{cluster}.cloud.thethings.industries`.
const CLOUD: &str = ".cloud.thethings.industries";
/// The Things Stack Sandbox has one tenant, `{cluster}.cloud.thethings.network`.
const SANDBOX: &str = ".cloud.thethings.network";
const TENANT_OF_SANDBOX: &str = "ttn";

/// What is known of a tenant. Webhooks name it by a domain, stored uplinks by ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tenant {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

impl Tenant {
    /// `None` if the text is no host name.
    #[must_use]
    pub fn of_domain(domain: &str) -> Option<Self> {
        let is_valid = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | ':');
        let is_domain = (1..=253).contains(&domain.len()) && domain.chars().all(is_valid);
        is_domain.then(|| Self { domain: Some(domain.to_ascii_lowercase()), ..Self::default() })
    }

    /// `None` if both are empty.
    #[must_use]
    pub fn of_network(id: Option<&str>, cluster: Option<&str>) -> Option<Self> {
        let known = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let (id, cluster) = (known(id), known(cluster));
        (id.is_some() || cluster.is_some()).then_some(Self { domain: None, id, cluster })
    }

    /// Whether both are certainly not one tenant.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let pairs = [(&self.domain, &other.domain), (&self.id, &other.id), (&self.cluster, &other.cluster)];
        pairs.into_iter().any(|pair| matches!(pair, (Some(one), Some(other)) if one != other))
    }

    /// Whether it is certainly not the tenant that the server of this name serves.
    #[must_use]
    pub fn is_not_of(&self, server: &Self) -> bool {
        let name =
            |of: &'_ Self| of.domain.as_deref().map(|domain| domain.split(':').next().unwrap_or(domain).to_owned());
        match (name(self), name(server)) {
            (Some(own), Some(server)) => own != server,
            // The name of a server of one's own says nothing of its tenant.
            (None, Some(name)) if name.ends_with(CLOUD) || name.ends_with(SANDBOX) => {
                self.id().is_some_and(|id| server.id() != Some(id))
            }
            _ => false,
        }
    }

    /// All that is known from both, which do not [differ](Self::differs).
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let either = |one: &Option<String>, other: &Option<String>| one.clone().or_else(|| other.clone());
        Self {
            domain: either(&self.domain, &other.domain),
            id: either(&self.id, &other.id),
            cluster: either(&self.cluster, &other.cluster),
        }
    }

    /// The tenant's id. For a server of one's own, which has one tenant, it is the domain.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        let Some(domain) = self.domain.as_deref() else { return self.id.as_deref() };
        if domain.strip_suffix(SANDBOX).is_some_and(|cluster| !cluster.contains('.')) {
            return Some(TENANT_OF_SANDBOX);
        }
        let of_cloud = domain.strip_suffix(CLOUD).and_then(|begin| begin.split_once('.'));
        Some(of_cloud.map_or(domain, |(tenant, _)| tenant))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, id, cluster } = self;
        match (domain, id, cluster) {
            (Some(domain), ..) => out.write_str(domain),
            (None, Some(id), Some(cluster)) => write!(out, "{id} in cluster {cluster}"),
            (None, Some(one), None) | (None, None, Some(one)) => out.write_str(one),
            (None, None, None) => out.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_names_its_tenant() {
        for (domain, id) in [
            ("north.eu1.cloud.thethings.industries", "north"),
            ("eu1.cloud.thethings.network", "ttn"),
            ("lorawan.example.com", "lorawan.example.com"),
            ("EU1.cloud.thethings.network", "ttn"),
        ] {
            assert_eq!(Tenant::of_domain(domain).unwrap().id(), Some(id), "{domain}");
        }
        for nonsense in ["", "a b", "x\ny", &"x".repeat(254)] {
            assert_eq!(Tenant::of_domain(nonsense), None);
        }
        assert_eq!(Tenant::of_network(Some("north"), None).unwrap().id(), Some("north"));
        assert_eq!(Tenant::of_network(Some(""), None), None);
    }

    #[test]
    fn only_what_both_say_tells_tenants_apart() {
        let domain = |domain| Tenant::of_domain(domain).unwrap();
        let network = |id, cluster| Tenant::of_network(Some(id), Some(cluster)).unwrap();
        let (north, south) =
            (domain("north.eu1.cloud.thethings.industries"), domain("south.nam1.cloud.thethings.industries"));
        assert!(north.differs(&south) && !north.differs(&north));
        assert!(!north.differs(&network("other", "eu1")), "stored uplinks have no domain");
        let both = north.and(&network("north", "eu1"));
        assert!(both.differs(&south) && both.differs(&network("north", "au1")) && !both.differs(&Tenant::default()));
        assert_eq!((both.to_string(), network("a", "b").to_string()), (north.to_string(), "a in cluster b".into()));
    }
}
