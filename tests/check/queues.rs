//! Tests what `check` says about messages in the queues of uplinks.

use crate::{
    check::services::{Report, connection_string, world},
    support::Storage,
};

const WHAT: &str = "storage of the queues";
const STORAGE: &str = "AzureStorageConnectionString";

#[tokio::test]
async fn what_could_not_be_forwarded_is_a_warning() {
    let mut world = world().await;
    let storage = Storage::default();
    world.set(STORAGE, &connection_string(&storage).await);
    (0..7).for_each(|_| storage.add("uplinks", "bWU="));
    let text = |report: &Report, result| report.row(WHAT, result)["text"].as_str().unwrap().to_owned();
    assert_eq!(text(&Report::of(&world, &[]).await, "ok"), "7 messages wait in uplinks");
    storage.add("uplinks-rejected", "bWU=");
    (0..2).for_each(|_| storage.add("uplinks-poison", "bWU="));
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.ran.code, 0, "a warning is no failure");
    assert_eq!(text(&report, "warning"), "7 messages wait in uplinks, 1 in uplinks-rejected, 2 in uplinks-poison");
    assert!(report.row(WHAT, "warning")["toDo"].as_str().unwrap().contains("replay --queue"), "{report:#?}");
    assert_eq!(storage.texts("uplinks").1, 7, "nothing is taken");
}

#[tokio::test]
async fn an_account_that_cannot_be_used_fails() {
    let mut world = world().await;
    for (connection, says) in [
        ("AccountName=hunter2", "neither an AccountKey nor a SharedAccessSignature"),
        ("AccountName=a;AccountKey=aHVudGVyMg==;QueueEndpoint=http://127.0.0.1:9/a", "cannot be reached"),
    ] {
        world.set(STORAGE, connection);
        let report = Report::of(&world, &[]).await;
        assert_eq!(report.ran.code, 1, "{report:#?}");
        assert!(report.row(WHAT, "failed")["text"].as_str().unwrap().contains(says), "{report:#?}");
    }
    let refusing =
        connection_string(&Storage::default()).await.replace("AccountKey=aHVudGVyMg==", "SharedAccessSignature=sv=1");
    world.set(STORAGE, &refusing);
    let report = Report::of(&world, &[]).await;
    assert!(report.row(WHAT, "failed")["text"].as_str().unwrap().contains("refused access"), "{report:#?}");
}
