//! Devices of LoRaWAN applications: at hubs without registration, for single ports, and with the same name.

use std::sync::Arc;

use secrecy::SecretBox;
use tokio::{join, time::Duration};

use super::{
    super::{DeviceError, Devices, Owner, PerApplication, REST},
    World, device, error,
    service::{assigned_to, well},
    soon,
};
use crate::{
    config::{self, Problems},
    iot_hub::{
        Credential, Device, Endpoint, Policy,
        devices::enrollment::{Enrollment, HubPolicy},
    },
};

const HUB: &str = "HostName=own.azure-devices.net;SharedAccessKeyName=device;SharedAccessKey=a2V5";

fn pump(application: &str) -> Owner {
    Owner::things_network(application, "pump-7", "pump-7")
}

fn of_hub(world: &World, hub: &str) -> Devices {
    let policy = Policy { name: "device".into(), key: SecretBox::new(Box::new(b"key".to_vec())) };
    let hub = Endpoint::parse(hub).unwrap();
    Devices::new(
        Enrollment::Hub(HubPolicy { hub, policy: Arc::new(policy) }),
        world.store(),
        Vec::new(),
        Arc::default(),
    )
}

fn policy(device: &Device) -> &str {
    let Credential::Policy(policy) = &device.credential else { panic!("{device:?} has no policy") };
    &policy.name
}

/// Uses the scripted service for devices that are registered.
fn per_application(world: &World, more: &[(&str, &str)]) -> PerApplication {
    let endpoint = world.service.config().endpoint.to_string();
    let service = [("DPSGlobalDeviceEndpoint", endpoint.as_str())];
    let settings = service.iter().chain(more).copied().collect();
    let mut problems = Problems::default();
    let enrollments = config::enrollment::read(&settings, &mut problems).unwrap_or_else(|| panic!("{problems}"));
    PerApplication::new(enrollments, world.store(), vec![world.service.certificate.clone()], Arc::default())
}

async fn port_device(devices: &PerApplication, application: &str, port: u8) -> Result<Arc<Device>, DeviceError> {
    let (devices, own) = devices.of(application, port).unwrap();
    devices.device(&pump(application).at_port(own), soon()).await
}

#[tokio::test]
async fn a_device_of_a_hub_is_written_down_and_nothing_is_registered() {
    let world = World::start(well).await;
    let owner = pump("pumps");
    let found = device(&of_hub(&world, "own.azure-devices.net:8884"), &owner).await;
    assert_eq!((found.id.as_str(), found.hub_host.as_str()), ("pump-7", "own.azure-devices.net"));
    assert_eq!((found.endpoint.port, policy(&found)), (Some(8884), "device"));
    let document = world.document("pump-7").await;
    assert_eq!((document.assigned_hub.as_str(), &document.id_scope), ("own.azure-devices.net:8884", &None));
    assert_eq!((document.owner.clone(), document.registrations), ((&owner).into(), 1));

    device(&of_hub(&world, "own.azure-devices.net:8884"), &owner).await;
    assert_eq!(world.document("pump-7").await, document, "nothing is written without need");
    let taken = error(&of_hub(&world, "own.azure-devices.net:8884"), &pump("wells")).await;
    assert_eq!(taken.kind().as_str(), "device_taken");
    assert_eq!(world.service.asked(), []);
}

#[tokio::test]
async fn a_device_moves_with_the_settings() {
    let world = World::start(|asked| assigned_to(asked, "assigned.azure-devices.net")).await;
    let owner = pump("pumps");
    for (devices, hub, registrations) in [
        (of_hub(&world, "one.azure-devices.net"), "one.azure-devices.net", 1),
        (of_hub(&world, "two.azure-devices.net"), "two.azure-devices.net", 2),
        (world.devices(), "assigned.azure-devices.net", 3),
        (of_hub(&world, "two.azure-devices.net"), "two.azure-devices.net", 4),
    ] {
        assert_eq!(device(&devices, &owner).await.hub_host, hub);
        let document = world.document("pump-7").await;
        assert_eq!((document.assigned_hub.as_str(), document.registrations), (hub, registrations));
    }
    assert_eq!(world.service.registrations(), 1);
}

