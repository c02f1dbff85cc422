//! Tests a hub that misbehaves or refuses the connector.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::support::{World, rows, start_and_wait_for_exit, token};

const SITE: &str = "Well 7";

fn only(kind: &str) -> Vec<(String, String)> {
    vec![(SITE.to_owned(), kind.to_owned())]
}

async fn assert_waiting_for(world: &World, said: &str) {
    let outcomes = world.outcomes(SITE).await;
    assert_eq!(outcomes[0], "pending");
    assert!(outcomes[1..].iter().all(|outcome| outcome == "empty"), "{outcomes:?}");
    assert!(world.output().contains(said), "{said:?} is not said in\n{}", world.output());
    assert_eq!(world.hub.get("counts").await["messages"], 0);
    world.assert_no_secrets().await;
}

async fn assert_arrives(world: &World) {
    world.handler().await.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..3)).await;
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

/// A world with rows that are pending.
async fn world() -> World {
    let world = World::with_sites(&[SITE]).await;
    world.add(SITE, 0..3).await;
    world
}

#[tokio::test]
async fn a_connection_cut_before_the_acknowledgement_sends_the_same_message_again() {
    let world = world().await;
    world.hub.put("faults", json!({ "dropBeforePubackTimes": 1 })).await;
    world.handler().await.invoke_ok().await;
    let messages = world.hub.get("received").await;
    assert_eq!(messages.as_array().unwrap().len(), 2);
    assert_eq!(messages[0]["messageId"], messages[1]["messageId"]);
    assert_eq!(messages[0]["body"], messages[1]["body"]);
    assert_eq!(world.outcomes(SITE).await, ["forwarded"]);
    world.assert_rows(SITE, &rows(0..3)).await;
}

#[tokio::test]
async fn connections_cut_again_and_again_lose_nothing() {
    let world = world().await;
    let handler = world.handler().await;
    world.hub.put("faults", json!({ "cutAfterMessages": 1 })).await;
    for round in 1..6 {
        world.add(SITE, round * 3..round * 3 + 3).await;
        handler.invoke().await;
    }
    world.hub.heal().await;
    handler.invoke_until_ok(2).await;
    world.assert_rows(SITE, &rows(0..18)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_said() {
    let mut world = world().await;
    let right = world.settings["IoTHubDeviceKey"].clone();
    world.set("IoTHubDeviceKey", &BASE64_STANDARD.encode("not the device's key"));
    assert_eq!(world.handler().await.invoke_failing().await, only("hub_refused"));
    assert_waiting_for(&world, "the hub refused device gateway-1").await;
    world.set("IoTHubDeviceKey", &right);
    assert_arrives(&world).await;
}

#[tokio::test]
async fn a_ready_token_is_used_until_it_expires() {
    let mut world = world().await;
    let key = world.settings["IoTHubDeviceKey"].clone();
    world.unset("IoTHubDeviceKey");
    world.set("IoTHubSharedAccessSignature", &token("127.0.0.1", "gateway-1", &key, -10));
    assert_eq!(world.handler().await.invoke_failing().await, only("hub_token_expired"));
    assert_waiting_for(&world, "the token of device gateway-1 expired").await;

    for (hub, device) in [("127.0.0.1", "another-device"), ("another.azure-devices.net", "gateway-1")] {
        world.set("IoTHubSharedAccessSignature", &token(hub, device, &key, 3600));
        let (code, output) = start_and_wait_for_exit(&world.settings).await;
        assert_eq!(code, Some(2), "{output}");
        assert!(output.contains("another") && !output.contains("sig="), "{output}");
    }

    world.set("IoTHubSharedAccessSignature", &token("127.0.0.1", "gateway-1", &key, 3600));
    assert_arrives(&world).await;
    assert!(world.output().contains("the token in IoTHubSharedAccessSignature ends"), "warned of 7 days ahead");
}

#[tokio::test]
async fn a_connection_string_is_enough() {
    let mut world = world().await;
    let setting = |name: &str| world.settings[name].clone();
    let text =
        format!("HostName={};DeviceId=logger-9;SharedAccessKey={}", setting("IoTHubURL"), setting("IoTHubDeviceKey"));
    for name in ["IoTHubURL", "IoTHubDeviceId", "IoTHubDeviceKey"] {
        world.unset(name);
    }
    world.set("IoTHubConnection", &text);
    assert_arrives(&world).await;
    assert_eq!(world.hub.get("received").await[0]["deviceId"], "logger-9");
}

#[tokio::test]
async fn a_hub_that_is_not_trusted_gets_nothing() {
    let mut world = world().await;
    let ca = world.settings["IoTHubTrustedCa"].clone();
    world.unset("IoTHubTrustedCa");
    assert_eq!(world.handler().await.invoke_failing().await, only("hub_untrusted"));
    assert_waiting_for(&world, "set IoTHubTrustedCa").await;
    world.set("IoTHubTrustedCa", &ca);
    assert_arrives(&world).await;
}

#[tokio::test]
async fn a_hub_that_accepts_and_cuts_is_told_from_one_that_is_away() {
    let mut world = world().await;
    world.set("PollTimeoutSeconds", "5");
    world.hub.put("faults", json!({ "cutAfterConnectTimes": 1000 })).await;
    let handler = world.handler().await;
    assert_eq!(handler.invoke_failing().await, only("hub_accepted_then_cut"));
    assert_waiting_for(&world, "daily quota").await;
    world.hub.heal().await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..3)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn a_hub_that_hangs_is_not_waited_for_without_end() {
    let mut world = world().await;
    world.set("PollTimeoutSeconds", "3");
    world.hub.put("faults", json!({ "ignorePublishes": true })).await;
    let handler = world.handler().await;
    assert_eq!(handler.invoke_failing().await, only("hub_timeout"));
    assert_waiting_for(&world, "the hub did not acknowledge in time").await;
    world.hub.heal().await;
    // Cuts the unanswered connection, as the real hub does in the end.
    world.hub.post("cut", json!(null)).await;
    handler.invoke_until_ok(2).await;
    world.assert_rows(SITE, &rows(0..3)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn a_token_that_expires_while_connected_is_renewed() {
    let world = world().await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    for round in 1..4 {
        world.hub.post("expire", json!(null)).await;
        world.add(SITE, round * 3..round * 3 + 3).await;
        handler.invoke_ok().await;
    }
    world.assert_rows(SITE, &rows(0..12)).await;
    world.assert_settled().await;
    assert_eq!(world.hub.get("connections").await["connects"], 4);
}

#[tokio::test]
async fn a_hub_that_acknowledges_nothing_is_given_one_message_and_the_backend_keeps_the_rest() {
    let mut world = world().await;
    world.set("PollTimeoutSeconds", "5");
    world.hub.put("faults", json!({ "ignorePublishes": true })).await;
    let handler = world.handler().await;
    assert_eq!(handler.invoke_failing().await, only("hub_timeout"));
    world.add(SITE, 3..6).await;
    assert_eq!(handler.invoke_failing().await, only("hub_timeout"));
    assert_eq!(world.outcomes(SITE).await, ["pending"]);
    world.hub.heal().await;
    handler.invoke_until_ok(3).await;
    world.assert_rows(SITE, &rows(0..6)).await;
    assert_eq!(world.outcomes(SITE).await, ["forwarded"; 2]);
}
