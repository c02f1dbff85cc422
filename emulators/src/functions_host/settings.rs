//! App settings: what the handler finds in its environment and what `%Setting%` stands for.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::document::Document;

/// Variables of this process that the handler gets too: those that belong to the machine, not to the app. Everything
/// else must be a setting, as it must in Azure.
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
/// Names the file and the member at fault.
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
                _ => return Err(node.error("must be a string")),
            };
            settings.insert(name.to_owned(), text);
        }
    }
    settings.extend(extra.iter().cloned());
    Ok(settings)
}

/// The handler's whole environment.
pub fn environment(settings: &Settings, handler_port: u16) -> Settings {
    let machine = OF_THE_MACHINE.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let mut environment: Settings = machine.collect();
    environment.extend(settings.clone());
    for name in ["FUNCTIONS_CUSTOMHANDLER_PORT", "FUNCTIONS_HTTPWORKER_PORT"] {
        environment.insert(name.to_owned(), handler_port.to_string());
    }
    environment
}

/// What `%Setting%` stands for; other texts stand for themselves. `None`: there is no such setting.
pub fn resolved<'a>(settings: &'a Settings, text: &'a str) -> Option<&'a str> {
    match text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) {
        Some(name) => settings.get(name).map(String::as_str),
        None => Some(text),
    }
}
