//! Whom a device stands for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who a device stands for: one site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub system: &'static str,
    /// What the name is unique in: the customer.
    pub group: String,
    /// The device is named after it.
    pub name: String,
}

impl Owner {
    /// The `system` of rapidM2M sites.
    pub const RAPIDM2M: &str = "rapidM2M";

    #[must_use]
    pub fn rapidm2m_site(customer: &str, site: &str) -> Self {
        Self { system: Self::RAPIDM2M, group: customer.to_owned(), name: site.to_owned() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        StoredOwner::from(self).fmt(out)
    }
}

/// An [`Owner`] as it stands in a document.
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
        let other = StoredOwner { system: "thingsNetwork".into(), group: "app".into(), name: "s-1".into() };
        assert_eq!(other.to_string(), r#"thingsNetwork device "s-1" of "app""#);
    }
}
