//! How the stand-in is set up, and what a run sends.

use std::str::FromStr;

use anyhow::ensure;
use axum::http::{HeaderName, HeaderValue};
use reqwest::Url;
use serde::Deserialize;

/// Most devices: what a laptop holds in memory.
const MOST_DEVICES: usize = 100_000;
/// Highest rate, in webhooks per second; far above what one process can do.
const HIGHEST_RATE: f64 = 1e6;
/// Most requests at a time: each has a connection.
const MOST_CONCURRENT: usize = 10_000;
/// Longest time-out and pause, in seconds.
const LONGEST: f64 = 3600.0;

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
    /// Id of the webhook, as in the URLs for downlinks
    #[arg(long, value_name = "ID", default_value = "iot-hub")]
    pub webhook: String,
    /// Key for downlinks [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub apikey: Option<String>,
    /// Webhooks carry neither the key nor the URLs for downlinks
    #[arg(long)]
    pub no_downlink_key: bool,
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

/// What a run sends, where to, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub struct Sending {
    /// Where webhooks are posted; without it nothing is sent until the control endpoint says so
    #[arg(long, value_name = "URL")]
    pub target: Option<Url>,
    /// Webhooks per second; 0 is as fast as the concurrency allows
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub rate: f64,
    /// Webhooks of a run, of whatever kind [default: no end]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Share of the devices that speak the old format, V2
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub v2_share: f64,
    /// Share of the webhooks that are sent before
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub repeat_share: f64,
    /// Share of the webhooks that nobody can make sense of
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub malformed_share: f64,
    /// Share of the webhooks that are other events than uplinks
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub event_share: f64,
    /// Only what every decoder makes of such sensors: always decoded, with port and payload, LoRa, from the network
    #[arg(long)]
    pub plain: bool,
    /// Webhooks that are on their way at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub concurrency: usize,
    /// How often a webhook is tried until it is answered with 2xx; a malformed one until it is answered with 4xx
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub attempts: u32,
    /// Seconds between two attempts
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pub retry_delay: f64,
    /// Seconds that the target has for its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub timeout: f64,
}

/// Other values for one run: the members of [`Sending`] in camel case, all optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Overrides {
    pub target: Option<String>,
    pub rate: Option<f64>,
    pub count: Option<u64>,
    pub v2_share: Option<f64>,
    pub repeat_share: Option<f64>,
    pub malformed_share: Option<f64>,
    pub event_share: Option<f64>,
    pub plain: Option<bool>,
    pub concurrency: Option<usize>,
    pub attempts: Option<u32>,
    pub retry_delay: Option<f64>,
    pub timeout: Option<f64>,
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
        let name = name.trim().parse().map_err(|_| format!("{:?} is no name of a header", name.trim()))?;
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
            webhook: "iot-hub".to_owned(),
            apikey: None,
            no_downlink_key: false,
            headers: Vec::new(),
            seed: None,
            keep_uplinks: 100_000,
            sending: Sending::default(),
        }
    }
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            target: None,
            rate: 100.0,
            count: None,
            v2_share: 0.1,
            repeat_share: 0.05,
            malformed_share: 0.01,
            event_share: 0.1,
            plain: false,
            concurrency: 64,
            attempts: 1,
            retry_delay: 0.5,
            timeout: 5.0,
        }
    }
}

impl Options {
    /// # Errors
    /// Names the option that is out of range.
    pub(super) fn check(&self) -> anyhow::Result<()> {
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

impl Sending {
    /// # Errors
    /// Names the option that is out of range.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!((0.0..=HIGHEST_RATE).contains(&self.rate), "rate must be 0 to {HIGHEST_RATE}");
        let shares = [
            ("v2-share", self.v2_share),
            ("repeat-share", self.repeat_share),
            ("malformed-share", self.malformed_share),
            ("event-share", self.event_share),
        ];
        for (name, share) in shares {
            ensure!((0.0..=1.0).contains(&share), "{name} must be 0 to 1");
        }
        let others = self.repeat_share + self.malformed_share + self.event_share;
        ensure!(others <= 1.0, "repeat-share, malformed-share and event-share must not exceed 1 together");
        ensure!((1..=MOST_CONCURRENT).contains(&self.concurrency), "concurrency must be 1 to {MOST_CONCURRENT}");
        ensure!(self.attempts >= 1, "attempts must be at least 1");
        ensure!((0.0..=LONGEST).contains(&self.retry_delay), "retry-delay must be 0 to {LONGEST} seconds");
        ensure!((0.001..=LONGEST).contains(&self.timeout), "timeout must be 0.001 to {LONGEST} seconds");
        Ok(())
    }

    /// These values, with some of them replaced.
    ///
    /// # Errors
    /// The target is no URL, or a value is out of range.
    pub(super) fn with(&self, overrides: Overrides) -> anyhow::Result<Self> {
        let target = match overrides.target {
            Some(text) => Some(text.parse().map_err(|error| anyhow::anyhow!("target {text:?} is no URL: {error}"))?),
            None => self.target.clone(),
        };
        let sending = Self {
            target,
            rate: overrides.rate.unwrap_or(self.rate),
            count: overrides.count.or(self.count),
            v2_share: overrides.v2_share.unwrap_or(self.v2_share),
            repeat_share: overrides.repeat_share.unwrap_or(self.repeat_share),
            malformed_share: overrides.malformed_share.unwrap_or(self.malformed_share),
            event_share: overrides.event_share.unwrap_or(self.event_share),
            plain: overrides.plain.unwrap_or(self.plain),
            concurrency: overrides.concurrency.unwrap_or(self.concurrency),
            attempts: overrides.attempts.unwrap_or(self.attempts),
            retry_delay: overrides.retry_delay.unwrap_or(self.retry_delay),
            timeout: overrides.timeout.unwrap_or(self.timeout),
        };
        sending.check()?;
        Ok(sending)
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
        let sending = Sending::default();
        for (json, reason) in [
            (r#"{"rate":-1}"#, "rate must be"),
            (r#"{"v2Share":1.1}"#, "v2-share must be"),
            (r#"{"repeatShare":0.6,"eventShare":0.6}"#, "must not exceed 1"),
            (r#"{"concurrency":0}"#, "concurrency must be"),
            (r#"{"attempts":0}"#, "attempts must be"),
            (r#"{"target":"nowhere"}"#, "\"nowhere\" is no URL"),
        ] {
            let error = sending.with(serde_json::from_str(json).unwrap()).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
        let other = sending.with(serde_json::from_str(r#"{"target":"http://a/b","count":3}"#).unwrap()).unwrap();
        assert_eq!((other.target.unwrap().as_str(), other.count, other.rate), ("http://a/b", Some(3), 100.0));
        let error = Options { devices: 1, ..Options::default() }.check().unwrap_err().to_string();
        assert!(error.contains("--applications"), "{error}");
    }
}
