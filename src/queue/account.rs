//! Reads the address of the queues and the credential for them, in every form that the Functions host accepts as
//! `AzureStorageConnectionString`.
//! <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>

use std::{collections::BTreeMap, fmt, sync::Arc};

use azure_core::credentials::TokenCredential;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, RequestBuilder, Url};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::Sha256;

use super::{QueueError, VERSION};
use crate::support::{
    http,
    identity::{self, SignIn},
};

/// Azurite's account, which is public.
const DEVELOPMENT: &str = "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/\
                           K1SZFPTOtr/KBHBeksoGMGw==;QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1";
const SCOPE: &str = "https://storage.azure.com/.default";
/// How long a signature is valid. Each request gets its own.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// A storage account.
#[derive(Clone)]
pub struct Account {
    /// The address of the account's queues.
    endpoint: Url,
    credential: Credential,
}

#[derive(Clone)]
enum Credential {
    Key {
        account: String,
        key: Arc<SecretBox<Vec<u8>>>,
    },
    /// A ready shared access signature: the query of a URL.
    Signature(SecretString),
    /// Microsoft Entra ID.
    Identity {
        tokens: Arc<dyn TokenCredential>,
        sign_in: SignIn,
    },
}

impl fmt::Debug for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Account").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl Account {
    /// The account whose queues are at this address, used with the identity of `sign_in`.
    ///
    /// # Errors
    /// The fault of the address, as the rest of a sentence that begins with the setting's name.
    pub fn with_identity(place: &str, sign_in: SignIn) -> Result<Self, String> {
        Ok(Self { endpoint: endpoint(place)?, credential: identity(sign_in)? })
    }

    /// Reads a connection string.
    ///
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name. It contains no secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut members = BTreeMap::new();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or("is not a connection string: a part of it has no =")?;
            members.insert(name.trim().to_ascii_lowercase(), value.trim());
        }
        let member = |name: &str| members.get(name).copied().filter(|value| !value.is_empty());
        if member("usedevelopmentstorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::parse(DEVELOPMENT);
        }
        let account = member("accountname");
        let place = match (member("queueendpoint"), account) {
            (Some(place), _) => place.to_owned(),
            (None, Some(account)) => {
                let protocol = member("defaultendpointsprotocol").unwrap_or("https");
                let suffix = member("endpointsuffix").unwrap_or("core.windows.net");
                format!("{protocol}://{account}.queue.{suffix}")
            }
            (None, None) => return Err("is not a connection string with an AccountName or a QueueEndpoint".into()),
        };
        let credential = match (account, member("accountkey"), member("sharedaccesssignature")) {
            (Some(account), Some(key), _) => {
                let key = BASE64_STANDARD.decode(key).map_err(|_| "has an AccountKey that is not Base64")?;
                Credential::Key { account: account.to_owned(), key: Arc::new(SecretBox::new(Box::new(key))) }
            }
            (_, _, Some(signature)) => Credential::Signature(signature.trim_start_matches('?').into()),
            (None, Some(_), None) => return Err("has an AccountKey and no AccountName".into()),
            (_, None, None) => return Err("has neither an AccountKey nor a SharedAccessSignature".into()),
        };
        Ok(Self { endpoint: endpoint(&place)?, credential })
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// What the account is called: of an address in Azure only the account's own name.
    pub(super) fn name(&self) -> &str {
        let host = self.endpoint.host_str().unwrap_or_default();
        host.split_once(".queue.").map_or(host, |(name, _)| name)
    }

    /// What to do if the account refuses a request with this error code.
    /// <https://learn.microsoft.com/troubleshoot/azure/azure-storage/blobs/authentication/storage-troubleshoot-403-errors>
    pub(super) fn remedy(&self, code: &str) -> String {
        let place = self.endpoint.as_str().trim_end_matches('/');
        let credential = match &self.credential {
            Credential::Identity { sign_in, .. } => {
                let who = if sign_in.is_person() { "the user of `az login`" } else { "the app's identity" };
                format!(
                    "give {who} the role Storage Queue Data Contributor on {} (it takes up to 10 minutes to take effect)",
                    self.name()
                )
            }
            _ if code == "KeyBasedAuthenticationNotPermitted" => {
                return format!(
                    "use an identity, since the account takes no keys, with AzureStorageConnectionString__queueServiceUri={place} \
                     and AzureStorageConnectionString__credential=managedidentity instead of AzureStorageConnectionString"
                );
            }
            Credential::Key { .. } => {
                "check AzureStorageConnectionString (the account's key may have been rotated) and \
                                       this machine's clock"
                    .to_owned()
            }
            Credential::Signature(_) => {
                "check AzureStorageConnectionString (its signature may have ended, or allow too \
                                         little) and this machine's clock"
                    .to_owned()
            }
        };
        let firewall = "look at the account's firewall";
        // A firewall answers with the first of these codes, but not only a firewall does.
        if matches!(code, "AuthorizationFailure" | "AuthorizationSourceIPMismatch") {
            format!("{firewall}, then {credential}")
        } else {
            format!("{credential}, and {firewall}")
        }
    }

    /// A request with the account's credential.
    pub(super) async fn authorized(
        &self,
        client: &reqwest::Client,
        method: Method,
        mut url: Url,
    ) -> Result<RequestBuilder, QueueError> {
        let signature = match &self.credential {
            Credential::Key { account, key } => {
                signature(account, key.expose_secret(), Utc::now() + LIFETIME, url.scheme())
            }
            Credential::Signature(query) => query.expose_secret().to_owned(),
            Credential::Identity { tokens, sign_in } => {
                let token = tokens.get_token(&[SCOPE], None).await;
                let text = |error: azure_core::Error| http::one_line(&error.to_string(), http::MAX_ERROR_TEXT);
                let token = token.map_err(|error| QueueError::Token { text: text(error), advice: sign_in.advice() })?;
                return Ok(client.request(method, url).bearer_auth(token.token.secret()));
            }
        };
        let query = url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&"));
        url.set_query(Some(&format!("{}{signature}", query.unwrap_or_default())));
        Ok(client.request(method, url))
    }
}

