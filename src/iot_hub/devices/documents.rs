//! The documents in container `devices`. Field names are part of the product: users query them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{StoredOwner, Tenant};
use crate::iot_hub::{Credential, Device, Endpoint, device::check_id};

/// A device with its owner and its hub. Contains no secret: keys are derived from the enrollment group's key, or are in
/// the settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    /// The registration id, perhaps with a port: [`id`].
    #[serde(rename = "id")]
    pub id: String,
    pub owner: StoredOwner,
    /// The tenant of a LoRaWAN device. Absent until a webhook names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Host name of the hub, with a port if it is not the default one. Empty in a [claim](Self::claim).
    pub assigned_hub: String,
    /// The device's id at that hub. Empty in a [claim](Self::claim).
    pub device_id: String,
    pub registered_at: DateTime<Utc>,
    /// The service instance that assigned the hub. Absent if none did: the device is then in the registry of the hub
    /// that the settings name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_scope: Option<String>,
    /// Number of registrations of this device.
    pub registrations: u32,
}

/// Separates registration id and port. Registration ids cannot contain it; ids of documents can.
const BEFORE_PORT: char = '|';

/// The id of a device's document: its registration id, `pump-7`; with a port if the device is for one port only,
/// `pump-7|10`. A LoRaWAN device that has ports with their own enrollments is several devices, perhaps at several hubs.
#[must_use]
pub fn id(registration_id: &str, port: Option<u8>) -> String {
    port.map_or_else(|| registration_id.to_owned(), |port| format!("{registration_id}{BEFORE_PORT}{port}"))
}

impl Document {
    /// Reserves the registration id for an owner that has devices for single ports and none for the other ports.
    #[must_use]
    pub fn claim(registration_id: &str, owner: StoredOwner, tenant: Option<Tenant>, now: DateTime<Utc>) -> Self {
        Self {
            id: registration_id.to_owned(),
            owner,
            tenant,
            assigned_hub: String::new(),
            device_id: String::new(),
            registered_at: now,
            id_scope: None,
            registrations: 0,
        }
    }

    /// Whether the document is a claim without a device.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        self.registrations == 0
    }

    /// The device's registration id.
    #[must_use]
    pub fn registration_id(&self) -> &str {
        self.id.split_once(BEFORE_PORT).map_or(&self.id, |(registration_id, _)| registration_id)
    }

    /// The port, if the device is for one port only.
    #[must_use]
    pub fn port(&self) -> Option<u8> {
        self.id.split_once(BEFORE_PORT)?.1.parse().ok()
    }

    /// The device, with `credential`.
    ///
    /// # Errors
    /// A field that the service cannot have assigned.
    pub fn device(&self, credential: Credential) -> Result<Device, String> {
        let endpoint = Endpoint::parse(&self.assigned_hub).map_err(|why| format!("AssignedHub {why}"))?;
        check_id(&self.device_id).map_err(|why| format!("DeviceId {why}"))?;
        Ok(Device { hub_host: endpoint.host.clone(), endpoint, id: self.device_id.clone(), credential })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretBox;
    use serde_json::json;

    use super::*;
    use crate::iot_hub::devices::Owner;

    fn document() -> Document {
        Document {
            id: "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".into(),
            owner: (&Owner::rapidm2m_site("Demo \"Water\"", "Well 7")).into(),
            tenant: None,
            assigned_hub: "myhub.azure-devices.net".into(),
            device_id: "Well-7".into(),
            registered_at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
            id_scope: Some("0ne00111111".into()),
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
    fn a_device_of_a_policys_hub_has_no_scope_and_one_of_a_port_has_it_in_its_id() {
        let policys = Document { id_scope: None, ..document() };
        let json = serde_json::to_value(&policys).unwrap();
        assert!(json.get("IdScope").is_none(), "{json}");
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), policys);

        let of_port = Document { id: id("pump-7", Some(10)), ..document() };
        assert_eq!((of_port.id.as_str(), of_port.registration_id(), of_port.port()), ("pump-7|10", "pump-7", Some(10)));
        let plain = Document { id: id("pump-7", None), ..document() };
        assert_eq!((plain.id.as_str(), plain.registration_id(), plain.port()), ("pump-7", "pump-7", None));
    }

    fn key() -> Credential {
        Credential::Key(SecretBox::new(Box::new(b"key".to_vec())))
    }

    #[test]
    fn a_device_is_where_the_document_says() {
        let device = document().device(key()).unwrap();
        assert_eq!((device.hub_host.as_str(), device.id.as_str()), ("myhub.azure-devices.net", "Well-7"));
    }

    #[test]
    fn what_no_service_assigned_is_no_device() {
        let broken = Document { assigned_hub: "no hub".into(), ..document() };
        assert!(broken.device(key()).unwrap_err().starts_with("AssignedHub is not a host name"));
        let broken = Document { device_id: "a b".into(), ..document() };
        assert!(broken.device(key()).unwrap_err().starts_with("DeviceId is not a device id"));
        let claim = Document::claim("pump-7", document().owner, None, document().registered_at);
        assert!(claim.is_claim() && !document().is_claim() && claim.device(key()).is_err());
    }
}
