//! Finds out whose a webhook is: the LoRaWAN device with its tenant, and the devices that its hub device comes from.

use crate::{
    iot_hub::devices::{Devices, Owner, PerApplication, StoreError, StoredOwner, Tenant},
    things_network::{
        queued::Queued,
        template::{Parts, Template},
        tenant,
    },
};

use super::message::Forwardable;

/// Why a webhook has no owner.
pub enum NoOwner {
    /// As the settings and the webhook are.
    Never(String),
    /// The container of devices cannot be read.
    NotNow(StoreError),
}

/// The owner of a webhook, and the devices that the owner's device comes from.
///
/// # Errors
/// [`NoOwner`]
pub async fn owner<'a>(
    devices: &'a PerApplication,
    template: &Template,
    forwardable: &Forwardable,
    queued: &Queued<'_>,
) -> Result<(&'a Devices, Owner), NoOwner> {
    let Forwardable { application, device, dev_eui, port, .. } = forwardable;
    let (of_application, port) = devices.of(application, *port).ok_or_else(|| {
        NoOwner::Never(format!(
            "no setting says where the devices of application {application} come from: set DPSIDScopeDefault and \
             DPSEnrollmentGroupSymmetricKeyDefault, or the same with the suffix -{application}"
        ))
    })?;
    let tenant = tenant::of(&queued.webhook, queued.domain.as_deref());
    let parts =
        Parts { application, device, dev_eui: dev_eui.as_deref(), tenant: tenant.as_ref().and_then(Tenant::id) };
    let (name, tenant) = match template.expand(parts) {
        Ok(name) => (name, tenant),
        // Some events, such as downlink_failed, have no DevEUI.
        Err(missing) => match known_before(devices, application, device, tenant).await.map_err(NoOwner::NotNow)? {
            Some(known) => known,
            None => return Err(NoOwner::Never(missing.to_string())),
        },
    };
    let owner = Owner::things_network(application, device, name).of_tenant(tenant);
    Ok((of_application, owner.named_by_dev_eui(template.has_dev_eui()).at_port(port)))
}

/// The name and the tenant of a device that has sent an uplink before: of the latest one, if it was replaced.
async fn known_before(
    devices: &PerApplication,
    application: &str,
    device: &str,
    tenant: Option<Tenant>,
) -> Result<Option<(String, Option<Tenant>)>, StoreError> {
    let owner = StoredOwner { system: Owner::THINGS_NETWORK.into(), group: application.into(), name: device.into() };
    let documents = devices.documents_of(&owner).await?;
    let is_same =
        |other: &Option<Tenant>| !tenant.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.differs(other));
    let latest = documents.into_iter().filter(|document| is_same(&document.tenant));
    let latest = latest.max_by_key(|document| document.registered_at);
    // A registration id is its own name.
    Ok(latest.map(|document| (document.registration_id().to_owned(), tenant.or(document.tenant))))
}
