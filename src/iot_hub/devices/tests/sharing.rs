//! One store with several processes and owners.

use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use serde_json::json;
use tokio::join;

use super::{
    super::{
        DeviceError, Owner,
        store::{CONTAINER, REQUIREMENTS},
    },
    World, device, error,
    service::{assigned_to, well},
    site, soon,
};

use crate::cosmos::Requirements;

fn namesakes(name: &str) -> (Owner, Owner) {
    (Owner::rapidm2m_site("Upper Valley", name), Owner::rapidm2m_site("Lower Valley", name))
}

#[tokio::test]
async fn a_second_owner_of_an_id_is_refused_and_told_of_the_first() {
    let world = World::start(well).await;
    let (one, two) = namesakes("pump-7");
    let devices = world.devices();
    device(&devices, &one).await;
    for devices in [devices, world.devices()] {
        let error = error(&devices, &two).await;
        assert_eq!(error.kind().as_str(), "device_taken");
        assert!(error.to_string().contains(r#"site "pump-7" of customer "Upper Valley""#), "{error}");
    }
    assert_eq!(world.service.registrations(), 1, "nothing is registered for the second");
    device(&world.devices(), &one).await;
}

#[tokio::test]
async fn of_two_owners_in_a_race_one_wins() {
    let world = World::start(well).await;
    let (here, there) = (world.devices(), world.devices());
    for number in 0..20 {
        let (one, two) = namesakes(&format!("pump-{number}"));
        let results = join!(here.device(&one, soon()), there.device(&two, soon()));
        let winner = match results {
            (Ok(_), Err(DeviceError::Taken { .. })) => one,
            (Err(DeviceError::Taken { .. }), Ok(_)) => two,
            other => panic!("{other:?}"),
        };
        assert_eq!(world.document(&winner.name).await.owner, (&winner).into());
    }
}

#[tokio::test]
async fn two_processes_of_one_owner_end_with_the_same_device() {
    let world = World::start(|asked| assigned_to(asked, &format!("hub-{}.azure-devices.net", asked.before))).await;
    let owner = site("Well 7");
    let (here, there) = (world.devices(), world.devices());
    let (one, two) = join!(device(&here, &owner), device(&there, &owner));
    assert_eq!(one.hub_host, two.hub_host);
    assert_eq!(world.document(&one.id).await.assigned_hub, one.hub_host);
}

#[tokio::test]
async fn what_another_process_has_registered_again_is_taken_over() {
    let world = World::start(|asked| assigned_to(asked, "new.azure-devices.net")).await;
    let owner = site("pump-7");
    world.put(&owner, 100).await;
    let (here, there) = (world.devices(), world.devices());
    let (one, two) = (device(&here, &owner).await, device(&there, &owner).await);
    assert!(here.refused(&owner, &one).await && there.refused(&owner, &two).await);
    assert_eq!(device(&here, &owner).await.hub_host, "new.azure-devices.net");
    assert_eq!(device(&there, &owner).await.hub_host, "new.azure-devices.net");
    assert_eq!(world.service.registrations(), 1);
    assert_eq!(world.document("pump-7").await.registrations, 2);
}

#[tokio::test]
async fn what_could_not_be_recorded_is_not_used_and_not_registered_again() {
    let world = World::start(well).await;
    let devices = world.devices();
    let owner = site("pump-7");
    // Create the container before the fault, because the fault affects documents only.
    assert!(world.store().read("x").await.unwrap().is_none());
    world.faults(json!({ "writesOnly": true, "status": 403 })).await;
    assert_eq!(error(&devices, &owner).await.kind().as_str(), "ledger_unauthorized");
    assert_eq!(error(&devices, &owner).await.kind().as_str(), "ledger_unauthorized");
    assert!(world.store().read("pump-7").await.unwrap().is_none());
    world.faults(json!({})).await;
    device(&devices, &owner).await;
    assert_eq!(world.service.registrations(), 1);
    assert_eq!(world.document("pump-7").await.registrations, 1);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_registers_nothing() {
    let world = World::start(well).await;
    assert!(world.store().read("x").await.unwrap().is_none());
    world.faults(json!({ "status": 403 })).await;
    assert_eq!(error(&world.devices(), &site("pump-7")).await.kind().as_str(), "ledger_unauthorized");
    assert_eq!(world.service.asked(), []);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_found_again() {
    let world = World::start(well).await;
    let devices = world.devices();
    let owner = site("pump-7");
    assert!(world.store().read("x").await.unwrap().is_none());
    world.faults(json!({ "writesOnly": true, "swallowAnswer": true, "times": 1 })).await;
    // The SDK may retry by itself. It then gets a conflict with its own document.
    if let Err(error) = devices.device(&owner, soon()).await {
        assert!(error.kind().as_str().starts_with("ledger_"), "{error}");
        device(&devices, &owner).await;
    }
    assert_eq!(world.service.registrations(), 1);
    assert_eq!(world.document("pump-7").await.registrations, 1);
}

#[tokio::test]
async fn something_else_under_the_id_is_left_alone_and_listed_apart() {
    let world = World::start(well).await;
    world.put(&site("well-1"), 100).await;
    let container = world.account().find(CONTAINER).await.unwrap().unwrap();
    let foreign = json!({ "id": "pump-7", "Owner": "somebody" });
    container.create_item("pump-7".to_owned(), "pump-7", foreign, None).await.unwrap();
    let error = error(&world.devices(), &site("pump-7")).await;
    assert_eq!(error.kind().as_str(), "device_foreign_document");
    assert!(error.to_string().contains("delete it, or correct it"), "{error}");
    assert_eq!(world.service.asked(), []);
    let listing = world.listing().await;
    assert_eq!((listing.documents.len(), listing.foreign), (1, vec!["pump-7".to_owned()]));
}

#[tokio::test]
async fn a_container_of_somebody_else_is_not_used() {
    let world = World::start(well).await;
    let key = PartitionKeyDefinition::new(vec!["/tenant".into()]);
    let tenants = Requirements { partition_key: &["/tenant"], ..REQUIREMENTS };
    world.account().open(ContainerProperties::new(CONTAINER, key), &tenants).await.unwrap();
    let error = error(&world.devices(), &site("pump-7")).await;
    assert_eq!(error.kind().as_str(), "ledger_unfit");
    assert!(error.to_string().contains("its partition key is /tenant, not /id"), "{error}");
    assert_eq!(world.service.asked(), []);
}

#[tokio::test]
async fn a_document_that_somebody_has_broken_is_left_alone() {
    let world = World::start(well).await;
    let owner = site("pump-7");
    let mut document = world.put(&owner, 100).await;
    let stored = world.store().read("pump-7").await.unwrap().unwrap();
    document.assigned_hub = "not a hub".into();
    world.store().write(&document, stored.etag.as_deref()).await.unwrap();
    let error = error(&world.devices(), &owner).await;
    assert_eq!(error.kind().as_str(), "device_foreign_document");
    assert!(error.to_string().contains("AssignedHub is not a host name"), "{error}");
    assert_eq!(world.document("pump-7").await, document);
    assert_eq!(world.service.asked(), []);
}

#[tokio::test]
async fn a_container_that_is_deleted_meanwhile_is_made_again() {
    let world = World::start(well).await;
    let devices = world.devices();
    device(&devices, &site("well-1")).await;
    for number in 2..4 {
        let owner = site(&format!("well-{number}"));
        let container = world.account().find(CONTAINER).await.unwrap().unwrap();
        container.delete(None).await.unwrap();
        let error = error(&devices, &owner).await;
        assert_eq!(error.kind().as_str(), "ledger_missing");
        assert!(error.to_string().contains("made again with the next run"), "{error}");
        device(&devices, &owner).await;
        assert_eq!(world.listing().await.documents.len(), 1);
        assert_eq!(world.service.registrations(), number, "a registration is not repeated for the store's sake");
    }
}
