//! App settings: they make up the handler's environment and replace `%Setting%` in function.json.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::document::Document;

/// Variables of this process that a handler gets in any case, because they belong to the machine and not to the app.
const OF_THE_MACHINE: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SystemRoot",
];

pub type Settings = BTreeMap<String, String>;

/// The `Values` of a local.settings.json, overridden by `extra`.
///
/// # Errors
/// Names the file and the invalid member.
pub fn load(file: Option<&Path>, extra: &[(String, String)]) -> anyhow::Result<Settings> {
    let mut settings = Settings::new();
    if let Some(path) = file {
        let document = Document::read(path)?;
        let root = document.root();
        if let Some(encrypted) = root.get("IsEncrypted").filter(|node| node.value() == &Value::Bool(true)) {
            return Err(encrypted.error("is true: decrypt the file with `func settings decrypt`"));
        }
        for (name, node) in root.get("Values").map_or(Ok(Vec::new()), |values| values.members())? {
            let text = match node.value() {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null => continue,
                _ => return Err(node.error("must be a string")),
            };
            settings.insert(name.to_owned(), text);
        }
    }
    settings.extend(extra.iter().cloned());
    Ok(settings)
}

/// What the handler's environment has at least.
pub fn environment(settings: &Settings, app: &Path, handler_port: u16) -> Settings {
    let machine = OF_THE_MACHINE.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let mut environment: Settings = machine.collect();
    environment.extend(settings.clone());
    for name in ["FUNCTIONS_CUSTOMHANDLER_PORT", "FUNCTIONS_HTTPWORKER_PORT"] {
        environment.insert(name.to_owned(), handler_port.to_string());
    }
    environment.insert("FUNCTIONS_APP_ROOT_PATH".to_owned(), app.display().to_string());
    environment
}

/// The setting's value for `%Setting%`; any other text itself. `None` if there is no such setting.
pub fn resolved<'a>(settings: &'a Settings, text: &'a str) -> Option<&'a str> {
    match text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) {
        Some(name) => settings.get(name).map(String::as_str),
        None => Some(text),
    }
}

/// The text with every `%Setting%` in it replaced.
///
/// # Errors
/// Names the missing setting, or says that a `%` has no partner.
pub fn interpolated(settings: &Settings, text: &str) -> Result<String, Uninterpolated> {
    let (mut result, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        let (name, after) = after.split_once('%').ok_or(Uninterpolated::Unpaired)?;
        let value = settings.get(name).ok_or_else(|| Uninterpolated::Missing(name.to_owned()))?;
        result = result + before + value;
        rest = after;
    }
    Ok(result + rest)
}

/// Why a text with settings in it has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uninterpolated {
    Missing(String),
    Unpaired,
}

impl std::fmt::Display for Uninterpolated {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(name) => write!(out, "has %{name}%: there is no setting {name}"),
            Self::Unpaired => out.write_str("has a % without a second one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_may_stand_anywhere_in_a_text() {
        let settings = Settings::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
        for (text, expected) in [("", ""), ("a", "a"), ("%A%", "1"), ("%A%-x%B%%A%", "1-x21")] {
            assert_eq!(interpolated(&settings, text), Ok(expected.to_owned()));
        }
        for (text, problem) in [("%C%", "no setting C"), ("%A%-%", "without a second"), ("%%", "no setting ")] {
            assert!(interpolated(&settings, text).unwrap_err().to_string().contains(problem), "{text}");
        }
    }
}
