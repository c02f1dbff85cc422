//! What a running handler starts with. What is wrong with the settings of one half leaves the other half alone.

use super::{Config, Problems, Settings, Surroundings, rapidm2m, things_network};

/// The configuration of a handler, and what is wrong with the rest of its settings.
#[derive(Debug, Default)]
pub struct Setup {
    /// The halves whose settings hold. `None` if no half can work.
    pub config: Option<Config>,
    /// Webhooks are accepted whenever these settings hold, even if what forwards them cannot work.
    pub webhooks: Option<things_network::Webhooks>,
    pub faults: Faults,
    pub surroundings: Surroundings,
}

/// Why parts cannot work. A part without an entry works or is off.
#[derive(Debug, Default)]
pub struct Faults {
    pub rapidm2m: Option<Problems>,
    /// Of forwarding from The Things Network.
    pub things_network: Option<Problems>,
    pub webhooks: Option<Problems>,
}

impl Faults {
    /// A sentence for each part that cannot work.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        [self.of_rapidm2m(), self.of_things_network(), self.of_webhooks()].into_iter().flatten().collect()
    }

    #[must_use]
    pub fn of_rapidm2m(&self) -> Option<String> {
        self.rapidm2m.as_ref().map(|problems| sentence("rapidM2M forwarding", problems))
    }

    #[must_use]
    pub fn of_things_network(&self) -> Option<String> {
        self.things_network.as_ref().map(|problems| sentence("Forwarding from The Things Network", problems))
    }

    #[must_use]
    pub fn of_webhooks(&self) -> Option<String> {
        self.webhooks.as_ref().map(|problems| sentence("The webhook for The Things Network", problems))
    }
}

fn sentence(part: &str, problems: &Problems) -> String {
    format!("{part} does not work until its settings are corrected: {}", problems.list())
}

impl Setup {
    /// Reads each part on its own. `outside` are faults that concern all parts, such as a Key Vault that does not answer.
    #[must_use]
    pub fn read(settings: &Settings, outside: Option<&Problems>) -> Self {
        let (has_rapidm2m, has_things_network) = (rapidm2m::is_wanted(settings), things_network::is_wanted(settings));
        let mut webhooks_problems = Problems::default();
        let webhooks = has_things_network.then(|| things_network::Webhooks::read(settings, &mut webhooks_problems));
        let webhooks = webhooks.flatten().filter(|_| webhooks_problems.is_empty());
        // The secret that webhooks must show may be among what could not be read.
        let unread = outside.filter(|_| webhooks.as_ref().is_some_and(|webhooks| webhooks.secret.is_none()));
        if let Some(unread) = unread {
            webhooks_problems.append(unread.clone());
        }
        let webhooks = webhooks.filter(|_| unread.is_none());
        let webhooks_problems = (!webhooks_problems.is_empty()).then_some(webhooks_problems);
        let whole = Config::from_settings(settings);
        if let Ok(config) = whole {
            let faults = Faults { webhooks: webhooks_problems, ..Faults::default() };
            return Self { config: Some(config), webhooks, faults, surroundings: settings.surroundings() };
        }
        let read = |is_wanted: bool, rapidm2m: bool| is_wanted.then(|| Config::of(settings, rapidm2m, !rapidm2m));
        let (rapidm2m, things_network) = (read(has_rapidm2m, true), read(has_things_network, false));
        let (mut config, mut faults) = (None, Faults { webhooks: webhooks_problems, ..Faults::default() });
        match rapidm2m {
            Some(Ok(read)) => config = Some(read),
            Some(Err(problems)) => faults.rapidm2m = Some(problems),
            None => {}
        }
        match things_network {
            Some(Ok(read)) => config = Some(read),
            Some(Err(problems)) => faults.things_network = Some(problems),
            None => {}
        }
        if let (false, false, Err(problems)) = (has_rapidm2m, has_things_network, whole) {
            faults.rapidm2m = Some(problems);
        }
        for problems in [&mut faults.rapidm2m, &mut faults.things_network] {
            if let (Some(problems), Some(outside)) = (problems, outside) {
                problems.append(outside.clone());
            }
        }
        Self { config, webhooks, faults, surroundings: settings.surroundings() }
    }
}

