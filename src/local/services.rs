//! Which services are real and which are emulated, and the settings that lead the handler to them.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use emulators::{cosmos, iot_hub, rapidm2m};
use iothub_connector::{
    config::{
        Config,
        hub::Identity,
        rapidm2m::{Selection, SourceConfig},
    },
    hub::Transport,
};

use crate::cli::settings;

pub type Settings = BTreeMap<String, String>;

/// A service is real as soon as one of these is set; then none of them is made up. What only tunes it, such as
/// `PollConcurrency`, does not count and holds for an emulated service too.
const OF_RAPIDM2M: [&str; 5] =
    ["M2MBackendURL", "Base64encodedUsernamePassword", "Customer_ID", "Site_ID", "Channelnames"];
const OF_COSMOS: [&str; 2] = ["M2MDocumentsDBUri", "M2MDocumentsDBPrimaryKey"];
const OF_IOT_HUB: [&str; 12] = [
    "IoTHubConnection",
    "IoTHubURL",
    "IoTHubDeviceId",
    "IoTHubSharedAccessSignature",
    "IoTHubDeviceKey",
    "IoTHubTrustedCa",
    "DPSGlobalDeviceEndpoint",
    "DPSGlobaDeviceEndpoint",
    "DPSIDScope",
    "DPSIDScopeDefault",
    "DPSEnrollmentGroupSymmetricKey",
    "DPSEnrollmentGroupSymmetricKeyDefault",
];
const DEVICE: &str = "local-demo";
/// Seconds between two questions how a registration stands; the real service says 3.
const DPS_RETRY_AFTER: u32 = 1;

/// The emulators that run, and everything the handler is told.
pub struct Services {
    pub settings: Settings,
    pub iot_hub: Option<iot_hub::Emulator>,
    rapidm2m: Option<rapidm2m::Emulator>,
    cosmos: Option<cosmos::Emulator>,
    why_real: Vec<String>,
}

/// A line of the introduction.
pub struct Row {
    pub service: &'static str,
    pub is_emulated: bool,
    pub place: String,
    pub details: String,
}

impl Services {
    /// Starts an emulator for every service that the file does not set.
    /// With `device_per_site`, an emulated hub gets its devices from an emulated DPS.
    pub async fn start(file: Option<&Path>, interval: Option<u32>, device_per_site: bool) -> anyhow::Result<Self> {
        let mut settings = file.map_or(Ok(Settings::new()), settings::read)?;
        let mut why_real = Vec::new();
        let mut is_real = |service: &str, names: &[&str]| {
            let name = names.iter().find(|name| settings.contains_key(**name));
            why_real.extend(name.map(|name| {
                format!("({service} is real because {name} is set; it is emulated when none of its settings is)")
            }));
            name.is_some()
        };
        let emulation_mode = settings.get("EmulationMode").is_some_and(|flag| flag.trim().eq_ignore_ascii_case("true"));
        let real_rapidm2m = is_real("rapidM2M", &OF_RAPIDM2M) || emulation_mode;
        let real_cosmos = is_real("Cosmos DB", &OF_COSMOS);
        let real_iot_hub = is_real("IoT Hub", &OF_IOT_HUB);
        ensure!(
            !(real_iot_hub && device_per_site),
            "--device-per-site is for the emulated hub; for a real one set DPSIDScope and DPSEnrollmentGroupSymmetricKey"
        );
        let mut set = |name: &str, value: &str| settings.insert(name.to_owned(), value.to_owned());

        let mut rapidm2m = None;
        if !real_rapidm2m {
            let mut options = rapidm2m::Options::default();
            options.interval = interval.map_or(options.interval, f64::from);
            let customer = options.customer.clone();
            let emulator = rapidm2m::start(options).await.context("cannot emulate the rapidM2M backend")?;
            let ready = emulator.ready();
            set("M2MBackendURL", &ready.endpoint);
            let credentials = format!("{}:{}", ready.user, ready.password);
            set("Base64encodedUsernamePassword", &BASE64_STANDARD.encode(credentials));
            set("Customer_ID", &customer);
            set("Site_ID", "*");
            set("Channelnames", "*");
            rapidm2m = Some(emulator);
        }
        let mut cosmos = None;
        if !real_cosmos {
            let emulator = cosmos::start(cosmos::Options::default()).await.context("cannot emulate Cosmos DB")?;
            set("M2MDocumentsDBUri", &emulator.ready().endpoint);
            set("M2MDocumentsDBPrimaryKey", &emulator.ready().key);
            cosmos = Some(emulator);
        }
        let mut iot_hub = None;
        if !real_iot_hub {
            let mut options = iot_hub::Options::default();
            options.dps_options.dps_retry_after = DPS_RETRY_AFTER;
            let emulator = iot_hub::start(options).await.context("cannot emulate IoT Hub")?;
            let ready = emulator.ready();
            if device_per_site {
                set("DPSGlobalDeviceEndpoint", &ready.dps);
                set("DPSIDScope", &ready.id_scope);
                set("DPSEnrollmentGroupSymmetricKey", &ready.group_key);
            } else {
                set("IoTHubURL", &ready.mqtt);
                set("IoTHubDeviceId", DEVICE);
                set("IoTHubDeviceKey", &ready.key);
            }
            set("IoTHubTrustedCa", ready.ca.to_str().context("the directory for temporary files is not UTF-8")?);
            iot_hub = Some(emulator);
        }
        if rapidm2m.is_some() {
            // So that there is something to see at once.
            settings.entry("StartFrom".to_owned()).or_insert_with(|| "all".to_owned());
        }
        Ok(Self { settings, iot_hub, rapidm2m, cosmos, why_real })
    }