fn identity(sign_in: SignIn) -> Result<Credential, String> {
    let credential = sign_in.credential(identity::client_options());
    let credential = credential.map(|tokens| Credential::Identity { tokens, sign_in });
    credential.map_err(|error| format!("needs an identity: {error}"))
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim_end_matches('/')).ok().filter(|url| url.query().is_none() && url.has_host());
    let url = url.ok_or("has an address of the queues that is not a URL")?;
    match url.scheme() {
        "https" => Ok(url),
        // Azurite. On a network, plain HTTP would show the messages and the signature to others.
        "http" if http::is_on_this_machine(&url) => Ok(url),
        _ => Err("has an address of the queues that is not https://".into()),
    }
}

/// A shared access signature of the account for its queues: reading, adding, updating and processing messages, and
/// creating queues.
/// <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
fn signature(account: &str, key: &[u8], expires: DateTime<Utc>, scheme: &str) -> String {
    const PERMISSIONS: &str = "racup";
    let expires = expires.to_rfc3339_opts(SecondsFormat::Secs, true);
    let protocol = if scheme == "http" { "https,http" } else { "https" };
    // Messages are objects, but Azurite treats deleting and updating one as an operation on its container. The absent
    // parts are start, addresses and encryption scope.
    let text = format!("{account}\n{PERMISSIONS}\nq\nco\n\n{expires}\n\n{protocol}\n{VERSION}\n\n");
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("sv", VERSION), ("ss", "q"), ("srt", "co"), ("sp", PERMISSIONS)])
        .extend_pairs([("se", expires.as_str()), ("spr", protocol), ("sig", &signature)])
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_say_where_the_queues_are() {
        for (text, endpoint) in [
            ("UseDevelopmentStorage=true", "http://127.0.0.1:10001/devstoreaccount1"),
            ("AccountName=a;AccountKey=a2V5", "https://a.queue.core.windows.net/"),
            (
                "AccountName=a;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn",
                "https://a.queue.core.chinacloudapi.cn/",
            ),
            (
                "accountname=a; accountkey=a2V5;QueueEndpoint=http://127.0.0.1:9/a/;BlobEndpoint=http://x/",
                "http://127.0.0.1:9/a",
            ),
            (
                "QueueEndpoint=https://a.queue.core.windows.net;SharedAccessSignature=?sv=1&sig=hunter2",
                "https://a.queue.core.windows.net/",
            ),
        ] {
            let account = Account::parse(text).unwrap();
            assert_eq!(account.endpoint().as_str(), endpoint, "{text}");
            assert!(!format!("{account:?}").contains("hunter2"));
        }
        for (text, problem) in [
            ("", "AccountName"),
            ("hunter2", "no ="),
            ("AccountName=a", "neither"),
            ("AccountName=a;AccountKey=hunter2?", "not Base64"),
            ("AccountKey=a2V5;QueueEndpoint=https://x", "no AccountName"),
            ("AccountName=a;AccountKey=a2V5;QueueEndpoint=http://example.com/a", "not https"),
        ] {
            let why = Account::parse(text).unwrap_err();
            assert!(why.contains(problem) && !why.contains("hunter2"), "{text}: {why}");
        }
    }

    #[test]
    fn what_to_do_about_a_refusal_depends_on_the_credential_and_the_code() {
        let with = |sign_in| Account::with_identity("https://st1.queue.core.windows.net/", sign_in).unwrap();
        let key = Account::parse("AccountName=st1;AccountKey=a2V5").unwrap();
        let signature = Account::parse("AccountName=st1;SharedAccessSignature=sv=1&sig=hunter2").unwrap();
        let role = "the role Storage Queue Data Contributor on st1 (it takes up to 10 minutes to take effect)";
        let mismatch = "AuthorizationPermissionMismatch";
        for (account, code, advice) in [
            (
                with(SignIn::App),
                mismatch,
                format!("give the app's identity {role}, and look at the account's firewall"),
            ),
            (with(SignIn::Person), mismatch, format!("give the user of `az login` {role}, and look at the")),
            (with(SignIn::App), "AuthorizationFailure", "look at the account's firewall, then give the app's".into()),
            (
                key.clone(),
                "AuthenticationFailed",
                "check AzureStorageConnectionString (the account's key may have".into(),
            ),
            (key.clone(), "AuthorizationFailure", "look at the account's firewall, then check AzureStorage".into()),
            (
                key,
                "KeyBasedAuthenticationNotPermitted",
                "use an identity, since the account takes no keys, with \
                 AzureStorageConnectionString__queueServiceUri=https://st1.queue.core.windows.net and"
                    .into(),
            ),
            (signature, "AuthenticationFailed", "check AzureStorageConnectionString (its signature may have".into()),
        ] {
            let remedy = account.remedy(code);
            assert!(remedy.starts_with(&advice), "{code}: {remedy}");
        }
    }

    #[tokio::test]
    async fn a_request_has_the_signature_behind_its_own_query() {
        let account = Account::parse("AccountName=a;AccountKey=a2V5").unwrap();
        let url = Url::parse("https://a.queue.core.windows.net/q/messages?numofmessages=32").unwrap();
        let request = account.authorized(&reqwest::Client::new(), Method::GET, url).await.unwrap().build().unwrap();
        let url = request.url().as_str();
        assert!(
            url.starts_with(
                "https://a.queue.core.windows.net/q/messages?numofmessages=32&sv=2021-12-02&ss=q&srt=co&sp=racup&se="
            ),
            "{url}"
        );
        assert!(url.contains("&spr=https&sig="), "{url}");
    }
}
