//! A site, and how the backend lists it.
//!
//! A site is its `_uid`. Its name is an attribute: people rename sites, and give a name that was in use to another site.

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{Client, Stamp, ledger::SiteKey};

/// A site as it is polled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where its documents are. It never changes.
    pub key: SiteKey,
    /// Its name today, for messages and people.
    pub name: String,
    /// Its `_uid`, if the backend has told it.
    pub uid: Option<String>,
    /// When its device last had contact with the backend, if the backend tells it.
    pub contact: Option<Stamp>,
}

impl Site {
    /// A site of which only the place of its documents is known.
    #[must_use]
    pub fn of_key(key: SiteKey) -> Self {
        Self { name: key.site.clone(), key, uid: None, contact: None }
    }

    /// What stands for it in the backend's paths. A name may be another site's by the time of the request.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uid.as_ref().unwrap_or(&self.name)
    }

    /// The name, if it is not the one in the key.
    #[must_use]
    pub fn other_name(&self) -> Option<&String> {
        Some(&self.name).filter(|name| **name != self.key.site)
    }
}

/// An element of `customers/{cid}/sites`. Elements may lack anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Listed {
    #[serde(rename = "_uid")]
    uid: Option<String>,
    name: Option<String>,
    site_id: Option<String>,
    /// When its device last had contact with the backend.
    #[serde(default, rename = "device", deserialize_with = "contact")]
    pub(super) contact: Option<Stamp>,
}

/// `stamp` of a site's `device`, whose shape is not documented.
fn contact<'de, D: Deserializer<'de>>(device: D) -> Result<Option<Stamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Device {
        Stamped { stamp: String },
        Other(IgnoredAny),
    }
    Ok(match Device::deserialize(device)? {
        Device::Stamped { stamp } => Stamp::parse(&stamp),
        Device::Other(_) => None,
    })
}

impl Listed {
    /// Its `_uid`, if it can stand in a path.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        segment(self.uid.as_ref())
    }

    /// What people call it: its name, or its id if it has no name.
    #[must_use]
    pub fn called(&self) -> Option<&str> {
        segment(self.name.as_ref()).or_else(|| segment(self.site_id.as_ref()))
    }
}

fn segment(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| Client::is_segment(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_may_tell_anything_of_a_device() {
        let devices =
            [r#"{"stamp":"2026110110051225","pos":null}"#, "null", "7", "[]", r#"{"stamp":7}"#, r#"{"stamp":"x"}"#];
        for (place, device) in devices.iter().enumerate() {
            let listed: Listed = serde_json::from_str(&format!(r#"{{"_uid":"A1","device":{device}}}"#)).unwrap();
            assert_eq!(listed.contact.is_some(), place == 0, "{device}");
        }
        assert_eq!(serde_json::from_str::<Listed>("{}").unwrap(), Listed::default());
    }
}
