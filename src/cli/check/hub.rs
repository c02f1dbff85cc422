//! Checks the hub as the device that sends, and the services and hubs where devices come from.

use chrono::{SecondsFormat, TimeDelta, Utc};
use futures::{StreamExt as _, stream};
use iothub_connector::{
    config::{Config, hub::Identity},
    iot_hub::{
        Credential, Device, Transport,
        devices::{
            self,
            enrollment::{Enrollment, EnrollmentGroup, HubPolicy},
        },
        probe, sas,
    },
    support::kind::Kind,
};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;

use super::report::{Checked, Row};

/// Services that are called at once.
const AT_ONCE: usize = 8;
/// A warning is printed if a ready token ends sooner than this, as in the connector.
const EXPIRY_NOTICE: TimeDelta = TimeDelta::days(7);
/// The device id for checking a hub whose devices are not known before they send.
const NOBODY: &str = "iothub-connector-check";

/// Checks, without calling a service, when a ready token ends.
pub fn token(config: &Config) -> Option<Row> {
    let device = config.hub.identity.as_ref()?.one()?;
    let Credential::Token(token) = &device.credential else { return None };
    let (what, at) = ("token of the device", sas::expiry(token.expose_secret())?);
    let text = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let to_do = "replace it by a new one, or set IoTHubDeviceKey";
    Some(match at - Utc::now() {
        left if left <= TimeDelta::zero() => {
            Row { kind: Some(Kind::HubTokenExpired), ..Row::failed(what, format!("it expired at {text}"), to_do) }
        }
        left if left < EXPIRY_NOTICE => Row::warning(what, format!("it expires at {text}"), to_do),
        _ => Row::ok(what, format!("holds until {text}")),
    })
}

/// Checks the hub as the one device that sends everything.
pub async fn device(device: &Device, transport: Transport, trusted_ca: &[CertificateDer<'static>]) -> Checked {
    let over: &str = transport.into();
    let what = format!("hub {}", device.endpoint);
    match probe::device(device, transport, trusted_ca).await {
        Ok(skew) => Checked {
            rows: vec![Row::ok(what, format!("lets device {} in over {over}", device.id))],
            clock: skew.map(|skew| ("the hub", skew)),
        },
        Err(error) => Checked::of(Row::fault(what, error.kind(), &error.to_string())),
    }
}

/// Checks each service and hub where devices come from, once.
pub async fn enrollments(config: &Config) -> Checked {
    let trusted_ca = &config.hub.trusted_ca;
    let of_sites = match &config.hub.identity {
        Some(Identity::Provisioned(dps)) => Some(("sites".to_owned(), From::Dps(dps))),
        _ => None,
    };
    let of_applications = config.things_network.iter().flat_map(|config| config.enrollments.named());
    let of_applications = of_applications.map(|(suffixes, enrollment)| match enrollment {
        Enrollment::Dps(dps) => (suffixes, From::Dps(dps)),
        Enrollment::Hub(hub) => (suffixes, From::Hub(hub)),
    });
    let all = of_sites.into_iter().chain(of_applications).collect::<Vec<_>>();
    let asked = stream::iter(all).map(|(whose, from)| async move {
        match from {
            From::Dps(dps) => service(&whose, dps, trusted_ca).await,
            From::Hub(hub) => policy(&whose, hub, trusted_ca).await,
        }
    });
    let each = asked.buffered(AT_ONCE).collect::<Vec<_>>().await;
    let clock = each.iter().find_map(|checked| checked.clock);
    Checked { rows: each.into_iter().flat_map(|checked| checked.rows).collect(), clock }
}

enum From<'a> {
    Dps(&'a EnrollmentGroup),
    Hub(&'a HubPolicy),
}

async fn service(whose: &str, config: &EnrollmentGroup, trusted_ca: &[CertificateDer<'static>]) -> Checked {
    let what = format!("DPS {} ({whose})", config.id_scope);
    match devices::probe::group(config, trusted_ca.to_vec()).await {
        Ok(skew) => Checked {
            rows: vec![Row::ok(what, "knows ID scope and group key; nothing was registered")],
            clock: skew.map(|skew| ("the Device Provisioning Service", skew)),
        },
        Err(error) => Checked::of(Row::fault(what, error.kind(), &error.to_string())),
    }
}

async fn policy(whose: &str, hub: &HubPolicy, trusted_ca: &[CertificateDer<'static>]) -> Checked {
    let what = format!("hub {} ({whose})", hub.hub);
    match probe::policy(&hub.hub, hub.policy.clone(), NOBODY, trusted_ca).await {
        Ok(skew) => Checked {
            rows: vec![Row::ok(what, format!("takes the key of policy {}", hub.policy.name))],
            clock: skew.map(|skew| ("the hub", skew)),
        },
        Err(error) => {
            let row = Row::fault(what, error.kind(), &error.to_string());
            let to_do = row.to_do.map(|to_do| match error.kind() {
                Kind::HubRefused => "check the policy's name and key in AzureIotHubConnectionString…".to_owned(),
                _ => to_do,
            });
            Checked::of(Row { to_do, ..row })
        }
    }
}
