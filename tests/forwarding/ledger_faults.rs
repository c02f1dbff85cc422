//! Tests a Cosmos DB that answers late, not at all, or with errors.

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, PartitionKey, RoutingStrategy, clients::ContainerClient,
};
use serde_json::{Value, json};

use super::support::{CUSTOMER, Handler, Row, World, binary, row, rows, stamp};

const SITE: &str = "Well 7";

/// The ledger, as an operator sees it who opens it while the connector runs.
async fn container(world: &World) -> ContainerClient {
    let key = Secret::new(world.cosmos.ready("key").to_owned());
    let account = AccountReference::with_authentication_key(world.cosmos.ready("endpoint").parse().unwrap(), key);
    let runtime = CosmosRuntime::builder().build().await.unwrap();
    let routing = RoutingStrategy::PreferredRegions(Vec::new());
    let client = CosmosClient::builder().with_runtime(runtime).build(account, routing).await.unwrap();
    client.database_client("M2MBackendForwarderData").container_client("pollingAttempts", None).await.unwrap()
}

fn failed(kind: &str) -> Vec<(String, String)> {
    vec![(SITE.to_owned(), kind.to_owned())]
}

/// Runs once with these faults, then without them until a run succeeds. Nothing is lost, and nothing is sent under two
/// ids.
async fn survives(faults: Value) {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    handler.invoke_ok().await;
    world.cosmos.put("faults", faults.clone()).await;
    world.add(SITE, 3..6).await;
    handler.invoke().await;
    let left = world.cosmos.get("faults").await["times"].clone();
    assert_eq!(left, 0, "the fault was not met: {faults}");
    world.cosmos.heal().await;
    world.add(SITE, 6..9).await;
    handler.invoke_until_ok(3).await;
    // The successful run may have lost a race with another write.
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..9)).await;
    world.assert_settled().await;
    world.assert_no_secrets().await;
}

#[tokio::test]
async fn a_record_whose_answer_is_lost_is_neither_lost_nor_doubled() {
    survives(json!({ "swallowAnswer": true, "writesOnly": true, "times": 1 })).await;
}

#[tokio::test]
async fn record_and_mark_whose_answers_are_lost_are_neither_lost_nor_doubled() {
    survives(json!({ "swallowAnswer": true, "writesOnly": true, "times": 2 })).await;
}

#[tokio::test]
async fn a_mark_whose_answer_is_lost_is_no_reason_to_send_again_under_another_id() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    // The acknowledgement comes so late that the fault hits the write after it.
    world.hub.put("faults", json!({ "pubackDelayMs": 1_500 })).await;
    tokio::join!(handler.invoke(), async {
        world.hub.get("received?wait=1").await;
        world.cosmos.put("faults", json!({ "swallowAnswer": true, "writesOnly": true, "times": 1 })).await;
    });
    assert_eq!(world.cosmos.get("faults").await["times"], 0, "the fault was not met");
    world.cosmos.heal().await;
    world.hub.heal().await;
    world.add(SITE, 3..6).await;
    handler.invoke_until_ok(3).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..6)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn a_busy_cosmos_db_is_asked_again() {
    survives(json!({ "status": 429, "retryAfterMs": 20, "times": 1 })).await;
}

#[tokio::test]
async fn an_unavailable_cosmos_db_loses_nothing() {
    survives(json!({ "status": 503, "times": 1 })).await;
}

#[tokio::test]
async fn a_failing_cosmos_db_is_said_and_loses_nothing() {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("PollTimeoutSeconds", "5");
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    handler.invoke_ok().await;
    for status in [500, 429] {
        world.cosmos.put("faults", json!({ "status": status, "retryAfterMs": 20 })).await;
        let failed = handler.invoke_failing().await;
        assert_eq!(failed[0].0, SITE);
    }
    world.cosmos.heal().await;
    world.add(SITE, 3..6).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &rows(0..6)).await;
    world.assert_settled().await;
}

/// Records three messages of one row each while the hub is away. Returns the rows.
async fn three_messages_wait(world: &World, handler: &Handler) -> Vec<Row> {
    world.hub.away(true).await;
    let text = "x".repeat(120_000);
    world.add_raw(SITE, (0..3).map(|minute| json!([stamp(minute), text, 0.5])).collect()).await;
    handler.invoke_failing().await;
    (0..3).map(|minute| row(minute, json!({ "ch0": text, "ch1": 0.5 }))).collect()
}

#[tokio::test]
async fn a_waiting_record_that_somebody_deletes_is_said_and_the_rest_goes() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    let large = three_messages_wait(&world, &handler).await;
    let waiting = world.polls(SITE).await;
    assert_eq!(world.cursor(SITE).await["Unforwarded"].as_array().unwrap().len(), 3);
    let lost = waiting[1]["id"].as_str().unwrap();
    let partition = PartitionKey::from((CUSTOMER.to_owned(), SITE.to_owned()));
    container(&world).await.delete_item(partition, lost, None).await.unwrap();
    world.hub.away(false).await;

    assert_eq!(handler.invoke_failing().await, failed("record_lost"));
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]), "the lost one does not hold up the others");
    let polls = world.polls(SITE).await;
    let note = polls.iter().find(|poll| poll["id"] == lost).expect("a note stands in its place");
    assert_eq!((&note["Outcome"], &note["Error"]["Kind"]), (&json!("rejected"), &json!("record_lost")));
    assert!(note["Error"]["Text"].as_str().unwrap().contains(lost), "{note}");

    world.add(SITE, 9..12).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &[vec![large[0].clone(), large[2].clone()], rows(9..12)].concat()).await;
    world.assert_settled().await;
}

