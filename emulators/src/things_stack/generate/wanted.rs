//! Uplinks on demand.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Generator, Webhook};
use crate::things_stack::devices::Device;

/// One uplink on demand: who sends it, and what of it is not left to the generator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Wanted {
    pub application: String,
    pub device: String,
    /// Absent: that of the last run, or of the options.
    pub target: Option<String>,
    /// 2 or 3 (the default).
    pub version: Option<u8>,
    pub f_port: Option<u8>,
    pub f_cnt: Option<u32>,
    /// Base64.
    pub frm_payload: Option<String>,
    /// Any JSON; `null` for an uplink that is not decoded.
    #[serde(deserialize_with = "given")]
    pub decoded_payload: Option<Value>,
    pub confirmed: bool,
    pub simulated: bool,
}

/// Tells `null` from nothing.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Generator {
    /// An uplink on demand, of a known device or a new one.
    ///
    /// # Errors
    /// What cannot be sent.
    pub fn wanted(&mut self, wanted: Wanted, now: DateTime<Utc>) -> Result<Webhook, String> {
        if wanted.application.is_empty() || wanted.device.is_empty() {
            return Err("application and device are missing".to_owned());
        }
        let version = wanted.version.unwrap_or(3);
        if !matches!(version, 2 | 3) {
            return Err(format!("version {version}: there are 2 and 3"));
        }
        let payload = wanted.frm_payload.map(|text| BASE64_STANDARD.decode(&text)).transpose();
        let payload = payload.map_err(|error| format!("frmPayload is not Base64: {error}"))?;
        let name = (wanted.application, wanted.device);
        let number = match self.by_name.get(&name) {
            Some(number) => *number,
            None => self.add(Device::new(self.devices.len(), name.0, name.1)),
        };
        if let Some(f_cnt) = wanted.f_cnt {
            self.counters[number] = f_cnt;
        }
        let marker = self.marker();
        let mut content = self.content(number, version, marker, true, now);
        content.f_port = wanted.f_port.unwrap_or(content.f_port);
        content.payload = payload.unwrap_or(content.payload);
        content.confirmed = wanted.confirmed;
        content.simulated = wanted.simulated;
        match wanted.decoded_payload {
            None => {}
            Some(Value::Null) => content.decoded = None,
            decoded => content.decoded = decoded,
        }
        Ok(self.uplink(number, version, marker, &content, now))
    }
}
