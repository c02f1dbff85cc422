//! Lists all settings that a Key Vault can hold: those that `config` reads, except `KeyVaultURI` itself and the storage
//! account's settings, which the host needs earlier. No I/O.

use super::{KEY_VAULT, Settings, dps, enrollment, methods, storage};

/// Settings with one fixed name.
const FIXED: &[&str] = &[
    "Base64encodedUsernamePassword",
    "Channelnames",
    "ConfirmDownlinks",
    "Customer_ID",
    "DPSGlobaDeviceEndpoint",
    "DPSGlobalDeviceEndpoint",
    "DeviceActivitySeconds",
    "DeviceIdTemplate",
    "DownlinkPollDevices",
    "DownlinkPollSeconds",
    "EmulationMode",
    "FailedSitesThreshold",
    "ForwardCorrections",
    "ForwardTimeoutSeconds",
    "FunctionAppKey",
    "FunctionAppUrl",
    "Histdata",
    "IoTHubConnection",
    "IoTHubDeviceId",
    "IoTHubDeviceKey",
    "IoTHubMaxConnections",
    "IoTHubSharedAccessSignature",
    "IoTHubTransport",
    "IoTHubTrustedCa",
    "IoTHubURL",
    "M2MBackendURL",
    "M2MDocumentsDBCollection",
    "M2MDocumentsDBName",
    "M2MDocumentsDBPrimaryKey",
    "M2MDocumentsDBUri",
    "OverlapSeconds",
    "PollBatchSites",
    "PollConcurrency",
    "PollHistoryDays",
    "PollQueueName",
    "PollTimeoutSeconds",
    "RecordEmptyPolls",
    "MarkWithinSeconds",
    "BackendRequestsPerSecond",
    "SweepMinutes",
    "Site_ID",
    "StartFrom",
    "ThingsNetworkDirectMilliseconds",
    "ThingsNetworkEvents",
    "ThingsNetworkMembers",
    "ThingsNetworkWebhookSecret",
    "ThingsStackApiKey",
    "ThingsStackDownlinkApiKey",
    "ThingsStackUrl",
    "UplinkQueueName",
];

/// The least likeness of a name that is taken for a misspelt one, from 0 to 1: a slip or two in a name of twelve letters.
const LIKENESS: f64 = 0.8;

/// Settings with any suffix; see [`enrollment`].
const FAMILIES: [&str; 4] =
    [dps::ID_SCOPE[0], dps::GROUP_KEY[0], enrollment::CONNECTION_STRING[0], enrollment::CONNECTION_STRING[1]];

/// The setting that a secret holds. A secret's name consists of letters, digits and `-` and ignores case: any other
/// character of a setting's name is `-` in the secret's name (`Customer-ID`). `None` if there is no such setting.
pub fn of_secret(secret: &str) -> Option<String> {
    let is_called = |name: &&&str| name.replace('_', "-").eq_ignore_ascii_case(secret);
    if let Some(name) = FIXED.iter().find(is_called) {
        return Some((*name).to_owned());
    }
    if let Some(setting) = methods::of_secret(secret) {
        return Some(setting);
    }
    FAMILIES.iter().find_map(|family| {
        let (begin, suffix) = secret.split_at_checked(family.len())?;
        // Application ids have no capitals.
        let suffix = suffix.to_ascii_lowercase();
        let suffix = if suffix == "default" { "Default" } else { &suffix };
        let is_setting = begin.eq_ignore_ascii_case(family) && enrollment::suffix(suffix).is_some();
        is_setting.then(|| format!("{family}{suffix}"))
    })
}

/// Settings that the connector does not know and whose names are like that of one it does: the actual and the correct
/// name. Other unknown names belong to the host or the machine.
pub fn misspelt(settings: &Settings) -> impl Iterator<Item = (&str, String)> {
    settings.names().filter(|name| !is_known(name)).filter_map(|name| {
        let right = of_secret(&name.replace('_', "-")).or_else(|| nearest(name))?;
        (!settings.has(&right)).then_some((name, right))
    })
}

/// Whether some part of the connector reads the setting. What is wrong after the prefix of a family is told by who reads it.
fn is_known(name: &str) -> bool {
    FIXED.contains(&name)
        || [KEY_VAULT, storage::NAME].contains(&name)
        || FAMILIES.iter().chain(&methods::PREFIXES).any(|prefix| name.starts_with(prefix))
}

/// The known setting whose name differs in few letters. A name that only begins like a known one, such as that of a
/// family, is not one of them.
fn nearest(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let rated = FIXED.iter().chain(&[KEY_VAULT, storage::NAME]).map(|known| {
        let likeness = strsim::normalized_damerau_levenshtein(&lower, &known.to_ascii_lowercase());
        (likeness, *known)
    });
    let (likeness, known) = rated.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= LIKENESS).then(|| known.to_owned())
}

