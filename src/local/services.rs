//! Starts the emulators and makes the settings that point the handler to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use emulators::{cosmos, iot_hub, rapidm2m, storage, things_stack};
use iothub_connector::config::{
    self, KEY_VAULT,
    key_vault::{self, Completed},
    things_network,
};
use reqwest::{Method, Url, header::CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    fault::Service,
    plan::{OF_STORAGE, Plan, QUEUE, Settings, Source},
};
use crate::cli::{exit::Usage, settings};

/// The functions of the two halves, by the names of their folders.
pub const RAPIDM2M: &str = "rapidM2MForwarding";
pub const SITES: &str = "rapidM2MSites";
pub const UPLINK: &str = "thingsNetworkUplink";
pub const FORWARDING: &str = "thingsNetworkForwarding";
pub const DOWNLINKS: &str = "thingsNetworkDownlinks";
/// Where the Functions host takes webhooks.
pub const ROUTE: &str = "api/uplink";
/// The page that shows the state of everything. It is also at the root.
pub const STATUS: &str = "status";
pub const STATUS_ROUTE: &str = "api/status";

const DEVICE: &str = "local-demo";
const DEFAULT_QUEUE: &str = "uplinks";
const POLL_QUEUE: &str = "PollQueueName";
const DOWNLINK_POLL: &str = "DownlinkPollSeconds";
const DEFAULT_POLL_QUEUE: &str = "polls";
/// With several instances: so many emulated sites, in batches of so many, one at a time in each instance.
const FLEET: usize = 30;
const FLEETS_BATCH: &str = "5";
const ONE_AT_A_TIME: [(&str, &str); 2] = [
    ("AzureFunctionsJobHost__extensions__queues__batchSize", "1"),
    ("AzureFunctionsJobHost__extensions__queues__newBatchThreshold", "0"),
];
/// Seconds of rows that there are at the start, with `--with-trouble`.
const A_DAY: f64 = 86_400.0;
/// The other sites of `--with-trouble`, and how many hours ago they had their rows.
const FAILING: &str = "Old pump house";
const SILENT: &str = "Spring 3";
const SILENT_FOR: RangeInclusive<i64> = 26..=36;
/// Seconds between two requests for the state of a registration. The real service says 3.
const DPS_RETRY_AFTER: u32 = 1;
const LORAWAN_DEVICES: usize = 3;
const APPLICATIONS: usize = 2;
/// Seconds between two uplinks of a device.
const UPLINK_INTERVAL: u32 = 5;
/// Uplinks that the emulated Things Stack keeps for its control endpoint.
const KEPT_UPLINKS: usize = 1000;
/// Seconds until the status page shows an uplink.
const ACTIVITY: &str = "2";
/// Share of joins and other events, if they are forwarded at all.
const EVENTS: f64 = 0.2;

/// The running emulators, and all settings of the handler.
pub struct Services {
    pub plan: Plan,
    pub settings: Settings,
    pub iot_hub: Option<iot_hub::Emulator>,
    pub rapidm2m: Option<rapidm2m::Emulator>,
    pub cosmos: Option<cosmos::Emulator>,
    pub things_stack: Option<Stack>,
    /// The account that several hosts share. One host alone emulates its own.
    pub storage: Option<storage::Emulator>,
    /// The settings that commands of another terminal get.
    pub published: Settings,
    /// The site of the examples that people can copy.
    pub site: Option<String>,
    /// Functions that are off.
    pub without: Vec<String>,
}

/// The emulated Things Stack.
pub struct Stack {
    pub emulator: things_stack::Emulator,
    pub devices: Vec<LorawanDevice>,
    /// Seconds between two uplinks of a device.
    pub interval: u32,
}

/// A device of the emulated Things Stack.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LorawanDevice {
    pub application: String,
    pub device: String,
    pub dev_eui: String,
}

