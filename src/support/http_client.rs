//! Provides one HTTP client for all services that trust the same certificate authorities.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::CertificateDer};

use super::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time-out for a service that sends nothing. Requests also have a limit for their whole time. Longer than the
/// sender's patience with a hub, so that a silent hub is reported as stalled, not as unreachable.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Cheap to clone: clones share the connections.
#[derive(Clone)]
pub struct HttpClient(Arc<Lazy>);

/// Made for the first request: most starts need no client, and reading the platform's certificates takes time.
struct Lazy {
    trusted_ca: Vec<CertificateDer<'static>>,
    tls: OnceLock<Arc<ClientConfig>>,
    client: OnceLock<reqwest::Client>,
}

impl HttpClient {
    /// Does not connect. `trusted_ca` are certificates that are trusted in addition to the platform's.
    #[must_use]
    pub fn new(trusted_ca: Vec<CertificateDer<'static>>) -> Self {
        Self(Arc::new(Lazy { trusted_ca, tls: OnceLock::new(), client: OnceLock::new() }))
    }

    /// # Errors
    /// Why TLS cannot be set up.
    pub fn get(&self) -> Result<&reqwest::Client, String> {
        if let Some(client) = self.0.client.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(self.tls()?))
            // Credentials must not follow to the target of a redirect.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("iothub-connector/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        // Another caller may have been faster: its client is used.
        Ok(self.0.client.get_or_init(|| client))
    }

    /// The TLS configuration with the same trust, for protocols other than HTTP.
    ///
    /// # Errors
    /// Why TLS cannot be set up.
    pub fn tls(&self) -> Result<&Arc<ClientConfig>, String> {
        if let Some(tls) = self.0.tls.get() {
            return Ok(tls);
        }
        let tls = tls::client_config(&self.0.trusted_ca)?;
        Ok(self.0.tls.get_or_init(|| tls))
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
