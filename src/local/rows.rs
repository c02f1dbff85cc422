//! The introduction's table: which service is where, and whether it is real.

use std::{collections::BTreeMap, fmt::Display};

use iothub_connector::{
    config::{Config, hub::Identity, rapidm2m::SourceConfig},
    iot_hub::{
        Transport,
        devices::enrollment::{Enrollment, EnrollmentGroup},
    },
};

use super::services::Services;

/// A line of the introduction.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    pub service: &'static str,
    pub is_emulated: bool,
    pub place: String,
    pub details: String,
}

impl Services {
    /// `queues`: where each queue is.
    pub fn rows(&self, config: &Config, queues: &BTreeMap<String, String>) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(rapidm2m) = &config.rapidm2m {
            let place = match &rapidm2m.source {
                SourceConfig::Backend { url, .. } => url.to_string(),
                SourceConfig::Emulation => "none, made-up rows (EmulationMode=true)".to_owned(),
            };
            let details = format!("customer {:?}", rapidm2m.customer);
            rows.push(Row { service: "rapidM2M backend", is_emulated: self.rapidm2m.is_some(), place, details });
        }
        if let Some(things_network) = &config.things_network {
            let (place, details) = match &self.things_stack {
                Some(stack) => {
                    let details = format!("{} devices, an uplink each every {} s", stack.devices.len(), stack.interval);
                    (stack.emulator.ready().endpoint.clone(), details)
                }
                None => ("wherever its webhooks come from".to_owned(), String::new()),
            };
            rows.push(Row { service: "The Things Stack", is_emulated: self.things_stack.is_some(), place, details });
            let queue = &things_network.queue;
            let place = queues.get(queue).cloned().unwrap_or_default();
            let is_emulated = place == "memory";
            rows.push(Row { service: "Storage queue", is_emulated, place, details: format!("{queue:?}") });
        }
        let ledger = &config.ledger;
        rows.push(Row {
            service: "Cosmos DB",
            is_emulated: self.cosmos.is_some(),
            place: ledger.account.endpoint.to_string(),
            details: format!("{}/{}", ledger.account.database, ledger.container),
        });
        self.add_hubs(config, &mut rows);
        rows
    }

    /// The services that devices are provisioned by, and the hubs.
    fn add_hubs(&self, config: &Config, rows: &mut Vec<Row>) {
        let is_emulated = self.iot_hub.is_some();
        let scheme = match config.hub.transport {
            Transport::MqttWs => "wss",
            Transport::Https => "https",
            _ => "mqtts",
        };
        let dps = |config: &EnrollmentGroup| Row {
            service: "DPS",
            is_emulated,
            place: format!("https://{}", config.endpoint),
            details: format!("ID scope {}", config.id_scope),
        };
        let hub = |place: &dyn Display, details: String| Row {
            service: "IoT Hub",
            is_emulated,
            place: format!("{scheme}://{place}"),
            details,
        };
        let (mut services, mut hubs, mut provisioned) = (Vec::new(), Vec::new(), Vec::new());
        match &config.hub.identity {
            Some(Identity::One(device)) => {
                hubs.push(hub(&device.endpoint, format!("device {:?} for sites", device.id)))
            }
            Some(Identity::Provisioned(config)) => {
                services.push(dps(config));
                provisioned.push("site");
            }
            None => {}
        }
        for enrollment in config.things_network.iter().flat_map(|things_network| things_network.enrollments.iter()) {
            match enrollment {
                Enrollment::Dps(config) => {
                    services.push(dps(config));
                    provisioned.push("LoRaWAN device");
                }
                Enrollment::Hub(of) => hubs.push(hub(&of.hub, format!("policy {:?}", of.policy.name))),
            }
        }
        provisioned.dedup();
        let provisioned =
            provisioned.iter().map(|owner| format!("one for each {owner}")).collect::<Vec<_>>().join(", ");
        match (&self.iot_hub, &mut hubs[..]) {
            _ if provisioned.is_empty() => {}
            // Devices are assigned to this very hub.
            (Some(_), [one]) => one.details += &format!(", {provisioned}"),
            (Some(emulator), _) => hubs.push(hub(&emulator.ready().mqtt, format!("devices: {provisioned}"))),
            (None, _) => hubs.push(hub(&"…, as assigned", format!("devices: {provisioned}"))),
        }
        for row in services.into_iter().chain(hubs) {
            // Several groups of one service, or both halves at the same one.
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
}
