//! A device's identity: its hub, its id, and its credential.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use super::{SendError, sas};

/// Largest length of a device id, and of a registration id.
pub const MAX_ID: usize = 128;

/// A device of an IoT Hub.
#[derive(Debug)]
pub struct Device {
    /// Host name of the hub, without port. Tokens are signed for it.
    pub hub_host: String,
    /// The target of connections: the hub, or a gateway in front of it.
    pub endpoint: Endpoint,
    /// Device id, case-sensitive.
    pub id: String,
    pub credential: Credential,
}

/// Host and port of a TLS listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub host: String,
    /// `None`: the transport's usual port, 8883 for MQTT and 443 for WebSocket and HTTPS.
    pub port: Option<u16>,
}

/// The device's credential.
#[derive(Debug)]
pub enum Credential {
    /// A ready token, used unchanged until it expires.
    Token(SecretString),
    /// The device's key, decoded. Tokens are made from it.
    Key(SecretBox<Vec<u8>>),
    /// A policy of the hub that many devices share. Tokens for any device are made from it.
    Policy(Arc<Policy>),
}

/// A shared access policy of a hub that may connect as a device, such as `device` or `iothubowner`.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    /// Its primary or secondary key, decoded.
    pub key: SecretBox<Vec<u8>>,
}

impl Device {
    /// A token and its remaining validity. A ready token without an expiry counts as valid for ever.
    ///
    /// # Errors
    /// [`SendError::TokenExpired`] if a ready token has expired.
    pub fn token(&self, now: DateTime<Utc>, lifetime: Duration) -> Result<(SecretString, Duration), SendError> {
        let mint = |key: &SecretBox<Vec<u8>>, policy| {
            let resource = sas::device_resource(&self.hub_host, &self.id);
            Ok((sas::mint(&resource, key.expose_secret(), now + lifetime, policy), lifetime))
        };
        match &self.credential {
            Credential::Key(key) => mint(key, None),
            Credential::Policy(policy) => mint(&policy.key, Some(&policy.name)),
            Credential::Token(token) => {
                let left = match sas::expiry(token.expose_secret()) {
                    None => Duration::MAX,
                    Some(at) => (at - now)
                        .to_std()
                        .ok()
                        .filter(|left| !left.is_zero())
                        .ok_or_else(|| SendError::TokenExpired { device: self.id.clone(), at })?,
                };
                Ok((token.clone(), left))
            }
        }
    }

    /// Whether a new token can be made when one expires.
    #[must_use]
    pub fn can_renew(&self) -> bool {
        !matches!(self.credential, Credential::Token(_))
    }
}

impl Endpoint {
    /// Reads `host` or `host:port`. A scheme and a final slash are ignored, because users paste them too.
    ///
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help = "write the host name alone, such as myhub.azure-devices.net";
        let bare =
            ["https://", "mqtts://", "wss://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = match bare.rsplit_once(':') {
            Some((host, port)) => {
                let number = port.parse().ok().filter(|port| *port != 0);
                (host, Some(number.ok_or_else(|| format!("has a port that is not a number from 1 to 65535: {help}"))?))
            }
            None => (bare, None),
        };
        let valid = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(valid) {
            return Err(format!("is not a host name: {help}"));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Like [`parse`](Self::parse), but requires a full host name: `myhub` alone is no reachable host.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn parse_full(text: &str) -> Result<Self, String> {
        let endpoint = Self::parse(text)?;
        if !endpoint.host.contains('.') && !endpoint.host.eq_ignore_ascii_case("localhost") {
            return Err(format!("is {0:?}, a name without dots: write {0}.azure-devices.net", endpoint.host));
        }
        Ok(endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

/// Decodes the Base64 key of a device or of an enrollment group.
///
/// # Errors
/// The text is empty or not Base64. The error does not contain it.
pub fn decode_key(text: &str) -> Result<SecretBox<Vec<u8>>, NotBase64> {
    match BASE64_STANDARD.decode(text.trim()) {
        Ok(key) if !key.is_empty() => Ok(SecretBox::new(Box::new(key))),
        _ => Err(NotBase64),
    }
}

/// The text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not Base64")]
pub struct NotBase64;

/// Checks the hub's rule for device ids. `+` and `#` are excluded too, because MQTT cannot use them.
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry>
///
/// # Errors
/// The rule. The error does not contain the value, because users paste connection strings in place of ids.
pub fn check_id(id: &str) -> Result<(), &'static str> {
    let valid = |letter: char| letter.is_ascii_alphanumeric() || "-.%_*?!(),:=@$'".contains(letter);
    if matches!(id, "" | "." | "..") || id.len() > MAX_ID || !id.chars().all(valid) {
        return Err("is not a device id: at most 128 of A-Z a-z 0-9 - . % _ * ? ! ( ) , : = @ $ ', not . or .. alone");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_come_in_many_spellings() {
        let plain = Endpoint { host: "h.azure-devices.net".into(), port: None };
        assert_eq!(Endpoint::parse("h.azure-devices.net").unwrap(), plain);
        assert_eq!(Endpoint::parse("https://h.azure-devices.net/").unwrap(), plain);
        assert_eq!(Endpoint::parse("127.0.0.1:4711").unwrap(), Endpoint { host: "127.0.0.1".into(), port: Some(4711) });
        for bad in ["", "a b", "host/path", "host:0", "host:99999", "h?x"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Endpoint::parse_full("myhub").unwrap_err().contains("myhub.azure-devices.net"));
        assert!(Endpoint::parse_full("localhost:8883").is_ok());
    }

    #[test]
    fn a_ready_token_holds_until_it_ends() {
        let text = "SharedAccessSignature sr=h.net%2Fdevices%2Fd&sig=x&se=1000";
        let device = Device {
            hub_host: "h.net".into(),
            endpoint: Endpoint::parse("h.net").unwrap(),
            id: "d".into(),
            credential: Credential::Token(SecretString::from(text)),
        };
        let hour = Duration::from_secs(3600);
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        assert_eq!(device.token(at(990), hour).unwrap().1, Duration::from_secs(10));
        assert!(matches!(device.token(at(1000), hour), Err(SendError::TokenExpired { .. })));
    }
}
