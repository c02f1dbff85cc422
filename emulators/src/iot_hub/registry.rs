//! The devices the hub knows, and the key each signs its tokens with.
//!
//! A device that is registered, by the Device Provisioning Service or over the control endpoint, has a key of its own. Any
//! other device id will do with the shared key, unless the hub is strict. A device that was deleted stays unknown until it
//! is registered again. The hub's one shared access policy may connect as any of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{denied::Denied, sas};

pub struct Registry {
    /// The key of devices that are not registered, raw.
    shared_key: Vec<u8>,
    /// The key from which those of provisioned devices are derived, raw.
    group_key: Vec<u8>,
    /// Whether a device must be registered.
    strict: bool,
    /// May connect as any device.
    policy: Option<Policy>,
    /// Nothing for a device that was deleted.
    devices: Mutex<BTreeMap<String, Option<Device>>>,
}

/// A shared access policy with the permission to connect as devices.
pub struct Policy {
    pub name: String,
    /// Raw.
    pub key: Vec<u8>,
}

/// A registered device. As JSON: `{"enabled":true,"key":"Base64"}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    pub enabled: bool,
    /// Raw.
    pub key: Vec<u8>,
}

impl Registry {
    pub fn new(shared_key: Vec<u8>, group_key: Vec<u8>, strict: bool) -> Self {
        Self { shared_key, group_key, strict, policy: None, devices: Mutex::default() }
    }

    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// The key of the policy with this name.
    pub fn policy_key(&self, name: &str) -> Option<&[u8]> {
        self.policy.as_ref().filter(|policy| policy.name == name).map(|policy| policy.key.as_slice())
    }

    /// The key of a device of the enrollment group: HMAC-SHA256 of its registration id, as the device spells it.
    pub fn derived_key(&self, registration_id: &str) -> Vec<u8> {
        sas::sign(&self.group_key, registration_id)
    }

    /// What is known of a device.
    ///
    /// # Errors
    /// It is not known.
    pub fn device(&self, device_id: &str) -> Result<Device, Denied> {
        let unknown = |reason: &str| Denied::UnknownDevice(format!("the device {device_id:?} {reason}"));
        match self.devices().get(device_id) {
            Some(Some(device)) => Ok(device.clone()),
            Some(None) => Err(unknown("was deleted")),
            None if self.strict => Err(unknown("is not registered")),
            None => Ok(Device { enabled: true, key: self.shared_key.clone() }),
        }
    }

    /// Registers a device, or changes what is given. A new one is enabled, with the key derived from its id.
    pub fn set(&self, device_id: &str, enabled: Option<bool>, key: Option<Vec<u8>>) {
        let mut devices = self.devices();
        let device = devices.entry(device_id.to_owned()).or_default();
        let device = device.get_or_insert_with(|| Device { enabled: true, key: self.derived_key(device_id) });
        device.enabled = enabled.unwrap_or(device.enabled);
        if let Some(key) = key {
            device.key = key;
        }
    }

    /// Deletes a device, whether it was registered or not.
    pub fn delete(&self, device_id: &str) {
        self.devices().insert(device_id.to_owned(), None);
    }

    /// The devices that are registered.
    pub fn all(&self) -> BTreeMap<String, Device> {
        let known = |(id, device): (&String, &Option<Device>)| Some((id.clone(), device.clone()?));
        self.devices().iter().filter_map(known).collect()
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<String, Option<Device>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut device = serializer.serialize_struct("Device", 2)?;
        device.serialize_field("enabled", &self.enabled)?;
        device.serialize_field("key", &BASE64_STANDARD.encode(&self.key))?;
        device.end()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(strict: bool) -> Registry {
        Registry::new(b"shared".to_vec(), b"group".to_vec(), strict)
    }

    fn key_of(registry: &Registry, device_id: &str) -> Option<Vec<u8>> {
        registry.device(device_id).ok().map(|device| device.key)
    }

    #[test]
    fn a_key_is_derived_as_microsoft_documents_it() {
        let group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        let registry = Registry::new(vec![], BASE64_STANDARD.decode(group).unwrap(), false);
        let key = registry.derived_key("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");
        assert_eq!(BASE64_STANDARD.encode(key), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn the_shared_key_is_for_devices_that_are_not_registered() {
        let registry = registry(false);
        assert_eq!(key_of(&registry, "d"), Some(b"shared".to_vec()));
        registry.set("d", None, None);
        assert_eq!(key_of(&registry, "d"), Some(registry.derived_key("d")));
        registry.set("d", None, Some(b"own".to_vec()));
        assert_eq!(key_of(&registry, "d"), Some(b"own".to_vec()));
        assert_eq!(key_of(&registry, "e"), Some(b"shared".to_vec()));
    }

    #[test]
    fn a_strict_hub_knows_registered_devices_only() {
        let registry = registry(true);
        assert_eq!(key_of(&registry, "d"), None);
        registry.set("d", None, Some(b"own".to_vec()));
        assert_eq!(key_of(&registry, "d"), Some(b"own".to_vec()));
    }

    #[test]
    fn a_deleted_device_is_unknown_until_it_is_registered_again() {
        let registry = registry(false);
        registry.set("d", Some(false), Some(b"own".to_vec()));
        assert_eq!(registry.all().keys().collect::<Vec<_>>(), ["d"]);
        registry.delete("d");
        registry.delete("e");
        assert!(registry.all().is_empty());
        assert_eq!((key_of(&registry, "d"), key_of(&registry, "e")), (None, None));
        registry.set("d", None, None);
        let device = registry.device("d").unwrap();
        assert_eq!(device, Device { enabled: true, key: registry.derived_key("d") }, "nothing is left of the old one");
    }

    #[test]
    fn a_disabled_device_keeps_its_key_and_registering_does_not_enable_it() {
        let registry = registry(false);
        registry.set("d", Some(false), Some(b"own".to_vec()));
        registry.set("d", None, Some(b"new".to_vec()));
        assert_eq!(registry.device("d").unwrap(), Device { enabled: false, key: b"new".to_vec() });
        assert_eq!(format!("{:?}", registry.device("d").unwrap()), "Device { enabled: false, .. }");
    }
}