impl Services {
    /// Starts an emulator for every service that the file does not set. With `device_per_site`, an emulated hub gets
    /// the sites' devices from an emulated DPS. With several `instances`, sites are polled through a queue.
    pub async fn start(
        file: Option<&Path>,
        interval: Option<u32>,
        device_per_site: bool,
        instances: usize,
        has_trouble: bool,
    ) -> anyhow::Result<Self> {
        let (mut settings, from_vault) = match file {
            Some(file) => settings_of(file).await?,
            None => Default::default(),
        };
        let given = settings.clone();
        let plan = Plan::new(&settings);
        if plan.has_real_iot_hub && device_per_site {
            let to_do = "for a real one set DPSIDScope and DPSEnrollmentGroupSymmetricKey";
            return Err(Usage(format!("--device-per-site is for the emulated hub; {to_do}")).into());
        }
        let queue = settings.get(QUEUE).map(|name| name.trim());
        if queue == Some("") {
            return Err(Usage(format!("{QUEUE} is set but empty: give it a value or remove it")).into());
        }
        let (rapidm2m, site) = match plan.rapidm2m {
            Source::Emulated => {
                let mut options = rapidm2m_options(interval, instances);
                options.history = if has_trouble { A_DAY } else { options.history };
                let site = options.site_names().into_iter().next();
                let emulator = start_rapidm2m(&mut settings, options).await?;
                if has_trouble {
                    let control = &emulator.ready().control;
                    add_troubled_sites(control).await.context("the emulated backend does not answer")?;
                }
                (Some(emulator), site)
            }
            _ => (None, None),
        };
        if has_trouble && rapidm2m.is_none() {
            return Err(Usage("--with-trouble is for the emulated backend".to_owned()).into());
        }
        ensure!(
            instances == 1 || plan.rapidm2m != Source::Off,
            "--instances is for rapidM2M, which is off: set M2MBackendURL and Customer_ID"
        );
        let storage = if instances > 1 { share_work(&mut settings, !plan.has_real_iot_hub).await? } else { None };
        let cosmos = if plan.has_real_cosmos { None } else { Some(start_cosmos(&mut settings).await?) };
        let iot_hub =
            if plan.has_real_iot_hub { None } else { Some(start_iot_hub(&mut settings, device_per_site).await?) };
        let things_stack = match plan.things_stack {
            Source::Emulated => {
                settings.entry("DeviceActivitySeconds".to_owned()).or_insert_with(|| ACTIVITY.to_owned());
                settings.entry(QUEUE.to_owned()).or_insert_with(|| DEFAULT_QUEUE.to_owned());
                Some(start_things_stack(&settings, interval).await?)
            }
            _ => None,
        };
        let mut without = Vec::new();
        for (is_off, functions) in [
            (plan.rapidm2m == Source::Off, &[RAPIDM2M][..]),
            (plan.rapidm2m == Source::Off || !settings.contains_key(POLL_QUEUE), &[SITES]),
            (plan.things_stack == Source::Off, &[UPLINK, FORWARDING]),
            (plan.things_stack == Source::Off || !settings.contains_key(DOWNLINK_POLL), &[DOWNLINKS]),
        ] {
            without.extend(functions.iter().filter(|_| is_off).map(|function| (*function).to_owned()));
        }
        // With a real service, what a person has set for it does not get into another file. Secrets of a vault never do.
        let is_emulated = plan.why_real.is_empty();
        let is_public = |(name, value): &(&String, &String)| {
            given.get(*name) != Some(*value) || is_emulated && !from_vault.contains(*name)
        };
        let published = settings.iter().filter(is_public).map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Self { plan, settings, iot_hub, rapidm2m, cosmos, things_stack, storage, published, site, without })
    }

    /// The control endpoint of each emulated service.
    pub fn controls(&self) -> BTreeMap<String, String> {
        let controls = [
            (Service::Backend, self.rapidm2m.as_ref().map(|it| &it.ready().control)),
            (Service::Cosmos, self.cosmos.as_ref().map(|it| &it.ready().control)),
            (Service::Hub, self.iot_hub.as_ref().map(|it| &it.ready().control)),
            (Service::ThingsStack, self.things_stack.as_ref().map(|it| &it.emulator.ready().control)),
        ];
        let named =
            |(service, control): (Service, Option<&String>)| Some((service.name().to_owned(), control?.clone()));
        controls.into_iter().filter_map(named).collect()
    }
}

