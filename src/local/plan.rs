//! Decides what is real, what is emulated, and which half of the connector is off. Pure: only the settings decide.

use std::collections::BTreeMap;

/// Settings by name.
pub type Settings = BTreeMap<String, String>;

/// A service is real if one of these is set; then no other one is invented. Settings that only tune a service, such as
/// `PollConcurrency`, do not count. They apply to an emulated service too.
const OF_RAPIDM2M: [&str; 5] =
    ["M2MBackendURL", "Base64encodedUsernamePassword", "Customer_ID", "Site_ID", "Channelnames"];
const OF_COSMOS: [&str; 2] = ["M2MDocumentsDBUri", "M2MDocumentsDBPrimaryKey"];
const OF_IOT_HUB: [&str; 8] = [
    "IoTHubConnection",
    "IoTHubURL",
    "IoTHubDeviceId",
    "IoTHubSharedAccessSignature",
    "IoTHubDeviceKey",
    "IoTHubTrustedCa",
    "DPSGlobalDeviceEndpoint",
    "DPSGlobaDeviceEndpoint",
];
/// The same with any suffix, such as `DPSIDScope-myapplication`.
const OF_IOT_HUB_WITH_SUFFIX: [&str; 4] =
    ["DPSIDScope", "DPSEnrollmentGroupSymmetricKey", "AzureIotHubConnectionString", "AzureIoTHubConnectionString"];
/// The host looks for the second name first. With a suffix that begins with `__`, the setting means an identity.
pub const OF_STORAGE: [&str; 2] = ["AzureStorageConnectionString", "AzureWebJobsAzureStorageConnectionString"];
pub const QUEUE: &str = "UplinkQueueName";

/// The source of a half's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Emulated,
    Real,
    /// No source: the half does not run.
    Off,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub rapidm2m: Source,
    pub things_stack: Source,
    pub has_real_cosmos: bool,
    pub has_real_iot_hub: bool,
    /// For each real service, the setting that made it real.
    pub why_real: Vec<String>,
}

impl Plan {
    /// Emulated data must never register devices at a real service or enter a real queue, where others may take it for
    /// real data. So The Things Stack is emulated only if neither the hub nor the storage account is real. With a real
    /// hub, a half runs if its own settings request it. Emulated rapidM2M rows reach a real hub only as the one
    /// configured device, and only if the settings configure no other work.
    pub fn new(settings: &Settings) -> Self {
        let mut why_real = Vec::new();
        let mut is_real = |service: &str, is_its_own: &dyn Fn(&str) -> bool| {
            let name = settings.keys().find(|name| is_its_own(name));
            why_real.extend(name.map(|name| {
                format!("({service} is real because {name} is set; it is emulated when none of its settings is)")
            }));
            name.is_some()
        };
        let emulation_mode = settings.get("EmulationMode").is_some_and(|flag| flag.trim().eq_ignore_ascii_case("true"));
        let has_real_rapidm2m = is_real("rapidM2M", &|name| OF_RAPIDM2M.contains(&name)) || emulation_mode;
        let has_real_cosmos = is_real("Cosmos DB", &|name| OF_COSMOS.contains(&name));
        let has_real_iot_hub = is_real("IoT Hub", &|name| {
            OF_IOT_HUB.contains(&name) || OF_IOT_HUB_WITH_SUFFIX.iter().any(|prefix| name.starts_with(prefix))
        });
        let is_of_storage = |name: &str| OF_STORAGE.iter().any(|prefix| name.starts_with(prefix));
        is_real("the storage queue", &is_of_storage);
        let has_real_account =
            settings.iter().any(|(name, value)| is_of_storage(name) && !is_development_storage(value));
        let has_queue = settings.contains_key(QUEUE);
        let has_device = ["IoTHubConnection", "IoTHubDeviceId"].iter().any(|name| settings.contains_key(*name));
        let registers_sites = !has_device && settings.keys().any(|name| name.starts_with("DPS"));
        Self {
            rapidm2m: match (has_real_rapidm2m, has_real_iot_hub && (has_queue || registers_sites)) {
                (true, _) => Source::Real,
                (false, true) => Source::Off,
                (false, false) => Source::Emulated,
            },
            things_stack: match (has_real_iot_hub || has_real_account, has_queue) {
                (false, _) => Source::Emulated,
                (true, true) => Source::Real,
                (true, false) => Source::Off,
            },
            has_real_cosmos,
            has_real_iot_hub,
            why_real,
        }
    }
}

