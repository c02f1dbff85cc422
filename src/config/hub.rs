//! Reads which IoT Hub receives the rows, which device sends them, which transport it uses and which certificates it
//! trusts.

use std::{fs, num::NonZeroUsize, path::PathBuf, sync::Arc};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Problems, Settings, dps};
use crate::iot_hub::{
    Credential, Device, Endpoint, Transport,
    device::{check_id, decode_key},
    devices::enrollment::EnrollmentGroup,
    sas,
};
use crate::support::hex::hex;

/// Bytes of a mark.
const MARK: usize = 8;
const TRUSTED_CA: &str = "IoTHubTrustedCa";
/// The settings for sending everything as one device.
const OF_ONE_DEVICE: [&str; 4] = ["IoTHubURL", "IoTHubDeviceId", "IoTHubSharedAccessSignature", "IoTHubDeviceKey"];

#[derive(Debug)]
pub struct Config {
    /// The sender of the rows of rapidM2M sites. `Some` if that half is on.
    pub identity: Option<Identity>,
    /// `IoTHubTransport` (`mqtt`).
    pub transport: Transport,
    /// `IoTHubMaxConnections`: MQTT connections open at a time (1000).
    pub max_connections: NonZeroUsize,
    /// `IoTHubTrustedCa`: certificates from a PEM file, trusted in addition to those of the platform.
    pub trusted_ca: Vec<CertificateDer<'static>>,
}

/// The sender of the rows.
#[derive(Debug)]
pub enum Identity {
    /// One device for everything.
    One(Arc<Device>),
    /// Each site has its own device.
    Provisioned(EnrollmentGroup),
}

impl Identity {
    fn read(settings: &Settings, transport: Option<Transport>, problems: &mut Problems) -> Option<Self> {
        let one = |device: Device| Self::One(Arc::new(device));
        let identity = if settings.has("IoTHubConnection") {
            connection_string(settings, problems).map(one)
        } else if dps::is_wanted(settings) && !settings.has("IoTHubDeviceId") {
            for name in OF_ONE_DEVICE.into_iter().filter(|name| settings.has(name)) {
                problems.add(
                    name,
                    "is set beside DPSIDScope, which gives each site a hub and a key of its own: remove it, or set \
                     IoTHubDeviceId to send everything as one device",
                );
            }
            dps::read(settings, problems).map(Self::Provisioned)
        } else {
            separate_settings(settings, problems).map(one)
        };
        if let (Some(transport), Some(Self::One(device))) = (transport, &identity) {
            check_port(settings, transport, device, problems);
        }
        #[cfg(feature = "azure-iot-sdk")]
        if transport == Some(Transport::AzureIotSdk) {
            check_for_azure_iot_sdk(settings, identity.as_ref().and_then(Self::one), problems);
        }
        identity
    }

    /// A mark by which a later process recognises a secret, without anybody else being able to try secrets against it: it
    /// takes the key of this identity.
    #[must_use]
    pub fn mark(&self, secret: &str) -> String {
        let mark = match self {
            Self::Provisioned(group) => sas::derive_key(group.group_key.expose_secret(), secret),
            Self::One(device) => match &device.credential {
                Credential::Token(token) => sas::derive_key(token.expose_secret().as_bytes(), secret),
                Credential::Key(key) => sas::derive_key(key.expose_secret(), secret),
                Credential::Policy(policy) => sas::derive_key(policy.key.expose_secret(), secret),
            },
        };
        hex(&mark[..MARK])
    }

    /// The device that sends everything, if there is one.
    #[must_use]
    pub fn one(&self) -> Option<&Device> {
        match self {
            Self::One(device) => Some(device),
            Self::Provisioned(_) => None,
        }
    }
}

