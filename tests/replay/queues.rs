//! Tests the queues of rejected and of poison messages.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::replay;
use crate::support::{Settings, Storage};

fn stored(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn webhook(application: &str, device: usize) -> Value {
    json!({ "end_device_ids": { "device_id": format!("dev-{device}"), "application_ids": { "application_id": application } } })
}

fn rejected(kind: &str, application: &str, device: usize) -> String {
    stored(
        &json!({ "RejectedAtUTC": "2026-01-31T12:00:00.000Z", "Kind": kind, "Reason": "no ids", "Webhook": webhook(application, device) })
            .to_string(),
    )
}

async fn settings(storage: &Storage) -> Settings {
    let connection = storage.start().await;
    let settings = [("UplinkQueueName", "uplinks"), ("AzureStorageConnectionString", &connection)];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn what_was_rejected_is_moved_as_it_is_and_filters_hold() {
    let storage = Storage::default();
    let settings = settings(&storage).await;
    let kinds = ["no_device", "device_taken", "no_device"];
    // More messages than one answer holds.
    let all: Vec<_> =
        (0..60).map(|device| rejected(kinds[device % 3], ["pumps", "meters"][device % 2], device)).collect();
    for text in &all {
        storage.add("uplinks-rejected", text);
    }
    storage.add("uplinks-rejected", &stored(r#"{"RejectedAtUTC":"x","Kind":"malformed","Reason":"r","Text":"hello"}"#));
    storage.add("uplinks", "waits");

    let dry = replay(&settings, &["--queue", "rejected", "--dry-run"]).await;
    assert_eq!((dry.code, dry.text.matches("would be put back").count()), (Some(1), 60), "{dry:?}");
    assert_eq!((storage.texts("uplinks-rejected").1, storage.texts("uplinks").1), (61, 1), "nothing is changed");

    let some =
        replay(&settings, &["--queue", "rejected", "--kind", "no_device", "--application", "pumps", "--json"]).await;
    let lines = some.lines();
    assert_eq!((some.code, lines.len()), (Some(0), 20), "{some:?}");
    assert!(
        lines
            .iter()
            .all(|line| line["application"] == "pumps" && line["kind"] == "no_device" && line["replayed"] == true)
    );
    assert_eq!((storage.texts("uplinks-rejected").1, storage.texts("uplinks").1), (41, 21));

    let limited = replay(&settings, &["--queue", "rejected", "--limit", "5"]).await;
    assert_eq!((limited.code, limited.said.trim()), (Some(0), "5 put back, 0 refused"));
    let rest = replay(&settings, &["--queue", "rejected"]).await;
    assert_eq!((rest.code, rest.said.trim()), (Some(1), "35 put back, 1 refused"), "{rest:?}");
    assert!(rest.text.contains("holds no webhook"), "{}", rest.text);
    let (mut moved, _) = storage.texts("uplinks");
    moved.retain(|text| text != "waits");
    moved.sort();
    let mut expected = all;
    expected.sort();
    assert_eq!(moved, expected, "each once, byte for byte");
    assert_eq!(storage.texts("uplinks-rejected").1, 1);
}

#[tokio::test]
async fn poison_goes_back_too_but_not_what_nobody_can_read() {
    let storage = Storage::default();
    let settings = settings(&storage).await;
    storage.add("uplinks", "waits");
    let good = stored(&webhook("pumps", 1).to_string());
    let queued =
        stored(&json!({ "ReceivedAtUTC": "2026-01-31T12:00:00Z", "Webhook": webhook("pumps", 2) }).to_string());
    for text in [&good, "{\"not\":\"Base64\"}", &queued] {
        storage.add("uplinks-poison", text);
    }
    let done = replay(&settings, &["--queue", "poison", "--json"]).await;
    let refused: Vec<_> = done.lines().iter().map(|line| line["refused"].is_null()).collect();
    assert_eq!((done.code, refused), (Some(1), vec![true, false, true]), "{done:?}");
    assert_eq!(done.lines()[2]["endDevice"], "dev-2");
    assert_eq!(storage.texts("uplinks").0, ["waits", &good, &queued]);
    assert_eq!(storage.texts("uplinks-poison"), (vec!["{\"not\":\"Base64\"}".to_owned()], 1));
}

#[tokio::test]
async fn what_fails_half_way_says_what_was_done_and_loses_nothing() {
    let storage = Storage::default();
    let settings = settings(&storage).await;
    for device in 0..4 {
        storage.add("uplinks-poison", &stored(&webhook("pumps", device).to_string()));
    }
    let none = replay(&settings, &["--queue", "poison"]).await;
    assert!(none.code == Some(1) && none.said.contains("there is no queue uplinks: check UplinkQueueName"), "{none:?}");
    assert_eq!(storage.texts("uplinks-poison").1, 4);
    storage.add("uplinks", "waits");
    storage.fail_after(2);
    let half = replay(&settings, &["--queue", "poison"]).await;
    assert_eq!((half.code, half.text.matches("put back").count()), (Some(1), 2), "{half:?}");
    assert!(half.said.contains("ServerBusy"), "{}", half.said);
    assert_eq!((storage.texts("uplinks").1, storage.texts("uplinks-poison").1), (3, 2));
    let none = replay(&settings, &["--queue", "rejected"]).await;
    assert!(none.code == Some(0) && none.said.contains("queue uplinks-rejected has no such message"), "{none:?}");
    let mut elsewhere = settings.clone();
    elsewhere.insert("AzureStorageConnectionString".into(), "AccountName=a;AccountKey=hunter2".into());
    let wrong = replay(&elsewhere, &["--queue", "poison"]).await;
    assert!(wrong.said.contains("AzureStorageConnectionString") && !wrong.said.contains("hunter2"), "{wrong:?}");
}
