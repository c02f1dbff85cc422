//! Counts the events of the hub.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// Counts since the start. In JSON, the names are in camelCase.
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
    /// TCP connections to the hub's MQTT and HTTPS ports, even failed ones.
    pub connections: u64,
    /// TCP connections to the DPS port.
    pub dps_connections: u64,
    /// HTTPS requests of devices, without upgrades to WebSocket.
    pub https_requests: u64,
    /// HTTPS requests answered with a status of 400 or more.
    pub https_failures: u64,
    /// The devices that are connected over MQTT now.
    pub connected: BTreeSet<String>,
    /// The largest number of devices connected at the same time.
    pub most_connected: usize,
    pub per_device: BTreeMap<String, DeviceCounts>,
}

/// The counts of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounts {
    pub messages: u64,
    /// CONNECTs accepted.
    pub connects: u64,
    /// HTTPS requests with a valid token.
    pub requests: u64,
}