impl Stack {
    /// Starts to send uplinks of every device to the function.
    pub fn send(&self, host: &str, config: &things_network::Config) -> anyhow::Result<()> {
        let target: Url = format!("{host}{ROUTE}").parse().context("the Functions host's URL is none")?;
        self.emulator.send(things_stack::Sending {
            target: Some(target),
            rate: self.devices.len() as f64 / f64::from(self.interval),
            v2_share: 0.0,
            repeat_share: 0.0,
            malformed_share: 0.0,
            event_share: if config.webhooks.events { EVENTS } else { 0.0 },
            plain: true,
            ..things_stack::Sending::default()
        })
    }

    /// How many downlinks were accepted.
    pub async fn downlinks(&self) -> anyhow::Result<u64> {
        /// Does not include downlinks of refused requests.
        #[derive(Deserialize)]
        struct Request {
            downlinks: Vec<serde::de::IgnoredAny>,
        }
        let requests: Vec<Request> = told(&self.emulator.ready().control, "downlinks").await?;
        Ok(requests.iter().map(|request| request.downlinks.len() as u64).sum())
    }
}

/// The settings in the file and those in a Key Vault that the file names, as if all were in the file. A Key Vault that
/// only the environment names is not read. Also returns the names of those from the vault.
async fn settings_of(file: &Path) -> anyhow::Result<(Settings, BTreeSet<String>)> {
    let in_file: config::Settings = settings::read(file)?.into_iter().collect();
    let Completed { settings, from_vault } = key_vault::complete(in_file.of_person()).await?;
    // The settings are complete, so the handler does not need the Key Vault.
    Ok((settings.into_iter().filter(|(name, _)| name != KEY_VAULT).collect(), from_vault))
}

fn set(settings: &mut Settings, name: &str, value: &str) {
    settings.insert(name.to_owned(), value.to_owned());
}

