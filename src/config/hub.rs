//! Which IoT Hub the rows go to, as which device, and how it is trusted.

use std::{fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use super::{Problems, Settings};

/// The port of MQTT over TLS.
const MQTT_PORT: u16 = 8883;
const TRUSTED_CA: &str = "IoTHubTrustedCa";

#[derive(Debug)]
pub struct Config {
    /// Host name of the hub, without port: what tokens are signed for.
    pub host: String,
    /// Where the connection goes: the hub, or the gateway that a connection string names.
    pub endpoint: Endpoint,
    /// `IoTHubDeviceId`.
    pub device: String,
    pub credential: Credential,
    /// `IoTHubTrustedCa`: certificates from a PEM file, trusted in addition to the platform's.
    pub trusted_ca: Vec<CertificateDer<'static>>,
}

/// Host and port of a TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// What proves that we are the device.
#[derive(Debug)]
pub enum Credential {
    /// `IoTHubSharedAccessSignature`: a ready token, used as it is until it expires.
    Token(SecretString),
    /// `IoTHubDeviceKey`, decoded: tokens are made from it.
    Key(SecretBox<Vec<u8>>),
}

impl Config {
    pub(super) fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        transport(settings, problems);
        let trusted_ca = trusted_ca(settings, problems);
        let identity = if settings.has("IoTHubConnection") {
            connection_string(settings, problems)
        } else {
            separate_settings(settings, problems)
        };
        let (host, endpoint, device, credential) = identity?;
        Some(Self { host, endpoint, device, credential, trusted_ca: trusted_ca? })
    }
}

type Identity = (String, Endpoint, String, Credential);

fn transport(settings: &Settings, problems: &mut Problems) {
    match settings.get("IoTHubTransport", problems) {
        None | Some("mqtt") => {}
        Some(other) => problems.add("IoTHubTransport", format!("is {other:?}: this version knows mqtt")),
    }
}

/// `IoTHubConnection`: `HostName=…;DeviceId=…;SharedAccessKey=…[;GatewayHostName=…]`, or with `SharedAccessSignature=…`.
fn connection_string(settings: &Settings, problems: &mut Problems) -> Option<Identity> {
    let name = "IoTHubConnection";
    for other in ["IoTHubURL", "IoTHubDeviceId", "IoTHubSharedAccessSignature", "IoTHubDeviceKey"] {
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
            // Part of what the portal shows for some devices; says nothing that is needed here.
            _ => {}
        }
    }
    if let Some(Err(why)) = device.map(check_device_id) {
        problems.add(name, format!("names a DeviceId that {why}"));
    }
    let (Some(host), Some(device)) = (host, device) else {
        problems.add(name, "names no HostName or no DeviceId: copy the device's primary connection string");
        return None;
    };
    let credential = match (token, key) {
        (Some(token), _) => Some(Credential::Token(SecretString::from(token))),
        (None, Some(key)) => device_key(name, key, problems),
        (None, None) => {
            problems.add(name, "has neither SharedAccessKey nor SharedAccessSignature");
            None
        }
    };
    let at_host = endpoint(host).map_err(|why| problems.add(name, format!("names a HostName that {why}")));
    let at_gateway = gateway.map(|gateway| {
        endpoint(gateway).map_err(|why| problems.add(name, format!("names a GatewayHostName that {why}")))
    });
    let at_host = at_host.ok()?;
    let at_gateway = at_gateway.transpose().ok()?;
    Some((at_host.host.clone(), at_gateway.unwrap_or(at_host), device.to_owned(), credential?))
}

