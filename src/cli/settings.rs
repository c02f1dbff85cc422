//! Reads the settings of commands. The environment overrides local.settings.json, which overrides a Key Vault.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use iothub_connector::config::{Settings, key_vault, misspelt};
use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::Value;

use super::exit::usage;

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
    /// The file cannot be read or is not a settings file, or the Key Vault that the settings name cannot be used
    /// ([`Problems`](iothub_connector::config::Problems)).
    pub fn read(&self) -> anyhow::Result<Settings> {
        let settings = self.read_own()?;
        warn_of_unknown(&settings);
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
    /// The file cannot be read, or is not a settings file.
    pub fn read_own(&self) -> anyhow::Result<Settings> {
        let default = Path::new(DEFAULT_FILE);
        let file = self.settings.as_deref().or_else(|| default.is_file().then_some(default));
        #[cfg(feature = "local")]
        if self.local {
            // What is set in the person's shell must not lead to real services.
            let of_session = crate::local::open_session::settings(Path::new(".")).map_err(usage)?;
            return Ok(of_session.into_iter().collect());
        }
        let in_file = file.map_or(Ok(BTreeMap::new()), read)?;
        Ok(Settings::from_env().or(in_file).of_person())
    }
}

/// Says which settings have no effect because their names are misspelt.
pub fn warn_of_unknown(settings: &Settings) {
    for (name, right) in misspelt(settings) {
        eprintln!("warning: unknown setting `{name}`; did you mean `{right}`?");
    }
}

/// Reads the `Values` of a local.settings.json.
///
/// # Errors
/// The file cannot be read, is encrypted, or is not a settings file.
pub fn read(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("{name} cannot be read"));
    text.and_then(|text| values(&name.to_string(), &text)).map_err(usage)
}

/// `name` is the file's.
fn values(name: &str, text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    // Editors on Windows often write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // As Core Tools does: with comments and trailing commas.
    let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
    let document: Value =
        parse_to_serde_value(text, &options).map_err(|error| anyhow!("{name} is not valid JSON: {error}"))?;
    ensure!(
        document["IsEncrypted"] != Value::Bool(true),
        "{name}: IsEncrypted is true: decrypt the file with `func settings decrypt`"
    );
    let Value::Object(values) = &document["Values"] else { bail!("{name}: Values must be an object of settings") };
    // A setting that is `null` is absent.
    let settings = values.iter().filter(|(_, value)| !value.is_null());
    let setting = |(setting, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => bail!("{name}: Values.{setting} must be a string"),
        };
        Ok((setting.clone(), text))
    };
    settings.map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
        values("file", text)
    }

    #[test]
    fn a_file_is_read_as_core_tools_read_it() {
        let text = "\u{feff}{ // mine\n \"IsEncrypted\": false, /* not */ \"Values\": {\"A\": \"x//y\", \"B\": 7, \"C\": true, \"D\": null,},}";
        let expected = [("A", "x//y"), ("B", "7"), ("C", "true")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(read_text(text).unwrap(), expected.into());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (text, said) in [
            ("{", "file is not valid JSON: "),
            ("", "Values must be an object"),
            (r#"{"Values": []}"#, "Values must be an object"),
            (r#"{"IsEncrypted": true, "Values": {}}"#, "func settings decrypt"),
            (r#"{"Values": {"A": []}}"#, "Values.A must be a string"),
        ] {
            let error = format!("{:#}", read_text(text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
