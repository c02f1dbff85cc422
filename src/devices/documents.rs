//! The documents in container `devices`. Field names are part of the product: users query them.

use chrono::{DateTime, Utc};
use secrecy::SecretBox;
use serde::{Deserialize, Serialize};

use super::StoredOwner;
use crate::hub::{Credential, Device, Endpoint, device::check_id, sas};

/// What a device stands for, and where it is. Holds no secret: keys are derived from the enrolment group's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    /// The registration id.
    #[serde(rename = "id")]
    pub id: String,
    pub owner: StoredOwner,
    /// Host name of the hub, with a port if that is not the usual one.
    pub assigned_hub: String,
    /// The device's id at that hub.
    pub device_id: String,
    pub registered_at: DateTime<Utc>,
    /// The service instance that assigned the hub.
    pub id_scope: String,
    /// How often it was registered.
    pub registrations: u32,
}

impl Document {
    /// The device, with the key that is derived from the group's.
    ///
    /// # Errors
    /// A field that cannot be what the service assigned.
    pub fn device(&self, group_key: &[u8]) -> Result<Device, String> {
        let endpoint = Endpoint::parse(&self.assigned_hub).map_err(|why| format!("AssignedHub {why}"))?;
        check_id(&self.device_id).map_err(|why| format!("DeviceId {why}"))?;
        let key = sas::derive_key(group_key, &self.id);
        Ok(Device {
            hub_host: endpoint.host.clone(),
            endpoint,
            id: self.device_id.clone(),
            credential: Credential::Key(SecretBox::new(Box::new(key))),
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::json;

    use super::*;
    use crate::devices::Owner;

    fn document() -> Document {
        Document {
            id: "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".into(),
            owner: (&Owner::rapidm2m_site("Demo \"Water\"", "Well 7")).into(),
            assigned_hub: "myhub.azure-devices.net".into(),
            device_id: "Well-7".into(),
            registered_at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
            id_scope: "0ne00111111".into(),
            registrations: 2,
        }
    }

    #[test]
    fn a_document_has_the_documented_fields() {
        let json = json!({
            "id": "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
            "Owner": {"System": "rapidM2M", "Group": "Demo \"Water\"", "Name": "Well 7"},
            "AssignedHub": "myhub.azure-devices.net", "DeviceId": "Well-7", "RegisteredAt": "2026-01-01T00:00:00Z",
            "IdScope": "0ne00111111", "Registrations": 2
        });
        assert_eq!(serde_json::to_value(document()).unwrap(), json);
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document());
    }

    #[test]
    fn a_device_has_the_derived_key() {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let group_key = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        let device = document().device(&BASE64_STANDARD.decode(group_key).unwrap()).unwrap();
        assert_eq!((device.hub_host.as_str(), device.id.as_str()), ("myhub.azure-devices.net", "Well-7"));
        let Credential::Key(key) = &device.credential else { panic!("a key") };
        assert_eq!(BASE64_STANDARD.encode(key.expose_secret()), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn what_no_service_assigned_is_no_device() {
        let broken = Document { assigned_hub: "no hub".into(), ..document() };
        assert!(broken.device(b"key").unwrap_err().starts_with("AssignedHub is not a host name"));
        let broken = Document { device_id: "a b".into(), ..document() };
        assert!(broken.device(b"key").unwrap_err().starts_with("DeviceId is no device id"));
    }
}