fn separate_settings(settings: &Settings, problems: &mut Problems) -> Option<Identity> {
    let url = settings
        .required(
            "IoTHubURL",
            "host name of the hub, such as myhub.azure-devices.net (or set IoTHubConnection)",
            problems,
        )
        .and_then(|text| endpoint(text).map_err(|why| problems.add("IoTHubURL", why)).ok());
    let device = settings.required("IoTHubDeviceId", "id of the device that sends (or set IoTHubConnection)", problems);
    if let Some(Err(why)) = device.map(check_device_id) {
        problems.add("IoTHubDeviceId", why);
    }
    let token = settings.secret("IoTHubSharedAccessSignature", problems);
    let key = settings.get("IoTHubDeviceKey", problems);
    let credential = match (token, key) {
        (Some(_), Some(_)) => {
            problems.add("IoTHubDeviceKey", "is set beside IoTHubSharedAccessSignature: remove one of them");
            None
        }
        (Some(token), None) if token.expose_secret().starts_with("SharedAccessSignature ") => {
            Some(Credential::Token(token))
        }
        (Some(_), None) => {
            problems.add("IoTHubSharedAccessSignature", "is not a token: it begins with \"SharedAccessSignature sr=\"");
            None
        }
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
    Some((url.host.clone(), url, device?.to_owned(), credential?))
}

fn device_key(name: &'static str, text: &str, problems: &mut Problems) -> Option<Credential> {
    match BASE64_STANDARD.decode(text) {
        Ok(key) if !key.is_empty() => Some(Credential::Key(SecretBox::new(Box::new(key)))),
        _ => {
            problems.add(name, "holds a device key that is not Base64: copy it again from the device's page");
            None
        }
    }
}

/// `host` or `host:port`; people also paste it with a scheme and a final slash.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let help = "write the host name alone, such as myhub.azure-devices.net";
    let bare = ["https://", "mqtts://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let (host, port) = match bare.rsplit_once(':') {
        Some((host, port)) => {
            (host, port.parse().map_err(|_| format!("has a port that is not a number from 1 to 65535: {help}"))?)
        }
        None => (bare, MQTT_PORT),
    };
    let valid = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(valid) || port == 0 {
        return Err(format!("is not a host name: {help}"));
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry>; `+` and `#` cannot be used over MQTT.
fn check_device_id(id: &str) -> Result<(), String> {
    let valid = |letter: char| letter.is_ascii_alphanumeric() || "-.%_*?!(),:=@$'".contains(letter);
    if id.is_empty() || id.len() > 128 || !id.chars().all(valid) {
        // The value is not repeated: people paste connection strings here.
        return Err("is no device id: at most 128 of A-Z a-z 0-9 - . % _ * ? ! ( ) , : = @ $ '".into());
    }
    Ok(())
}

fn trusted_ca(settings: &Settings, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
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
        let config = Config::read(&pairs.iter().copied().collect(), &mut problems);
        (config, problems.to_string())
    }

    #[test]
    fn host_names_come_in_many_spellings() {
        let plain = Endpoint { host: "h.azure-devices.net".into(), port: 8883 };
        assert_eq!(endpoint("h.azure-devices.net").unwrap(), plain);
        assert_eq!(endpoint("https://h.azure-devices.net/").unwrap(), plain);
        assert_eq!(endpoint("127.0.0.1:4711").unwrap(), Endpoint { host: "127.0.0.1".into(), port: 4711 });
        for bad in ["", "a b", "host/path", "host:0", "host:99999", "h?x"] {
            assert!(endpoint(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_connection_string_says_it_all() {
        let text = "HostName=h.azure-devices.net;DeviceId=logger-1;SharedAccessKey=c2VjcmV0;GatewayHostName=gw:1234";
        let config = read(&[("IoTHubConnection", text)]).0.unwrap();
        assert_eq!((config.host.as_str(), config.device.as_str()), ("h.azure-devices.net", "logger-1"));
        assert_eq!(config.endpoint, Endpoint { host: "gw".into(), port: 1234 });
        let Credential::Key(key) = &config.credential else { panic!("a key") };
        assert_eq!(key.expose_secret(), b"secret");
        assert!(!format!("{config:?}").contains("115, 101"), "the key must not print");
    }

    #[test]
    fn faults_are_named_without_secrets() {
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[("IoTHubConnection", "HostName=h;SharedAccessKey=c2VjcmV0")], "no DeviceId"),
            (&[("IoTHubConnection", "HostName=h;DeviceId=d;SharedAccessKeyName=owner;SharedAccessKey=x")], "hub's own"),
            (&[("IoTHubURL", "h"), ("IoTHubDeviceId", "d")], "IoTHubDeviceKey is not set"),
            (&[("IoTHubURL", "h"), ("IoTHubDeviceId", "d"), ("IoTHubDeviceKey", "hunter2!")], "not Base64"),
            (
                &[("IoTHubURL", "h"), ("IoTHubDeviceId", "a+b"), ("IoTHubDeviceKey", "c2VjcmV0")],
                "IoTHubDeviceId is no device id",
            ),
            (&[("IoTHubURL", "h"), ("IoTHubDeviceId", "d"), ("IoTHubSharedAccessSignature", "hunter2")], "not a token"),
            (&[("IoTHubTransport", "carrier-pigeon")], "this version knows mqtt"),
        ];
        for (pairs, expected) in cases {
            let (_, text) = read(pairs);
            assert!(text.contains(expected), "{expected:?} is missing in {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
