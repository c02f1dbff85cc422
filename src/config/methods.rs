//! Reads how the commands of IoT Central are sent: `AzureIoT__IoTCentral__Methods__{command}__Port` and so on, as KiwiBryn's
//! connector has them.

use std::collections::BTreeMap;

use super::{Problems, Settings};
use crate::things_network::downlinks::method::Methods;

/// In an environment, `__` stands for the `:` of a settings file. Some systems let both into it.
pub const PREFIXES: [&str; 2] = ["AzureIoT__IoTCentral__Methods__", "AzureIoT:IoTCentral:Methods:"];
const SEPARATORS: [&str; 2] = ["__", ":"];

pub fn read(settings: &Settings, problems: &mut Problems) -> Methods {
    let (mut methods, mut seen) = (Methods::default(), BTreeMap::new());
    for (prefix, separator) in PREFIXES.into_iter().zip(SEPARATORS) {
        for name in settings.names_with(prefix) {
            let Some((command, member)) =
                name[prefix.len()..].rsplit_once(separator).filter(|(name, _)| !name.is_empty())
            else {
                problems.add(name.to_owned(), format!("is not a setting: write {prefix}{{command}}{separator}Port"));
                continue;
            };
            let Some(value) = settings.get(name, problems) else { continue };
            let what = (command.to_ascii_lowercase(), member.to_ascii_lowercase());
            if let Some(other) = seen.insert(what, name) {
                problems.add(other.to_owned(), format!("and {name} are both set: remove one of them"));
            } else if let Err(why) = methods.set(command, member, value) {
                problems.add(name.to_owned(), why);
            }
        }
    }
    methods
}

/// The setting that a secret of a Key Vault holds. Names of commands have no `-`, and their case does not matter.
pub fn of_secret(secret: &str) -> Option<String> {
    let prefix = PREFIXES[0];
    let (begin, rest) = secret.split_at_checked(prefix.len())?;
    let is_setting = begin.eq_ignore_ascii_case(&prefix.replace('_', "-")) && !rest.is_empty();
    is_setting.then(|| format!("{prefix}{}", rest.replace('-', "_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> (Methods, String) {
        let mut problems = Problems::default();
        let methods = read(&pairs.iter().copied().collect(), &mut problems);
        (methods, if problems.is_empty() { String::new() } else { problems.list() })
    }

    #[test]
    fn commands_are_read_from_both_spellings() {
        let (methods, problems) = read_pairs(&[
            ("AzureIoT__IoTCentral__Methods__SetPoint__Port", "15"),
            ("AzureIoT:IoTCentral:Methods:LightsOff:port", "16"),
            ("AzureIoT__IoTCentral__Methods__set__point__Confirmed", "true"),
        ]);
        assert_eq!(problems, "");
        assert_eq!(methods.get("setpoint").unwrap().port, Some(15));
        assert_eq!(methods.get("LightsOff").unwrap().port, Some(16));
        assert_eq!(methods.get("set__point").unwrap().confirmed, Some(true));
        assert!(methods.get("other").is_none());
    }

    #[test]
    fn faults_are_named() {
        for (pairs, problem) in [
            (&[("AzureIoT__IoTCentral__Methods__A__Port", "x")][..], "A__Port is \"x\": write a number from 1 to 223"),
            (&[("AzureIoT__IoTCentral__Methods__A__Color", "x")], "A__Color sets nothing"),
            (&[("AzureIoT__IoTCentral__Methods__Port", "1")], "Methods__Port is not a setting"),
            (&[("AzureIoT__IoTCentral__Methods__A__Port", "")], "A__Port is set but empty"),
            (
                &[("AzureIoT__IoTCentral__Methods__A__Port", "1"), ("AzureIoT:IoTCentral:Methods:a:Port", "1")],
                "are both set: remove one",
            ),
        ] {
            let (_, problems) = read_pairs(pairs);
            assert!(problems.contains(problem), "{problem:?} is missing in {problems}");
        }
    }

    #[test]
    fn a_secret_is_called_like_its_setting() {
        let setting = "AzureIoT__IoTCentral__Methods__SetPoint__Payload";
        assert_eq!(of_secret("AzureIoT--IoTCentral--Methods--SetPoint--Payload").as_deref(), Some(setting));
        assert_eq!(of_secret("AzureIoT--IoTCentral--Methods--"), None);
        assert_eq!(of_secret("AzureIoT--Other"), None);
    }
}
