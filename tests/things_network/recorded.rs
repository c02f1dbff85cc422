//! Posts requests that were recorded from the real Functions host. `emulators/src/functions_host/envelope` is compared
//! with the same requests.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    support::{Handler, Output},
    things_network::support::{World, uplink},
};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const REQUESTS: &str = include_str!("../fixtures/host/requests.json");
const IDENTITIES: &str = include_str!("../fixtures/host/identities.json");

/// The recorded requests, as they were posted.
fn requests() -> Vec<Value> {
    let identities: Value = serde_json::from_str(IDENTITIES).unwrap();
    let mut requests: Vec<Value> = serde_json::from_str(REQUESTS).unwrap();
    for request in &mut requests {
        if let Some(of_caller) = request["body"].pointer_mut("/Data/req/Identities") {
            *of_caller = identities.clone();
        }
    }
    requests
}

/// The status that the caller of an HTTP function gets, and a part of the body.
fn expected(name: &str) -> (u16, &'static str) {
    match name {
        "http: GET with a function key" => (200, "<title>IoT Hub Connector</title>"),
        "http: status get" => (200, "\"From\":50"),
        "http: status percent" => (404, "A &amp;+/ü"),
        // A webhook without an uplink is an event, which is ignored.
        "http: json" => (200, ""),
        "http: json array" | "http: json string" | "http: json number" => (400, "another kind of JSON"),
        "http: text" | "http: form" | "http: octet-stream" | "http: gzip" => (400, "not a JSON object (expected value"),
        "http: empty" | "http: chunked" => (400, "the body is empty"),
        // Their bodies are read: the encoding is the host's business.
        "http: json utf-16 without charset" | "http: bom" | "http: latin1 byte" => (400, "neither uplink_message"),
        "http: no content type" | "http: encoded path" => (400, "neither uplink_message"),
        _ => panic!("what is the answer to {name}?"),
    }
}

#[tokio::test]
async fn every_request_of_the_real_host_is_answered_as_it_means() {
    let world = World::start().await;
    let handler = Handler::start(&world.settings, Output::default()).await;
    for request in requests() {
        let (name, path) = (request["name"].as_str().unwrap(), request["path"].as_str().unwrap());
        let answer = handler.post(path, request["body"].to_string()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        let outputs = &answer.body["Outputs"];
        match name.split_once(": ").unwrap().0 {
            "timer" => assert_eq!(outputs, &json!({}), "{name}"),
            "http" => {
                let (status, part) = expected(name);
                let body = outputs["res"]["body"].as_str().unwrap_or_default();
                assert_eq!(outputs["res"]["statusCode"], status, "{name}: {body}");
                assert!(body.contains(part), "{name}: {body}");
                assert!(outputs["uplinks"].is_null(), "{name}");
            }
            // None of the messages is a webhook. The text is kept as it was, whatever the metadata says.
            _ => {
                let message: String =
                    serde_json::from_str(request["body"]["Data"]["uplink"].as_str().unwrap()).unwrap();
                let [rejected] = &outputs["rejected"].as_array().unwrap()[..] else { panic!("{name}: {outputs}") };
                let rejected = rejected.as_str().unwrap();
                let kept = json!({ "Text": message }).to_string();
                assert!(rejected.contains(&message) || rejected.contains(&kept[1..]), "{name}: {rejected}");
            }
        }
    }
    handler.kill().await;
}

/// An uplink has members that take the place of the host's own.
#[tokio::test]
async fn an_uplink_is_read_whatever_its_members_do_to_the_metadata() {
    let world = World::start().await;
    let handler = Handler::start(&world.settings, Output::default()).await;
    let mut webhook = uplink("app", "dev", 7);
    for (name, value) in [("sys", "y"), ("query", "q"), ("Id", "mine"), ("DequeueCount", "many"), ("PopReceipt", "own")]
    {
        webhook[name] = json!(value);
    }
    let requests = requests();
    let find = |name: &str| requests.iter().find(|request| request["name"] == name).unwrap()["body"].clone();
    let mut call = find("http: json");
    call["Data"]["req"]["Body"] = json!(webhook.to_string());
    let answer = handler.post("/thingsNetworkUplink", call.to_string()).await;
    assert_eq!(answer.body["Outputs"]["res"]["statusCode"], 202, "{}", answer.body);
    let queued = answer.body["Outputs"]["uplinks"][0].as_str().unwrap().to_owned();
    let mut call = find("queue: members of the message that replace those of the host");
    call["Data"]["uplink"] = json!(json!(queued).to_string());
    call["Metadata"]["PopReceipt"] = json!("\"own\"");
    call["Metadata"]["DequeueCount"] = json!("\"many\"");
    // The first uplink of a device may come while the device is being registered, and this message cannot be put back.
    let until_accepted = async {
        loop {
            let answer = handler.post("/thingsNetworkForwarding", call.to_string()).await;
            if answer.status == 200 {
                break answer;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, until_accepted).await.expect("it must be forwarded");
    assert_eq!(answer.body["Outputs"], json!({}), "{}", answer.body);
    assert_eq!(world.received(1).await[0]["body"]["Counter"], 7);
    handler.kill().await;
}
