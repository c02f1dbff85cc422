//! A well-formed uplink, and what became of it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::json;

use super::devices::Device;

/// A distinct well-formed uplink and what became of it.
#[derive(Debug)]
pub struct Uplink {
    device: Arc<Device>,
    version: u8,
    f_port: u8,
    f_cnt: u32,
    pub marker: u64,
    body: Bytes,
    outcome: Mutex<Outcome>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// The last answer, or the first 2xx if there was one.
    status: Option<u16>,
    /// Requests, repeats included.
    attempts: u32,
}

impl Uplink {
    pub fn new(device: Arc<Device>, version: u8, f_port: u8, f_cnt: u32, marker: u64, body: Bytes) -> Self {
        Self { device, version, f_port, f_cnt, marker, body, outcome: Mutex::default() }
    }

    /// Its application and device, and its body if it is of V3.
    pub fn stored(&self) -> Option<(&Device, &Bytes)> {
        (self.version == 3).then_some((&self.device, &self.body))
    }

    /// Remembers a request's answer, or that there was none.
    pub fn attempted(&self, answer: Option<u16>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.attempts += 1;
        if !outcome.status.is_some_and(is_success) {
            outcome.status = answer.or(outcome.status);
        }
    }

    /// Writes what is remembered as a JSON object; its member `body` is exactly what was sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Outcome { status, attempts } = *self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = json!({
            "application": self.device.application,
            "device": self.device.id,
            "version": self.version,
            "fPort": self.f_port,
            "fCnt": self.f_cnt,
            "marker": self.marker,
            "status": status,
            "attempts": attempts,
        });
        let mut entry = entry.to_string();
        entry.pop();
        out.extend_from_slice(entry.as_bytes());
        out.extend_from_slice(b",\"body\":");
        out.extend_from_slice(&self.body);
        out.push(b'}');
    }
}

pub fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}
