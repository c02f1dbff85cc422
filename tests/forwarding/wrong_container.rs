//! Tests a container of Cosmos DB that does not fit the app: it is refused at its first use, and accepted once it is
//! corrected.

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, RoutingStrategy,
    clients::DatabaseClient,
    models::{ContainerProperties, PartitionKeyDefinition, TimeToLive},
};
use serde_json::{Value, json};

use super::support::{World, rows};

const SITE: &str = "Well 7";
const POLLS: &str = "pollingAttempts";

/// The database, as an operator creates it before the app runs.
async fn database(world: &World) -> DatabaseClient {
    let key = Secret::new(world.cosmos.ready("key").to_owned());
    let account = AccountReference::with_authentication_key(world.cosmos.ready("endpoint").parse().unwrap(), key);
    let runtime = CosmosRuntime::builder().build().await.unwrap();
    let routing = RoutingStrategy::PreferredRegions(Vec::new());
    let client = CosmosClient::builder().with_runtime(runtime).build(account, routing).await.unwrap();
    client.create_database("M2MBackendForwarderData", None).await.unwrap();
    client.database_client("M2MBackendForwarderData".to_owned())
}

async fn make(database: &DatabaseClient, id: &'static str, paths: &[&'static str], ttl: TimeToLive) {
    let paths = paths.iter().map(|path| (*path).into()).collect::<Vec<_>>();
    let properties = ContainerProperties::new(id, PartitionKeyDefinition::new(paths)).with_default_ttl(ttl);
    database.create_container(properties, None).await.unwrap();
}

/// Asserts that the container is refused with these words, that nothing is written into it or sent, and that all goes
/// on once it is corrected.
async fn is_refused(id: &'static str, paths: &[&'static str], ttl: TimeToLive, words: &[&str]) {
    let mut world = World::with_sites(&[SITE]).await;
    if id == "devices" {
        world.provision_sites().await;
    }
    let database = database(&world).await;
    make(&database, id, paths, ttl).await;
    world.add(SITE, 0..3).await;
    let handler = world.handler().await;
    let run = handler.invoke().await;
    assert_eq!(run.status, 500, "{run:?}");
    for word in words {
        assert!(run.body.to_string().contains(word), "{word:?} is missing in {}", run.body);
    }
    assert!(world.delivered().await.rows.is_empty(), "nothing is sent");

    let wrong = database.container_client(id, None).await.unwrap();
    wrong.delete(None).await.unwrap();
    // The connector does not check the container again for a second.
    handler.invoke_until_ok(2_000).await;
    world.assert_rows(SITE, &rows(0..3)).await;
}

#[tokio::test]
async fn waiting_records_must_not_expire() {
    let paths = ["/Customer_Id", "/Site_Id"];
    is_refused(
        POLLS,
        &paths,
        TimeToLive::Seconds(60),
        &["its time to live is 60 s", "set the default time to live to -1"],
    )
    .await;
}

#[tokio::test]
async fn records_need_the_partition_key_of_a_site() {
    let words = ["its partition key is /id, not /Customer_Id, /Site_Id", "belongs to something else"];
    is_refused(POLLS, &["/id"], TimeToLive::NoDefault, &words).await;
}

#[tokio::test]
async fn devices_must_not_expire() {
    let words = ["its time to live is 60 s", "switch its time to live off"];
    is_refused("devices", &["/id"], TimeToLive::Seconds(60), &words).await;
}

/// The answer to reading the container's properties. The SDK's own look at the container comes before it, and passes.
fn properties(effect: Value) -> Value {
    json!([{"method": "GET", "path": "/colls/pollingAttempts$", "skip": 1, "effect": effect}])
}

/// A role of Cosmos DB may not allow it. Then nobody knows whether the container is fit, and the work goes on.
#[tokio::test]
async fn properties_that_cannot_be_read_stop_nothing_and_are_reported_once() {
    let world = World::with_sites(&[SITE]).await;
    make(&database(&world).await, POLLS, &["/Customer_Id", "/Site_Id"], TimeToLive::NoDefault).await;
    world.add(SITE, 0..3).await;
    let effects = [json!({"answer": {"status": 403, "body": "{}"}}), json!({"answer": {"status": 500}}), json!("hang")];
    for (round, effect) in effects.into_iter().enumerate() {
        world.cosmos.put("trouble", properties(effect)).await;
        let handler = world.handler().await;
        handler.invoke_ok().await;
        let met = world.cosmos.get("trouble").await[0]["met"].clone();
        handler.invoke_ok().await;
        assert_eq!(world.cosmos.get("trouble").await[0]["met"], met, "they are not read again");
        world.printed("container pollingAttempts in database M2MBackendForwarderData was not checked", round + 1).await;
        assert_eq!(world.output().matches("was not checked").count(), round + 1, "{}", world.output());
        handler.kill().await;
    }
    world.cosmos.delete("trouble").await;
    world.assert_rows(SITE, &rows(0..3)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn properties_are_read_once() {
    let world = World::with_sites(&[SITE]).await;
    make(&database(&world).await, POLLS, &["/Customer_Id", "/Site_Id"], TimeToLive::NoDefault).await;
    let handler = world.handler().await;
    world.cosmos.put("trouble", properties(json!({"delayMs": 0}))).await;
    for minute in 0..3 {
        world.add(SITE, [minute]).await;
        handler.invoke_ok().await;
        assert_eq!(world.cosmos.get("trouble").await[0]["met"], 1);
    }
}
