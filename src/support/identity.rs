//! Who we are for Azure's services where there is no key: Cosmos DB and Key Vault.

use std::sync::Arc;

use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions},
    time::Duration,
};
use azure_identity::{AzureCliCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions};

/// Set by Azure wherever an app has a managed identity.
/// <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>
const OF_AN_APP: &str = "IDENTITY_ENDPOINT";

/// What fails in passing is tried so often again, the first time after [`FIRST_WAIT`], then after twice as long each time: some
/// seconds in all, which is below the time of one operation in Cosmos DB.
const RETRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::milliseconds(200);

/// Who signs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignIn {
    /// The app, by its system-assigned managed identity; nobody else.
    #[default]
    App,
    /// Whoever runs a command: within Azure the app, elsewhere the person who ran `az login`.
    Person,
}

impl SignIn {
    /// What tokens come from. Nothing is asked for yet. `options` are those of [`client_options`], or of a client of one's own.
    ///
    /// # Errors
    /// This machine's kind of managed identity is not supported.
    pub fn credential(self, options: ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>> {
        if self.is_person() {
            return Ok(AzureCliCredential::new(None)?);
        }
        let options = ManagedIdentityCredentialOptions { client_options: options, ..Default::default() };
        Ok(ManagedIdentityCredential::new(Some(options))?)
    }

    /// What to do if there is no token.
    #[must_use]
    pub fn advice(self) -> &'static str {
        if self.is_person() {
            "run `az login` (on this machine its user signs in)"
        } else {
            "switch on the app's system-assigned managed identity"
        }
    }

    pub(crate) fn is_person(self) -> bool {
        self == Self::Person && std::env::var_os(OF_AN_APP).is_none()
    }
}

/// How the SDK is to ask: not for longer than anybody waits.
#[must_use]
pub fn client_options() -> ClientOptions {
    let retry = ExponentialRetryOptions { initial_delay: FIRST_WAIT, max_retries: RETRIES, ..Default::default() };
    ClientOptions { retry: RetryOptions::exponential(retry), ..ClientOptions::default() }
}
