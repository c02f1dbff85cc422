//! Who a device says to be, in a CONNECT or an HTTPS request, and whether it may come in.

use super::{
    denied::Denied,
    registry::Registry,
    sas::{self, Token},
};

/// Longest device id IoT Hub allows.
const MAX_DEVICE_ID: usize = 128;

/// What a device sends in its CONNECT.
pub struct Credentials<'a> {
    pub client_id: &'a str,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

/// A device that may come in.
#[derive(Debug, PartialEq, Eq)]
pub struct Login {
    pub device_id: String,
    /// Seconds since 1970 at which its token ends.
    pub expiry: u64,
    /// Recognizes the token when it is shown again.
    pub signature: Vec<u8>,
}

/// Who somebody says to be, and the token that is to prove it.
#[derive(Debug)]
pub struct Claim<'a> {
    /// The name the hub was called by, with or without a port.
    pub host: &'a str,
    pub device_id: &'a str,
    pub token: &'a str,
}

impl<'a> Claim<'a> {
    /// Takes a CONNECT apart.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn of_connect(credentials: &Credentials<'a>) -> Result<Self, Denied> {
        let unauthorized = |reason: &str| Denied::Unauthorized(reason.to_owned());
        let user_name = credentials.user_name.ok_or_else(|| unauthorized("CONNECT has no user name"))?;
        let (host, device_id) = split_user_name(user_name).ok_or_else(|| {
            let expected = "`{host}/{device id}/?api-version=…`";
            Denied::Unauthorized(format!("the user name {user_name:?} is not {expected}"))
        })?;
        if device_id != credentials.client_id {
            let client_id = credentials.client_id;
            let reason = format!("the client id is {client_id:?}, but the user name says {device_id:?}");
            return Err(Denied::Unauthorized(reason));
        }
        let password = credentials.password.ok_or_else(|| unauthorized("CONNECT has no password"))?;
        let token = std::str::from_utf8(password).map_err(|_| unauthorized("the password is not UTF-8"))?;
        Ok(Self { host, device_id, token })
    }
}

/// Decides on a claim, however it came. `hosts` are the hub's names; with none, any name will do as long as the claim and
/// its token agree. `now` is in seconds since 1970.
///
/// # Errors
/// Why the device may not come in.
pub fn check(claim: &Claim<'_>, registry: &Registry, hosts: &[String], now: u64) -> Result<Login, Denied> {
    let device_id = claim.device_id;
    if !is_device_id(device_id) {
        return Err(Denied::UnknownDevice(format!("no device can have the id {device_id:?}")));
    }
    let device = registry.device(device_id)?;
    let token = check_token(claim, &device.key, registry, hosts, now).map_err(Denied::Unauthorized)?;
    if !device.enabled {
        return Err(Denied::Disabled(format!("the device {device_id:?} is disabled")));
    }
    Ok(Login { device_id: device_id.into(), expiry: token.expiry, signature: token.signature })
}

fn check_token<'a>(
    claim: &Claim<'a>,
    device_key: &[u8],
    registry: &Registry,
    hosts: &[String],
    now: u64,
) -> Result<Token<'a>, String> {
    let Claim { host, device_id, token } = *claim;
    if !hosts.is_empty() && !hosts.iter().any(|known| sas::same_host(known, host)) {
        return Err(format!("this hub is not {host:?}"));
    }
    let token = Token::parse(token)?;
    if !token.covers(host, device_id) {
        return Err(format!("the token is not for {host}/devices/{device_id}"));
    }
    let (key, owner) = match token.policy_name() {
        None => (device_key, format!("{device_id:?}")),
        Some(name) => {
            let key = registry.policy_key(&name).ok_or_else(|| format!("there is no policy {name:?}"))?;
            (key, format!("the policy {name:?}"))
        }
    };
    if !token.is_signed_by(key) {
        return Err(format!("the token is not signed with the key of {owner}"));
    }
    if token.expiry <= now {
        return Err(format!("the token expired {} s ago", now - token.expiry));
    }
    Ok(token)
}

/// Host and device id of `{host}/{device id}/?api-version=…[&…]`. The question mark may be missing, as in old SDKs.
fn split_user_name(user_name: &str) -> Option<(&str, &str)> {
    let mut parts = user_name.splitn(3, '/');
    let (host, device_id, parameters) = (parts.next()?, parts.next()?, parts.next()?);
    let parameters = parameters.strip_prefix('?').unwrap_or(parameters);
    let versioned = parameters.split('&').any(|parameter| parameter.starts_with("api-version="));
    (!host.is_empty() && versioned).then_some((host, device_id))
}