/// Azurite on any machine: it holds no real data.
fn is_development_storage(connection_string: &str) -> bool {
    let text: String = connection_string.to_ascii_lowercase().split_whitespace().collect();
    text.split(';').any(|part| matches!(part, "usedevelopmentstorage=true" | "accountname=devstoreaccount1"))
}

#[cfg(test)]
mod tests {
    use super::{Source::*, *};

    fn plan(pairs: &[(&str, &str)]) -> Plan {
        Plan::new(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_not_set_is_emulated() {
        for tuned in [&[][..], &[("PollConcurrency", "4"), ("DeviceIdTemplate", "{dev_eui}"), (QUEUE, "mine")]] {
            let expected = Plan {
                rapidm2m: Emulated,
                things_stack: Emulated,
                has_real_cosmos: false,
                has_real_iot_hub: false,
                why_real: Vec::new(),
            };
            assert_eq!(plan(tuned), expected);
        }
    }

    #[test]
    fn every_setting_of_a_hub_keeps_made_up_devices_away_from_it() {
        for name in [
            "IoTHubURL",
            "IoTHubTrustedCa",
            "DPSIDScope",
            "DPSIDScopeDefault",
            "DPSIDScope-pumps",
            "DPSEnrollmentGroupSymmetricKey__pumps__7",
            "AzureIotHubConnectionString",
            "AzureIoTHubConnectionString-pumps",
            "DPSGlobaDeviceEndpoint",
        ] {
            let plan = plan(&[(name, "x")]);
            assert!(plan.has_real_iot_hub && plan.why_real[0].contains(name), "{name}");
            let expected = if name.starts_with("DPS") { Off } else { Emulated };
            assert_eq!((plan.rapidm2m, plan.things_stack), (expected, Off), "{name}");
        }
    }

    #[test]
    fn each_half_runs_at_a_real_hub_if_it_is_asked_for() {
        let hub = ("DPSIDScope", "0ne1");
        let halves = |more: &[(&str, &str)]| {
            let plan = plan(&[&[hub], more].concat());
            (plan.rapidm2m, plan.things_stack)
        };
        assert_eq!(halves(&[(QUEUE, "q")]), (Off, Real));
        assert_eq!(halves(&[(QUEUE, "q"), ("Customer_ID", "c")]), (Real, Real));
        assert_eq!(halves(&[(QUEUE, "q"), ("EmulationMode", "True")]), (Real, Real));
        assert_eq!(halves(&[("Customer_ID", "c")]), (Real, Off));
        assert_eq!(halves(&[("IoTHubDeviceId", "one")]), (Emulated, Off));
    }

    #[test]
    fn nothing_is_made_up_in_a_real_account() {
        let stack = |connection: &str| plan(&[("AzureStorageConnectionString", connection)]).things_stack;
        assert_eq!(stack("DefaultEndpointsProtocol=https;AccountName=mine;AccountKey=c2VjcmV0"), Off);
        assert_eq!(stack("UseDevelopmentStorage=true"), Emulated);
        assert_eq!(stack("DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=a2V5"), Emulated);
        let identity = plan(&[("AzureStorageConnectionString__queueServiceUri", "https://mine"), (QUEUE, "q")]);
        assert_eq!((identity.rapidm2m, identity.things_stack), (Emulated, Real));
    }
}
