//! What the connector is told: read once at the start from environment variables (= the function app's settings).
//!
//! One file per concern; the doc of each field names its setting, unit and default. Every problem is collected, so that
//! one message names all the settings at fault.

pub mod dps;
pub mod enrolment;
pub mod hub;
pub mod ledger;
pub mod rapidm2m;
mod settings;

pub use settings::{Problems, Settings};

/// Everything the connector needs to run.
#[derive(Debug)]
pub struct Config {
    pub rapidm2m: rapidm2m::Config,
    pub ledger: ledger::Config,
    pub hub: hub::Config,
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// Every setting that is absent, unknown or malformed, in one error.
    pub fn from_env() -> Result<Self, Problems> {
        Self::from_settings(&Settings::from_env())
    }

    /// Reads settings from anywhere.
    ///
    /// # Errors
    /// Every setting that is absent, unknown or malformed, in one error.
    pub fn from_settings(settings: &Settings) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        if !rapidm2m::is_wanted(settings) {
            problems.add(
                "M2MBackendURL",
                "nothing to do: rapidM2M forwarding is on when M2MBackendURL, Customer_ID or EmulationMode=true is set \
                 (it also needs Base64encodedUsernamePassword, Site_ID, Channelnames, M2MDocumentsDBUri and the \
                 IoTHub… or DPS… settings)",
            );
            return Err(problems);
        }
        let rapidm2m = rapidm2m::Config::read(settings, &mut problems);
        let ledger = ledger::Config::read(settings, &mut problems);
        let hub = hub::Config::read(settings, &mut problems);
        match (rapidm2m, ledger, hub) {
            (Some(rapidm2m), Some(ledger), Some(hub)) if problems.is_empty() => Ok(Self { rapidm2m, ledger, hub }),
            _ => Err(problems),
        }
    }
}
