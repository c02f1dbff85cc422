//! How the stand-in is set up.

use std::str::FromStr;

use anyhow::ensure;
use axum::http::{HeaderName, HeaderValue};
use chrono::TimeDelta;

use super::{fan_out::Threshold, sending::Sending};

/// Most devices: what a laptop holds in memory.
const MOST_DEVICES: usize = 100_000;
/// How the stand-in is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// IP address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the downlink API; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Applications: app-1, app-2, …
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub applications: usize,
    /// Devices of all applications together
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub devices: usize,
    /// The same device ids in every application
    #[arg(long)]
    pub shared_device_ids: bool,
    /// Tenant of all applications, in cluster eu1; ttn is The Things Stack Sandbox
    #[arg(long, value_name = "ID", default_value = Options::SANDBOX)]
    pub tenant: String,
    /// Id of the webhook, as in the URLs for downlinks
    #[arg(long, value_name = "ID", default_value = "iot-hub")]
    pub webhook: String,
    /// Key for downlinks [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub apikey: Option<String>,
    /// Webhooks carry neither the key nor the URLs for downlinks
    #[arg(long)]
    pub no_downlink_key: bool,
    /// Failed attempts in a row after which a webhook of the registry is disabled; 0: health is not noted
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub unhealthy_attempts: u64,
    /// Seconds for which a disabled webhook sends nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub unhealthy_pause: u32,
    /// A header of every webhook; repeatable
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,
    /// Makes what is sent (but for its times) the same in every run [default: a random number]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Uplinks that are kept for the control endpoint, the newest ones
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub keep_uplinks: usize,
    #[command(flatten)]
    pub sending: Sending,
}

/// A header as the command line takes it: `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: HeaderName,
    pub value: HeaderValue,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header looks like this: Name: value")?;
        let name = name.trim().parse().map_err(|_| format!("{:?} is not a name of a header", name.trim()))?;
        // What is refused may be a secret.
        let value = value.trim().parse().map_err(|_| format!("the value of {name} is none of a header"))?;
        Ok(Self { name, value })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            applications: 2,
            devices: 500,
            shared_device_ids: false,
            tenant: Self::SANDBOX.to_owned(),
            webhook: "iot-hub".to_owned(),
            apikey: None,
            no_downlink_key: false,
            unhealthy_attempts: 5,
            unhealthy_pause: 300,
            headers: Vec::new(),
            seed: None,
            keep_uplinks: 100_000,
            sending: Sending::default(),
        }
    }
}

impl Options {
    const SANDBOX: &str = "ttn";

    /// The domain of the tenant, and that of its cluster.
    pub(super) fn domains(&self) -> (String, &'static str) {
        if self.tenant == Self::SANDBOX {
            ("eu1.cloud.thethings.network".to_owned(), "eu1.cloud.thethings.network")
        } else {
            (format!("{}.eu1.cloud.thethings.industries", self.tenant), "eu1.cloud.thethings.industries")
        }
    }

    pub(super) fn threshold(&self) -> Threshold {
        Threshold { attempts: self.unhealthy_attempts, pause: TimeDelta::seconds(self.unhealthy_pause.into()) }
    }

    /// # Errors
    /// Names the option that is out of range.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let is_id = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        ensure!(!self.tenant.is_empty() && self.tenant.chars().all(is_id), "--tenant must consist of a-z, 0-9 and -");
        ensure!((1..=MOST_DEVICES).contains(&self.devices), "--devices must be 1 to {MOST_DEVICES}");
        let applications = 1..=self.devices;
        ensure!(applications.contains(&self.applications), "--applications must be 1 to the number of devices");
        ensure!(
            self.apikey.as_deref().is_none_or(|key| HeaderValue::from_str(key).is_ok()),
            "--apikey: no header value"
        );
        let is_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(!self.webhook.is_empty() && self.webhook.bytes().all(is_id), "--webhook: only a-z, 0-9 and -");
        self.sending.check()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parsed(arguments: &[&str]) -> Options {
        let matches = Options::augment_args(Command::new("things_stack")).get_matches_from(arguments);
        Options::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        assert_eq!(format!("{:?}", parsed(&["things_stack"])), format!("{:?}", Options::default()));
    }

    #[test]
    fn headers_are_split_at_the_first_colon() {
        let options = parsed(&["things_stack", "--header", "X-Functions-Key: a:b", "--header", "X-Empty:"]);
        let header = |text: &str| text.parse::<Header>().unwrap();
        assert_eq!(options.headers, [header("x-functions-key:a:b"), header("X-Empty: ")]);
        assert_eq!(
            (&options.headers[0].value, &options.headers[1].value),
            (&"a:b".parse().unwrap(), &"".parse().unwrap())
        );
        let error = "Authorization: Bearer s3cr3t\n".to_owned() + "x";
        let error = error.parse::<Header>().unwrap_err();
        assert!(error.contains("authorization") && !error.contains("s3cr3t"), "{error}");
        assert!("no colon".parse::<Header>().is_err());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = Options { devices: 1, ..Options::default() }.check().unwrap_err().to_string();
        assert!(error.contains("--applications"), "{error}");
    }
}
