//! Tests sites and LoRaWAN devices as devices of their own, against the emulated provisioning service and hub.

mod activity;
mod applications;
mod devicebound;
mod support;

use std::time::Duration;

use futures::{StreamExt as _, future::join_all, stream};
use iothub_connector::iot_hub::{
    Transport,
    devices::{DeviceError, Owner, naming::registration_id},
};
use serde_json::json;
use tokio::time::Instant;

use support::{World, message, send, site, soon};

const TRANSPORTS: [Transport; 3] = [Transport::Mqtt, Transport::MqttWs, Transport::Https];

async fn kind(world: &World, owner: &Owner) -> String {
    world.devices().device(owner, soon()).await.expect_err("there is a device").kind().to_string()
}

#[tokio::test]
async fn sites_send_as_devices_of_their_own_over_every_transport() {
    let world = World::start().await;
    let sites = ["Energy meter 1", "Reservoir Süd", "well-7"].map(site);
    for (round, transport) in TRANSPORTS.into_iter().enumerate() {
        let delivery = world.delivery(transport);
        for owner in &sites {
            let messages = [message(&format!("{round}a")), message(&format!("{round}b"))];
            send(&delivery, owner, &messages).await;
        }
    }
    for owner in &sites {
        let id = registration_id(&owner.name);
        assert_eq!(world.received(&id).await, ["0a", "0b", "1a", "1b", "2a", "2b"], "{id}");
    }
    let calls = world.register_calls().await;
    assert!(calls.len() == 3 && calls.iter().all(|(_, calls)| *calls == 1), "{calls:?}");
}

#[tokio::test]
async fn a_thousand_sites_are_registered_once_each_and_never_again_after_a_restart() {
    const SITES: usize = 1_000;
    const AT_ONCE: usize = 128;
    let world = World::start().await;
    let sites: Vec<_> = (0..SITES).map(|number| site(&format!("Well {number}"))).collect();
    for _ in 0..2 {
        let devices = world.devices();
        // As many at once as a run has sites in their turn.
        let found = stream::iter(&sites).map(|owner| devices.device(owner, soon())).buffered(AT_ONCE);
        let found: Vec<_> = found.collect().await;
        for (owner, device) in sites.iter().zip(found) {
            assert_eq!(device.unwrap().id, registration_id(&owner.name));
        }
    }
    let calls = world.register_calls().await;
    assert_eq!(calls.len(), SITES);
    assert!(calls.iter().all(|(_, calls)| *calls == 1), "{calls:?}");
}

/// DPS forgets an operation when the same device begins another.
#[tokio::test]
async fn two_apps_that_register_the_same_devices_at_once_both_get_them() {
    let world = World::start().await;
    world.put("dps/faults", json!({ "assigningPolls": 3 })).await;
    let sites: Vec<_> = (0..20).map(|number| site(&format!("well-{number}"))).collect();
    let (one, two) = (world.devices(), world.devices());
    let both = sites.iter().flat_map(|owner| [one.device(owner, soon()), two.device(owner, soon())]);
    let failed: Vec<_> = join_all(both).await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of 40 failed: {}", failed.len(), failed[0]);
}

#[tokio::test]
async fn a_device_that_was_deleted_is_registered_again_and_loses_nothing() {
    for transport in TRANSPORTS {
        let world = World::start().await;
        let owner = site("pump-7");
        let delivery = world.delivery(transport);
        send(&delivery, &owner, &[message("a")]).await;

        world.delete("devices?device=pump-7").await;
        let (sent, outcome) = delivery.send_in_order(&owner, &[message("b")], soon(), soon()).await;
        assert_eq!(
            (sent, outcome.unwrap_err().kind().as_str()),
            (0, "hub_refused"),
            "a minute has not passed: {transport:?}"
        );
        assert_eq!(world.register_calls().await, [("pump-7".to_owned(), 1)]);

        world.make_older("pump-7").await;
        let delivery = world.delivery(transport);
        send(&delivery, &owner, &[message("b"), message("c")]).await;
        assert_eq!(world.received("pump-7").await, ["a", "b", "c"]);
        assert_eq!(world.register_calls().await, [("pump-7".to_owned(), 2)]);
        assert_eq!(world.store().read("pump-7").await.unwrap().unwrap().document.registrations, 2);
    }
}