impl Config {
    /// Reads the hub's settings. Reads the sender only if the rows of rapidM2M sites are forwarded.
    pub(super) fn read(settings: &Settings, has_rapidm2m: bool, problems: &mut Problems) -> Option<Self> {
        let transport = transport(settings, problems);
        let max_connections = settings.number("IoTHubMaxConnections", 1_000, 1..=100_000, problems);
        let max_connections = usize::try_from(max_connections).ok().and_then(NonZeroUsize::new);
        let trusted_ca = trusted_ca(settings, problems);
        let identity = has_rapidm2m.then(|| Identity::read(settings, transport, problems));
        let (is_complete, identity) = (identity.as_ref().is_none_or(Option::is_some), identity.flatten());
        is_complete.then_some(Self {
            identity,
            transport: transport?,
            max_connections: max_connections?,
            trusted_ca: trusted_ca?,
        })
    }
}

fn transport(settings: &Settings, problems: &mut Problems) -> Option<Transport> {
    match settings.get("IoTHubTransport", problems) {
        None | Some("mqtt") => Some(Transport::Mqtt),
        Some("mqtt-ws") => Some(Transport::MqttWs),
        Some("https") => Some(Transport::Https),
        #[cfg(feature = "azure-iot-sdk")]
        Some("azure-iot-sdk") => Some(Transport::AzureIotSdk),
        #[cfg(not(feature = "azure-iot-sdk"))]
        Some("azure-iot-sdk") => {
            let text = "is azure-iot-sdk, which this binary is built without: build it with --features azure-iot-sdk";
            problems.add("IoTHubTransport", text);
            None
        }
        Some(other) => {
            problems.add("IoTHubTransport", format!("is {other:?}: write mqtt, mqtt-ws or https"));
            None
        }
    }
}

/// Each port of a hub speaks one protocol: a user who changes the transport must not keep the other transport's port.
fn check_port(settings: &Settings, transport: Transport, device: &Device, problems: &mut Problems) {
    let speaks_mqtt = match device.endpoint.port {
        Some(8883) => true,
        Some(443) => false,
        _ => return,
    };
    if speaks_mqtt != !matches!(transport, Transport::MqttWs | Transport::Https) {
        let name = if settings.has("IoTHubConnection") { "IoTHubConnection" } else { "IoTHubURL" };
        let transport: &str = transport.into();
        problems.add(name, format!("names a port that is not that of IoTHubTransport={transport}: leave the port out"));
    }
}

/// The crate connects only to port 8883 of the hub itself, and trusts only OpenSSL's certificate authorities.
#[cfg(feature = "azure-iot-sdk")]
fn check_for_azure_iot_sdk(settings: &Settings, device: Option<&Device>, problems: &mut Problems) {
    if settings.has(TRUSTED_CA) {
        problems.add(TRUSTED_CA, "is not known to IoTHubTransport=azure-iot-sdk: set SSL_CERT_FILE instead");
    }
    let Some(device) = device else {
        problems.add("IoTHubTransport", "is azure-iot-sdk, which sends as one device only: set IoTHubDeviceId");
        return;
    };
    if device.endpoint.host != device.hub_host || device.endpoint.port.is_some_and(|port| port != 8883) {
        problems.add("IoTHubTransport", "is azure-iot-sdk, which reaches port 8883 of the hub itself only");
    }
}