#[tokio::test]
async fn a_device_that_its_hub_refuses_rests_and_the_error_says_what_to_do() {
    let world = World::start(well).await;
    let (devices, owner) = (of_hub(&world, "own.azure-devices.net"), pump("pumps"));
    let found = device(&devices, &owner).await;
    let document = world.document("pump-7").await;
    assert!(devices.refused(&owner, &found).await);
    assert!(devices.refused(&owner, &found).await, "told twice");
    for _ in 0..2 {
        let error = error(&devices, &owner).await;
        assert_eq!(error.kind().as_str(), "device_refused");
        for part in
            ["hub own.azure-devices.net refused device pump-7", "create the device", "DPSIDScope", "policy device"]
        {
            assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
        }
        devices.try_again();
    }
    tokio::time::pause();
    tokio::time::advance(REST + Duration::from_secs(1)).await;
    tokio::time::resume();
    let again = device(&devices, &owner).await;
    assert!(!Arc::ptr_eq(&again, &found));
    assert_eq!(world.document("pump-7").await, document);
    assert!(devices.refused(&owner, &found).await, "of the old one nothing is learnt");
    assert!(Arc::ptr_eq(&device(&devices, &owner).await, &again));
}

#[tokio::test]
async fn ports_with_enrollments_of_their_own_are_devices_of_their_own() {
    let world = World::start(|asked| assigned_to(asked, &format!("hub-{}.azure-devices.net", asked.before))).await;
    let settings = [
        ("DPSIDScopeDefault", super::SCOPE),
        ("DPSEnrollmentGroupSymmetricKeyDefault", super::service::GROUP_KEY),
        ("DPSIDScope-pumps-10", "0ne00222222"),
        ("AzureIotHubConnectionString-pumps-11", HUB),
    ];
    let uplinks =
        [(10, "hub-0", "0ne00222222"), (1, "hub-1", super::SCOPE), (11, "own", ""), (2, "hub-1", super::SCOPE)];
    // Also after a restart and for repeated calls: nothing is registered twice.
    for _ in 0..2 {
        let devices = per_application(&world, &settings);
        for (port, hub, _) in uplinks.into_iter().chain(uplinks) {
            let found = port_device(&devices, "pumps", port).await.unwrap();
            assert_eq!(
                (found.id.as_str(), found.hub_host.clone()),
                ("pump-7", format!("{hub}.azure-devices.net")),
                "{port}"
            );
        }
    }
    assert_eq!(world.service.registrations(), 2);
    let ids: Vec<_> = world.listing().await.documents.into_iter().map(|document| document.id).collect();
    assert_eq!(ids, ["pump-7", "pump-7|10", "pump-7|11"]);
    for (port, _, scope) in [uplinks[0], uplinks[2]] {
        let document = world.document(&format!("pump-7|{port}")).await;
        assert_eq!((document.port(), document.id_scope.unwrap_or_default().as_str()), (Some(port), scope));
    }
    assert_eq!(world.document("pump-7").await.registrations, 1, "the claim of port 10 does not count");
}

#[tokio::test]
async fn namesakes_of_two_applications_are_found_out_whatever_their_ports() {
    let settings = [
        ("DPSIDScope", super::SCOPE),
        ("DPSEnrollmentGroupSymmetricKey-one-10", super::service::GROUP_KEY),
        ("DPSEnrollmentGroupSymmetricKey-two-11", super::service::GROUP_KEY),
    ];
    let world = World::start(well).await;
    let (here, there) = (per_application(&world, &settings), per_application(&world, &settings));
    let results = join!(port_device(&here, "one", 10), port_device(&there, "two", 11));
    let (winner, error) = match results {
        (Ok(_), Err(error)) => ("one", error),
        (Err(error), Ok(_)) => ("two", error),
        other => panic!("{other:?}"),
    };
    assert_eq!(error.kind().as_str(), "device_taken");
    let text = error.to_string();
    for part in ["application \"one\"", "application \"two\"", "DeviceIdTemplate to {application_id}-{device_id}"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let claim = world.document("pump-7").await;
    assert!(claim.is_claim() && claim.owner == (&pump(winner)).into(), "{claim:?}");
    assert_eq!(world.service.registrations(), 1);
}

#[tokio::test]
async fn applications_without_settings_have_no_devices_and_equal_ones_share_them() {
    let world = World::start(well).await;
    let devices = per_application(
        &world,
        &[
            ("DPSIDScope", super::SCOPE),
            ("DPSEnrollmentGroupSymmetricKey-one", super::service::GROUP_KEY),
            ("DPSEnrollmentGroupSymmetricKey-two", super::service::GROUP_KEY),
            ("AzureIotHubConnectionString-three", HUB),
        ],
    );
    assert!(devices.of("four", 1).is_none());
    let [one, two, three] = ["one", "two", "three"].map(|application| devices.of(application, 1).unwrap());
    assert!(Arc::ptr_eq(&one.0.0, &two.0.0) && !Arc::ptr_eq(&one.0.0, &three.0.0));
    assert!(Arc::ptr_eq(&one.0.0.shared.store, &three.0.0.shared.store));
    assert_eq!([one.1, two.1, three.1], [None; 3]);
}
