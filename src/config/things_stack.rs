//! Reads where The Things Stack's API is, and what a webhook of this app has there. Commands use it; of the app, only downlinks for
//! which webhooks have no address.

use secrecy::SecretString;
use url::Url;

use super::{Problems, Settings};
use crate::{
    support::http,
    things_network::{
        downlinks::{address::Address, stack::downlink_url},
        registry::address::PATH,
    },
};

const URL: &str = "ThingsStackUrl";
const KEY: &str = "ThingsStackApiKey";
const DOWNLINK_KEY: &str = "ThingsStackDownlinkApiKey";
pub const APP_URL: &str = "FunctionAppUrl";
/// The last part of the path of the function that takes webhooks.
const FUNCTION: &str = "/uplink";
const API: &str = "api/v3/";

#[derive(Clone, Debug)]
pub struct Config {
    /// `ThingsStackUrl`: The Things Stack, here with the path of its API.
    pub root: Url,
    /// `ThingsStackApiKey`
    pub api_key: SecretString,
}

/// What a webhook needs to reach this app.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `FunctionAppUrl`: the address of the function that takes webhooks.
    pub address: Option<Url>,
    /// `FunctionAppKey`: the key of that function.
    pub function_key: Option<SecretString>,
    /// `ThingsStackDownlinkApiKey`: a key that may write downlink traffic. The Things Stack gives it to the app with each webhook.
    pub downlink_api_key: Option<SecretString>,
}

/// Whether both settings are there.
#[must_use]
pub fn is_set(settings: &Settings) -> bool {
    settings.has(URL) && settings.has(KEY)
}

/// Reads what a webhook needs and adds faults to `problems`.
pub fn read_webhook(settings: &Settings, problems: &mut Problems) -> Webhook {
    let url = settings.get(APP_URL, problems).map(str::to_owned);
    Webhook {
        address: url.and_then(|url| address(&url).map_err(|why| problems.add(APP_URL, why)).ok()),
        function_key: settings.secret("FunctionAppKey", problems),
        downlink_api_key: settings.secret(DOWNLINK_KEY, problems),
    }
}

/// The address of the function, from the app's URL or from the address itself. Keys go there, so it must use TLS or stay on
/// this machine.
///
/// # Errors
/// What is wrong, as the rest of a sentence that begins with the URL's name. It does not repeat the URL, which may hold a key.
pub fn address(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if http::is_on_this_machine(&url) => {}
        "http" => return Err("is without TLS: write https://".into()),
        other => return Err(format!("has the scheme {other:?}, not https")),
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("has more than server and path: remove what comes after them; the key is FunctionAppKey".into());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    match path.as_str() {
        "" => url.set_path(PATH),
        path if path.ends_with(FUNCTION) => url.set_path(path),
        path => {
            return Err(format!(
                "has the path {path}: remove it, or give the whole address of function thingsNetworkUplink, such as \
                 https://MY_APP.azurewebsites.net{PATH}"
            ));
        }
    }
    Ok(url)
}

/// Reads both settings of the API and adds faults to `problems`.
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Config> {
    let url = settings.required(URL, "The Things Stack, such as https://eu1.cloud.thethings.network", problems);
    let purpose = "an API key of the application, with the right to read application traffic";
    let api_key = settings.required(KEY, purpose, problems);
    let root = url.and_then(|url| root(url).map_err(|why| problems.add(URL, why)).ok());
    Some(Config { root: root?, api_key: api_key?.into() })
}

/// Where downlinks go if webhooks have no address for them. Absent unless both settings are there: each alone has another
/// purpose.
pub(super) fn downlinks(settings: &Settings, problems: &mut Problems) -> Option<Address> {
    if !settings.has(URL) {
        return None;
    }
    let api_key = settings.secret(DOWNLINK_KEY, problems)?;
    let url = settings.get(URL, problems)?.to_owned();
    let root = root(&url).map_err(|why| problems.add(URL, why)).ok()?;
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

    #[test]
    fn the_apps_url_becomes_the_address_of_its_function() {
        for (text, expected) in [
            ("https://app.example", "https://app.example/api/uplink"),
            ("https://app.example/api/uplink/", "https://app.example/api/uplink"),
            ("https://gateway.example/lorawan/uplink", "https://gateway.example/lorawan/uplink"),
            ("http://127.0.0.1:7071", "http://127.0.0.1:7071/api/uplink"),
        ] {
            assert_eq!(address(text).unwrap().as_str(), expected);
        }
        for (text, why) in [
            ("app.example", "is not a URL"),
            ("http://app.example", "without TLS"),
            ("ftp://app.example", "scheme"),
            ("https://app.example/api/status", "has the path /api/status: remove it"),
            ("https://app.example/api/uplink?code=hunter2", "FunctionAppKey"),
            ("https://me:hunter2@app.example", "FunctionAppKey"),
        ] {
            let said = address(text).unwrap_err();
            assert!(said.contains(why) && !said.contains("hunter2"), "{text}: {said}");
        }
        let mut problems = Problems::default();
        let settings = [("FunctionAppUrl", "http://app.example"), ("FunctionAppKey", "k3y")].into_iter().collect();
        let webhook = read_webhook(&settings, &mut problems);
        assert!(webhook.address.is_none() && webhook.function_key.is_some() && webhook.downlink_api_key.is_none());
        assert!(problems.list().starts_with("FunctionAppUrl is without TLS"), "{}", problems.list());
    }
}