/// Makes the settings with which several hosts share the work. Returns their storage account, if it is emulated.
async fn share_work(settings: &mut Settings, has_emulated_hub: bool) -> anyhow::Result<Option<storage::Emulator>> {
    let defaults =
        [(POLL_QUEUE, DEFAULT_POLL_QUEUE), ("PollBatchSites", FLEETS_BATCH)].into_iter().chain(ONE_AT_A_TIME);
    for (name, value) in defaults {
        settings.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    if has_emulated_hub {
        // Over MQTT the instances would take the device's connection from each other.
        settings.entry("IoTHubTransport".to_owned()).or_insert_with(|| "https".to_owned());
    }
    if settings.keys().any(|name| OF_STORAGE.iter().any(|prefix| name.starts_with(prefix))) {
        return Ok(None);
    }
    let emulator = storage::start(storage::Options::default()).await.context("cannot emulate the storage account")?;
    set(settings, OF_STORAGE[0], &emulator.ready().connection);
    Ok(Some(emulator))
}

fn rapidm2m_options(interval: Option<u32>, instances: usize) -> rapidm2m::Options {
    let defaults = rapidm2m::Options::default();
    rapidm2m::Options {
        sites: (instances > 1).then_some(FLEET),
        interval: interval.map_or(defaults.interval, f64::from),
        ..defaults
    }
}

async fn start_rapidm2m(settings: &mut Settings, options: rapidm2m::Options) -> anyhow::Result<rapidm2m::Emulator> {
    let customer = options.customer.clone();
    let emulator = rapidm2m::start(options).await.context("cannot emulate the rapidM2M backend")?;
    let ready = emulator.ready();
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", ready.user, ready.password));
    set(settings, "M2MBackendURL", &ready.endpoint);
    set(settings, "Base64encodedUsernamePassword", &credentials);
    set(settings, "Customer_ID", &customer);
    set(settings, "Site_ID", "*");
    set(settings, "Channelnames", "*");
    // With this, rows appear at once.
    settings.entry("StartFrom".to_owned()).or_insert_with(|| "all".to_owned());
    Ok(emulator)
}

/// Adds a site that the backend refuses, and one that has been silent for more than a day.
async fn add_troubled_sites(control: &str) -> anyhow::Result<()> {
    for site in [FAILING, SILENT] {
        ask(Method::POST, control, "sites", &json!({ "name": site, "channels": ["ch0"], "generate": false })).await?;
        let rows = SILENT_FOR.rev().map(|hours| {
            let at = Utc::now() - TimeDelta::hours(hours);
            json!([at.format("%Y%m%d%H%M%S000").to_string(), hours])
        });
        let rows: Vec<_> = rows.collect();
        ask(Method::POST, control, "rows", &json!({ "site": site, "container": 0, "rows": rows })).await?;
    }
    ask(Method::PUT, control, "faults", &json!({ "rules": [{ "site": FAILING, "status": 404 }] })).await
}

async fn start_cosmos(settings: &mut Settings) -> anyhow::Result<cosmos::Emulator> {
    let emulator = cosmos::start(cosmos::Options::default()).await.context("cannot emulate Cosmos DB")?;
    set(settings, "M2MDocumentsDBUri", &emulator.ready().endpoint);
    set(settings, "M2MDocumentsDBPrimaryKey", &emulator.ready().key);
    Ok(emulator)
}

async fn start_iot_hub(settings: &mut Settings, device_per_site: bool) -> anyhow::Result<iot_hub::Emulator> {
    let mut options = iot_hub::Options::default();
    options.dps_options.dps_retry_after = DPS_RETRY_AFTER;
    // As in Azure, it knows registered devices only, and refuses commands for others.
    options.strict = true;
    let emulator = iot_hub::start(options).await.context("cannot emulate IoT Hub")?;
    let ready = emulator.ready();
    if !device_per_site {
        register(ready, DEVICE).await.context("the emulated IoT Hub does not answer")?;
        // If a device id is set, DPS serves only The Things Network's devices.
        set(settings, "IoTHubURL", &ready.mqtt);
        set(settings, "IoTHubDeviceId", DEVICE);
        set(settings, "IoTHubDeviceKey", &ready.key);
    }
    set(settings, "DPSGlobalDeviceEndpoint", &ready.dps);
    set(settings, "DPSIDScope", &ready.id_scope);
    set(settings, "DPSEnrollmentGroupSymmetricKey", &ready.group_key);
    let ca = ready.ca.to_str().context("the directory for temporary files is not UTF-8")?;
    set(settings, "IoTHubTrustedCa", ca);
    Ok(emulator)
}

/// Registers a device with the hub's key of devices.
async fn register(hub: &iot_hub::Ready, device: &str) -> anyhow::Result<()> {
    ask(Method::PUT, &hub.control, &format!("devices?device={device}"), &json!({ "key": hub.key })).await
}

/// Tells an emulator's control endpoint something.
async fn ask(method: Method, control: &str, path: &str, what: &Value) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.request(method, format!("{control}{path}")).body(what.to_string());
    request.header(CONTENT_TYPE, "application/json").send().await?.error_for_status()?;
    Ok(())
}

async fn start_things_stack(settings: &Settings, interval: Option<u32>) -> anyhow::Result<Stack> {
    let secret = settings.get("ThingsNetworkWebhookSecret");
    let header = secret.map(|secret| format!("X-Webhook-Secret: {secret}").parse::<things_stack::Header>());
    let header =
        header.transpose().map_err(|_| anyhow::anyhow!("ThingsNetworkWebhookSecret is not a value of a header"))?;
    let options = things_stack::Options {
        devices: LORAWAN_DEVICES,
        applications: APPLICATIONS,
        keep_uplinks: KEPT_UPLINKS,
        headers: header.into_iter().collect(),
        ..things_stack::Options::default()
    };
    let emulator = things_stack::start(options).await.context("cannot emulate The Things Stack")?;
    let devices =
        told(&emulator.ready().control, "devices").await.context("the emulated Things Stack does not answer")?;
    Ok(Stack { emulator, devices, interval: interval.unwrap_or(UPLINK_INTERVAL) })
}

/// The answer of the emulator's control endpoint.
async fn told<T: DeserializeOwned>(control: &str, what: &str) -> anyhow::Result<T> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.get(format!("{control}{what}")).send().await?.error_for_status()?;
    Ok(serde_json::from_slice(&answer.bytes().await?)?)
}
