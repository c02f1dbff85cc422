//! Makes the hub's certificate, signed by a new CA.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use chrono::{DateTime, Datelike, Days, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// Days a certificate is valid.
const VALID_DAYS: u64 = 365;

/// The file with the CA.
#[derive(Debug)]
pub struct CaFile {
    pub path: PathBuf,
    /// A directory created for this file, removed with it.
    own_directory: Option<PathBuf>,
}

impl CaFile {
    /// Writes the CA to `ca.pem` in the given directory, or in a new one under the system's temporary directory.
    pub fn write(pem: &str, directory: Option<&Path>) -> io::Result<Self> {
        let (directory, own_directory) = match directory {
            Some(directory) => {
                fs::create_dir_all(directory)?;
                (directory.to_owned(), None)
            }
            None => {
                let name = format!("iot-hub-emulator-{}-{:08x}", std::process::id(), fastrand::u32(..));
                let directory = std::env::temp_dir().join(name);
                // Fails if it exists: a CA in another user's directory cannot be trusted.
                fs::create_dir(&directory)?;
                (directory.clone(), Some(directory))
            }
        };
        let file = Self { path: directory.join("ca.pem"), own_directory };
        fs::write(&file.path, pem)?;
        Ok(file)
    }
}

impl Drop for CaFile {
    fn drop(&mut self) {
        if let Some(directory) = &self.own_directory {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Makes a CA and a server certificate for `names` (host names and IP addresses). Returns the TLS server's
/// configuration and the CA as PEM. The CA's key is not kept.
pub fn make(mut names: Vec<String>, now: DateTime<Utc>) -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name = common_name("IoT Hub emulator CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut ca, now);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    names.sort();
    names.dedup();
    let mut server = CertificateParams::new(names).context("a host name that cannot stand in a certificate")?;
    server.distinguished_name = common_name("IoT Hub emulator");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_validity(&mut server, now);
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &ca)?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key)?;
    Ok((Arc::new(config), ca.pem()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Valid from yesterday, so that a slightly slow clock accepts the certificate.
fn set_validity(params: &mut CertificateParams, now: DateTime<Utc>) {
    let day = |date: DateTime<Utc>| date_time_ymd(date.year(), date.month() as u8, date.day() as u8);
    params.not_before = day(now - Days::new(1));
    params.not_after = day(now + Days::new(VALID_DAYS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_its_own_goes_with_the_file() {
        let own = CaFile::write("pem", None).unwrap();
        let (path, other) = (own.path.clone(), CaFile::write("pem", None).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "pem");
        assert_ne!(path, other.path);
        drop(own);
        assert!(!path.parent().unwrap().exists());

        let given = other.path.parent().unwrap().join("given");
        let file = CaFile::write("pem", Some(&given)).unwrap().path.clone();
        assert_eq!(fs::read_to_string(&file).unwrap(), "pem", "what was asked for stays");
        fs::remove_dir_all(given).unwrap();
    }
}