/// A document as the test wrote it, without the members that the service adds.
fn bare(document: &Value) -> Value {
    let mut document = document.clone();
    document.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
    document
}

/// Three messages are pending. `damage` changes the middle one's record.
async fn a_damaged_record_stops_nothing(damage: impl FnOnce(&mut Value)) -> (World, String) {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    let large = three_messages_wait(&world, &handler).await;
    let mut damaged = bare(&world.polls(SITE).await[1]);
    damage(&mut damaged);
    let id = damaged["id"].as_str().unwrap().to_owned();
    world.replace(SITE, &damaged).await;
    world.hub.away(false).await;

    assert_eq!(handler.invoke_failing().await, failed("record_unreadable"), "{}", world.output());
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]), "it does not hold up the others");
    let documents = world.documents(SITE).await;
    let kept = documents.iter().find(|document| document["id"] == *id).expect("it is still there");
    assert_eq!(bare(kept), damaged, "nothing of it is changed");
    let notes: Vec<_> = documents.iter().filter(|poll| poll["Error"]["Kind"] == "record_unreadable").collect();
    let [note] = notes[..] else { panic!("one note stands beside it: {documents:?}") };
    assert_eq!((&note["Kind"], &note["Outcome"], note.get("ttl")), (&json!("poll"), &json!("rejected"), None));
    assert!(note["Error"]["Text"].as_str().unwrap().contains(&id), "{note}");
    world.printed("messages.rejected=1", 1).await;
    world.printed(&format!("the record {id} of a message that waited cannot be read"), 1).await;

    world.add(SITE, 9..12).await;
    handler.invoke_ok().await;
    world.assert_rows(SITE, &[vec![large[0].clone(), large[2].clone()], rows(9..12)].concat()).await;
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]));
    (world, id)
}

#[tokio::test]
async fn a_waiting_record_with_a_field_of_another_kind_is_said_and_kept_and_the_rest_goes() {
    let (world, id) = a_damaged_record_stops_nothing(|record| record["Result"] = json!("many")).await;
    // The damaged record does not hide the others from the command `polls`.
    let polls = binary().args(["polls", SITE]).envs(&world.settings).output().await.unwrap();
    let [out, said] = [polls.stdout, polls.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(polls.status.success() && out.contains("record_unreadable"), "{out}{said}");
    assert!(said.contains("left out") && said.contains(&id), "{said}");
}

#[tokio::test]
async fn a_waiting_record_of_another_shape_is_said_and_kept_and_the_rest_goes() {
    a_damaged_record_stops_nothing(|record| *record = json!({ "id": record["id"], "Customer_Id": record["Customer_Id"], "Site_Id": record["Site_Id"], "Note": "mine" })).await;
}

/// The record can be read, but its message is in a place where the connector does not look. If the connector replaced
/// the record, the rows would be lost.
#[tokio::test]
async fn a_waiting_record_without_a_message_is_said_and_kept_and_the_rest_goes() {
    a_damaged_record_stops_nothing(|record| {
        record["Message"] = record.as_object_mut().unwrap().remove("IoTHubMessage").unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_cursor_that_is_deleted_begins_anew_with_the_youngest_also_if_that_is_of_the_future() {
    let mut world = World::with_sites(&[SITE]).await;
    world.set("StartFrom", "youngest");
    world.add(SITE, 0..3).await;
    world.add_raw(SITE, json!([["21990101", 1, 2]])).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    let partition = PartitionKey::from((CUSTOMER.to_owned(), SITE.to_owned()));
    container(&world).await.delete_item(partition, "cursor", None).await.unwrap();
    // The process forgets the deleted cursor after a conflict.
    for _ in 0..4 {
        handler.invoke().await;
    }
    world.assert_rows(SITE, &[]).await;
    assert!(world.cursor(SITE).await["LastValueFrom"].is_string());
}

#[tokio::test]
async fn a_container_that_is_deleted_meanwhile_is_made_again_with_the_next_run() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    world.add(SITE, 0..3).await;
    handler.invoke_ok().await;
    container(&world).await.delete(None).await.unwrap();
    world.add(SITE, 3..6).await;
    assert_eq!(handler.invoke_failing().await, failed("ledger_missing"));
    handler.invoke_ok().await;
    // The old position is gone with the ledger. The site starts again, and the ledger holds only what is recorded from
    // now on.
    let polls = world.polls(SITE).await;
    assert_eq!((polls.len(), &polls[0]["Outcome"], &polls[0]["Result"]["Rows"]), (1, &json!("forwarded"), &json!(6)));
    assert_eq!(world.cursor(SITE).await["Unforwarded"], json!([]));
}
