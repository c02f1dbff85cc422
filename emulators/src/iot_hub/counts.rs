//! How much has happened.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// Counts since the start. As JSON with camelCase names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Messages recorded.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// CONNECTs accepted.
    pub connects: u64,
    /// CONNECTs refused.
    pub refused: u64,
    /// Accepted connections that have ended.
    pub disconnects: u64,
    /// TCP connections to the hub's MQTT and HTTPS ports, whatever became of them.
    pub connections: u64,
    /// TCP connections to the DPS port.
    pub dps_connections: u64,
    /// HTTPS requests of devices; upgrades to WebSocket are none.
    pub https_requests: u64,
    /// Those answered with a status of 400 or more.
    pub https_failures: u64,
    /// The devices connected now, over MQTT.
    pub connected: BTreeSet<String>,
    /// The most that were connected at a time.
    pub most_connected: usize,
    pub per_device: BTreeMap<String, DeviceCounts>,
}

/// The counts of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounts {
    pub messages: u64,
    /// CONNECTs accepted.
    pub connects: u64,
    /// HTTPS requests with a good token.
    pub requests: u64,
}
