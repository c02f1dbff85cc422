//! Who we are for Azure's services where there is no key: Cosmos DB and Key Vault.

use std::sync::Arc;

use azure_core::{credentials::TokenCredential, http::ClientOptions};
use azure_identity::{AzureCliCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions};

/// Set by Azure wherever an app has a managed identity.
/// <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>
const OF_AN_APP: &str = "IDENTITY_ENDPOINT";

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
    /// What tokens come from. Nothing is asked for yet.
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

    /// What can be wrong with it, and what to do: the end of a sentence.
    #[must_use]
    pub fn advice(self) -> &'static str {
        if self.is_person() {
            "on this machine the user of the Azure CLI signs in: run `az login`"
        } else {
            "switch on the app's system-assigned managed identity"
        }
    }

    pub(crate) fn is_person(self) -> bool {
        self == Self::Person && std::env::var_os(OF_AN_APP).is_none()
    }
}
