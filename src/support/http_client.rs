//! The HTTP client: one for everything that trusts the same certificate authorities.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::CertificateDer};

use super::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A service that sends nothing for this long is given up. Requests have a limit for their whole time beside it.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Cheap to clone: clones share the connections.
#[derive(Clone)]
pub struct HttpClient(Arc<Lazy>);

struct Lazy {
    trusted_ca: Vec<CertificateDer<'static>>,
    /// Made for the first request: most starts need none, and reading the platform's certificates takes time.
    client: OnceLock<reqwest::Client>,
}

impl HttpClient {
    /// Does not connect. `trusted_ca` are certificates that are trusted in addition to the platform's.
    #[must_use]
    pub fn new(trusted_ca: Vec<CertificateDer<'static>>) -> Self {
        Self(Arc::new(Lazy { trusted_ca, client: OnceLock::new() }))
    }

    /// # Errors
    /// TLS cannot be set up: why.
    pub fn get(&self) -> Result<&reqwest::Client, String> {
        let Lazy { trusted_ca, client } = &*self.0;
        if let Some(client) = client.get() {
            return Ok(client);
        }
        let tls = tls::client_config(trusted_ca)?;
        let made = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&tls))
            // Credentials must not follow to the target of a redirect.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("iothub-connector/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        // Another caller may have been faster. Its client is as good.
        Ok(client.get_or_init(|| made))
    }
}

/// Trusts the platform's certificate authorities only.
impl Default for HttpClient {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl From<Vec<CertificateDer<'static>>> for HttpClient {
    fn from(trusted_ca: Vec<CertificateDer<'static>>) -> Self {
        Self::new(trusted_ca)
    }
}