/// Maps all names of one setting to the same text.
pub fn identity(setting: &str) -> String {
    if dps::ENDPOINT.contains(&setting) {
        return dps::ENDPOINT[0].to_owned();
    }
    if methods::PREFIXES.iter().any(|prefix| setting.starts_with(prefix)) {
        return setting.replace(':', "__").to_ascii_lowercase();
    }
    let of_family = FAMILIES.iter().find_map(|family| {
        let suffix = enrollment::suffix(setting.strip_prefix(family)?)?;
        let family =
            if enrollment::CONNECTION_STRING.contains(family) { enrollment::CONNECTION_STRING[0] } else { family };
        Some(format!("{family}-{suffix}"))
    });
    of_family.unwrap_or_else(|| setting.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, KEY_VAULT};

    /// Reads the settings in every possible way: together, these runs read every name.
    #[test]
    fn the_names_are_those_that_the_code_asks_for() {
        let rapidm2m = [("Customer_ID", "c")];
        let one = [("IoTHubDeviceId", "d"), ("IoTHubURL", "h.net")];
        let connection = [("IoTHubConnection", "x")];
        let provisioned = [("DPSIDScope", "0ne1"), ("DPSEnrollmentGroupSymmetricKey", "c2VjcmV0")];
        let things_network = [("UplinkQueueName", "uplinks")];
        let mut asked = BTreeSet::new();
        for of_rapidm2m in [&one[..], &connection, &provisioned] {
            let settings: Settings = rapidm2m.iter().chain(of_rapidm2m).chain(&things_network).copied().collect();
            // Most values are wrong. Their names are read all the same.
            drop(Config::from_settings(&settings));
            asked.extend(settings.asked());
        }
        // Only commands read these.
        let settings = Settings::default();
        let problems = &mut crate::config::Problems::default();
        crate::config::things_stack::read(&settings, problems);
        crate::config::things_stack::read_webhook(&settings, problems);
        asked.extend(settings.asked());
        // The host needs it before the vault is read.
        asked.retain(|name| !name.contains("AzureStorageConnectionString"));
        let families = || FAMILIES.iter().chain(&methods::PREFIXES);
        let is_listed =
            |name: &&String| FIXED.contains(&name.as_str()) || families().any(|family| name.starts_with(family));
        let unlisted: Vec<_> = asked.iter().filter(|name| !is_listed(name)).collect();
        assert_eq!(unlisted, [KEY_VAULT; 0], "they are read, but not looked up in a Key Vault");
        let all = FIXED.iter().chain(families());
        let unread: Vec<_> = all.filter(|name| !asked.contains(**name)).collect();
        assert_eq!(unread, [&""; 0], "they are looked up, but nobody reads them");
    }

    #[test]
    fn a_secret_holds_the_setting_that_it_can_be_called_after() {
        for (secret, setting) in [
            ("Site-ID", "Site_ID"),
            ("IoTHubDeviceKey", "IoTHubDeviceKey"),
            ("iothubdevicekey", "IoTHubDeviceKey"),
            ("DPSIDScope", "DPSIDScope"),
            ("dpsidscopedefault", "DPSIDScopeDefault"),
            ("DPSEnrollmentGroupSymmetricKey-Pumps-10", "DPSEnrollmentGroupSymmetricKey-pumps-10"),
            ("AzureIotHubConnectionString-pumps", "AzureIotHubConnectionString-pumps"),
        ] {
            assert_eq!(of_secret(secret).as_deref(), Some(setting), "{secret}");
        }
        for other in [
            "",
            "Password",
            "DPSIDScopes",
            "DPSIDScope-",
            "Site-ID-2",
            "KeyVaultURI",
            "ÄÖÜÄÖÜ",
            "AzureStorageConnectionString",
        ] {
            assert_eq!(of_secret(other), None, "{other}");
        }
    }

    #[test]
    fn unknown_settings_are_told_with_the_nearest_known_one() {
        let settings: Settings = [
            ("Site_Id", "x"),
            ("customer_id", "x"),
            ("Customer_ID", "x"),
            ("dpsidscopedefault", "x"),
            ("DPSIDScope__pumps", "x"),
            ("Path", "x"),
            ("HOME", "x"),
            ("AzureWebJobsStorage", "x"),
            ("DPSIDScope-pumps", "x"),
            ("AzureIoTHubConnectionString__a__7", "x"),
            ("AzureStorageConnectionString", "x"),
            ("Chanelnames", "x"),
            ("IotHubUrl", "x"),
            ("UplinkQueue", "x"),
        ]
        .into_iter()
        .collect();
        let misspelt: Vec<_> = misspelt(&settings).collect();
        let expected = [
            ("Chanelnames", "Channelnames"),
            ("IotHubUrl", "IoTHubURL"),
            ("Site_Id", "Site_ID"),
            ("dpsidscopedefault", "DPSIDScopeDefault"),
        ];
        assert_eq!(misspelt, expected.map(|(name, right)| (name, right.to_owned())));
    }

    #[test]
    fn other_names_of_a_setting_are_the_same_setting() {
        for (one, other) in [
            ("DPSIDScope", "DPSIDScopeDefault"),
            ("DPSIDScope__pumps__10", "DPSIDScope-pumps-10"),
            ("DPSGlobaDeviceEndpoint", "DPSGlobalDeviceEndpoint"),
            ("AzureIotHubConnectionStringDefault", "AzureIoTHubConnectionString"),
        ] {
            assert_eq!(identity(one), identity(other));
        }
        let commands = ["AzureIoT__IoTCentral__Methods__Off__Port", "AzureIoT:IoTCentral:Methods:off:port"];
        assert_eq!(identity(commands[0]), identity(commands[1]));
        assert_ne!(identity("DPSIDScope"), identity("DPSIDScope-pumps"));
        assert_ne!(identity("DPSIDScope"), identity("DPSEnrollmentGroupSymmetricKey"));
        assert_eq!(identity("Site_ID"), "Site_ID");
    }
}
