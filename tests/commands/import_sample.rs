//! Tests `import-sample`: the C# sample's container is recognised, and the app goes on where the sample was.

use azure_data_cosmos::models::PartitionKeyValue;
use serde_json::{Value, json};

use crate::{
    commands::run::{run, run_failing, run_ok},
    support::{CUSTOMER, Ledger, World, row, rows},
};

const DATABASE: &str = "M2MBackendForwarderData";
/// The name in the sample's code.
const OF_SAMPLE: &str = "pollingAttempts";
const SITES: [&str; 3] = ["Well 7", "Tank", "Shaft"];

/// A record of the sample. It writes the backend's UTC without a zone, and its own local times with one.
fn attempt(number: usize, site: &str, newest: Option<&str>) -> Value {
    let data = newest.map(|stamp| json!([{ "Timestamp": stamp, "Values": { "ch0": 1, "ch1": 0 } }]));
    json!({
        "id": format!("{}.7744", 289_000_000_000_u64 + number as u64), "Customer_Id": CUSTOMER, "Site_Id": site,
        "PollingTimestamp": "2024-03-01T01:04:30.1234567+01:00", "LastValueFrom": newest, "M2MData": data,
        "IoTHubMessage": newest.map(|stamp| json!({
            "customer_id": CUSTOMER, "site_id": site,
            "Timerange": { "begin": "0001-01-01T00:00:00", "end": "2024-03-01T01:04:30.1234567+01:00" },
            "Timeseries": [{ "Timestamp": stamp, "Channels": { "ch0": 1 } }],
        })),
    })
}

/// Three sites with ten rows each, and what the sample has recorded of the first two.
async fn world_of_sample(more: &[Value]) -> World {
    let world = World::with_sites(&SITES).await;
    let (endpoint, key) = (world.cosmos.ready("endpoint"), world.cosmos.ready("key"));
    // The sample's container was made without a partition key. Today Cosmos DB shows such a one with this key, which no
    // document has.
    let theirs = Ledger::make(endpoint, key, DATABASE, OF_SAMPLE, &["/_partitionKey"]).await;
    let attempts = [
        attempt(1, "Well 7", Some("2024-03-01T00:03:00")),
        attempt(2, "Well 7", Some("2024-03-01T00:05:00")),
        attempt(3, "Well 7", None),
        attempt(4, "Tank", Some("2024-03-01T00:01:00")),
        // Of the sample's emulation: a local time with its zone.
        attempt(5, "Tank", Some("2024-03-01T02:08:00.1234567+01:00")),
    ];
    for document in attempts.iter().chain(more) {
        theirs.create(PartitionKeyValue::UNDEFINED, document).await;
    }
    for site in SITES {
        world.add(site, 0..10).await;
    }
    world
}

