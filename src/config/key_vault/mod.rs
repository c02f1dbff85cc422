//! Looks up absent settings in the Key Vault that `KeyVaultURI` names. Without this setting, no vault is called.
//!
//! The list of the vault's secrets is requested first, because the names of applications with their own settings
//! (suffixes) cannot be guessed. A secret is read only if it holds a setting and this setting is absent.

mod failure;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use azure_core::{
    Error,
    error::ErrorKind,
    http::{AsyncRawResponse, ClientOptions, HttpClient, Request, StatusCode, Transport},
};
use azure_security_keyvault_secrets::{ResourceExt as _, SecretClient, SecretClientOptions};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use url::Url;

use self::failure::Failure;
use super::{Problems, Settings, names};
use crate::support::{
    http, http_client,
    identity::{self, SignIn},
};

pub const KEY_VAULT: &str = "KeyVaultURI";

/// Time-out for the whole look-up, with sign-in and retries. The Functions host waits 30 s for the handler's first
/// response.
const TIME: Duration = Duration::from_secs(20);
/// Largest response that is read, in bytes. A secret has at most 25 KB; a page of names has 25 secrets.
const MAX_BODY: usize = 1024 * 1024;
/// Most names of secrets that are read.
const MAX_NAMES: usize = 2_000;
/// Secrets that are requested at once.
const AT_ONCE: usize = 8;

/// The settings, completed from the vault.
pub struct Completed {
    pub settings: Settings,
    /// The names of the settings that came from the vault, in order.
    pub from_vault: BTreeSet<String>,
}

/// Whether the settings name a vault.
#[must_use]
pub fn is_wanted(settings: &Settings) -> bool {
    settings.names().any(|name| name == KEY_VAULT)
}

/// Adds settings that are absent but in the vault.
///
/// # Errors
/// The vault cannot be used, or holds a setting that is disabled. The error names the setting and contains no secret.
pub async fn complete(settings: Settings) -> Result<Completed, Problems> {
    let mut problems = Problems::default();
    if !is_wanted(&settings) {
        return Ok(Completed { settings, from_vault: BTreeSet::new() });
    }
    let sign_in = settings.sign_in;
    let url = settings.get(KEY_VAULT, &mut problems).map(vault_url);
    let Some(Ok(url)) = url else {
        if let Some(Err(why)) = url {
            problems.add(KEY_VAULT, why);
        }
        return Err(problems);
    };
    let found = match tokio::time::timeout(TIME, look_up(&url, &settings, &mut problems)).await {
        Ok(found) => found.map_err(|failure| failure.explain(&url, sign_in)),
        Err(_) => Err(format!(
            "names a vault that did not give its secrets within {} s: check the name, the vault's firewall and the network",
            TIME.as_secs()
        )),
    };
    match found {
        Ok(found) if problems.is_empty() => {
            let from_vault = found.iter().map(|(name, _)| name.clone()).collect();
            Ok(Completed { settings: settings.or(found.into_iter().collect()), from_vault })
        }
        Ok(_) => Err(problems),
        Err(why) => {
            problems.add(KEY_VAULT, why);
            Err(problems)
        }
    }
}

fn vault_url(text: &str) -> Result<Url, String> {
    let example = "write it like https://myvault.vault.azure.net/";
    // Do not repeat the text: it may be anything.
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {example}"))?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() != "https" || !url.has_host() || url.path() != "/" || url.fragment().is_some() || !is_plain {
        return Err(format!("is not the https URL of a Key Vault alone: {example}"));
    }
    Ok(url)
}

