//! Reads the settings of commands. The environment overrides local.settings.json, which overrides a Key Vault.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use iothub_connector::config::{Settings, key_vault};
use serde_json::Value;

const DEFAULT_FILE: &str = "local.settings.json";

/// Where settings come from.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Settings that the environment does not have [default: local.settings.json, if it is here]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The emulated services of the session of `local` that runs in this folder
    #[cfg(feature = "local")]
    #[arg(long, conflicts_with = "settings")]
    local: bool,
}

impl Source {
    /// # Errors
    /// The file cannot be read or is no settings file, or the Key Vault that the settings name cannot be used
    /// ([`Problems`](iothub_connector::config::Problems)).
    pub fn read(&self) -> anyhow::Result<Settings> {
        let settings = self.read_own()?;
        if !key_vault::is_wanted(&settings) {
            return Ok(settings);
        }
        // A separate thread, because the caller may be in a runtime and runtimes do not nest.
        let completed = std::thread::scope(|scope| {
            let complete = || anyhow::Ok(crate::runtime()?.block_on(key_vault::complete(settings))?);
            scope.spawn(complete).join().map_err(|_| anyhow!("reading the Key Vault ended unexpectedly"))?
        })?;
        Ok(completed.settings)
    }

    /// Reads the settings without the Key Vault.
    ///
    /// # Errors
    /// The file cannot be read, or is no settings file.
    pub fn read_own(&self) -> anyhow::Result<Settings> {
        let default = Path::new(DEFAULT_FILE);
        let file = self.settings.as_deref().or_else(|| default.is_file().then_some(default));
        #[cfg(feature = "local")]
        if self.local {
            // What is set in the person's shell must not lead to real services.
            return Ok(crate::local::open_session::settings(Path::new("."))?.into_iter().collect());
        }
        let in_file = file.map_or(Ok(BTreeMap::new()), read)?;
        Ok(Settings::from_env().or(in_file).of_person())
    }
}

/// Reads the `Values` of a local.settings.json.
///
/// # Errors
/// The file cannot be read, is encrypted, or is no settings file.
pub fn read(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
    // Editors on Windows often write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let document: Value = serde_json::from_str(text).with_context(|| format!("{name} is no JSON"))?;
    ensure!(
        document["IsEncrypted"] != Value::Bool(true),
        "{name}: IsEncrypted is true: decrypt the file with `func settings decrypt`"
    );
    let Value::Object(values) = &document["Values"] else { bail!("{name}: Values must be an object of settings") };
    let setting = |(setting, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => bail!("{name}: Values.{setting} must be a string"),
        };
        Ok((setting.clone(), text))
    };
    values.iter().map(setting).collect()
}
