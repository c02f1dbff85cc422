//! Reads where The Things Stack's API is. `backfill --storage` needs it; downlinks go there if webhooks have no address for them.

use secrecy::SecretString;
use url::Url;

use super::{Problems, Settings};
use crate::things_network::downlinks::{address::Address, stack::downlink_url};

const URL: &str = "ThingsStackUrl";
const API_KEY: &str = "ThingsStackApiKey";
const API: &str = "api/v3/";

#[derive(Clone, Debug)]
pub struct Config {
    /// `ThingsStackUrl`: The Things Stack, here with the path of its API.
    pub root: Url,
    /// `ThingsStackApiKey`
    pub api_key: SecretString,
}

/// Reads both settings and adds faults to `problems`.
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Config> {
    let url = settings.required(URL, "The Things Stack, such as https://eu1.cloud.thethings.network", problems);
    let purpose = "an API key of the application, with the right to read application traffic";
    let api_key = settings.required(API_KEY, purpose, problems);
    let root = url.and_then(|url| root(url).map_err(|why| problems.add(URL, why)).ok());
    Some(Config { root: root?, api_key: api_key?.into() })
}

/// Where downlinks go if webhooks have no address for them. Absent unless both settings are there: `backfill --storage` says
/// what is missing.
pub(super) fn address(settings: &Settings, problems: &mut Problems) -> Option<Address> {
    let names = [URL, API_KEY];
    let is_complete = names.iter().all(|name| settings.get(name, &mut Problems::default()).is_some());
    let Config { root, api_key } = if is_complete { read(settings, problems)? } else { return None };
    Some(Address { root, api_key })
}

/// With or without the path of the API. The key goes there, so it must use TLS or stay on this machine.
fn root(text: &str) -> Result<Url, String> {
    let mut url = downlink_url(text)?;
    if !url.path().trim_end_matches('/').ends_with(API.trim_end_matches('/')) {
        let path = format!("{}/{API}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_may_have_the_path_of_the_api() {
        for (text, expected) in [
            ("https://eu1.cloud.thethings.network", "https://eu1.cloud.thethings.network/api/v3/"),
            ("https://eu1.cloud.thethings.network/api/v3/", "https://eu1.cloud.thethings.network/api/v3/"),
            ("http://127.0.0.1:1885/", "http://127.0.0.1:1885/api/v3/"),
        ] {
            assert_eq!(root(text).unwrap().as_str(), expected);
        }
        assert!(root("http://tts.example").unwrap_err().contains("without TLS") && root("tts.example").is_err());
        let mut problems = Problems::default();
        assert!(read(&Settings::default(), &mut problems).is_none());
        assert!(problems.list().contains("ThingsStackUrl is not set") && problems.list().contains("ThingsStackApiKey"));
    }
}