/// The hub's rule for device ids, without `+` and `#`, which cannot stand in a topic.
pub fn is_device_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.%_*?!(),:=@$'".contains(&byte);
    !id.is_empty() && id.len() <= MAX_DEVICE_ID && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::*;

    const DEVICE: &str = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
    const TOKEN: &str = "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
                         &sig=4HmOE0kNLfBnUW9M41HvDXrhJ81HELrriABwN84lyIY%3D&se=1767229200";
    const EXPIRY: u64 = 1_767_229_200;

    fn check_at(now: u64, client_id: &str, user_name: &str, hosts: &[&str]) -> Result<Login, Denied> {
        check_with(&registry(), now, client_id, user_name, hosts)
    }

    fn registry() -> Registry {
        let key = BASE64_STANDARD.decode("Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=").unwrap();
        Registry::new(key, vec![], false)
    }

    fn check_with(
        registry: &Registry,
        now: u64,
        client_id: &str,
        user_name: &str,
        hosts: &[&str],
    ) -> Result<Login, Denied> {
        let credentials = Credentials { client_id, user_name: Some(user_name), password: Some(TOKEN.as_bytes()) };
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        check(&Claim::of_connect(&credentials)?, registry, &hosts, now)
    }

    #[test]
    fn every_spelling_of_the_user_name_in_use_is_accepted() {
        for tail in
            ["?api-version=2021-04-12", "api-version=2016-11-14", "?api-version=2018-06-30&DeviceClientType=py%2F2.14"]
        {
            for host in ["myhub.azure-devices.net", "MYHUB.azure-devices.net", "myhub.azure-devices.net:8883"] {
                let login = check_at(EXPIRY - 1, DEVICE, &format!("{host}/{DEVICE}/{tail}"), &[]).unwrap();
                assert_eq!((login.device_id.as_str(), login.expiry), (DEVICE, EXPIRY));
            }
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let good = format!("myhub.azure-devices.net/{DEVICE}/?api-version=2021-04-12");
        for (now, client_id, user_name, hosts, reason) in [
            (EXPIRY, DEVICE, good.clone(), &[][..], "expired"),
            (0, "other", good.clone(), &[], "client id"),
            (0, DEVICE, format!("myhub.azure-devices.net/{DEVICE}"), &[], "is not `{host}"),
            (0, DEVICE, format!("myhub.azure-devices.net/{DEVICE}/module/?api-version=1"), &[], "is not `{host}"),
            (0, DEVICE, format!("other/{DEVICE}/?api-version=1"), &[], "not for"),
            (0, DEVICE, good.clone(), &["else.azure-devices.net"], "this hub is not"),
            (0, "a b", "hub/a b/?api-version=1".into(), &[], "no device can have"),
        ] {
            let error = check_at(now, client_id, &user_name, hosts).unwrap_err().to_string();
            assert!(error.contains(reason), "{user_name}: {error}");
        }
        assert!(check_at(0, DEVICE, &good, &["x", "myhub.azure-devices.net"]).is_ok());
    }

    #[test]
    fn a_registered_device_is_judged_by_what_is_registered() {
        let registry = registry();
        let user_name = format!("myhub.azure-devices.net/{DEVICE}/?api-version=2021-04-12");
        let login = || check_with(&registry, 0, DEVICE, &user_name, &[]);
        let key = registry.device(DEVICE).unwrap().key;
        registry.set(DEVICE, None, Some(b"another".to_vec()));
        assert!(matches!(login(), Err(Denied::Unauthorized(_))));
        registry.set(DEVICE, None, Some(key));
        assert!(login().is_ok());
        registry.set(DEVICE, Some(false), None);
        assert!(matches!(login(), Err(Denied::Disabled(_))));
        registry.delete(DEVICE);
        assert!(matches!(login(), Err(Denied::UnknownDevice(_))));
    }

    #[test]
    fn device_ids_follow_the_hubs_rule() {
        for id in ["a", "A-1.%_*?!(),:=@$'", &"x".repeat(128)] {
            assert!(is_device_id(id), "{id}");
        }
        for id in ["", "a b", "a+b", "a#", "ä", &"x".repeat(129)] {
            assert!(!is_device_id(id), "{id}");
        }
    }
}
