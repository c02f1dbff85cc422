//! Tests queue functions: order, concurrency, redelivery, poison, and `/admin/queues`.

use std::time::Duration;

use axum::http::StatusCode;
use chrono::Utc;
use emulators::functions_host::{Emulator, Event, Level, Options, Stream};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    PATIENCE,
    app::{App, host, host_with, triggered_by, with_output},
    client,
    handler::{Handler, Received},
};

/// The text of a call's message, decoded twice.
fn text(call: &Received) -> String {
    serde_json::from_str(call.json()["Data"]["uplink"].as_str().unwrap()).unwrap()
}

fn attempt(call: &Received) -> Value {
    call.json()["Metadata"]["DequeueCount"].clone()
}

/// Waits until the queue has exactly these numbers of visible and invisible messages.
async fn has(host: &Emulator, queue: &str, visible: usize, invisible: usize) {
    let counted = async {
        loop {
            let messages = host.queue_messages(queue).await.unwrap();
            let now = Utc::now();
            let hidden = messages.iter().filter(|message| message.next_visible_time.unwrap() > now).count();
            if (messages.len() - hidden, hidden) == (visible, invisible) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{queue} must have {visible} + {invisible} messages"));
}

#[tokio::test]
async fn a_message_is_handed_over_as_the_contract_says_and_then_deleted() {
    let app = App::new(host(), &[("work", triggered_by("%Name%-1"))]);
    let mut handler = Handler::start_closed().await;
    let env = vec![("Name".to_owned(), "Uplinks".to_owned())];
    let host = handler.hosted(&app, Options { env, ..Options::default() }).await;
    let queues: Vec<_> = host.ready().queues.keys().collect();
    assert_eq!(queues, ["uplinks-1", "uplinks-1-poison"]);
    host.enqueue("uplinks-1", r#"{"a":1,"POPRECEIPT":{"b":2}}"#).await.unwrap();
    let call = handler.next().await;
    assert_eq!((call.method.as_str(), call.uri.path()), ("POST", "/work"));
    assert_eq!(call.headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(call.headers["x-azure-functions-invocationid"].len(), 36);
    let message = host.queue_messages("uplinks-1").await.unwrap().remove(0);
    let metadata = &call.json()["Metadata"];
    let stamp = |time: chrono::DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    for (name, expected) in [
        ("Id", json!(format!("\"{}\"", message.id))),
        ("InsertionTime", json!(stamp(message.insertion_time))),
        ("ExpirationTime", json!(stamp(message.expiration_time))),
        ("NextVisibleTime", json!(stamp(message.next_visible_time.unwrap()))),
        ("DequeueCount", json!("1")),
        ("PopReceipt", json!({ "b": 2 })),
        ("a", json!("\"1\"")),
    ] {
        assert_eq!(metadata[name], expected, "{name}");
    }
    assert_eq!(metadata["sys"]["MethodName"], "work");
    assert!(message.next_visible_time.unwrap() - Utc::now() > chrono::TimeDelta::minutes(9));
    assert_eq!(text(&call), message.text);
    assert!(!host.wait_until_empty("uplinks-1", Duration::ZERO).await.unwrap());
    handler.let_through(1);
    assert!(host.wait_until_empty("uplinks-1", PATIENCE).await.unwrap());
    host.enqueue("nothing", "").await.unwrap_err();
}

#[tokio::test]
async fn one_at_a_time_keeps_the_order() {
    let app =
        App::new(host_with(json!({ "batchSize": 1, "newBatchThreshold": 0 })), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start_closed().await;
    let host = handler.hosted(&app, Options::default()).await;
    for number in 0..20 {
        host.enqueue("uplinks", number.to_string()).await.unwrap();
    }
    for number in 0..20 {
        assert_eq!(text(&handler.next().await), number.to_string());
        has(&host, "uplinks", 19 - number, 1).await;
        assert!(!handler.has_next(), "the first must be over before the next one comes");
        handler.let_through(1);
    }
}

#[tokio::test]
async fn more_is_taken_when_few_are_in_work() {
    let app =
        App::new(host_with(json!({ "batchSize": 4, "newBatchThreshold": 1 })), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start_closed().await;
    let host = handler.hosted(&app, Options::default()).await;
    // Two messages in process are more than the threshold: later messages are not taken yet.
    for text in ["plug", "plug"] {
        host.enqueue("uplinks", text).await.unwrap();
        assert_eq!(self::text(&handler.next().await), "plug");
    }
    for number in 0..10 {
        host.enqueue("uplinks", number.to_string()).await.unwrap();
    }
    has(&host, "uplinks", 10, 2).await;
    let mut texts = Vec::new();
    for (let_through, taken, visible, invisible) in [(1, 4, 6, 5), (3, 0, 6, 2), (1, 4, 2, 5), (4, 2, 0, 3)] {
        handler.let_through(let_through);
        has(&host, "uplinks", visible, invisible).await;
        for _ in 0..taken {
            texts.push(text(&handler.next().await));
        }
        assert!(!handler.has_next());
    }
    texts[..4].sort();
    texts[4..8].sort();
    texts[8..].sort();
    assert_eq!(texts.concat(), "0123456789", "batch by batch");
}

#[tokio::test]
async fn a_message_stays_invisible_while_it_is_worked_on() {
    let app = App::new(json!({ "version": "2.0", "functionTimeout": "-1" }), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start_closed().await;
    let host = handler.hosted(&app, Options::default()).await;
    host.enqueue("uplinks", "long").await.unwrap();
    handler.next().await;
    let hidden_until =
        async || host.queue_messages("uplinks").await.unwrap().first().and_then(|message| message.next_visible_time);
    let before = hidden_until().await;
    // Half of the ten minutes for which the message was taken.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5 * 60)).await;
    tokio::time::resume();
    let renewed = async {
        while hidden_until().await == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("it must be renewed");
    handler.let_through(1);
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap(), "deleted with the new receipt");
    assert!(!handler.has_next());
}

#[tokio::test]
async fn a_message_that_fails_comes_again_at_once() {
    let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start().await;
    handler.replies_with(|call| if attempt(call) == "3" { (200, json!({})) } else { (500, json!({})) });
    let host = handler.hosted(&app, Options::default()).await;
    host.enqueue("uplinks", "stubborn").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    let mut receipts = Vec::new();
    for number in 1..=3 {
        let call = handler.next().await;
        assert_eq!((attempt(&call), text(&call)), (json!(number.to_string()), "stubborn".to_owned()));
        receipts.push(call.json()["Metadata"]["PopReceipt"].to_string());
    }
    receipts.dedup();
    assert_eq!(receipts.len(), 3);
    assert!(host.queue_messages("uplinks-poison").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_message_that_fails_stays_invisible_for_as_long_as_is_set() {
    let app = App::new(host_with(json!({ "visibilityTimeout": "00:05:00" })), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start().await;
    handler.replies(500, "application/json", "{}");
    let host = handler.hosted(&app, Options::default()).await;
    host.enqueue("uplinks", "slow").await.unwrap();
    handler.next().await;
    let released = async {
        loop {
            let message = host.queue_messages("uplinks").await.unwrap().remove(0);
            let left = message.next_visible_time.unwrap() - Utc::now();
            if (1..=5 * 60).contains(&left.num_seconds()) {
                break message.dequeue_count;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(timeout(PATIENCE, released).await.expect("it must be released"), 1);
}

#[tokio::test]
async fn a_message_that_fails_too_often_goes_to_the_poison_queue() {
    let app = App::new(host_with(json!({ "maxDequeueCount": 2 })), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start().await;
    handler.replies(500, "application/json", "{}");
    let host = handler.hosted(&app, Options::default()).await;
    let mut events = host.events();
    host.enqueue("uplinks", "bitter").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    let poison = host.queue_messages("uplinks-poison").await.unwrap();
    assert_eq!((poison.len(), poison[0].text.as_str(), poison[0].dequeue_count), (1, "bitter", 0));
    assert_eq!((attempt(&handler.next().await), attempt(&handler.next().await)), (json!("1"), json!("2")));
    assert!(!handler.has_next());
    let line = loop {
        if let Event::Line { stream, level, text } = timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            break (stream, level, text);
        }
    };
    assert_eq!((line.0, line.1), (Stream::Host, Level::Warning));
    assert!(line.2.contains("of queue uplinks was moved to uplinks-poison after 2 of 2 attempts"), "{}", line.2);
}

#[tokio::test]
async fn what_is_poison_already_is_left_invisible() {
    let app = App::new(host_with(json!({ "maxDequeueCount": 1 })), &[("work", triggered_by("uplinks-poison"))]);
    let mut handler = Handler::start().await;
    handler.replies(500, "application/json", "{}");
    let host = handler.hosted(&app, Options::default()).await;
    assert_eq!(host.ready().queues.len(), 1);
    host.enqueue("uplinks-poison", "bitter").await.unwrap();
    handler.next().await;
    has(&host, "uplinks-poison", 0, 1).await;
}

#[tokio::test]
async fn no_message_is_taken_while_the_handler_is_away() {
    let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    host.enqueue("uplinks", "first").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    handler.next().await;
    handler.stop().await;
    let mut events = host.events();
    // The cut call counts as an attempt. After it there are no more attempts.
    host.enqueue("uplinks", "second").await.unwrap();
    let failed = async {
        loop {
            match events.recv().await.unwrap() {
                Event::InvocationFinished(finished) if !finished.succeeded => break,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, failed).await.unwrap();
    has(&host, "uplinks", 1, 0).await;
    assert_eq!(host.queue_messages("uplinks").await.unwrap()[0].dequeue_count, 1);
}

#[tokio::test]
async fn queues_can_be_looked_into_filled_and_waited_for() {
    let functions = [("work", with_output(triggered_by("uplinks"), "rejected", "uplinks-rejected"))];
    let app = App::new(host(), &functions);
    let handler = Handler::start_closed().await;
    let host = handler.hosted(&app, Options::default()).await;
    let (client, url) = (client(), format!("{}admin/queues", host.ready().endpoint));
    let get = async |path: &str| {
        let answer = client.get(format!("{url}{path}")).send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap())
    };
    let json_of = async |path: &str| serde_json::from_slice::<Value>(&get(path).await.1).unwrap();
    let post = async |path: &str, batch: &str, body: String| {
        let answer = client.post(format!("{url}{path}")).header("x-batch", batch).body(body).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let empty = |name: &str| json!({ "name": name, "visible": 0, "invisible": 0 });
    assert_eq!(
        json_of("?wait=empty").await,
        json!([empty("uplinks"), empty("uplinks-poison"), empty("uplinks-rejected")])
    );

    let created = StatusCode::CREATED;
    assert_eq!(post("/uplinks", "false", "[1]".to_owned()).await, (created, r#"{"added":1}"#.to_owned()));
    assert_eq!(
        post("/uplinks-rejected", "true", r#"["a","b"]"#.to_owned()).await,
        (created, r#"{"added":2}"#.to_owned())
    );
    has(&host, "uplinks", 0, 1).await;
    let list = json_of("?wait=empty&timeout_ms=0").await;
    assert_eq!(list[0], json!({ "name": "uplinks", "visible": 0, "invisible": 1 }));
    assert_eq!(list[2], json!({ "name": "uplinks-rejected", "visible": 2, "invisible": 0 }));
    let messages = json_of("/uplinks?wait=empty&timeout_ms=0").await;
    assert_eq!((&messages[0]["text"], &messages[0]["dequeueCount"]), (&json!("[1]"), &json!(1)));
    for time in ["insertionTime", "expirationTime", "nextVisibleTime"] {
        messages[0][time].as_str().unwrap().parse::<chrono::DateTime<Utc>>().unwrap();
    }

    // `wait=empty` does not wait for queues that trigger no function.
    let waiting = tokio::spawn({
        let request = client.get(format!("{url}?wait=empty")).send();
        async { request.await.unwrap().bytes().await.unwrap() }
    });
    handler.let_through(1);
    let list: Value = serde_json::from_slice(&timeout(PATIENCE, waiting).await.unwrap().unwrap()).unwrap();
    assert_eq!(list[0], empty("uplinks"));
    assert_eq!(json_of("/uplinks").await, json!([]));

    assert_eq!(get("/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get("?wait=full").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(get("?wait=empty&timeout_ms=600001").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post("/nothing", "false", String::new()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("/uplinks", "true", "[1]".to_owned()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post("/uplinks", "false", "x".repeat(49_153)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}
