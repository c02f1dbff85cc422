//! Sets up TLS: it trusts the platform's certificate authorities and those of the settings. Verification cannot be
//! turned off.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};

/// TLS 1.2 or newer with the platform's roots and `trusted_ca`.
///
/// # Errors
/// A sentence for the user, if there is no trusted authority or a certificate is unusable.
pub fn client_config(trusted_ca: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let platform = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(platform.certs);
    for certificate in trusted_ca {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("a certificate in the file that IoTHubTrustedCa names is unusable: {error}"))?;
    }
    if roots.is_empty() {
        return Err("this machine has no trusted certificate authorities: install ca-certificates".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
