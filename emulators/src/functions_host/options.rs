//! The options of the host.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;

use super::handler::READY_WITHIN;
use crate::steps::Steps;

/// The real host's number of restarts.
const RESTARTS: usize = 2;
const STOP_SECONDS: u64 = 10;
/// That of the Azure SDK.
const STORAGE_RETRY: Duration = Duration::from_millis(800);
/// Those of the WebJobs SDK.
const LOCK_RETRY: Duration = Duration::from_secs(60);
const LOCK_RENEWAL: Duration = Duration::from_secs(30);

/// The options of the host.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Folder of the function app, with host.json and a folder per function
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub app: PathBuf,
    /// IP address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the HTTP front end; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Executable to start instead of host.json's defaultExecutablePath, with the same arguments
    #[arg(long, value_name = "FILE", conflicts_with = "handler_endpoint")]
    pub handler: Option<PathBuf>,
    /// Use a handler that already listens, for example in a debugger: nothing is started, restarted or killed
    #[arg(long = "attach", value_name = "URL")]
    pub handler_endpoint: Option<Url>,
    /// An app setting; repeatable, overrides the settings file
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub env: Vec<(String, String)>,
    /// A local.settings.json whose Values become app settings
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Replaces the schedule of every timer, for example "*/5 * * * * *"
    #[arg(long, value_name = "NCRONTAB")]
    pub schedule: Option<String>,
    /// Run each timer once at the start, as if it had missed a run
    #[arg(long)]
    pub run_at_start: bool,
    /// An HTTP function that is also served at the root, where the real host serves its own page
    #[arg(long, value_name = "FUNCTION")]
    pub home: Option<String>,
    /// A function that is left out, as if the app did not have its folder; repeatable
    #[arg(long, value_name = "FUNCTION")]
    pub without: Vec<String>,
    /// How often the handler is restarted after a failure: an exit with an error, or no answer within 30 seconds. 30
    /// minutes without a failure make up for all. The real host gives up at the third failure; Azure then starts another
    /// host, which finds the same queues
    #[arg(long, value_name = "N", default_value_t = RESTARTS)]
    pub restarts: usize,
    /// How long the handler may take to end after SIGTERM when the host stops, before it gets SIGKILL. 0: SIGKILL at
    /// once, as on all plans but Flex Consumption
    #[arg(long, value_name = "N", default_value_t = STOP_SECONDS)]
    pub stop_seconds: u64,
    /// The handler gets the app settings and PATH, HOME and the like only, instead of the host's whole environment
    #[arg(long)]
    pub only_settings: bool,
    /// How long a new handler may take until its first answer
    #[arg(skip = READY_WITHIN)]
    pub ready_within: Duration,
    /// The first pause before a request to a storage account that does not answer is repeated. Each later one is twice
    /// as long
    #[arg(skip = STORAGE_RETRY)]
    pub storage_retry: Duration,
    /// How often a host tries to get the lock of a timer that another host runs
    #[arg(skip = LOCK_RETRY)]
    pub lock_retry: Duration,
    /// How often the lock is renewed. It lasts 60 seconds
    #[arg(skip = LOCK_RENEWAL)]
    pub lock_renewal: Duration,
    /// Watches its steps
    #[arg(skip)]
    pub steps: Steps,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            app: PathBuf::from("."),
            host: "127.0.0.1".to_owned(),
            port: 0,
            handler: None,
            handler_endpoint: None,
            env: Vec::new(),
            settings: None,
            schedule: None,
            run_at_start: false,
            home: None,
            without: Vec::new(),
            restarts: RESTARTS,
            stop_seconds: STOP_SECONDS,
            only_settings: false,
            ready_within: READY_WITHIN,
            storage_retry: STORAGE_RETRY,
            lock_retry: LOCK_RETRY,
            lock_renewal: LOCK_RENEWAL,
            steps: Steps::default(),
        }
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(Command::new("functions_host"));
        Options::from_arg_matches(&command.try_get_matches_from([&["functions_host"], arguments].concat())?)
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        assert_eq!(format!("{:?}", parsed(&[]).unwrap()), format!("{:?}", Options::default()));
    }

    #[test]
    fn settings_are_names_with_values() {
        let options = parsed(&["--env", "A=b=c", "--env", "D="]).unwrap();
        assert_eq!(options.env, [("A".to_owned(), "b=c".to_owned()), ("D".to_owned(), String::new())]);
        parsed(&["--env", "A"]).unwrap_err();
        parsed(&["--env", "=a"]).unwrap_err();
    }
}
