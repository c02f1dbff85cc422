//! Tests the recent activity of LoRaWAN devices when several processes write it at once.

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use iothub_connector::iot_hub::devices::{
    Owner, Store,
    activity::{Activity, Document},
};

use super::support::World;

/// More processes than write the same device's document in production.
const PROCESSES: i64 = 3;
const WRITES: i64 = 5;

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::minutes(minute)
}

async fn write(store: &Store, owner: &Owner, process: i64) {
    for write in 0..WRITES {
        let mut since = Activity::default();
        since.uplink(at(write), [(format!("process{process}"), 1.0)]);
        store.add_activity(Document::new(owner.into()), &since).await.unwrap();
    }
}

#[tokio::test]
async fn what_several_processes_saw_is_added_up_and_is_no_device() {
    let world = World::start().await;
    let owner = Owner::things_network("pumps", "pump-7", "pump-7");
    let stores: Vec<_> = (0..PROCESSES).map(|_| world.store()).collect();
    assert!(stores[0].activities().await.unwrap().0.is_empty(), "there is no container yet");
    join_all(stores.iter().zip(0..).map(|(store, process)| write(store, &owner, process))).await;

    let mut odd = serde_json::to_value(Document::new((&Owner::things_network("pumps", "odd", "odd")).into())).unwrap();
    odd["Activity"]["Failures"] = "many".into();
    world.create(&odd).await;

    let (documents, unreadable) = stores[0].activities().await.unwrap();
    let [document] = &documents[..] else { panic!("one device") };
    assert_eq!(unreadable.len(), 1);
    assert!(unreadable[0].to_string().contains("activity|pumps|odd"), "{unreadable:?}");
    let activity = &document.activity;
    assert_eq!(i64::from(activity.uplinks.until(at(59))[23]), PROCESSES * WRITES);
    assert_eq!((activity.last_uplink_at, activity.series.channels.len()), (Some(at(WRITES - 1)), 0), "not the numbers");
    let whole = stores[0].activity(&document.id).await.unwrap().unwrap();
    assert_eq!((whole.activity.series.channels.len(), &whole.activity.uplinks), (3, &activity.uplinks));
    assert!(stores[0].activity("nobody").await.unwrap().is_none());
    let listing = stores[0].list().await.unwrap().unwrap();
    assert!(listing.documents.is_empty() && listing.foreign.is_empty(), "{listing:?}");
}