async fn look_up(url: &Url, settings: &Settings, problems: &mut Problems) -> Result<Vec<(String, String)>, Failure> {
    let vault = client(url, settings.sign_in).map_err(Failure::Client)?;
    let present: BTreeSet<String> = settings.names().map(names::identity).collect();
    let mut wanted = BTreeSet::new();
    let mut secrets = vault.list_secret_properties(None).map_err(Failure::Client)?;
    let mut seen = 0;
    while let Some(secret) = secrets.try_next().await.map_err(|error| Failure::Request(error, "list"))? {
        seen += 1;
        if seen > MAX_NAMES {
            return Err(Failure::TooMany(MAX_NAMES));
        }
        let Ok(id) = secret.resource_id() else { continue };
        let Some(name) = names::of_secret(&id.name).filter(|name| !present.contains(&names::identity(name))) else {
            continue;
        };
        if secret.attributes.is_some_and(|attributes| attributes.enabled == Some(false)) {
            let text = format!("is a disabled secret in the vault that {KEY_VAULT} names: enable it, or delete it");
            problems.add(name, text);
            continue;
        }
        wanted.insert((name, id.name));
    }
    let vault = &vault;
    let read = stream::iter(wanted).map(|(name, secret)| async move {
        match vault.get_secret(&secret, None).await.and_then(|response| response.into_model()) {
            Ok(secret) => Ok(secret.value.map(|value| (name, value))),
            // The secret was deleted after it was listed.
            Err(error) if error.http_status() == Some(StatusCode::NotFound) => Ok(None),
            Err(error) => Err(Failure::Request(error, "read")),
        }
    });
    read.buffer_unordered(AT_ONCE).try_filter_map(async |found| Ok(found)).try_collect().await
}

fn client(url: &Url, sign_in: SignIn) -> azure_core::Result<SecretClient> {
    let http = http_client::HttpClient::default();
    let http = http.get().map_err(|text| Error::with_message(ErrorKind::Other, text))?;
    let transport = Transport::new(Arc::new(Bounded(http.clone())));
    let client_options = ClientOptions { transport: Some(transport), ..identity::client_options() };
    let credential = sign_in.credential(client_options.clone())?;
    let options = SecretClientOptions {
        client_options,
        // The token's resource must have the vault's domain. A vault on this machine has no domain.
        verify_challenge_resource: Some(!http::is_on_this_machine(url)),
        ..SecretClientOptions::default()
    };
    SecretClient::new(url.as_str(), credential, Some(options))
}

/// Refuses responses that are larger than any that is needed.
#[derive(Debug)]
struct Bounded(reqwest::Client);

#[async_trait::async_trait]
impl HttpClient for Bounded {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let (status, headers, mut body) = self.0.execute_request(request).await?.deconstruct();
        let mut bytes = Vec::new();
        while let Some(piece) = body.try_next().await? {
            if bytes.len() + piece.len() > MAX_BODY {
                return Err(Error::with_message(ErrorKind::DataConversion, "the answer is too large"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(AsyncRawResponse::from_bytes(status, headers, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_is_an_https_url_without_anything_else() {
        for good in ["https://myvault.vault.azure.net/", "https://myvault.vault.azure.net", "https://127.0.0.1:4711"] {
            assert!(vault_url(good).is_ok(), "{good}");
        }
        for bad in [
            "myvault",
            "http://myvault.vault.azure.net/",
            "https://myvault.vault.azure.net/secrets/hunter2",
            "https://hunter2@myvault.vault.azure.net/",
            "https://myvault.vault.azure.net/?hunter2",
            "",
        ] {
            let error = vault_url(bad).unwrap_err();
            assert!(error.contains("https://myvault.vault.azure.net/") && !error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn without_the_setting_nothing_is_asked_and_an_empty_one_is_a_mistake() {
        let completed =
            complete([("Customer_ID", "c")].into_iter().collect()).await.unwrap_or_else(|_| panic!("asked"));
        assert!(completed.from_vault.is_empty() && completed.settings.has("Customer_ID"));
        let Err(problems) = complete([(KEY_VAULT, " ")].into_iter().collect()).await else { panic!("taken") };
        assert!(problems.to_string().contains("KeyVaultURI is set but empty"), "{problems}");
    }
}
