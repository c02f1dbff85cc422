//! Connection strings of storage accounts, which say where queues and blobs are and hold the key for them.
//! <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Url;

/// Azurite's account; its key is public.
const DEVELOPMENT_NAME: &str = "devstoreaccount1";
const DEVELOPMENT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const DEVELOPMENT_ENDPOINT: &str = "http://127.0.0.1:10001/devstoreaccount1";
const DEVELOPMENT_BLOBS: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// A storage account with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct StorageAccount {
    pub name: String,
    pub key: Vec<u8>,
    /// Of the queue service, without a slash at its end.
    pub endpoint: Url,
    /// Of the blob service. `None` if the text gives the address of the queue service only.
    pub blobs: Option<Url>,
}

impl fmt::Debug for StorageAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, endpoint) = (&self.name, self.endpoint.as_str());
        write!(formatter, "StorageAccount {{ name: {name:?}, key: [redacted], endpoint: {endpoint} }}")
    }
}

impl StorageAccount {
    /// # Errors
    /// Says what is missing or wrong, without quoting a secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut members = BTreeMap::new();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or("is not a connection string: a part of it has no =")?;
            members.insert(name.trim().to_ascii_lowercase(), value.trim());
        }
        let member = |name: &str| members.get(name).copied().filter(|value| !value.is_empty());
        if member("usedevelopmentstorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::new(DEVELOPMENT_NAME, DEVELOPMENT_KEY, DEVELOPMENT_ENDPOINT, Some(DEVELOPMENT_BLOBS));
        }
        let name = member("accountname").ok_or("is not a connection string with an AccountName")?;
        let key = member("accountkey").ok_or("has no AccountKey; this host knows no other credential")?;
        let protocol = member("defaultendpointsprotocol").unwrap_or("https");
        let suffix = member("endpointsuffix").unwrap_or("core.windows.net");
        let of = |service: &str| format!("{protocol}://{name}.{service}.{suffix}");
        let (queues, blobs) = match (member("queueendpoint"), member("blobendpoint")) {
            (Some(queues), blobs) => (queues.to_owned(), blobs.map(str::to_owned)),
            (None, Some(blobs)) => (of("queue"), Some(blobs.to_owned())),
            (None, None) => (of("queue"), Some(of("blob"))),
        };
        Self::new(name, key, &queues, blobs.as_deref())
    }

    fn new(name: &str, key: &str, queues: &str, blobs: Option<&str>) -> Result<Self, &'static str> {
        let key = BASE64_STANDARD.decode(key).map_err(|_| "has an AccountKey that is not Base64")?;
        let address = |text: &str| {
            let url = Url::parse(text.trim_end_matches('/')).ok();
            url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.query().is_none())
        };
        let blobs = blobs.map(|blobs| address(blobs).ok_or("has a BlobEndpoint that is not an HTTP address"));
        Ok(Self {
            name: name.to_owned(),
            key,
            endpoint: address(queues).ok_or("has a QueueEndpoint that is not an HTTP address")?,
            blobs: blobs.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_name_the_endpoints() {
        for (text, endpoint, blobs) in [
            ("UseDevelopmentStorage=true", DEVELOPMENT_ENDPOINT, Some(DEVELOPMENT_BLOBS)),
            (
                "AccountName=a;AccountKey=a2V5",
                "https://a.queue.core.windows.net/",
                Some("https://a.blob.core.windows.net/"),
            ),
            (
                "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn",
                "https://a.queue.core.chinacloudapi.cn/",
                Some("https://a.blob.core.chinacloudapi.cn/"),
            ),
            (
                "accountname=a; accountkey=a2V5;QueueEndpoint=http://127.0.0.1:9/a/;BlobEndpoint=http://x/",
                "http://127.0.0.1:9/a",
                Some("http://x/"),
            ),
            ("AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:9/a", "http://127.0.0.1:9/a", None),
        ] {
            let account = StorageAccount::parse(text).unwrap();
            assert_eq!(account.endpoint.as_str(), endpoint, "{text}");
            assert_eq!(account.blobs.as_ref().map(Url::as_str), blobs, "{text}");
            let shown = format!("{account:?}");
            assert!(shown.contains("[redacted]") && !shown.contains("107, 101, 121"), "{shown}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        for (text, problem) in [
            ("", "AccountName"),
            ("nonsense", "no ="),
            ("AccountName=a", "no AccountKey"),
            ("AccountName=a;AccountKey=", "no AccountKey"),
            ("AccountName=a;AccountKey=?", "not Base64"),
            ("AccountName=a;AccountKey=a2V5;QueueEndpoint=ftp://a", "QueueEndpoint that is not an HTTP address"),
            ("AccountName=a;AccountKey=a2V5;BlobEndpoint=ftp://a", "BlobEndpoint that is not an HTTP address"),
            ("QueueEndpoint=https://a.queue.core.windows.net;SharedAccessSignature=sv=1", "AccountName"),
        ] {
            assert!(StorageAccount::parse(text).unwrap_err().contains(problem), "{text}");
        }
    }
}
