//! Where downlinks go without a webhook's headers, and the devices whose commands the timer fetches. Pure.

use secrecy::SecretString;
use url::Url;

use crate::{iot_hub::devices::Tenant, support::http, things_network::queued::DownlinkKeys};

/// The Things Stack by `ThingsStackUrl` and `ThingsStackDownlinkApiKey`.
#[derive(Clone, Debug)]
pub struct Address {
    /// With the path of the API, and a slash at the end.
    pub root: Url,
    pub api_key: SecretString,
}

/// A LoRaWAN device, as downlinks name it.
#[derive(Clone, Copy, Debug)]
pub struct EndDevice<'a> {
    pub application: &'a str,
    pub device: &'a str,
    /// `None`: not known.
    pub tenant: Option<&'a Tenant>,
}

impl Address {
    /// As if a webhook of the device had come with these headers. `None`: the device belongs to another tenant, which may have a
    /// device with the same ids.
    /// <https://www.thethingsindustries.com/docs/api/reference/http/routes/#application-server>
    #[must_use]
    pub fn of(&self, EndDevice { application, device, tenant }: EndDevice<'_>) -> Option<DownlinkKeys> {
        let domain = Tenant::of_domain(self.host())?;
        // What is on this machine may be a tunnel to wherever the tenant is.
        if !http::is_on_this_machine(&self.root) && tenant.is_some_and(|tenant| tenant.is_not_of(&domain)) {
            return None;
        }
        let url = |operation: &str| {
            let path = format!("as/applications/{application}/devices/{device}/down/{operation}");
            // Ids consist of letters, digits and hyphens.
            self.root.join(&path).ok().map(Into::into)
        };
        Some(DownlinkKeys { api_key: self.api_key.clone(), push: url("push"), replace: url("replace") })
    }

    #[must_use]
    pub fn host(&self) -> &str {
        self.root.host_str().unwrap_or_default()
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
        let address = Address { root, api_key: "NNSXS.x".into() };
        let siren = EndDevice { application: "city", device: "siren-1", tenant: None };
        let keys = address.of(siren).unwrap();
        let begin = "https://eu1.cloud.thethings.network/api/v3/as/applications/city/devices/siren-1/down";
        assert_eq!(keys.push, Some(format!("{begin}/push")));
        assert_eq!(keys.replace, Some(format!("{begin}/replace")));
        for (tenant, expected) in [
            (Tenant::of_domain("eu1.cloud.thethings.network"), true),
            (Tenant::of_network(Some("ttn"), Some("eu1")), true),
            (Tenant::of_domain("north.eu1.cloud.thethings.industries"), false),
            (Tenant::of_network(Some("north"), Some("eu1")), false),
        ] {
            assert_eq!(address.of(EndDevice { tenant: tenant.as_ref(), ..siren }).is_some(), expected, "{tenant:?}");
        }
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
