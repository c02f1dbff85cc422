//! Reads the storage account of the queues, and checks their names.

use super::{Problems, Settings};
use crate::queue::Account;

/// The setting's name. The host also reads it with the prefix `AzureWebJobs`, and with `__…` appended for an identity.
pub const NAME: &str = "AzureStorageConnectionString";
const PREFIXED: &str = "AzureWebJobsAzureStorageConnectionString";
/// Suffix of the queue for rejected messages. The bindings use the same suffix.
const REJECTED: &str = "-rejected";
const LONGEST_QUEUE: usize = 63;

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

/// <https://learn.microsoft.com/rest/api/storageservices/naming-queues-and-metadata>
pub fn check_queue(name: &str) -> Result<(), String> {
    let longest = LONGEST_QUEUE - REJECTED.len();
    let is_valid = (3..=longest).contains(&name.len())
        && name.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if is_valid {
        return Ok(());
    }
    Err(format!(
        "is {name:?}, which is not a name of a storage queue: 3 to {longest} (with {REJECTED:?} appended at most \
         {LONGEST_QUEUE}) of a-z, 0-9 and single - between them"
    ))
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
