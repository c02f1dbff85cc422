//! Checks ID scope and group key without registering a device, before the connector runs.
//! <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/device-registration-status-lookup>
//!
//! The check requests the registration of a device that was never registered: first with a token from the group's key,
//! then with a token from a random key. If the service answers "no such device" to the first request and "unauthorized"
//! to the second, it knows the scope and has checked the key.

use chrono::{TimeDelta, Utc};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretBox};

use super::{
    DpsError,
    client::{Client, Lookup},
};
use crate::{iot_hub::devices::enrollment::EnrollmentGroup, support::http_client::HttpClient};

/// Length of the random key, in bytes.
const KEY: usize = 32;

/// Checks the service of `config`. Registers nothing. Returns this machine's clock minus the service's clock, if the
/// response contains the time.
///
/// # Errors
/// The service cannot be reached, or does not know the scope or the key.
pub async fn group(
    config: &EnrollmentGroup,
    trusted_ca: Vec<CertificateDer<'static>>,
) -> Result<Option<TimeDelta>, DpsError> {
    let client = |group_key: Vec<u8>, http: HttpClient| {
        let group_key = SecretBox::new(Box::new(group_key));
        Client::new(
            EnrollmentGroup { endpoint: config.endpoint.clone(), id_scope: config.id_scope.clone(), group_key },
            http,
        )
    };
    let http = HttpClient::new(trusted_ca);
    let id = format!("iothub-connector-check-{:016x}", fastrand::u64(..));
    let ours = client(config.group_key.expose_secret().clone(), http.clone());
    let Lookup { is_known, clock_skew, .. } = ours.look_up(&id, Utc::now()).await?;
    if !is_known {
        let nobodys = (0..KEY).map(|_| fastrand::u8(..)).collect();
        match client(nobodys, http).look_up(&id, Utc::now()).await {
            Err(DpsError::Unauthorized { .. }) => {}
            Ok(Lookup { said, .. }) => return Err(DpsError::UnknownScope { said }),
            Err(error) => return Err(error),
        }
    }
    Ok(clock_skew)
}
