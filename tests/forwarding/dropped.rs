//! Tests that a run that is dropped before its end logs this, and how far it came.

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinHandle};

use crate::support::{Handler, TIMER, World};

const INVOCATION: &str = "5b2f9c6e-0000-4000-8000-000000000000";
const SITES: [&str; 3] = ["a", "b", "c"];

/// A run that has reached its last site, whose backend does not answer.
async fn run() -> (World, Handler, JoinHandle<()>) {
    let mut world = World::with_sites(&SITES).await;
    world.set("PollConcurrency", "1");
    world.set("PollTimeoutSeconds", "60");
    world.set("RUST_LOG", "info");
    world.backend.put("faults", json!({ "rules": [{ "site": "c", "hang": true }] })).await;
    let handler = world.handler().await;
    let request = handler.request("/rapidM2MForwarding", TIMER);
    let call = tokio::spawn(async move { drop(request.send().await) });
    let requests = world.backend.get("requests?wait=4&timeout_ms=20000").await;
    // The list of sites is one of them.
    assert_eq!(requests.as_array().unwrap().len(), 4, "{requests}");
    (world, handler, call)
}

async fn assert_told(world: &World) {
    world.printed("was dropped before its end", 1).await;
    let output = world.output();
    let told: Vec<_> = output.lines().filter(|line| line.contains("dropped")).collect();
    let [line] = told[..] else { panic!("one line: {told:?}") };
    assert!(line.starts_with("warn: rapidM2MForwarding was dropped before its end: 2 of 3 sites were done"), "{line}");
    assert!(line.contains(INVOCATION), "{line}");
}

#[tokio::test]
async fn a_host_that_hangs_up_leaves_a_trace() {
    let (world, handler, call) = run().await;
    call.abort();
    assert_told(&world).await;
    // The next run polls all sites, including the one that was dropped.
    world.backend.heal().await;
    handler.invoke_ok().await;
    let output = world.output();
    assert!(output.contains("3 of 3 sites polled") && output.matches("dropped").count() == 1, "{output}");
}

#[tokio::test]
async fn the_first_ctrl_c_waits_for_what_is_under_way_and_the_second_ends_at_once() {
    let (world, handler, call) = run().await;
    handler.interrupt();
    handler.is_closed().await;
    assert!(!world.output().contains("dropped") && !call.is_finished(), "the run goes on");
    handler.interrupt();
    assert_eq!(handler.ended().await.code(), Some(130), "as shells have it: 128 and the signal's number");
    assert_told(&world).await;
}

#[tokio::test]
async fn a_call_that_breaks_off_leaves_a_trace_too() {
    let world = World::with_sites(&SITES).await;
    let handler = world.handler().await;
    let mut host = TcpStream::connect(handler.address()).await.unwrap();
    let head = "POST /rapidM2MForwarding HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked";
    let call = format!("{head}\r\nx-azure-functions-invocationid: {INVOCATION}\r\n\r\n5\r\n{{\"Dat");
    host.write_all(call.as_bytes()).await.unwrap();
    drop(host);
    world.printed("a call was not read", 1).await;
    let output = world.output();
    let line = output.lines().find(|line| line.contains("a call was not read")).unwrap();
    assert!(line.starts_with("warn: ") && line.contains(INVOCATION), "{line}");
}
