//! Tests the main job over every transport.

use serde_json::json;

use super::support::{World, rows};

const SITES: [&str; 3] = ["Zähler 1 (Süd)", "Well 7", "Tank"];

async fn forwards_over(transport: &str) {
    let mut world = World::with_sites(&SITES).await;
    world.set("IoTHubTransport", transport);
    for site in SITES {
        world.add(site, 0..5).await;
    }
    let handler = world.handler().await;
    handler.invoke_ok().await;
    // A message whose connection is cut before the acknowledgement is sent again.
    world.hub.put("faults", json!({ "dropBeforePubackTimes": 1, "httpDropBeforeAnswerTimes": 1 })).await;
    for site in SITES {
        world.add(site, 5..9).await;
    }
    handler.invoke_ok().await;
    // A hub that is away costs only time.
    world.hub.put("away", json!(true)).await;
    for site in SITES {
        world.add(site, 9..12).await;
    }
    let failed = handler.invoke_failing().await;
    assert!(failed.iter().all(|(_, kind)| kind == "hub_unreachable") && failed.len() == 3, "{failed:?}");
    world.hub.put("away", json!(false)).await;
    handler.invoke_ok().await;
    for site in SITES {
        world.assert_rows(site, &rows(0..12)).await;
    }
    world.assert_settled().await;
    world.assert_no_secrets().await;
    for message in world.hub.get("received").await.as_array().unwrap() {
        assert_eq!(message["transport"], transport);
    }
}

#[tokio::test]
async fn rows_arrive_over_websocket() {
    forwards_over("mqtt-ws").await;
}

#[tokio::test]
async fn rows_arrive_over_https() {
    forwards_over("https").await;
}