    /// For each real service, the setting that made it so.
    pub fn why_real(&self) -> &[String] {
        &self.why_real
    }

    /// The sites, as far as they are known before the first run.
    pub fn site_names(&self, config: &Config) -> Vec<String> {
        match (&self.rapidm2m, config.rapidm2m.as_ref().map(|rapidm2m| &rapidm2m.sites)) {
            (Some(emulator), _) => emulator.site_names(),
            (None, Some(Selection::Named(sites))) => sites.clone(),
            (None, _) => Vec::new(),
        }
    }

    pub fn rows(&self, config: &Config) -> Vec<Row> {
        let (ledger, hub) = (&config.ledger, &config.hub);
        let mut rows = Vec::new();
        if let Some(rapidm2m) = &config.rapidm2m {
            let place = match &rapidm2m.source {
                SourceConfig::Backend { url, .. } => url.to_string(),
                SourceConfig::Emulation => "none, made-up rows (EmulationMode=true)".to_owned(),
            };
            rows.push(Row {
                service: "rapidM2M backend",
                is_emulated: self.rapidm2m.is_some(),
                place,
                details: format!("customer {:?}", rapidm2m.customer),
            });
        }
        rows.push(Row {
            service: "Cosmos DB",
            is_emulated: self.cosmos.is_some(),
            place: ledger.endpoint.to_string(),
            details: format!("{}/{}", ledger.database, ledger.container),
        });
        let scheme = match hub.transport {
            Transport::MqttWs => "wss",
            Transport::Https => "https",
            _ => "mqtts",
        };
        let (place, details) = match &hub.identity {
            Some(Identity::One(device)) => {
                (format!("{scheme}://{}", device.endpoint), format!("device {:?}", device.id))
            }
            Some(Identity::Provisioned(dps)) => {
                rows.push(Row {
                    service: "DPS",
                    is_emulated: self.iot_hub.is_some(),
                    place: format!("https://{}", dps.endpoint),
                    details: format!("ID scope {}", dps.id_scope),
                });
                (format!("{scheme}://…, as assigned"), "a device for each site".to_owned())
            }
            None => (format!("{scheme}://…, as assigned"), String::new()),
        };
        rows.push(Row { service: "IoT Hub", is_emulated: self.iot_hub.is_some(), place, details });
        rows
    }
}
