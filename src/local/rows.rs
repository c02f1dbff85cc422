//! Builds the introduction's table: where each service is, and whether it is real.

use std::fmt::Display;

use emulators::functions_host::Ready;

use iothub_connector::{
    config::{Config, hub::Identity, rapidm2m::SourceConfig},
    iot_hub::{
        Transport,
        devices::enrollment::{Enrollment, EnrollmentGroup},
    },
};
use serde::Serialize;
use url::Url;

use super::services::Services;

/// A line of the introduction.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    #[serde(rename = "name")]
    pub service: &'static str,
    #[serde(rename = "emulated")]
    pub is_emulated: bool,
    #[serde(rename = "at")]
    pub place: String,
    #[serde(skip)]
    pub details: String,
}

impl Services {
    /// `host` says where each queue is.
    pub fn rows(&self, config: &Config, host: &Ready) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |service, is_emulated, place, details| {
            let row = Row { service, is_emulated, place, details };
            // Several groups of one service make one row.
            if !rows.contains(&row) {
                rows.push(row);
            }
        };
        let is_emulated_account = host.storage.is_some() || self.storage.is_some();
        if let Some(rapidm2m) = &config.rapidm2m {
            let place = match &rapidm2m.source {
                SourceConfig::Backend { url, .. } => url.to_string(),
                SourceConfig::Emulation => "none, simulated rows (EmulationMode=true)".to_owned(),
            };
            add("rapidM2M backend", self.rapidm2m.is_some(), place, rapidm2m.customer.clone());
        }
        if let Some(things_network) = &config.things_network {
            let (place, details) = match &self.things_stack {
                Some(stack) => {
                    let details = format!("{} devices, an uplink each every {} s", stack.devices.len(), stack.interval);
                    (stack.emulator.ready().endpoint.clone(), details)
                }
                None => ("wherever its webhooks come from".to_owned(), String::new()),
            };
            add("The Things Stack", self.things_stack.is_some(), place, details);
            let queue = &things_network.webhooks.queue;
            // The path has the account's name, for some accounts, and the queue's.
            let place = host.queues.get(queue).and_then(|url| Url::parse(url).ok());
            let place = place.map_or_else(String::new, |url| format!("{}/", url.origin().ascii_serialization()));
            add("Storage queue", is_emulated_account, place, queue.clone());
        }
        if let Some(queue) = config.rapidm2m.as_ref().and_then(|rapidm2m| rapidm2m.queue.as_ref()) {
            let place = host.queues.get(&queue.name).and_then(|url| Url::parse(url).ok());
            let place = place.map_or_else(String::new, |url| format!("{}/", url.origin().ascii_serialization()));
            add("Storage queue", is_emulated_account, place, format!("{}, batches of sites", queue.name));
        }
        let account = &config.ledger.account;
        add("Cosmos DB", self.cosmos.is_some(), account.endpoint.to_string(), config.ledger.container.clone());

        let is_emulated = self.iot_hub.is_some();
        let scheme = match config.hub.transport {
            Transport::MqttWs => "wss",
            Transport::Https => "https",
            _ => "mqtts",
        };
        let at_hub = |host: &dyn Display| format!("{scheme}://{host}");
        let at_dps = |group: &EnrollmentGroup| format!("https://{}", group.endpoint);
        for enrollment in config.things_network.iter().flat_map(|things_network| things_network.enrollments.iter()) {
            match enrollment {
                Enrollment::Dps(group) => add("DPS", is_emulated, at_dps(group), "LoRaWAN devices".to_owned()),
                Enrollment::Hub(of) => add("IoT Hub", is_emulated, at_hub(&of.hub), "LoRaWAN devices".to_owned()),
            }
        }
        if let Some(Identity::Provisioned(group)) = &config.hub.identity {
            add("DPS", is_emulated, at_dps(group), "a device for each site".to_owned());
        }
        match (&config.hub.identity, &self.iot_hub) {
            (Some(Identity::One(device)), _) => {
                add("IoT Hub", is_emulated, at_hub(&device.endpoint), format!("sites are {}", device.id));
            }
            (_, Some(emulator)) => add("IoT Hub", is_emulated, at_hub(&emulator.ready().mqtt), String::new()),
            (_, None) => {}
        }
        rows
    }
}
