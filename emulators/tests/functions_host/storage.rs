//! Tests the host while its storage account is away, refuses, fails, or has messages that are no Base64.

use std::time::Duration;

use emulators::{
    functions_host::{Emulator, Event, Options, Stream},
    storage,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    PATIENCE,
    app::{App, host, host_with, http, triggered_by, with_output},
    client,
    handler::Handler,
};

async fn hosted(handler: &Handler, app: &App) -> Emulator {
    handler.hosted(app, Options { storage_retry: Duration::from_millis(1), ..Options::default() }).await
}

async fn put(host: &Emulator, switch: &str, value: Value) {
    let url = format!("{}{switch}", host.ready().storage.as_ref().unwrap());
    client().put(url).json(&value).send().await.unwrap().error_for_status().unwrap();
}

fn answer(method: &str, status: u16, times: Option<u32>) -> Value {
    json!([{ "method": method, "path": "/messages", "times": times, "effect": { "answer": { "status": status } } }])
}

#[tokio::test]
async fn an_account_that_is_away_ends_the_host() {
    let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
    let handler = Handler::start().await;
    let host = hosted(&handler, &app).await;
    put(&host, "away", json!(true)).await;
    let reason = timeout(PATIENCE, host.stopped()).await.unwrap();
    assert!(reason.contains("queue uplinks cannot be used: no answer from the storage account"), "{reason}");
    let error = client().get(&host.ready().endpoint).send().await;
    assert!(error.is_err(), "nothing is served any more");
}

#[tokio::test]
async fn an_account_that_is_away_for_a_moment_is_asked_again() {
    let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
    let handler = Handler::start().await;
    let options = Options { storage_retry: Duration::from_millis(100), ..Options::default() };
    let host = handler.hosted(&app, options).await;
    put(&host, "away", json!(true)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    put(&host, "away", json!(false)).await;
    host.enqueue("uplinks", "late").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
}

#[tokio::test]
async fn an_account_that_refuses_ends_the_host() {
    for (method, status) in [("GET", 403), ("GET", 401), ("PUT", 403), ("DELETE", 403)] {
        let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
        let handler = Handler::start().await;
        if method == "PUT" {
            // A message that fails is released.
            handler.replies(500, "application/json", "{}");
        }
        let host = hosted(&handler, &app).await;
        put(&host, "trouble", answer(method, status, None)).await;
        host.enqueue("uplinks", "refused").await.unwrap();
        let reason = timeout(PATIENCE, host.stopped()).await.expect(method);
        assert!(reason.contains(&format!("the storage account answered {status}")), "{method} {reason}");
    }
}

#[tokio::test]
async fn an_account_that_fails_for_a_while_is_endured() {
    let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
    let handler = Handler::start().await;
    let host = hosted(&handler, &app).await;
    put(&host, "trouble", answer("GET", 503, Some(3))).await;
    host.enqueue("uplinks", "late").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
}

#[tokio::test]
async fn a_message_that_is_no_base64_is_tried_and_never_delivered() {
    let account = storage::start(storage::Options::default()).await.unwrap();
    let options =
        Options { env: vec![("Account".to_owned(), account.ready().connection.clone())], ..Options::default() };
    // Another app with another encoding writes the message.
    let writing = with_output(http("write", &[]), "messages", "uplinks");
    let writing = App::new(host_with(json!({ "messageEncoding": "none" })), &[("write", writing)]);
    let handler = Handler::start().await;
    handler.replies(200, "application/json", r#"{"Outputs":{"messages":["no base64!"]}}"#);
    let host = handler.hosted(&writing, options.clone()).await;
    client().get(format!("{}api/write", host.ready().endpoint)).send().await.unwrap().error_for_status().unwrap();

    let app = App::new(host_with(json!({ "maxDequeueCount": 3 })), &[("work", triggered_by("uplinks"))]);
    let handler = Handler::start().await;
    let host = handler.hosted(&app, options).await;
    let mut events = host.events();
    let given_up = async {
        loop {
            if let Event::Line { stream: Stream::Host, text, .. } = events.recv().await.unwrap() {
                break text;
            }
        }
    };
    let line = timeout(PATIENCE, given_up).await.unwrap();
    assert!(line.contains("moved to uplinks-poison after 3 of 3 attempts"), "{line}");
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    assert_eq!(account.queues().all("uplinks-poison")[0].content, "no base64!");
    assert!(!handler.has_next());
}

/// The end of a host, and how long its message is hidden then.
#[tokio::test]
async fn what_a_host_had_taken_at_its_end_comes_ten_minutes_later() {
    let account = storage::start(storage::Options::default()).await.unwrap();
    let options =
        Options { env: vec![("Account".to_owned(), account.ready().connection.clone())], ..Options::default() };
    let app = App::new(host_with(json!({ "visibilityTimeout": "00:00:01" })), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start_closed().await;
    let host = handler.hosted(&app, options.clone()).await;
    host.enqueue("uplinks", "taken").await.unwrap();
    handler.next().await;
    drop(host);
    let message = account.queues().all("uplinks").remove(0);
    let hidden = (message.next_visible.unwrap() - message.inserted).num_seconds();
    assert!((599..=602).contains(&hidden), "{hidden} s");

    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, options).await;
    host.enqueue("uplinks", "later").await.unwrap();
    assert_eq!(handler.next().await.json()["Data"]["uplink"], r#""later""#);
    let clock = format!("{}clock", account.ready().control);
    client().put(clock).json(&json!({ "aheadSeconds": 601 })).send().await.unwrap().error_for_status().unwrap();
    let call = handler.next().await.json();
    assert_eq!((&call["Data"]["uplink"], &call["Metadata"]["DequeueCount"]), (&json!(r#""taken""#), &json!("2")));
}
