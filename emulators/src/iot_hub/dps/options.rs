//! The options of the Device Provisioning Service.

use std::net::SocketAddr;

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};

/// The one port for which SDKs can do without one: MQTT over TLS.
const USUAL_PORT: u16 = 8883;

/// How the Device Provisioning Service is to run.
#[derive(Clone, Debug, clap::Args)]
// Clap would name the group of these after the type, as it does for the hub's own options.
#[group(skip)]
pub struct Options {
    /// Id scope of the Device Provisioning Service [default: a random one]
    #[arg(long, value_name = "SCOPE")]
    pub id_scope: Option<String>,
    /// Symmetric key of its enrollment group, Base64 [default: a random one]
    #[arg(long, value_name = "BASE64")]
    pub group_key: Option<String>,
    /// The hub that devices are sent to [default: this one's MQTT port]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub assigned_hub: Option<String>,
    /// Seconds a device is told to wait before it asks how its registration stands
    #[arg(long, value_name = "SECONDS", default_value_t = Options::RETRY_AFTER)]
    pub dps_retry_after: u32,
}

impl Options {
    /// As the real service.
    const RETRY_AFTER: u32 = 3;

    /// The id scope, which is made up if none is given.
    pub fn scope(&self) -> String {
        self.id_scope.clone().unwrap_or_else(|| format!("0ne{:08X}", fastrand::u32(..)))
    }

    /// The group key that was asked for, raw.
    ///
    /// # Errors
    /// It is not Base64.
    pub fn group_key(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let key = self.group_key.as_ref().map(|key| BASE64_STANDARD.decode(key));
        key.transpose().context("the group key is not Base64")
    }

    /// The hub that devices are sent to, given where this one listens.
    pub fn assigned_hub(&self, mqtt: SocketAddr) -> String {
        match &self.assigned_hub {
            Some(hub) => hub.clone(),
            None if mqtt.port() == USUAL_PORT => mqtt.ip().to_string(),
            None => mqtt.to_string(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { id_scope: None, group_key: None, assigned_hub: None, dps_retry_after: Self::RETRY_AFTER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_get_along_with_those_of_the_hub() {
        <crate::iot_hub::Options as clap::Args>::augment_args(clap::Command::new("iot_hub")).debug_assert();
    }

    #[test]
    fn devices_are_sent_to_the_mqtt_port_unless_it_is_the_usual_one() {
        let assigned = |options: Options, mqtt: &str| options.assigned_hub(mqtt.parse().unwrap());
        assert_eq!(assigned(Options::default(), "127.0.0.1:5000"), "127.0.0.1:5000");
        assert_eq!(assigned(Options::default(), "127.0.0.77:8883"), "127.0.0.77");
        let other = Options { assigned_hub: Some("hub.example".into()), ..Options::default() };
        assert_eq!(assigned(other, "127.0.0.1:8883"), "hub.example");
    }
}
