//! The rights that The Things Stack gives an API key, and what the console calls them. Pure.

use serde::Deserialize;

pub const READ_TRAFFIC: &str = "RIGHT_APPLICATION_TRAFFIC_READ";
pub const WRITE_DOWNLINKS: &str = "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE";
pub const WRITE_UPLINKS: &str = "RIGHT_APPLICATION_TRAFFIC_UP_WRITE";
pub const EDIT_SETTINGS: &str = "RIGHT_APPLICATION_SETTINGS_BASIC";
pub const READ_DEVICES: &str = "RIGHT_APPLICATION_DEVICES_READ";

/// What the key needs that makes a webhook. (The Things Stack's source: `Set` in
/// `pkg/applicationserver/io/web/grpc_webhooks.go`.)
pub const FOR_SETUP: [&str; 3] = [EDIT_SETTINGS, READ_TRAFFIC, WRITE_DOWNLINKS];

/// The rights in the words of the console.
const NAMES: [(&str, &str); 5] = [
    (READ_TRAFFIC, "Read application traffic (uplink and downlink)"),
    (WRITE_DOWNLINKS, "Write downlink application traffic"),
    (WRITE_UPLINKS, "Write uplink application traffic"),
    (EDIT_SETTINGS, "Edit basic application settings"),
    (READ_DEVICES, "View devices in application"),
];
/// Rights that include these ones.
const ALL: [&str; 2] = ["RIGHT_APPLICATION_ALL", "RIGHT_ALL"];

/// The rights of a key on an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Rights {
    #[serde(default)]
    rights: Vec<String>,
}

impl Rights {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rights.is_empty()
    }

    /// Those of `needed` that are not among them.
    #[must_use]
    pub fn lacking<'a>(&self, needed: &[&'a str]) -> Vec<&'a str> {
        let has = |right: &str| self.rights.iter().any(|own| own == right || ALL.contains(&own.as_str()));
        needed.iter().copied().filter(|right| !has(right)).collect()
    }
}

/// The rights as the console shows them.
pub fn in_words<'a>(rights: impl IntoIterator<Item = &'a str>) -> String {
    let name = |right: &'a str| NAMES.iter().find(|(own, _)| *own == right).map_or(right, |(_, name)| name);
    rights.into_iter().map(|right| format!("\"{}\"", name(right))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lacking_right_is_told_as_the_console_calls_it() {
        let rights = |names: &[&str]| Rights { rights: names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(rights(&[READ_TRAFFIC]).lacking(&FOR_SETUP), [EDIT_SETTINGS, WRITE_DOWNLINKS]);
        assert_eq!(rights(&["RIGHT_APPLICATION_ALL"]).lacking(&FOR_SETUP), [""; 0]);
        let text = in_words([EDIT_SETTINGS, "RIGHT_OF_TOMORROW"]);
        assert_eq!(text, "\"Edit basic application settings\", \"RIGHT_OF_TOMORROW\"");
        assert!(Rights::default().is_empty() && !rights(&[READ_TRAFFIC]).is_empty());
    }
}
