//! The options of the backend.

use anyhow::ensure;

use crate::steps::Steps;

const DEFAULT_SITES: [&str; 3] = ["Energy meter 1", "Well 7 / Level", "Reservoir Süd"];
/// The most sites, and the most channels of a site: a laptop can hold that much in memory.
const MOST_SITES: usize = 1_000_000;
const MOST_CHANNELS: usize = 1_000;
/// Longest interval and history, in seconds: a hundred years.
const LONGEST: f64 = 3.2e9;

/// The options of the backend.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// IP address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the API; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// User name for HTTP Basic
    #[arg(long, default_value = "demo")]
    pub user: String,
    /// Password for HTTP Basic [default: a random one]
    #[arg(long)]
    pub password: Option<String>,
    /// The customer that owns the sites
    #[arg(long, value_name = "NAME", default_value = "Demo Water Utility")]
    pub customer: String,
    /// Name of a site; repeatable [default: three sites]
    #[arg(long = "site", value_name = "NAME", conflicts_with = "sites")]
    pub site: Vec<String>,
    /// This many sites named site-00000, site-00001, … instead
    #[arg(long, value_name = "N")]
    pub sites: Option<usize>,
    /// Seconds between two rows; fractions are allowed
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub interval: f64,
    /// How many seconds before the start the first row lies
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    pub history: f64,
    /// Channels of each site: ch0, ch1, …
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub channels: usize,
    /// All values are JSON numbers
    #[arg(long)]
    pub plain: bool,
    /// No rows but those added through the control endpoint
    #[arg(long)]
    pub no_generate: bool,
    /// Watches its steps
    #[arg(skip)]
    pub steps: Steps,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            user: "demo".to_owned(),
            password: None,
            customer: "Demo Water Utility".to_owned(),
            site: Vec::new(),
            sites: None,
            interval: 60.0,
            history: 3600.0,
            channels: 5,
            plain: false,
            no_generate: false,
            steps: Steps::default(),
        }
    }
}

impl Options {
    /// # Errors
    /// Names the option that is out of range.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!((0.001..=LONGEST).contains(&self.interval), "--interval must be 0.001 seconds to 100 years");
        ensure!((0.0..=LONGEST).contains(&self.history), "--history must be 0 seconds to 100 years");
        ensure!((1..=MOST_CHANNELS).contains(&self.channels), "--channels must be 1 to {MOST_CHANNELS}");
        ensure!(self.sites.unwrap_or(0) <= MOST_SITES, "--sites must be at most {MOST_SITES}");
        Ok(())
    }

    /// The names of the sites.
    #[must_use]
    pub fn site_names(&self) -> Vec<String> {
        match self.sites {
            Some(count) => (0..count).map(|number| format!("site-{number:05}")).collect(),
            None if self.site.is_empty() => DEFAULT_SITES.map(str::to_owned).to_vec(),
            None => self.site.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        let matches = Options::augment_args(Command::new("rapidm2m")).get_matches_from(["rapidm2m"]);
        let parsed = Options::from_arg_matches(&matches).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
    }
}
