//! Counts what reached the emulated hub, by site and by LoRaWAN device.

use std::{collections::BTreeMap, sync::Arc};

use emulators::iot_hub::Received;
use iothub_connector::things_network::uplink::MEMBERS;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Default, Serialize)]
pub struct Arrived {
    /// From sites, and the rows in these messages.
    pub messages: u64,
    pub rows: u64,
    /// From LoRaWAN devices.
    pub uplinks: u64,
    /// Other messages: events of The Things Network, and messages that are not the connector's.
    pub others: u64,
    /// Messages that the hub no longer had at the end. No other count includes them.
    pub missed: u64,
    pub sites: BTreeMap<String, Sender>,
    /// By application and device.
    pub devices: BTreeMap<String, Sender>,
}

/// A site or a LoRaWAN device. All time stamps are UTC in one format, so they sort as text.
#[derive(Debug, Default, Serialize)]
pub struct Sender {
    /// For a device: its uplinks.
    pub messages: u64,
    pub rows: u64,
    /// Time stamp of the newest row, or when the network received the newest uplink.
    pub newest: Option<String>,
    /// Values of the newest row or uplink.
    pub values: Map<String, Value>,
    /// Id of the device at the hub.
    pub device: String,
}

/// The shown part of a site's message body.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfSite {
    #[serde(rename = "site_id")]
    site: String,
    timeseries: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    timestamp: String,
    channels: Map<String, Value>,
}

/// The shown part of an uplink's body.
#[derive(Deserialize)]
struct OfDevice {
    #[serde(rename = "ApplicationID")]
    application: String,
    #[serde(rename = "DeviceID")]
    device: String,
    #[serde(rename = "ReceivedAtUTC")]
    received_at: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Arrived {
    /// `kept` holds the hub's newest messages, in order of arrival.
    pub fn of(kept: &[Arc<Received>]) -> Self {
        let mut arrived = Self { missed: kept.first().map_or(0, |first| first.sequence), ..Self::default() };
        for message in kept {
            let counted = match message.properties.get("Type").map(String::as_str) {
                None => arrived.add_rows(message),
                Some("uplink") => arrived.add_uplink(message),
                Some(_) => None,
            };
            arrived.others += u64::from(counted.is_none());
        }
        arrived
    }

    fn add_rows(&mut self, message: &Received) -> Option<()> {
        let OfSite { site, mut timeseries } = serde_json::from_slice(&message.body).ok()?;
        self.messages += 1;
        self.rows += timeseries.len() as u64;
        let site = self.sites.entry(site).or_default();
        site.rows += timeseries.len() as u64;
        // Rows are sent in order, so the last one is the newest.
        site.add(message, timeseries.pop().map(|Row { timestamp, channels }| (timestamp, channels)));
        Some(())
    }

    fn add_uplink(&mut self, message: &Received) -> Option<()> {
        let OfDevice { application, device, received_at, mut others } = serde_json::from_slice(&message.body).ok()?;
        self.uplinks += 1;
        others.retain(|name, _| !MEMBERS.contains(&name.as_str()));
        let device = self.devices.entry(format!("{application}/{device}")).or_default();
        device.add(message, received_at.map(|at| (at, others)));
        Some(())
    }
}

impl Sender {
    /// An older message that is sent again does not replace the newest values.
    fn add(&mut self, message: &Received, newest: Option<(String, Map<String, Value>)>) {
        self.messages += 1;
        self.device.clone_from(&message.device_id);
        if let Some((at, values)) = newest.filter(|(at, _)| self.newest.as_ref() <= Some(at)) {
            (self.newest, self.values) = (Some(at), values);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use emulators::iot_hub::Transport;
    use serde_json::json;

    use super::*;

    fn message(sequence: u64, kind: Option<&str>, body: &Value) -> Arc<Received> {
        Arc::new(Received {
            sequence,
            received_at: Utc::now(),
            device_id: "hub's".to_owned(),
            transport: Transport::Mqtt,
            properties: kind.map(|kind| ("Type".to_owned(), kind.to_owned())).into_iter().collect(),
            system_properties: BTreeMap::new(),
            body: body.to_string().into(),
            dup: false,
        })
    }

    #[test]
    fn the_newest_is_shown_and_all_is_counted() {
        let rows = |second: &[u8]| -> Value {
            let row = |second: &u8| json!({ "Timestamp": format!("2026-01-31T12:00:0{second}Z"), "Channels": { "ch0": second } });
            json!({ "site_id": "Süd", "customer_id": "c", "Timeseries": second.iter().map(row).collect::<Vec<_>>() })
        };
        let uplink = |counter: u64| {
            json!({
                "HardwareSerial": "00", "Retry": false, "Counter": counter, "DeviceID": "d", "ApplicationID": "a", "Port": 2,
                "PayloadRaw": "AQ==", "ReceivedAtUTC": format!("2026-01-31T12:00:0{counter}Z"), "Rssi": -97, "Snr": 8.5,
                "Gateway": "gw", "DataRate": "SF7BW125", "Frequency": 868.1, "level": counter, "alarm": null
            })
        };
        let arrived = Arrived::of(&[
            message(7, None, &rows(&[3, 4])),
            message(8, None, &rows(&[1, 2])),
            message(9, Some("uplink"), &uplink(5)),
            message(10, Some("uplink"), &uplink(4)),
            message(11, Some("join"), &json!({})),
            message(12, None, &json!([1])),
        ]);
        let expected = json!({
            "messages": 2, "rows": 4, "uplinks": 2, "others": 2, "missed": 7,
            "sites": { "Süd": {
                "messages": 2, "rows": 4, "newest": "2026-01-31T12:00:04Z", "values": { "ch0": 4 }, "device": "hub's",
            } },
            "devices": { "a/d": {
                "messages": 2, "rows": 0, "newest": "2026-01-31T12:00:05Z", "values": { "level": 5, "alarm": null }, "device": "hub's",
            } },
        });
        assert_eq!(serde_json::to_value(&arrived).unwrap(), expected);
    }
}
