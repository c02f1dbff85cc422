//! Registers a new device, and registers a device again that the hub refused.

use chrono::TimeDelta;
use futures::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{
    super::{DeviceError, naming::registration_id, refusals},
    World, device,
    service::{Asked, assigned_to, assigning, reply, well},
    site, soon,
};
use crate::iot_hub::Credential;

fn new_hub(asked: &Asked) -> super::Reply {
    assigned_to(asked, "new.azure-devices.net:8884")
}

#[tokio::test]
async fn a_device_is_registered_once_however_many_ask_and_found_again_after_a_restart() {
    let world = World::start(|asked| if asked.before < 3 { assigning(asked) } else { well(asked) }).await;
    let owner = site("Reservoir Süd");
    let id = registration_id(&owner.name);
    let devices = world.devices();
    let found = join_all((0..50).map(|_| device(&devices, &owner))).await;
    assert!(found.iter().all(|device| std::sync::Arc::ptr_eq(device, &found[0])));
    assert_eq!((found[0].id.as_str(), found[0].hub_host.as_str()), (id.as_str(), "myhub.azure-devices.net"));
    let operations: Vec<_> = world.service.asked().into_iter().map(|asked| asked.operation).collect();
    let operation = Some(format!("4.op%2F{id}"));
    assert_eq!(operations, [None, operation.clone(), operation.clone(), operation]);

    let document = world.document(&id).await;
    assert_eq!(document.owner.to_string(), r#"rapidM2M site "Reservoir Süd" of customer "Demo Water Utility""#);
    assert_eq!((document.registrations, document.id_scope.as_deref()), (1, Some(super::SCOPE)));

    let again = device(&world.devices(), &owner).await;
    assert_eq!((&again.id, &again.hub_host, &again.endpoint), (&id, &found[0].hub_host, &found[0].endpoint));
    let (Credential::Key(one), Credential::Key(two)) = (&again.credential, &found[0].credential) else { panic!() };
    assert_eq!(one.expose_secret(), two.expose_secret());
    assert_eq!(world.service.asked().len(), 4);
}

#[tokio::test]
async fn many_devices_are_registered_side_by_side() {
    let world = World::start(well).await;
    let devices = world.devices();
    let sites: Vec<_> = (0..200).map(|number| site(&format!("Well {number}"))).collect();
    let found = join_all(sites.iter().map(|owner| device(&devices, owner))).await;
    for (owner, device) in sites.iter().zip(found) {
        assert_eq!(device.id, registration_id(&owner.name));
    }
    assert_eq!(world.service.registrations(), 200);
    let listing = world.listing().await;
    assert_eq!((listing.documents.len(), listing.foreign.len()), (200, 0));
    assert!(listing.documents.is_sorted_by_key(|document| &document.id));
}

#[tokio::test]
async fn a_slow_registration_goes_on_in_the_background() {
    let later = |_: &Asked| reply(202, json!({ "operationId": "1", "status": "assigning" })).with("Retry-After", 1);
    let world = World::start(later).await;
    let devices = world.devices();
    let owner = site("pump-7");
    let now = tokio::time::Instant::now();
    let error = devices.device(&owner, now).await.unwrap_err();
    assert!(matches!(&error, DeviceError::Underway { id, .. } if id == "pump-7"), "{error}");
    assert_eq!(error.kind().as_str(), "device_underway");
    world.service.wait_for(1).await;
    world.service.follow(well);
    device(&devices, &owner).await;
    assert_eq!(world.service.registrations(), 1);
}

#[tokio::test]
async fn a_device_that_the_hub_refuses_is_registered_again_at_most_once_a_minute() {
    let world = World::start(new_hub).await;
    let owner = site("pump-7");
    world.put(&owner, 61).await;
    let devices = world.devices();
    let old = device(&devices, &owner).await;
    assert_eq!(old.hub_host, "old.azure-devices.net");
    assert_eq!(world.service.registrations(), 0);

    assert!(devices.refused(&owner, &old).await);
    assert!(devices.refused(&owner, &old).await, "told twice");
    let new = device(&devices, &owner).await;
    assert_eq!((new.hub_host.as_str(), new.endpoint.port), ("new.azure-devices.net", Some(8884)));
    assert_eq!(world.document("pump-7").await.registrations, 2);
    assert!(devices.refused(&owner, &old).await, "there is another device now");

    assert!(!devices.refused(&owner, &new).await);
    assert!(std::sync::Arc::ptr_eq(&device(&devices, &owner).await, &new));
    let restarted = world.devices();
    let same = device(&restarted, &owner).await;
    assert!(!restarted.refused(&owner, &same).await);
    device(&restarted, &owner).await;
    assert_eq!(world.service.registrations(), 1);
}

#[test]
fn a_device_that_is_refused_again_and_again_is_registered_less_and_less_often() {
    let after = |seconds| TimeDelta::seconds(seconds);
    for (before, minutes) in [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (100, 60)] {
        assert_eq!(refusals(before, after(60 * minutes - 1)), None, "{before}");
        assert_eq!(refusals(before, after(60 * minutes)), Some(before + 1), "{before}");
        assert_eq!(refusals(before, after(-60 * minutes)), Some(before + 1), "{before}: a clock was wrong");
    }
    assert_eq!(refusals(100, TimeDelta::days(1)), Some(1), "it has worked in between");
    assert_eq!(refusals(u32::MAX, TimeDelta::MAX), Some(1));
}

#[tokio::test]
async fn a_refused_device_stays_refused_when_the_service_fails() {
    let world = World::start(|_| reply(500, json!({}))).await;
    let owner = site("pump-7");
    world.put(&owner, 61).await;
    let devices = world.devices();
    let old = device(&devices, &owner).await;
    assert!(devices.refused(&owner, &old).await);
    assert_eq!(super::error(&devices, &owner).await.kind().as_str(), "dps_status");
    world.service.follow(new_hub);
    devices.try_again();
    assert_eq!(device(&devices, &owner).await.hub_host, "new.azure-devices.net");
}

#[tokio::test]
async fn another_instance_of_the_service_registers_anew() {
    let world = World::start(new_hub).await;
    let owner = site("pump-7");
    world.put(&owner, 5).await;
    let mut config = world.service.config();
    config.id_scope = "0ne00222222".into();
    let devices = world.devices_with(config, vec![world.service.certificate.clone()]);
    assert_eq!(device(&devices, &owner).await.hub_host, "new.azure-devices.net");
    let document = world.document("pump-7").await;
    assert_eq!((document.id_scope.as_deref(), document.registrations), (Some("0ne00222222"), 2));
}

#[tokio::test]
async fn a_lookup_is_waited_for_although_the_time_is_over() {
    let world = World::start(well).await;
    let owner = site("pump-7");
    world.put(&owner, 5).await;
    world.faults(json!({ "delayMs": 300 })).await;
    let past = soon() - std::time::Duration::from_secs(30);
    assert_eq!(world.devices().device(&owner, past).await.unwrap().hub_host, "old.azure-devices.net");
}
