//! What a run sends, where to, and how fast.

use anyhow::ensure;
use reqwest::Url;
use serde::Deserialize;

/// Highest rate, in webhooks per second; far above what one process can do.
const HIGHEST_RATE: f64 = 1e6;
/// Most requests at a time: each has a connection.
const MOST_CONCURRENT: usize = 10_000;
/// Longest time-out and pause, in seconds.
const LONGEST: f64 = 3600.0;

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
    /// Share of the V3 uplinks that so many gateways hear that they do not fit a storage queue
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub oversized_share: f64,
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
    pub oversized_share: Option<f64>,
    pub plain: Option<bool>,
    pub concurrency: Option<usize>,
    pub attempts: Option<u32>,
    pub retry_delay: Option<f64>,
    pub timeout: Option<f64>,
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
            oversized_share: 0.0,
            plain: false,
            concurrency: 64,
            attempts: 1,
            retry_delay: 0.5,
            timeout: 5.0,
        }
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
            ("oversized-share", self.oversized_share),
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
    /// The target is not a URL, or a value is out of range.
    pub(super) fn with(&self, overrides: Overrides) -> anyhow::Result<Self> {
        let target = match overrides.target {
            Some(text) => Some(text.parse().map_err(|error| anyhow::anyhow!("target {text:?} is not a URL: {error}"))?),
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
            oversized_share: overrides.oversized_share.unwrap_or(self.oversized_share),
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
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let sending = Sending::default();
        for (json, reason) in [
            (r#"{"rate":-1}"#, "rate must be"),
            (r#"{"v2Share":1.1}"#, "v2-share must be"),
            (r#"{"repeatShare":0.6,"eventShare":0.6}"#, "must not exceed 1"),
            (r#"{"concurrency":0}"#, "concurrency must be"),
            (r#"{"attempts":0}"#, "attempts must be"),
            (r#"{"target":"nowhere"}"#, "\"nowhere\" is not a URL"),
        ] {
            let error = sending.with(serde_json::from_str(json).unwrap()).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
        let other = sending.with(serde_json::from_str(r#"{"target":"http://a/b","count":3}"#).unwrap()).unwrap();
        assert_eq!((other.target.unwrap().as_str(), other.count, other.rate), ("http://a/b", Some(3), 100.0));
    }
}
