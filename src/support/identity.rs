//! Signs in to Azure's services when there is no key: Cosmos DB, storage queues and Key Vault.

use std::sync::Arc;

use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions},
    time::Duration,
};
use azure_identity::{AzureCliCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions};

/// Azure sets this variable in every app that has a managed identity.
/// <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>
const OF_AN_APP: &str = "IDENTITY_ENDPOINT";

/// Number of retries of a transient failure. The first wait is [`FIRST_WAIT`] and each further wait is twice as long:
/// some seconds in total, less than the time-out of one Cosmos DB operation.
const RETRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::milliseconds(200);

/// Who signs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignIn {
    /// The app, only with its system-assigned managed identity.
    #[default]
    App,
    /// The user who runs a command: the user of `az login`, or within Azure the app.
    Person,
}

impl SignIn {
    /// Returns the source of tokens. Does not request a token yet. `options` are [`client_options`] or those of the
    /// caller's own client.
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

/// Options for the SDK's clients: their retries end before the callers' time-outs.
#[must_use]
pub fn client_options() -> ClientOptions {
    let retry = ExponentialRetryOptions { initial_delay: FIRST_WAIT, max_retries: RETRIES, ..Default::default() };
    ClientOptions { retry: RetryOptions::exponential(retry), ..ClientOptions::default() }
}
