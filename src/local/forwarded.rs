//! A message that reached the hub, as far as it is shown.

use chrono::{DateTime, Utc};
use emulators::iot_hub::Received;
use serde_json::{Map, Value};

/// What a message carried.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub at: DateTime<Utc>,
    pub device: String,
    pub message_id: Option<String>,
    pub site: String,
    pub rows: usize,
    /// Time stamp of the newest row, as it was sent.
    pub newest: Option<String>,
    /// Values of the newest row by channel.
    pub values: Map<String, Value>,
}

impl Forwarded {
    /// Reads the members that are shown; what is absent stays empty.
    pub fn read(message: &Received) -> Self {
        let mut body: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let mut rows = match body["Timeseries"].take() {
            Value::Array(rows) => rows,
            _ => Vec::new(),
        };
        let count = rows.len();
        // Rows are sent in order.
        let mut newest = rows.pop().unwrap_or_default();
        let values = match newest["Channels"].take() {
            Value::Object(values) => values,
            _ => Map::new(),
        };
        Self {
            at: message.received_at,
            device: message.device_id.clone(),
            message_id: message.message_id().map(str::to_owned),
            site: body["site_id"].as_str().unwrap_or("?").to_owned(),
            rows: count,
            newest: newest["Timestamp"].as_str().map(str::to_owned),
            values,
        }
    }
}
