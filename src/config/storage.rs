//! Reads the storage account of the queues.

use super::{Problems, Settings};
use crate::queue::Account;

/// The setting's name. The host also reads it with the prefix `AzureWebJobs`, and with `__…` appended for an identity.
const NAME: &str = "AzureStorageConnectionString";
const PREFIXED: &str = "AzureWebJobsAzureStorageConnectionString";

/// Reads the same settings as the Functions host does for `AzureStorageConnectionString` and adds faults to `problems`.
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Account> {
    for name in [PREFIXED, NAME] {
        if settings.has(name) {
            let read = Account::parse(settings.get(name, problems)?);
            return read.map_err(|why| problems.add(name, why)).ok();
        }
        for (member, of) in [("queueServiceUri", None), ("accountName", Some(()))] {
            let setting = format!("{name}__{member}");
            let Some(value) = settings.get(&setting, problems) else { continue };
            let uri = of.map_or(value.to_owned(), |()| format!("https://{value}.queue.core.windows.net"));
            let account = Account::with_identity(&uri, settings.sign_in);
            return account.map_err(|why| problems.add(setting, why)).ok();
        }
    }
    problems.add(NAME, "is not set: the storage account of the queues");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_needs_an_address_only() {
        for (name, value, endpoint) in [
            (
                "AzureStorageConnectionString__queueServiceUri",
                "https://a.queue.core.windows.net",
                "https://a.queue.core.windows.net/",
            ),
            ("AzureStorageConnectionString__accountName", "b", "https://b.queue.core.windows.net/"),
        ] {
            let mut problems = Problems::default();
            let account = read(&[(name, value)].into_iter().collect(), &mut problems);
            assert_eq!(account.unwrap_or_else(|| panic!("{problems}")).endpoint().as_str(), endpoint);
        }
        let mut problems = Problems::default();
        assert!(read(&Settings::from_iter::<[(&str, &str); 0]>([]), &mut problems).is_none());
        assert!(problems.list().contains(NAME), "{problems}");
    }
}
