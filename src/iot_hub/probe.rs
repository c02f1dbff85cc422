//! Checks whether the hub accepts a device or policy, without sending anything, before the connector runs.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use rustls::pki_types::CertificateDer;

use super::{
    Credential, Device, Endpoint, Policy, SendError, Transport, client_config,
    https::BATCH_CONTENT_TYPE,
    mqtt::{Connection, Login, Over},
    rest,
};
use crate::support::http;

const TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// A hub whose quota is used up accepts a connection and cuts it within this time.
const CUT_WITHIN: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(1);
/// A batch without messages: the hub checks the token first, then refuses the batch (400) or accepts nothing (204).
const NO_MESSAGES: &str = "[]";

/// Connects as the device, over the transport that telemetry uses. The hub disconnects a client that is connected as
/// this device at the time; that client has to connect again. Returns this machine's clock minus the hub's clock, if
/// the hub has sent its time.
///
/// # Errors
/// Why the hub does not accept the device.
pub async fn device(
    device: &Device,
    transport: Transport,
    trusted_ca: &[CertificateDer<'static>],
) -> Result<Option<TimeDelta>, SendError> {
    let over = match transport {
        Transport::Https => return over_https(device, trusted_ca).await,
        Transport::MqttWs => Over::WebSocket,
        _ => Over::Tcp,
    };
    let (token, _) = device.token(Utc::now(), TOKEN_LIFETIME)?;
    let tls = client_config(trusted_ca).map_err(SendError::Untrusted)?;
    let connection = Connection::open(Login { device, token: &token, over, tls }, None).await?;
    let end = connection.end_within(CUT_WITHIN).await;
    connection.drain(FAREWELL).await;
    end.map_or(Ok(None), Err)
}

/// Whether the hub knows a policy and its key. The request is made as a device with this id, which need not exist.
/// Returns the same as [`device`].
///
/// # Errors
/// Why the hub does not accept the policy.
pub async fn policy(
    hub: &Endpoint,
    policy: Arc<Policy>,
    id: &str,
    trusted_ca: &[CertificateDer<'static>],
) -> Result<Option<TimeDelta>, SendError> {
    let device = Device {
        hub_host: hub.host.clone(),
        endpoint: hub.clone(),
        id: id.to_owned(),
        credential: Credential::Policy(policy),
    };
    match over_https(&device, trusted_ca).await {
        // The token was valid: the hub reports a missing device only after it has accepted the token.
        Err(SendError::RefusedBecause { status: 404, .. }) => Ok(None),
        result => result,
    }
}

async fn over_https(device: &Device, trusted_ca: &[CertificateDer<'static>]) -> Result<Option<TimeDelta>, SendError> {
    let (token, _) = device.token(Utc::now(), TOKEN_LIFETIME)?;
    let client = rest::Client::new(trusted_ca.to_vec().into());
    let request = client.request(Method::POST, device, &token, "messages/events", "")?;
    let request = request.header(CONTENT_TYPE, BATCH_CONTENT_TYPE).body(NO_MESSAGES);
    let response = request.send().await.map_err(|error| rest::no_answer(&error, device))?;
    let now = Utc::now();
    let clock_skew = http::clock_skew(response.headers(), now);
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(clock_skew);
    }
    match rest::explain(response, device, now).await {
        SendError::Rejected { .. } | SendError::BadRequest { .. } => Ok(clock_skew),
        error => Err(error),
    }
}