/// `IoTHubConnection`: `HostName=…;DeviceId=…;SharedAccessKey=…[;GatewayHostName=…]`, or with `SharedAccessSignature=…`
pub fn connection_string(settings: &Settings, problems: &mut Problems) -> Option<Device> {
    let name = "IoTHubConnection";
    for other in OF_ONE_DEVICE {
        if settings.has(other) {
            problems.add(other, "is set beside IoTHubConnection, which says it all: remove one of them");
        }
    }
    let text = settings.get(name, problems)?;
    let (mut host, mut gateway, mut device, mut key, mut token) = (None, None, None, None, None);
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let Some((field, value)) = part.split_once('=') else {
            problems.add(name, "is not a connection string: HostName=…;DeviceId=…;SharedAccessKey=…");
            return None;
        };
        match field.trim() {
            "HostName" => host = Some(value.trim()),
            "GatewayHostName" => gateway = Some(value.trim()),
            "DeviceId" => device = Some(value.trim()),
            "SharedAccessKey" => key = Some(value.trim()),
            "SharedAccessSignature" => token = Some(value.trim()),
            "SharedAccessKeyName" => {
                problems.add(name, "is the hub's own connection string (SharedAccessKeyName): use a device's");
                return None;
            }
            // The portal shows other fields for some devices. They are not needed here.
            _ => {}
        }
    }
    if let Some(Err(why)) = device.map(check_id) {
        problems.add(name, format!("names a DeviceId that {why}"));
    }
    let (Some(host), Some(device)) = (host, device) else {
        problems.add(name, "names no HostName or no DeviceId: copy the device's primary connection string");
        return None;
    };
    let at_host = Endpoint::parse_full(host).map_err(|why| problems.add(name, format!("names a HostName that {why}")));
    let at_gateway = gateway.map(|gateway| {
        Endpoint::parse(gateway).map_err(|why| problems.add(name, format!("names a GatewayHostName that {why}")))
    });
    let credential = match (token, key) {
        (Some(token), _) => {
            ready_token(name, &SecretString::from(token), at_host.as_ref().ok(), Some(device), problems)
        }
        (None, Some(key)) => device_key(name, key, problems),
        (None, None) => {
            problems.add(name, "has neither SharedAccessKey nor SharedAccessSignature");
            None
        }
    };
    let at_host = at_host.ok()?;
    let at_gateway = at_gateway.transpose().ok()?;
    Some(Device {
        hub_host: at_host.host.clone(),
        endpoint: at_gateway.unwrap_or(at_host),
        id: device.to_owned(),
        credential: credential?,
    })
}

fn separate_settings(settings: &Settings, problems: &mut Problems) -> Option<Device> {
    let url = settings
        .required(
            "IoTHubURL",
            "host name of the hub, such as myhub.azure-devices.net (or set IoTHubConnection, or DPSIDScope and \
             DPSEnrollmentGroupSymmetricKey)",
            problems,
        )
        .and_then(|text| Endpoint::parse_full(text).map_err(|why| problems.add("IoTHubURL", why)).ok());
    let device = settings.required("IoTHubDeviceId", "id of the device that sends (or set IoTHubConnection)", problems);
    if let Some(Err(why)) = device.map(check_id) {
        problems.add("IoTHubDeviceId", why);
    }
    let token = settings.secret("IoTHubSharedAccessSignature", problems);
    let key = settings.get("IoTHubDeviceKey", problems);
    let credential = match (token, key) {
        (Some(_), Some(_)) => {
            problems.add("IoTHubDeviceKey", "is set beside IoTHubSharedAccessSignature: remove one of them");
            None
        }
        (Some(token), None) => ready_token("IoTHubSharedAccessSignature", &token, url.as_ref(), device, problems),
        (None, Some(key)) => device_key("IoTHubDeviceKey", key, problems),
        (None, None) => {
            if !settings.has("IoTHubSharedAccessSignature") && !settings.has("IoTHubDeviceKey") {
                problems
                    .add("IoTHubDeviceKey", "is not set, nor is IoTHubSharedAccessSignature: one of them is needed");
            }
            None
        }
    };
    let url = url?;
    Some(Device { hub_host: url.host.clone(), endpoint: url, id: device?.to_owned(), credential: credential? })
}

fn device_key(name: &'static str, text: &str, problems: &mut Problems) -> Option<Credential> {
    match decode_key(text) {
        Ok(key) => Some(Credential::Key(key)),
        Err(_) => {
            problems.add(name, "holds a device key that is not Base64: copy it again from the device's page");
            None
        }
    }
}

