//! Explains why a Key Vault returned no secrets, as a fault of the setting. The text never contains a secret.

use std::error::Error as _;

use azure_core::{Error, error::ErrorKind};
use serde::Deserialize;
use url::Url;

use super::KEY_VAULT;
use crate::support::{http, identity::SignIn};

pub enum Failure {
    /// There is no client or no token.
    Client(Error),
    /// The vault has more secrets than this.
    TooMany(usize),
    /// The request that is named here got an error status, or no response.
    Request(Error, &'static str),
}

impl Failure {
    /// What is wrong and what to do, as the rest of a sentence that begins with the setting's name.
    pub fn explain(&self, url: &Url, sign_in: SignIn) -> String {
        let (error, doing) = match self {
            Self::TooMany(most) => {
                return format!("names a vault with more than {most} secrets: give the settings a vault of their own");
            }
            Self::Client(error) => (error, "list"),
            Self::Request(error, doing) => (error, *doing),
        };
        let host = url.host_str().unwrap_or_default();
        match (error.kind(), error.http_status().map(u16::from)) {
            (ErrorKind::Credential, _) => format!(
                "needs somebody to sign in at {host}, and there is no token ({}): {}, or remove {KEY_VAULT}",
                of_credential(error, sign_in),
                sign_in.advice()
            ),
            (_, Some(status @ (401 | 403))) => format!(
                "names a vault that does not let {} {doing} its secrets ({status}{}): give it the role Key Vault Secrets \
                 User on {host} (or Get and List in its access policies), and look at the vault's firewall",
                if sign_in.is_person() { "you" } else { "the app's identity" },
                inner_code(error)
            ),
            (_, Some(status)) => {
                format!(
                    "names a vault that answered {status} ({host}): check the name; if it is right, try again later"
                )
            }
            (ErrorKind::Connection | ErrorKind::Io, None) => {
                format!(
                    "names a vault that cannot be reached ({host}: {}): check the name and the network",
                    cause(error)
                )
            }
            // Do not print the error: it may contain a secret.
            _ => format!("names something that does not answer as a Key Vault does ({host}): check the name"),
        }
    }
}

/// Why there is no token. Does not repeat the response of the identity's endpoint: that endpoint knows the app's
/// secret.
fn of_credential(error: &Error, sign_in: SignIn) -> String {
    if sign_in.is_person() {
        const MOST: usize = 300;
        return http::one_line(&cause(error), MOST);
    }
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(status) = error.downcast_ref::<Error>().and_then(Error::http_status) {
            return format!("the managed identity's endpoint answered {}", u16::from(status));
        }
        source = error.source();
    }
    format!("the managed identity's endpoint: {}", cause(error))
}

/// The vault's inner error code, such as `ForbiddenByRbac`, `ForbiddenByFirewall`, `SecretDisabled`.
fn inner_code(error: &Error) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Outer,
    }
    #[derive(Deserialize)]
    struct Outer {
        innererror: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        code: String,
    }
    let ErrorKind::HttpResponse { raw_response: Some(response), .. } = error.kind() else { return String::new() };
    let code = serde_json::from_slice::<Body>(response.body().as_ref()).map(|body| body.error.innererror.code);
    let code = code
        .ok()
        .filter(|code| (1..=40).contains(&code.len()) && code.chars().all(|letter| letter.is_ascii_alphanumeric()));
    code.map(|code| format!(", {code}")).unwrap_or_default()
}

/// The innermost error: the SDK hides it behind its sources.
fn cause(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    http::one_line(&innermost.to_string(), http::MAX_ERROR_TEXT)
}
