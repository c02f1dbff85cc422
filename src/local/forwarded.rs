//! A message that reached the hub, as far as it is shown.

use chrono::{DateTime, Utc};
use emulators::iot_hub::Received;
use iothub_connector::things_network::uplink::MEMBERS;
use serde_json::{Map, Value};

/// A time stamp up to its seconds.
const TO_SECONDS: usize = "2026-01-31T00:00:00".len();

/// A message.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub at: DateTime<Utc>,
    /// As it is called at the hub.
    pub device: String,
    pub message_id: Option<String>,
    pub content: Content,
}

/// What a message carried.
#[derive(Clone, Debug)]
pub enum Content {
    Rows(Rows),
    Uplink(Uplink),
    /// Another event of The Things Network.
    Event {
        owner: LorawanDevice,
        kind: String,
    },
}

/// Rows of a rapidM2M site.
#[derive(Clone, Debug)]
pub struct Rows {
    pub site: String,
    pub count: usize,
    /// Time stamp of the newest row, as it was sent.
    pub newest: Option<String>,
    /// Values of the newest row by channel.
    pub values: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub struct Uplink {
    pub owner: LorawanDevice,
    pub port: u64,
    pub counter: u64,
    /// When the network received it, in whole seconds.
    pub received_at: Option<String>,
    /// Base64.
    pub payload: String,
    /// The decoded fields.
    pub values: Map<String, Value>,
}

/// A device of The Things Network.
#[derive(Clone, Debug)]
pub struct LorawanDevice {
    pub application: String,
    pub id: String,
}

impl Forwarded {
    /// Reads the members that are shown; what is absent stays empty.
    pub fn read(message: &Received) -> Self {
        let body = serde_json::from_slice(&message.body).unwrap_or_default();
        let content = match message.properties.get("Type").map(String::as_str) {
            Some("uplink") => Content::Uplink(Uplink::read(body)),
            Some(kind) => Content::Event { owner: LorawanDevice::read(&body), kind: kind.to_owned() },
            None => Content::Rows(Rows::read(body)),
        };
        Self {
            at: message.received_at,
            device: message.device_id.clone(),
            message_id: message.message_id().map(str::to_owned),
            content,
        }
    }
}

impl Rows {
    fn read(mut body: Value) -> Self {
        let mut rows = match body["Timeseries"].take() {
            Value::Array(rows) => rows,
            _ => Vec::new(),
        };
        let count = rows.len();
        // Rows are sent in order.
        let mut newest = rows.pop().unwrap_or_default();
        Self {
            site: text(&body["site_id"]),
            count,
            newest: newest["Timestamp"].as_str().map(str::to_owned),
            values: object(newest["Channels"].take()),
        }
    }
}

impl Uplink {
    fn read(body: Value) -> Self {
        let received_at = body["ReceivedAtUTC"].as_str();
        let received_at = received_at.and_then(|time| time.get(..TO_SECONDS)).map(|time| format!("{time}Z"));
        let owner = LorawanDevice::read(&body);
        let (port, counter) = (body["Port"].as_u64().unwrap_or_default(), body["Counter"].as_u64().unwrap_or_default());
        let payload = body["PayloadRaw"].as_str().unwrap_or_default().to_owned();
        let mut values = object(body);
        values.retain(|name, _| !MEMBERS.contains(&name.as_str()));
        Self { owner, port, counter, received_at, payload, values }
    }
}

impl LorawanDevice {
    fn read(body: &Value) -> Self {
        Self { application: text(&body["ApplicationID"]), id: text(&body["DeviceID"]) }
    }

    /// In one word; it is unique.
    pub fn name(&self) -> String {
        format!("{}/{}", self.application, self.id)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_uplink_the_decoded_fields_are_the_values() {
        let uplink = Uplink::read(json!({
            "HardwareSerial": "00", "Retry": false, "Counter": 7, "DeviceID": "d", "ApplicationID": "a", "Port": 2,
            "PayloadRaw": "AQ==", "ReceivedAtUTC": "2026-01-31T12:00:00.123456789Z", "Rssi": -97, "Snr": 8.5,
            "Gateway": "gw", "DataRate": "SF7BW125", "Frequency": 868.1, "level": 2.5, "alarm": null
        }));
        assert_eq!((uplink.owner.name().as_str(), uplink.port, uplink.counter), ("a/d", 2, 7));
        assert_eq!((uplink.received_at.as_deref(), uplink.payload.as_str()), (Some("2026-01-31T12:00:00Z"), "AQ=="));
        assert_eq!(Value::from(uplink.values), json!({ "level": 2.5, "alarm": null }));
    }
}
