//! Reads the connector's settings once, at the start, from environment variables (= the function app's settings) and
//! from a Key Vault if they name one.
//!
//! There is one file per concern. The doc of each field names its setting, unit and default. All problems are
//! collected, so that one message names every setting at fault.

pub mod dps;
pub mod enrollment;
mod host_json;
pub mod hub;
pub mod key_vault;
pub mod ledger;
mod methods;
mod names;
pub mod rapidm2m;
mod settings;
pub mod setup;
pub mod storage;
pub mod things_network;
pub mod things_stack;

pub use key_vault::KEY_VAULT;
pub use names::misspelt;
pub use settings::{LOCAL_SESSION, Problems, Settings, Surroundings};
pub use setup::{Faults, Setup};

/// The connector's complete configuration. At least one of its halves is there.
#[derive(Debug)]
pub struct Config {
    pub rapidm2m: Option<rapidm2m::Config>,
    pub things_network: Option<things_network::Config>,
    pub ledger: crate::rapidm2m::ledger::Options,
    pub hub: hub::Config,
}

/// The problem of settings with which no half is on.
pub const NO_SETTINGS: &str = "no settings found: set M2MBackendURL and Customer_ID to forward from rapidM2M, or \
                               UplinkQueueName to forward from The Things Network";

impl Config {
    /// Reads the configuration from settings of any origin.
    ///
    /// # Errors
    /// One error with every setting that is absent, unknown or malformed.
    pub fn from_settings(settings: &Settings) -> Result<Self, Problems> {
        Self::of(settings, rapidm2m::is_wanted(settings), things_network::is_wanted(settings))
    }

    /// Reads the settings of these halves.
    fn of(settings: &Settings, has_rapidm2m: bool, has_things_network: bool) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        if !has_rapidm2m && !has_things_network {
            problems.add("", NO_SETTINGS);
            return Err(problems);
        }
        let rapidm2m = has_rapidm2m.then(|| rapidm2m::Config::read(settings, &mut problems));
        let things_network = has_things_network.then(|| things_network::Config::read(settings, &mut problems));
        let ledger = ledger::read(settings, &mut problems);
        let hub = hub::Config::read(settings, has_rapidm2m, &mut problems);
        #[cfg(feature = "azure-iot-sdk")]
        if has_things_network && hub.as_ref().is_some_and(|hub| hub.transport == crate::iot_hub::Transport::AzureIotSdk)
        {
            let text = "is azure-iot-sdk, which sends as one device only: it cannot be used with UplinkQueueName";
            problems.add("IoTHubTransport", text);
        }
        match (ledger, hub) {
            (Some(ledger), Some(hub)) if problems.is_empty() => {
                Ok(Self { rapidm2m: rapidm2m.flatten(), things_network: things_network.flatten(), ledger, hub })
            }
            _ => Err(problems),
        }
    }
}