impl From<Config> for Setup {
    fn from(config: Config) -> Self {
        let webhooks = config.things_network.as_ref().map(|config| config.webhooks.clone());
        Self { config: Some(config), webhooks, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: [(&str, &str); 1] = [("M2MDocumentsDBUri", "https://a.documents.azure.com")];
    const THINGS_NETWORK: [(&str, &str); 3] = [
        ("UplinkQueueName", "uplinks"),
        ("DPSIDScopeDefault", "0ne00111111"),
        ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0"),
    ];
    const RAPIDM2M: [(&str, &str); 7] = [
        ("M2MBackendURL", "https://b"),
        ("Base64encodedUsernamePassword", "dTpw"),
        ("Customer_ID", "c"),
        ("Site_ID", "*"),
        ("Channelnames", "*"),
        ("IoTHubURL", "h.azure-devices.net"),
        ("IoTHubDeviceKey", "a2V5"),
    ];

    fn read(changes: &[(&'static str, &'static str)]) -> Setup {
        let all = SHARED.into_iter().chain(THINGS_NETWORK).chain(RAPIDM2M).chain([("IoTHubDeviceId", "d")]);
        let mut settings: std::collections::BTreeMap<_, _> = all.collect();
        for (name, value) in changes {
            match *value {
                "" => drop(settings.remove(name)),
                value => drop(settings.insert(*name, value)),
            }
        }
        Setup::read(&settings.into_iter().collect(), None)
    }

    fn works(setup: &Setup) -> (bool, bool, bool) {
        let config = setup.config.as_ref();
        let rapidm2m = config.is_some_and(|config| config.rapidm2m.is_some());
        let things_network = config.is_some_and(|config| config.things_network.is_some());
        (rapidm2m, things_network, setup.webhooks.is_some())
    }

    #[test]
    fn a_fault_stops_only_what_needs_the_setting() {
        for (change, expected, named) in [
            (&[][..], (true, true, true), &[][..]),
            (&[("Customer_ID", "")], (false, true, true), &["rapidM2M forwarding"]),
            (&[("IoTHubDeviceKey", "?")], (false, true, true), &["rapidM2M forwarding"]),
            (&[("DPSIDScopeDefault", "")], (true, false, true), &["Forwarding from The Things Network"]),
            (&[("DeviceIdTemplate", "{name}")], (true, false, true), &["Forwarding from The Things Network"]),
            (
                &[("ThingsNetworkWebhookSecret", "short")],
                (true, false, false),
                &["Forwarding from The Things Network", "The webhook"],
            ),
            (
                &[("M2MDocumentsDBUri", "")],
                (false, false, true),
                &["rapidM2M forwarding", "Forwarding from The Things Network"],
            ),
            (&[("IoTHubTransport", "smoke")], (false, false, true), &["rapidM2M", "Forwarding from"]),
            (&[("UplinkQueueName", "")], (true, false, false), &[]),
        ] {
            let setup = read(change);
            let sentences = setup.faults.sentences();
            assert_eq!(works(&setup), expected, "{change:?}: {sentences:?}");
            assert_eq!(sentences.len(), named.len(), "{change:?}: {sentences:?}");
            for (sentence, named) in sentences.iter().zip(named) {
                assert!(sentence.starts_with(named), "{change:?}: {sentence}");
            }
        }
    }

    #[test]
    fn webhooks_wait_for_a_vault_that_may_have_their_secret() {
        let mut outside = Problems::default();
        outside.add("KeyVaultURI", "names a vault that does not answer");
        let all = || SHARED.into_iter().chain(THINGS_NETWORK);
        let setup = Setup::read(&all().collect(), Some(&outside));
        assert_eq!(works(&setup), (false, true, false));
        assert!(setup.faults.sentences()[0].starts_with("The webhook for The Things Network does not work until"));
        let with_secret = all().chain([("ThingsNetworkWebhookSecret", "a secret of some length")]);
        assert_eq!(works(&Setup::read(&with_secret.collect(), Some(&outside))), (false, true, true));
    }

    #[test]
    fn without_any_setting_it_says_what_to_set() {
        let setup = Setup::read(&Settings::default(), None);
        assert_eq!(works(&setup), (false, false, false));
        assert!(setup.faults.sentences()[0].contains("no settings found: set M2MBackendURL"), "{:?}", setup.faults);
    }
}
