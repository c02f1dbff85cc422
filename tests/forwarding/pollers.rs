//! Tests two handlers that poll the same sites at the same time, as when an app is scaled out or its timer's lease is
//! lost.

use super::support::{Settings, World, rows};

const SITES: [&str; 3] = ["Well 7", "Tank", "Energy meter 1"];
const ROUNDS: i64 = 25;

async fn race(world: &World, settings_of_other: Settings) {
    let (one, two) = tokio::join!(world.handler(), world.handler_with(&settings_of_other));
    for round in 0..ROUNDS {
        for site in SITES {
            world.add(site, round * 4..round * 4 + 4).await;
        }
        tokio::join!(one.invoke(), two.invoke());
    }
    two.kill().await;
    // The next round does what the last round left.
    one.invoke_until_ok(3).await;
    for site in SITES {
        world.assert_rows(site, &rows(0..ROUNDS * 4)).await;
    }
    world.assert_settled().await;
}

#[tokio::test]
async fn two_pollers_with_a_device_each_lose_and_repeat_nothing() {
    let mut world = World::with_sites(&SITES).await;
    world.set("PollTimeoutSeconds", "10");
    let first = world.settings.clone();
    world.set("IoTHubDeviceId", "gateway-2");
    let second = std::mem::replace(&mut world.settings, first);
    race(&world, second).await;
}

/// The hub keeps one connection for each device: each poller cuts the other's.
#[tokio::test]
async fn two_pollers_with_the_same_device_lose_and_repeat_nothing() {
    let mut world = World::with_sites(&SITES).await;
    world.set("PollTimeoutSeconds", "10");
    let settings = world.settings.clone();
    race(&world, settings).await;
}

/// As two apps with the same settings: each takes the other's devices over, but no run fails.
#[tokio::test]
async fn two_pollers_with_a_device_for_each_site_take_them_from_each_other_and_no_run_fails() {
    let sites: Vec<String> = (0..20).map(|number| format!("well-{number}")).collect();
    let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
    let mut world = World::with_sites(&sites).await;
    world.provision_sites().await;
    let (one, two) = tokio::join!(world.handler(), world.handler());
    for round in 0..8 {
        for site in &sites {
            world.add(site, round * 4..round * 4 + 4).await;
        }
        tokio::join!(one.invoke_ok(), two.invoke_ok());
    }
    two.kill().await;
    one.invoke_ok().await;
    for site in &sites {
        world.assert_rows(site, &rows(0..8 * 4)).await;
    }
    world.assert_settled().await;
}
