//! Tests the messages that functions put into queues.

use axum::http::StatusCode;
use emulators::functions_host::{Emulator, Options};
use serde_json::{Value, json};

use crate::{
    PATIENCE,
    app::{App, NEVER, host, host_with, http, timer, triggered_by, with_output},
    client,
    handler::Handler,
};

async fn texts(host: &Emulator, queue: &str) -> Vec<String> {
    host.queue_messages(queue).await.unwrap().into_iter().map(|message| message.text).collect()
}

#[tokio::test]
async fn an_http_functions_messages_are_there_when_the_caller_is_answered() {
    let function = with_output(with_output(http("uplink", &["post"]), "queued", "uplinks"), "$return", "returned");
    let forwarding = json!({ "version": "2.0", "customHandler": { "enableForwardingHttpRequest": true } });
    let app = App::new(forwarding, &[("receive", function)]);
    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    let (client, url) = (client(), format!("{}api/uplink", host.ready().endpoint));
    let mut expected = Vec::new();
    for (output, messages) in [
        (json!(["one", "dHdv", "{\"a\":1}"]), vec!["one", "dHdv", "{\"a\":1}"]),
        (json!({ "a": [] }), vec!["{\n  \"a\": []\n}"]),
        (json!("dHdv"), vec!["two"]),
        (json!(null), vec![]),
        (json!([]), vec![]),
    ] {
        let answer = json!({ "Outputs": { "queued": output, "res": { "statusCode": 202 } }, "ReturnValue": null });
        handler.replies_with(move |_| (200, answer.clone()));
        let response = client.post(&url).body("hello").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        expected.extend(messages);
        assert_eq!(texts(&host, "uplinks").await, expected);
        // The handler gets the envelope, although the app asks for forwarded requests.
        let call = handler.next().await;
        assert_eq!((call.uri.path(), &call.json()["Data"]["req"]["Body"]), ("/receive", &json!("hello")));
    }
    handler.replies(200, "application/json", r#"{"ReturnValue":["there"]}"#);
    assert_eq!(client.post(&url).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(texts(&host, "returned").await, ["there"]);
    handler.replies(500, "application/json", r#"{"Outputs":{"queued":["lost"]}}"#);
    assert_eq!(client.post(&url).send().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(texts(&host, "uplinks").await, expected, "outputs of a failed invocation are thrown away");
}

#[tokio::test]
async fn a_message_that_is_too_large_fails_the_invocation() {
    for (encoding, largest) in [("base64", 49_152), ("none", 65_536)] {
        let functions = [
            ("receive", with_output(http("uplink", &[]), "queued", "uplinks")),
            ("work", with_output(triggered_by("tasks"), "results", "results")),
        ];
        let app = App::new(host_with(json!({ "messageEncoding": encoding, "maxDequeueCount": 2 })), &functions);
        let mut handler = Handler::start().await;
        let host = handler.hosted(&app, Options::default()).await;
        let url = format!("{}api/uplink", host.ready().endpoint);
        for (size, status) in [(largest, StatusCode::OK), (largest + 1, StatusCode::INTERNAL_SERVER_ERROR)] {
            handler.replies_with(move |_| {
                (200, json!({ "Outputs": { "queued": ["x".repeat(size)], "results": ["y".repeat(size)] } }))
            });
            assert_eq!(client().get(&url).send().await.unwrap().status(), status, "{encoding} {size}");
            handler.next().await;
        }
        assert_eq!(texts(&host, "uplinks").await, ["x".repeat(largest)]);

        host.enqueue("tasks", "task").await.unwrap();
        assert!(host.wait_until_empty("tasks", PATIENCE).await.unwrap());
        assert_eq!(texts(&host, "tasks-poison").await, ["task"]);
        assert_eq!(handler.next().await.json()["Metadata"]["DequeueCount"], "1");
        assert_eq!(handler.next().await.json()["Metadata"]["DequeueCount"], "2");
        assert!(texts(&host, "results").await.is_empty());
    }
}

#[tokio::test]
async fn messages_go_from_function_to_function() {
    let functions = [
        ("poll", with_output(timer(NEVER), "tasks", "tasks")),
        ("work", with_output(triggered_by("tasks"), "results", "results")),
        ("also", with_output(http("also", &[]), "results", "results")),
    ];
    let app = App::new(host(), &functions);
    let handler = Handler::start().await;
    handler.replies_with(|call| match call.uri.path() {
        "/poll" => (200, json!({ "Outputs": { "tasks": ["one", "two"] } })),
        "/work" => {
            let message = call.json()["Data"]["uplink"].clone();
            let text: Value = serde_json::from_str(message.as_str().unwrap()).unwrap();
            (200, json!({ "Outputs": { "results": [format!("{} done", text.as_str().unwrap())] } }))
        }
        _ => (200, json!({ "Outputs": { "results": ["also"] } })),
    });
    let host = handler.hosted(&app, Options::default()).await;
    assert!(host.invoke("poll").await.unwrap().succeeded);
    client().get(format!("{}api/also", host.ready().endpoint)).send().await.unwrap();
    assert!(host.wait_until_empty("tasks", PATIENCE).await.unwrap());
    let mut results = texts(&host, "results").await;
    results.sort();
    assert_eq!(results, ["also", "one done", "two done"]);
}

#[tokio::test]
async fn bytes_that_are_no_text_cannot_be_processed() {
    let functions = [("poll", with_output(timer(NEVER), "tasks", "tasks")), ("work", triggered_by("tasks"))];
    let app = App::new(host(), &functions);
    let mut handler = Handler::start().await;
    handler.replies(200, "application/json", r#"{"Outputs":{"tasks":"abcd"}}"#);
    let host = handler.hosted(&app, Options::default()).await;
    assert!(host.invoke("poll").await.unwrap().succeeded);
    assert!(host.wait_until_empty("tasks", PATIENCE).await.unwrap());
    assert_eq!(texts(&host, "tasks-poison").await, ["i\u{fffd}\u{1d}"]);
    assert_eq!(handler.next().await.uri.path(), "/poll");
    assert!(!handler.has_next(), "it never got the message");
}

#[tokio::test]
async fn storage_that_fails_fails_the_invocation() {
    let app = App::new(host(), &[("receive", with_output(http("uplink", &[]), "queued", "uplinks"))]);
    let handler = Handler::start().await;
    handler.replies(200, "application/json", r#"{"Outputs":{"queued":["lost"]}}"#);
    // Bound, but not listening.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let account = format!("AccountName=a;AccountKey=a2V5;QueueEndpoint=http://{}/a", silent.local_addr().unwrap());
    let host = handler.hosted(&app, Options { env: vec![("Account".to_owned(), account)], ..Options::default() }).await;
    let response = client().get(format!("{}api/uplink", host.ready().endpoint)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let error = host.queue_messages("uplinks").await.unwrap_err().to_string();
    assert!(error.contains(&host.ready().queues["uplinks"]), "{error}");
}