/// Checks a token: it must be for this device, or for a resource that contains it: `{host}`, `{host}/devices`.
fn ready_token(
    name: &'static str,
    token: &SecretString,
    hub: Option<&Endpoint>,
    device: Option<&str>,
    problems: &mut Problems,
) -> Option<Credential> {
    let Some(resource) = sas::resource(token.expose_secret()) else {
        problems.add(name, "is not a token: it begins with \"SharedAccessSignature sr=\"");
        return None;
    };
    if sas::expiry(token.expose_secret()).is_none() {
        problems.add(name, "is a token that does not say when it ends (se=): make a new one");
        return None;
    }
    // Do not repeat an invalid device id: it may be a connection string.
    let (hub, device) = (hub?, device.filter(|device| check_id(device).is_ok())?);
    let (host, path) = resource.split_once('/').unwrap_or((&resource, ""));
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    if !host.eq_ignore_ascii_case(&hub.host) {
        let other = plain(host).map_or("another hub".to_owned(), |host| format!("hub {host:?}"));
        problems.add(name, format!("is a token for {other}, not for {:?}: make one for this hub", hub.host));
        return None;
    }
    if !matches!(path, "" | "devices") && path.strip_prefix("devices/") != Some(device) {
        let other = plain(path).map_or("something else".to_owned(), |path| format!("{path:?}"));
        let device = plain(device).map_or("the device".to_owned(), |device| format!("device {device:?}"));
        problems.add(name, format!("is a token for {other}, not for {device}: make one for this device"));
        return None;
    }
    Some(Credential::Token(token.clone()))
}

/// Returns a part of a token's resource, or a device id, if it is safe to print. If a separator is missing, the part
/// contains the signature; a device id could be `SharedAccessKey=…`.
fn plain(part: &str) -> Option<&str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._:/".contains(letter);
    part.chars().all(is_plain).then_some(part)
}

