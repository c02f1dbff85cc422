//! Reads the settings of the Device Provisioning Service that gives each site its own device. LoRaWAN applications may
//! use other services: see [`enrollment`](super::enrollment).

use secrecy::SecretBox;

use super::{Problems, Settings};
use crate::iot_hub::{Endpoint, device, devices::enrollment::EnrollmentGroup};

const DEFAULT_ENDPOINT: &str = "global.azure-devices-provisioning.net";
/// The C# sample uses the second spelling.
pub(super) const ENDPOINT: [&str; 2] = ["DPSGlobalDeviceEndpoint", "DPSGlobaDeviceEndpoint"];
pub(super) const ID_SCOPE: [&str; 2] = ["DPSIDScope", "DPSIDScopeDefault"];
pub(super) const GROUP_KEY: [&str; 2] = ["DPSEnrollmentGroupSymmetricKey", "DPSEnrollmentGroupSymmetricKeyDefault"];

/// Whether devices are provisioned: true if any of these settings exists.
#[must_use]
pub fn is_wanted(settings: &Settings) -> bool {
    [ENDPOINT, ID_SCOPE, GROUP_KEY].iter().flatten().any(|name| settings.has(name))
}

/// Reads the settings of a service that [`is_wanted`] and adds faults to `problems`:
/// - `DPSGlobalDeviceEndpoint` (`global.azure-devices-provisioning.net`)
/// - `DPSIDScope`: the ID scope of the service instance, such as `0ne00111111`
/// - `DPSEnrollmentGroupSymmetricKey`: the enrollment group's primary or secondary key
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<EnrollmentGroup> {
    let endpoint = read_endpoint(settings, problems);
    let id_scope = required(&ID_SCOPE, "service's ID scope, such as 0ne00111111,", settings, problems)
        .then(|| read_id_scope(settings, problems));
    let group_key = required(&GROUP_KEY, "primary or secondary key of the enrollment group", settings, problems)
        .then(|| read_group_key(settings, problems));
    Some(EnrollmentGroup { endpoint: endpoint?, id_scope: id_scope??, group_key: group_key?? })
}

pub(super) fn read_endpoint(settings: &Settings, problems: &mut Problems) -> Option<Endpoint> {
    match one_of(&ENDPOINT, settings, problems) {
        None => Endpoint::parse(DEFAULT_ENDPOINT).ok(),
        Some((name, text)) => check_endpoint(text).map_err(|why| problems.add(name, why)).ok(),
    }
}

/// The ID scope, if it is set.
pub fn read_id_scope(settings: &Settings, problems: &mut Problems) -> Option<String> {
    let (name, text) = one_of(&ID_SCOPE, settings, problems)?;
    check_id_scope(text).map_err(|why| problems.add(name, why)).ok()
}

/// The enrollment group's key, decoded, if it is set.
pub fn read_group_key(settings: &Settings, problems: &mut Problems) -> Option<SecretBox<Vec<u8>>> {
    let (name, text) = one_of(&GROUP_KEY, settings, problems)?;
    check_group_key(text).map_err(|why| problems.add(name, why)).ok()
}

/// Decodes the enrollment group's key.
///
/// # Errors
/// Returns the fault as the rest of a sentence that begins with the setting's name.
pub(super) fn check_group_key(text: &str) -> Result<SecretBox<Vec<u8>>, String> {
    device::decode_key(text).map_err(|_| "is not Base64: copy it again from the enrollment group's page".into())
}

/// Returns the ID scope unchanged. The check catches other values that users paste here.
///
/// # Errors
/// Returns the fault as the rest of a sentence that begins with the setting's name.
pub fn check_id_scope(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.chars().all(|letter| letter.is_ascii_alphanumeric()) {
        // Do not repeat the value: it may be a key.
        return Err(
            "is not an ID scope: it has letters and digits only, such as 0ne00111111; copy it from the Overview \
                    page of the Device Provisioning Service"
                .into(),
        );
    }
    Ok(text.to_owned())
}

fn check_endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text)
        .ok()
        .filter(|endpoint| endpoint.host.contains('.') || endpoint.host.eq_ignore_ascii_case("localhost"))
        .ok_or_else(|| format!("is not a full host name: write it like {DEFAULT_ENDPOINT}"))
}