#[tokio::test]
async fn the_app_goes_on_where_the_sample_was() {
    let mut world = world_of_sample(&[]).await;
    world.set("M2MDocumentsDBCollection", "polls");
    let printed = run_ok(&world, &["import-sample", "--dry-run"]).await;
    assert!(printed.contains("would be imported"), "{printed}");
    assert!(Ledger::find(world.cosmos.ready("endpoint"), world.cosmos.ready("key"), DATABASE, "polls").await.is_none());

    let ran = run(&world, &["import-sample"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.said, "2 sites imported, 0 known already, 0 documents unusable, 1 of the emulation\n", "{ran:?}");
    let table = "CUSTOMER            SITE    NEWEST ROW            RESULT\n\
                 Demo Water Utility  Tank    2024-03-01T00:01:00Z  imported\n\
                 Demo Water Utility  Well 7  2024-03-01T00:05:00Z  imported\n";
    assert_eq!(ran.printed, table);

    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.assert_rows("Well 7", &rows(6..10)).await;
    world.assert_rows("Tank", &rows(2..10)).await;
    // The sample did not poll it.
    world.assert_rows("Shaft", &rows(0..10)).await;
    world.add("Well 7", [10]).await;
    handler.invoke_ok().await;
    world.assert_rows("Well 7", &rows(6..11)).await;

    // The positions of the app are not overwritten.
    let printed = run_ok(&world, &["import-sample", "--json"]).await;
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert!(lines[..2].iter().all(|line| line["known"] == true && line["imported"] == false), "{printed}");
    assert_eq!(lines[2]["summary"], json!({ "imported": 0, "known": 2, "unusable": 0, "emulated": 1, "ahead": 0 }));
    world.add("Tank", [10]).await;
    handler.invoke_ok().await;
    world.assert_rows("Tank", &rows(2..11)).await;
    assert_eq!(row(10, json!({ "ch0": 10, "ch1": 0.5 })), rows([10])[0]);
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_the_rest_is_imported() {
    let mut nameless = attempt(8, "Well 7", Some("2024-03-01T00:09:00"));
    nameless["Site_Id"] = Value::Null;
    let more = [attempt(6, "Shaft", Some("yesterday")), nameless, attempt(9, "Tank", Some("2999-03-01T00:09:00"))];
    let mut world = world_of_sample(&more).await;
    world.set("M2MDocumentsDBCollection", "polls");
    let ran = run(&world, &["import-sample"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for part in [
        "document 289000000006.7744: LastValueFrom is not a time: \"yesterday\"",
        "document 289000000008.7744: Site_Id is not a name",
        "1 documents whose newest row is ahead of the clock",
        "2 sites imported, 0 known already, 2 documents unusable, 1 of the emulation",
    ] {
        assert!(ran.said.contains(part), "{part:?} is missing in {ran:?}");
    }
    world.handler().await.invoke_ok().await;
    world.assert_rows("Tank", &rows(2..10)).await;
    world.assert_rows("Shaft", &rows(0..10)).await;
}

#[tokio::test]
async fn the_containers_name_and_content_are_checked_first() {
    let mut world = world_of_sample(&[]).await;
    let said = run_failing(&world, &["import-sample"], 2).await;
    assert!(said.contains("M2MDocumentsDBCollection names the sample's own container pollingAttempts"), "{said}");
    world.set("M2MDocumentsDBCollection", "polls");
    let said = run_failing(&world, &["import-sample", "--container=none"], 1).await;
    assert!(said.contains("there is no container none in database M2MBackendForwarderData"), "{said}");
    world.handler().await.invoke_ok().await;
    world.set("Customer_ID", "Demo");
    let ran = run(&world, &["import-sample", "--dry-run"]).await;
    let warning = "warning: the sample polled no site of the customer \"Demo\", which Customer_ID names";
    assert!(ran.code == Some(0) && ran.said.starts_with(warning), "{ran:?}");
    world.set("M2MDocumentsDBCollection", "others");
    let said = run_failing(&world, &["import-sample", "--container=polls"], 1).await;
    assert!(said.contains("has no document of the C# sample"), "{said}");
}

#[tokio::test]
async fn the_samples_container_is_recognised() {
    let world = world_of_sample(&[]).await;
    let handler = world.handler().await;
    let run_of_app = handler.invoke().await;
    assert_eq!(run_of_app.status, 500);
    let advice = "give M2MDocumentsDBCollection another name, then run `iothub-connector import-sample`";
    for part in ["ledger_unfit", "it is the container of the C# sample", advice] {
        assert!(run_of_app.body.to_string().contains(part), "{part:?} is missing in {}", run_of_app.body);
    }
    assert!(world.delivered().await.rows.is_empty(), "nothing is sent");
    let ran = run(&world, &["check", "--json"]).await;
    let rows = ran.printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["what"] == "container pollingAttempts").unwrap();
    assert_eq!((&row["result"], &row["text"]), (&json!("failed"), &json!("it is the container of the C# sample")));
    assert!(row.to_string().contains(advice), "{row}");
}