/// `IoTHubTrustedCa`
pub fn trusted_ca(settings: &Settings, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
    let Some(path) = settings.get(TRUSTED_CA, problems) else { return Some(Vec::new()) };
    let pem = match fs::read(PathBuf::from(path)) {
        Ok(pem) => pem,
        Err(error) => {
            problems.add(TRUSTED_CA, format!("names {path:?}, which cannot be read: {error}"));
            return None;
        }
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        _ => {
            problems.add(TRUSTED_CA, format!("names {path:?}, which holds no PEM certificate"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Option<Config>, String) {
        let mut problems = Problems::default();
        let settings: Settings = pairs.iter().copied().collect();
        let config = Config::read(&settings, true, &mut problems);
        (config, problems.to_string())
    }

    #[test]
    fn a_connection_string_says_it_all() {
        let text = "HostName=h.azure-devices.net;DeviceId=logger-1;SharedAccessKey=c2VjcmV0;GatewayHostName=gw:1234";
        let config = read(&[("IoTHubConnection", text)]).0.unwrap();
        let device = config.identity.as_ref().unwrap().one().unwrap();
        assert_eq!((device.hub_host.as_str(), device.id.as_str()), ("h.azure-devices.net", "logger-1"));
        assert_eq!(device.endpoint, Endpoint { host: "gw".into(), port: Some(1234) });
        let Credential::Key(key) = &device.credential else { panic!("a key") };
        assert_eq!(key.expose_secret(), b"secret");
        assert!(!format!("{device:?}").contains("115, 101"), "the key must not print");
    }

    #[test]
    fn tokens_for_the_hub_or_the_device_are_taken() {
        for resource in ["H.net", "h.net%2Fdevices", "h.net%2Fdevices%2Fd"] {
            let token = format!("SharedAccessSignature sr={resource}&sig=x&se=1");
            let (config, text) =
                read(&[("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubSharedAccessSignature", &token)]);
            assert!(
                matches!(config.unwrap().identity.unwrap().one().unwrap().credential, Credential::Token(_)),
                "{text}"
            );
        }
    }

    #[test]
    fn with_dps_and_no_device_id_each_site_is_a_device() {
        let config = read(&[
            ("DPSIDScope", "0ne1"),
            ("DPSEnrollmentGroupSymmetricKey", "c2VjcmV0"),
            ("IoTHubTransport", "https"),
        ]);
        let config = config.0.unwrap();
        assert!(config.identity.as_ref().unwrap().one().is_none());
        assert_eq!((config.transport, config.max_connections.get()), (Transport::Https, 1_000));
        let one =
            [("DPSIDScope", "0ne1"), ("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubDeviceKey", "c2VjcmV0")];
        assert_eq!(read(&one).0.unwrap().identity.unwrap().one().unwrap().id, "d");
    }

    const DEVICE: (&str, &str) = ("IoTHubDeviceId", "d");
    const KEY: (&str, &str) = ("IoTHubDeviceKey", "c2VjcmV0");

    #[test]
    fn faults_are_named_without_secrets() {
        let token = |value| [("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubSharedAccessSignature", value)];
        let pasted = "HostName=h.net;DeviceId=d;SharedAccessKey=hunter2=";
        let cases: [(&[(&str, &str)], &str); 20] = [
            (&[("IoTHubConnection", "HostName=h.net;SharedAccessKey=c2VjcmV0")], "no DeviceId"),
            (
                &[("IoTHubConnection", "HostName=h.net;DeviceId=d;SharedAccessKeyName=owner;SharedAccessKey=x")],
                "hub's own",
            ),
            (&[("IoTHubConnection", "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0")], "h.azure-devices.net"),
            (&[("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d")], "IoTHubDeviceKey is not set"),
            (&[("IoTHubURL", "h"), ("IoTHubDeviceId", "d")], "IoTHubURL is \"h\", a name without dots"),
            (&[("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubDeviceKey", "hunter2!")], "not Base64"),
            (
                &[("IoTHubURL", "h.net"), ("IoTHubDeviceId", "a+b"), ("IoTHubDeviceKey", "c2VjcmV0")],
                "IoTHubDeviceId is not a device id",
            ),
            (&token("hunter2"), "not a token"),
            (&token("SharedAccessSignature sr=h.net%2Fdevices%2Fd&sig=hunter2"), "does not say when it ends"),
            (&token("SharedAccessSignature sr=h.net%2Fdevices%2Fe&sig=hunter2&se=1"), "not for device \"d\""),
            (&token("SharedAccessSignature sr=other.net%2Fdevices%2Fd&sig=hunter2&se=1"), "for hub \"other.net\""),
            (&token("SharedAccessSignature sr=x.net;sig=hunter2&se=1"), "for another hub, not for \"h.net\""),
            (&token("SharedAccessSignature sr=h.net%2Fdevices%2Fd,sig=hunter2=&se=1"), "for something else, not for"),
            (
                &[
                    ("IoTHubURL", "h.net"),
                    ("IoTHubDeviceId", pasted),
                    ("IoTHubSharedAccessSignature", "SharedAccessSignature sr=h.net%2Fdevices%2Fe&sig=x&se=1"),
                ],
                "IoTHubDeviceId is not a device id",
            ),
            (
                &[
                    ("IoTHubURL", "h.net"),
                    ("IoTHubDeviceId", "SharedAccessKey=hunter2="),
                    ("IoTHubSharedAccessSignature", "SharedAccessSignature sr=h.net%2Fdevices%2Fe&sig=x&se=1"),
                ],
                "\"devices/e\", not for the device",
            ),
            (&[("IoTHubTransport", "carrier-pigeon")], "write mqtt, mqtt-ws or https"),
            (&[("IoTHubTransport", "https"), ("IoTHubURL", "h.net:8883"), DEVICE, KEY], "IoTHubURL names a port"),
            (&[("IoTHubURL", "h.net:443"), DEVICE, KEY], "not that of IoTHubTransport=mqtt:"),
            (&[("IoTHubMaxConnections", "0")], "IoTHubMaxConnections"),
            (&[("DPSIDScope", "0ne1"), ("IoTHubURL", "h.net")], "IoTHubURL is set beside DPSIDScope"),
        ];
        for (pairs, expected) in cases {
            let (_, text) = read(pairs);
            assert!(text.contains(expected), "{expected:?} is missing in {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
