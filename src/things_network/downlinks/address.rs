//! Where downlinks go without a webhook's headers, and the devices whose commands the timer fetches. Pure.

use secrecy::SecretString;
use url::Url;

use crate::things_network::queued::DownlinkKeys;

/// The Things Stack by `ThingsStackUrl` and `ThingsStackApiKey`.
#[derive(Clone, Debug)]
pub struct Address {
    /// With the path of the API, and a slash at the end.
    pub root: Url,
    pub api_key: SecretString,
}

impl Address {
    /// As if a webhook of the device had come with these headers.
    /// <https://www.thethingsindustries.com/docs/api/reference/http/routes/#application-server>
    #[must_use]
    pub fn of(&self, application: &str, device: &str) -> DownlinkKeys {
        let url = |operation: &str| {
            let path = format!("as/applications/{application}/devices/{device}/down/{operation}");
            // Ids consist of letters, digits and hyphens.
            self.root.join(&path).ok().map(Into::into)
        };
        DownlinkKeys { api_key: self.api_key.clone(), push: url("push"), replace: url("replace") }
    }
}

/// Devices by application, or by application and device. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(Vec<(String, Option<String>)>);

impl Selection {
    /// Reads `valves, city/siren-1`.
    ///
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_id =
            |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let item = |item: &str| {
            let (application, device) = item.split_once('/').map_or((item, None), |(one, other)| (one, Some(other)));
            let is_right = is_id(application) && device.is_none_or(is_id);
            let item = (application.to_owned(), device.map(str::to_owned));
            is_right.then_some(item).ok_or_else(|| {
                format!(
                    "has {:?}: write application or application/device",
                    crate::support::http::one_line(application, 40)
                )
            })
        };
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect::<Result<_, _>>().map(Self)
    }

    #[must_use]
    pub fn has(&self, application: &str, device: &str) -> bool {
        let is_it = |(one, other): &(String, Option<String>)| {
            one == application && other.as_ref().is_none_or(|other| other == device)
        };
        self.0.is_empty() || self.0.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_an_address_of_its_own() {
        let root = Url::parse("https://eu1.cloud.thethings.network/api/v3/").unwrap();
        let keys = Address { root, api_key: "NNSXS.x".into() }.of("city", "siren-1");
        let begin = "https://eu1.cloud.thethings.network/api/v3/as/applications/city/devices/siren-1/down";
        assert_eq!(keys.push, Some(format!("{begin}/push")));
        assert_eq!(keys.replace, Some(format!("{begin}/replace")));
    }

    #[test]
    fn a_selection_names_applications_or_devices() {
        let selection = Selection::parse("valves, city/siren-1,").unwrap();
        for (application, device, expected) in [
            ("valves", "any", true),
            ("city", "siren-1", true),
            ("city", "siren-2", false),
            ("other", "siren-1", false),
        ] {
            assert_eq!(selection.has(application, device), expected, "{application}/{device}");
        }
        assert!(Selection::parse("").unwrap().has("any", "any"));
        for text in ["a b", "/x", "x/", "a/b/c", "*"] {
            assert!(Selection::parse(text).unwrap_err().contains("write application"), "{text}");
        }
    }
}
