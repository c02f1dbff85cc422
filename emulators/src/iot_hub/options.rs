//! The hub's options.

use std::path::PathBuf;

use super::DpsOptions;
use crate::steps::Steps;

/// The options of the hub.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// IP address to listen on; the certificate is issued for it, for localhost and for 127.0.0.1
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port for MQTT over TLS; 0 takes any free one
    ///
    /// This port, --https-port and --dps-port all serve MQTT, WebSocket and HTTPS. They can be cut one by one.
    #[arg(long, visible_alias = "port", default_value_t = 0)]
    pub mqtt_port: u16,
    /// Port for HTTPS and WebSocket; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub https_port: u16,
    /// Port of the Device Provisioning Service; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub dps_port: u16,
    /// Port of the control endpoint; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub control_port: u16,
    /// Key with which every unregistered device signs its tokens, Base64 [default: a random one]
    #[arg(long, value_name = "BASE64")]
    pub device_key: Option<String>,
    /// Shared access policy that may connect as any device
    #[arg(long, value_name = "NAME", default_value = Options::POLICY)]
    pub policy: String,
    /// Key of that policy, Base64 [default: a random one]
    #[arg(long, value_name = "BASE64")]
    pub policy_key: Option<String>,
    /// Messages kept for the control endpoint; older ones are dropped
    #[arg(long, value_name = "N", default_value_t = Options::KEEP_MESSAGES)]
    pub keep_messages: usize,
    /// Bytes of messages kept for the control endpoint; older ones are dropped
    #[arg(long, value_name = "N", default_value_t = Options::KEEP_BYTES)]
    pub keep_bytes: usize,
    /// Directory for the CA certificate, ca.pem [default: a new one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,
    /// The hub's name; devices that name another hub, or another address than the hub's, are refused [default: any name
    /// is accepted]
    #[arg(long, value_name = "HOST")]
    pub hub_name: Option<String>,
    /// Only registered devices may connect: those of the Device Provisioning Service, and those that `PUT /devices`
    /// names
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub dps_options: DpsOptions,
    /// Watches its steps
    #[arg(skip)]
    pub steps: Steps,
}

impl Options {
    /// The name of this policy on every new hub.
    const POLICY: &str = "device";
    const KEEP_MESSAGES: usize = 200_000;
    const KEEP_BYTES: usize = 1 << 30;

    /// The names of the address that devices connect to.
    pub(super) fn addresses(&self) -> impl Iterator<Item = String> + use<'_> {
        [self.host.as_str(), "localhost", "127.0.0.1"].into_iter().map(str::to_owned)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            mqtt_port: 0,
            https_port: 0,
            dps_port: 0,
            control_port: 0,
            device_key: None,
            policy: Self::POLICY.into(),
            policy_key: None,
            keep_messages: Self::KEEP_MESSAGES,
            keep_bytes: Self::KEEP_BYTES,
            ca_dir: None,
            hub_name: None,
            strict: false,
            dps_options: DpsOptions::default(),
            steps: Steps::default(),
        }
    }
}