#[tokio::test]
async fn passing_faults_delay_a_registration_and_lose_nothing() {
    let world = World::start().await;
    let devices = world.devices();
    for (name, faults) in [
        ("throttled", json!({ "status": 429, "statusTimes": 1, "retryAfterSeconds": 1 })),
        ("throttled-without-a-time", json!({ "status": 429, "statusTimes": 1 })),
        ("throttled-poll", json!({ "status": 429, "statusTimes": 1, "retryAfterSeconds": 0, "step": "poll" })),
        ("busy", json!({ "status": 503, "statusTimes": 1, "retryAfterSeconds": 0 })),
        ("error", json!({ "status": 500, "statusTimes": 1 })),
        ("cut", json!({ "dropTimes": 1 })),
        ("cut-poll", json!({ "dropTimes": 1, "step": "poll" })),
        ("slow", json!({ "delayMs": 300, "assigningPolls": 3 })),
    ] {
        world.put("dps/faults", faults).await;
        let device = devices.device(&site(name), soon()).await;
        assert_eq!(device.unwrap_or_else(|error| panic!("{error}")).id, name);
    }
}

#[tokio::test]
async fn what_the_service_will_not_have_is_said_and_the_others_go_on() {
    let world = World::start().await;
    let devices = world.devices();
    for (name, faults, expected) in [
        ("failed", json!({ "failTimes": 1 }), "dps_refused"),
        ("disabled", json!({ "disableTimes": 1 }), "dps_refused"),
        ("forbidden", json!({ "status": 403, "statusTimes": 1 }), "dps_refused"),
        ("conflict", json!({ "status": 409, "statusTimes": 1 }), "dps_refused"),
        ("garbage", json!({ "garbageTimes": 1 }), "dps_garbage"),
    ] {
        world.put("dps/faults", faults).await;
        let error = devices.device(&site(name), soon()).await.unwrap_err();
        assert_eq!(error.kind().as_str(), expected, "{error}");
        assert!(error.to_string().contains(&format!("device {name} for rapidM2M site {name:?}")), "{error}");
        let well = site(&format!("well-after-{name}"));
        devices.device(&well, soon()).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let mut world = World::start().await;
    let owner = site("pump-7");
    world.changed = vec![("DPSEnrollmentGroupSymmetricKey", "c2VjcmV0".into())];
    assert_eq!(kind(&world, &owner).await, "dps_unauthorized");
    world.changed = vec![("DPSIDScope", "0ne00000000".into())];
    assert_eq!(kind(&world, &owner).await, "dps_unknown_scope");
    world.changed = vec![("DPSGlobalDeviceEndpoint", "127.0.0.1:1".into())];
    assert_eq!(kind(&world, &owner).await, "dps_unreachable");
}

#[tokio::test]
async fn a_service_that_was_away_is_found_again_with_the_next_invocation() {
    let world = World::start().await;
    let devices = world.devices();
    world.put("dps/away", json!(true)).await;
    let sites: Vec<_> = (0..40).map(|number| site(&format!("well-{number}"))).collect();
    for result in join_all(sites.iter().map(|owner| devices.device(owner, soon()))).await {
        assert_eq!(result.unwrap_err().kind().as_str(), "dps_unreachable");
    }
    world.put("dps/away", json!(false)).await;
    let told_at_once = devices.device(&sites[0], soon()).await.unwrap_err();
    assert_eq!(told_at_once.kind().as_str(), "dps_unreachable");
    devices.try_again();
    for result in join_all(sites.iter().map(|owner| devices.device(owner, soon()))).await {
        result.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test]
async fn a_registration_that_takes_long_is_no_failure() {
    let world = World::start().await;
    world.put("dps/faults", json!({ "delayMs": 500 })).await;
    let devices = world.devices();
    let owner = site("pump-7");
    let error = devices.device(&owner, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, DeviceError::Underway { .. }), "{error}");
    assert!(devices.device(&owner, soon()).await.is_ok());
    assert_eq!(world.register_calls().await, [("pump-7".to_owned(), 1)]);
}
