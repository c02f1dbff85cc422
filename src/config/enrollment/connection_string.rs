//! Parses a hub's own connection string, which belongs to one of the hub's shared access policies.
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas>

use std::sync::Arc;

use crate::iot_hub::{Endpoint, Policy, device::decode_key, devices::enrollment::HubPolicy};

const SHAPE: &str = "HostName=…;SharedAccessKeyName=device;SharedAccessKey=…";

/// Reads `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`. The host may have a port, for an emulator.
///
/// # Errors
/// Returns the fault as the rest of a sentence that begins with the setting's name. It never contains a secret.
pub fn parse(text: &str) -> Result<HubPolicy, String> {
    let (mut host, mut name, mut key) = (None, None, None);
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let (field, value) =
            part.split_once('=').ok_or_else(|| format!("is not a hub's connection string: it looks like {SHAPE}"))?;
        match field.trim() {
            "HostName" => host = Some(value.trim()),
            "SharedAccessKeyName" => name = Some(value.trim()),
            "SharedAccessKey" => key = Some(value.trim()),
            "DeviceId" => {
                return Err(format!(
                    "is one device's connection string (DeviceId): take the hub's own, which holds for all of its \
                     devices: {SHAPE}"
                ));
            }
            "SharedAccessSignature" => {
                return Err(format!("holds a ready token (SharedAccessSignature): take one with a key: {SHAPE}"));
            }
            // Other fields are not needed here.
            _ => {}
        }
    }
    let needed = |field: &str, value: Option<&str>| {
        let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
        value.ok_or_else(|| format!("names no {field}: copy the hub's connection string again: {SHAPE}"))
    };
    let host = needed("HostName", host)?;
    let name = needed("SharedAccessKeyName", name)?;
    // The name is printed. If a separator is missing, the name contains the key or other parts of the string.
    if name.contains(['=', '&']) {
        return Err(format!("names a SharedAccessKeyName with = or & in it: is a ; missing? It looks like {SHAPE}"));
    }
    let key = needed("SharedAccessKey", key)?;
    let hub = Endpoint::parse_full(&host).map_err(|why| format!("names a HostName that {why}"))?;
    let key = decode_key(&key).map_err(|_| "holds a SharedAccessKey that is not Base64: copy it again".to_owned())?;
    Ok(HubPolicy { hub, policy: Arc::new(Policy { name, key }) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_hub_and_a_policy_are_read() {
        let read =
            parse(" HostName=h.azure-devices.net; SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0cw==;");
        let HubPolicy { hub, policy } = read.unwrap();
        assert_eq!((hub.to_string().as_str(), policy.name.as_str()), ("h.azure-devices.net", "iothubowner"));
        assert_eq!(policy.key.expose_secret(), b"secrets");
        let emulator = parse("SharedAccessKey=a2V5;HostName=127.0.0.1:4711;SharedAccessKeyName=device").unwrap();
        assert_eq!(emulator.hub.port, Some(4711));
        assert!(!format!("{emulator:?}").contains("107"), "the key must not print: {emulator:?}");
    }

    #[test]
    fn what_is_no_hubs_connection_string_says_why_without_secrets() {
        for (text, why) in [
            ("hunter2", "is not a hub's connection string"),
            ("HostName=h.net;DeviceId=pump-7;SharedAccessKey=hunter2==", "is one device's connection string"),
            ("HostName=h.net;SharedAccessSignature=SharedAccessSignature sr=hunter2", "holds a ready token"),
            ("SharedAccessKeyName=device;SharedAccessKey=hunter2=", "names no HostName"),
            ("HostName=h.net;SharedAccessKey=hunter2=", "names no SharedAccessKeyName"),
            ("HostName=h.net;SharedAccessKeyName=device;SharedAccessKey=", "names no SharedAccessKey"),
            ("HostName=h.net;SharedAccessKeyName=device;SharedAccessKey=hunter2!", "is not Base64"),
            (
                "HostName=h.net;SharedAccessKeyName=device&sig=hunter2;SharedAccessKey=a2V5",
                "names a SharedAccessKeyName with = or & in it",
            ),
            ("HostName=myhub;SharedAccessKeyName=device;SharedAccessKey=a2V5", "myhub.azure-devices.net"),
            ("HostName=h.net/x;SharedAccessKeyName=device;SharedAccessKey=a2V5", "is not a host name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_connection_string_holds_what_it_was_made_of(
            host in "[a-z]{1,8}(\\.[a-z]{1,8}){1,3}", name in "[A-Za-z0-9_-]{1,20}", key in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            use base64::{Engine as _, prelude::BASE64_STANDARD};
            let text = format!("HostName={host};SharedAccessKeyName={name};SharedAccessKey={}", BASE64_STANDARD.encode(&key));
            let HubPolicy { hub, policy } = parse(&text).unwrap();
            prop_assert_eq!((hub.host, &policy.name, policy.key.expose_secret()), (host, &name, &key));
        }
    }
}