/// Reads a setting that has two names. Both may exist if their values are equal.
fn one_of<'a>(
    names: &[&'static str; 2],
    settings: &'a Settings,
    problems: &mut Problems,
) -> Option<(&'static str, &'a str)> {
    let [first, second] = names.map(|name| settings.get(name, problems).map(|value| (name, value)));
    if let (Some((name, one)), Some((other, two))) = (first, second)
        && one != two
    {
        problems.add(name, format!("and {other} are both set and differ: remove one of them"));
        return None;
    }
    first.or(second)
}

/// Whether the setting exists under one of its names. Adds a problem if it does not.
fn required(names: &[&'static str; 2], what: &str, settings: &Settings, problems: &mut Problems) -> bool {
    let is_there = names.iter().any(|name| settings.has(name));
    if !is_there {
        settings.required(names[0], &format!("the {what} is needed when any DPS… setting is there"), problems);
    }
    is_there
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const GOOD: [(&str, &str); 2] = [("DPSIDScope", "0ne00111111"), ("DPSEnrollmentGroupSymmetricKey", "c2VjcmV0")];

    fn read_pairs(pairs: &[(&str, &str)]) -> (Option<EnrollmentGroup>, String) {
        let mut problems = Problems::default();
        let config = read(&pairs.iter().copied().collect(), &mut problems);
        let text = if problems.is_empty() { String::new() } else { problems.to_string() };
        (config, text)
    }

    #[test]
    fn the_samples_names_are_taken_too() {
        let (config, problems) = read_pairs(&GOOD);
        let config = config.unwrap_or_else(|| panic!("{problems}"));
        assert_eq!((config.endpoint.to_string().as_str(), config.id_scope.as_str()), (DEFAULT_ENDPOINT, "0ne00111111"));
        assert_eq!(config.group_key.expose_secret(), b"secret");
        assert!(!format!("{config:?}").contains("115, 101"), "the key must not print");

        let sample = [
            ("DPSGlobaDeviceEndpoint", "https://127.0.0.1:4711"),
            ("DPSIDScopeDefault", "0ne00111111"),
            ("DPSIDScope", "0ne00111111"),
            ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0"),
        ];
        let (config, problems) = read_pairs(&sample);
        assert_eq!(problems, "");
        assert_eq!(config.unwrap().endpoint, Endpoint { host: "127.0.0.1".into(), port: Some(4711) });
    }

    #[test]
    fn it_is_wanted_when_any_setting_is_there() {
        let wanted = |pairs: &[(&str, &str)]| is_wanted(&pairs.iter().copied().collect());
        assert!(!wanted(&[("IoTHubURL", "h.net")]));
        assert!(wanted(&GOOD[..1]) && wanted(&GOOD[1..]) && wanted(&[("DPSGlobaDeviceEndpoint", "h.net")]));
    }

    #[test]
    fn faults_are_named_without_secrets() {
        let key = GOOD[1];
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&GOOD[..1], "DPSEnrollmentGroupSymmetricKey is not set"),
            (&GOOD[1..], "DPSIDScope is not set"),
            (&[key, ("DPSIDScope", "hunter2==")], "DPSIDScope is not an ID scope"),
            (&[key, ("DPSIDScope", "a"), ("DPSIDScopeDefault", "b")], "DPSIDScope and DPSIDScopeDefault are both set"),
            (&[GOOD[0], ("DPSEnrollmentGroupSymmetricKeyDefault", "hunter2!")], "KeyDefault is not Base64"),
            (
                &[GOOD[0], key, ("DPSGlobalDeviceEndpoint", "http://h.net")],
                "DPSGlobalDeviceEndpoint is not a full host",
            ),
            (&[GOOD[0], key, ("DPSGlobaDeviceEndpoint", "mydps")], "DPSGlobaDeviceEndpoint is not a full host name"),
            (&[GOOD[0], ("DPSEnrollmentGroupSymmetricKey", " ")], "DPSEnrollmentGroupSymmetricKey is set but empty"),
        ];
        for (pairs, expected) in cases {
            let (config, text) = read_pairs(pairs);
            assert!(config.is_none() && text.contains(expected), "{expected:?} is missing in {text:?}");
            assert!(text.lines().count() == 1 && !text.contains("hunter2"), "{text}");
        }
    }
}
