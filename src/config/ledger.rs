//! Reads the settings of the database where polls are recorded.

use url::Url;

use super::{Problems, Settings};
use crate::{cosmos, rapidm2m::ledger::Options};

/// Reads the settings of Cosmos DB and adds faults to `problems`:
/// - `M2MDocumentsDBUri`: the Cosmos DB account's endpoint
/// - `M2MDocumentsDBPrimaryKey`: the account's key; without it, the identity of [`Settings::sign_in`] signs in
/// - `M2MDocumentsDBName` (`M2MBackendForwarderData`), `M2MDocumentsDBCollection` (`pollingAttempts`)
/// - `PollHistoryDays`: how long records of finished polls are kept (30 days; 0 = for ever)
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Options> {
    let name = "M2MDocumentsDBUri";
    let endpoint = settings
        .required(name, "the Cosmos DB account, such as https://myaccount.documents.azure.com:443/", problems)
        .and_then(|text| endpoint(text).map_err(|why| problems.add(name, why)).ok());
    let key = settings.secret("M2MDocumentsDBPrimaryKey", problems);
    let database = settings.get("M2MDocumentsDBName", problems).unwrap_or("M2MBackendForwarderData").to_owned();
    let container = settings.get("M2MDocumentsDBCollection", problems).unwrap_or("pollingAttempts").to_owned();
    for (name, value) in [("M2MDocumentsDBName", &database), ("M2MDocumentsDBCollection", &container)] {
        if value.contains(['/', '\\', '?', '#']) || value.len() > 255 {
            problems.add(name, format!("is {value:?}: at most 255 characters, none of / \\ ? #"));
        }
    }
    let days = settings.number("PollHistoryDays", 30, 0..=20_000, problems);
    let history_days = u32::try_from(days).ok().filter(|days| *days > 0);
    let account = cosmos::Options { endpoint: endpoint?, key, sign_in: settings.sign_in, database };
    Some(Options { account, container, history_days })
}

/// <https://learn.microsoft.com/azure/cosmos-db/nosql/security/> requires TLS; the SDK allows plain HTTP on loopback
/// only.
fn endpoint(text: &str) -> Result<Url, String> {
    let example = "write it like https://myaccount.documents.azure.com:443/";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {example}"))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(format!("has no host: {example}")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err("is plain http: only an emulator on this machine may be reached without TLS".into()),
        _ => Err(format!("is not an https URL: {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!(endpoint("http://127.0.0.1:8081/").is_ok());
        assert!(endpoint("http://localhost:8081").is_ok());
        assert!(endpoint("https://a.documents.azure.com:443/").is_ok());
        assert!(endpoint("http://a.documents.azure.com/").unwrap_err().contains("plain http"));
        assert!(endpoint("a.documents.azure.com").is_err());
    }
}
