//! Tests devices of LoRaWAN applications.

use emulators::iot_hub;
use iothub_connector::iot_hub::devices::Owner;
use serde_json::json;

use crate::devices::{
    TRANSPORTS,
    support::{World, message, send, soon},
};

fn pump(application: &str) -> Owner {
    Owner::things_network(application, "pump-7", format!("{application}-pump-7"))
}

#[tokio::test]
async fn devices_of_a_hub_send_with_its_policy_over_every_transport() {
    let world = World::start_with(iot_hub::Options { strict: true, ..iot_hub::Options::default() }).await;
    world.put("devices?device=one-pump-7", json!({})).await;
    let connection_string = world.connection_string();
    for (round, transport) in TRANSPORTS.into_iter().enumerate() {
        let applications = world.per_application(&[("AzureIotHubConnectionString-one", &connection_string)]);
        let (devices, port) = applications.of("one", 10).unwrap();
        let delivery = world.delivery_of(devices.clone(), transport);
        let owner = pump("one").at_port(port);
        send(&delivery, &owner, &[message(&format!("{round}a")), message(&format!("{round}b"))]).await;
    }
    assert_eq!(world.received("one-pump-7").await, ["0a", "0b", "1a", "1b", "2a", "2b"]);
    assert_eq!(world.register_calls().await, []);
}

#[tokio::test]
async fn a_device_that_is_not_in_its_hub_is_named_and_the_hub_left_alone() {
    for transport in TRANSPORTS {
        let world = World::start_with(iot_hub::Options { strict: true, ..iot_hub::Options::default() }).await;
        let applications = world.per_application(&[("AzureIotHubConnectionStringDefault", &world.connection_string())]);
        let delivery = world.delivery_of(applications.of("one", 1).unwrap().0.clone(), transport);
        for _ in 0..2 {
            let (sent, outcome) = delivery.send_in_order(&pump("one"), &[message("a")], soon(), soon()).await;
            let error = outcome.unwrap_err();
            assert_eq!((sent, error.kind().as_str()), (0, "device_refused"), "{transport:?}: {error}");
            assert!(error.to_string().contains("refused device one-pump-7"), "{error}");
            delivery.try_again();
        }
        let counts = world.counts().await;
        let tries = counts["refused"].as_u64().unwrap() + counts["httpsFailures"].as_u64().unwrap();
        assert_eq!(tries, 1, "{transport:?}: {counts}");
    }
}

#[tokio::test]
async fn a_wrong_key_of_a_policy_is_refused() {
    let world = World::start().await;
    let wrong = world.connection_string().replace("SharedAccessKey=", "SharedAccessKey=AAAA");
    let applications = world.per_application(&[("AzureIotHubConnectionStringDefault", &wrong)]);
    for transport in TRANSPORTS {
        let owner = Owner::things_network("one", "s", format!("{transport:?}").to_lowercase());
        let delivery = world.delivery_of(applications.of("one", 1).unwrap().0.clone(), transport);
        let (_, outcome) = delivery.send_in_order(&owner, &[message("a")], soon(), soon()).await;
        let error = outcome.unwrap_err();
        assert!(error.kind().as_str() == "device_refused" && error.to_string().contains("policy device"), "{error}");
        assert!(!format!("{error:?}").contains("AAAA"), "{error:?}");
    }
}

#[tokio::test]
async fn each_application_and_port_has_its_own_way() {
    let world = World::start().await;
    let ready = world.ready().clone();
    let applications = world.per_application(&[
        ("DPSIDScopeDefault", &ready.id_scope),
        ("DPSEnrollmentGroupSymmetricKey-one", &ready.group_key),
        ("AzureIotHubConnectionString-one-11", &world.connection_string()),
        ("AzureIotHubConnectionString__two", &world.connection_string()),
    ]);
    for (application, port) in [("one", 1), ("one", 11), ("two", 11), ("one", 2), ("one", 11)] {
        let (devices, own) = applications.of(application, port).unwrap();
        let delivery = world.delivery_of(devices.clone(), TRANSPORTS[0]);
        send(&delivery, &pump(application).at_port(own), &[message(&format!("port {port}"))]).await;
    }
    assert!(applications.of("three", 1).is_none());
    assert_eq!(world.received("one-pump-7").await, ["port 1", "port 11", "port 2", "port 11"]);
    assert_eq!(world.received("two-pump-7").await, ["port 11"]);
    assert_eq!(world.register_calls().await, [("one-pump-7".to_owned(), 1)]);
    let ids: Vec<_> =
        world.store().list().await.unwrap().unwrap().documents.into_iter().map(|document| document.id).collect();
    assert_eq!(ids, ["one-pump-7", "one-pump-7|11", "two-pump-7"]);
}
