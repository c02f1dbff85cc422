//! Measures what reading and writing JSON costs, layer by layer, from the host's envelope of a webhook to the message for
//! the hub. In this process, on one thread.

use std::{fs, hint::black_box, time::Duration};

use chrono::Utc;
use iothub_connector::{
    host::{http::HttpRequest, queue::QueueMessage},
    things_network::{forwarding::message::Forwardable, members::Members, queued::Queued, receiving::Receiving},
};
use serde_json::{Value, json};

use crate::{each, envelopes::capture, median, runtime};

/// Different webhooks, read over and over.
const WEBHOOKS: usize = 1_000;
const RUNS: usize = 7;
const ROUNDS: u32 = 10;

pub fn measure() {
    let runtime = runtime();
    // A task logs what is counted.
    let _runtime = runtime.enter();
    let receiving = Receiving::new(false, None);
    let captured = runtime.block_on(capture(WEBHOOKS));
    let envelopes: Vec<_> = captured.iter().map(|envelope| &envelope.body[..]).collect();
    let requests: Vec<_> = envelopes.iter().map(|envelope| read(envelope)).collect();
    let texts: Vec<_> = requests.iter().map(|request| receiving.webhook(request).queued.expect("an uplink")).collect();
    let messages: Vec<_> = texts.iter().map(|text| queue_envelope(text)).collect();

    println!(
        "\nJSON of an uplink, on one thread: µs CPU each, median of {RUNS} runs over {ROUNDS} × {WEBHOOKS} webhooks"
    );
    let layers = [
        layer("the host's envelope of a webhook", &envelopes, |envelope| read(envelope)),
        layer("from the webhook to the queue's text", &requests, |request| receiving.webhook(request)),
        layer("the host's envelope of a message", &messages, |message| {
            QueueMessage::read(message.as_bytes(), "uplink").expect("an envelope")
        }),
        layer("from the queue's text to the hub's message", &texts, |text| {
            let queued = Queued::parse(text).expect("our own text");
            Forwardable::read(&queued, Utc::now(), &Members::default()).expect("an uplink")
        }),
    ];
    println!("    {:<45} {:.1}", "together", layers.iter().sum::<f64>());
}

fn read(envelope: &[u8]) -> HttpRequest<'_> {
    HttpRequest::read(envelope, "req").expect("an envelope")
}

/// As the host writes it: it copies the members of the message into `Metadata`.
fn queue_envelope(text: &str) -> String {
    let members: Value = serde_json::from_str(text).expect("our own text");
    let metadata = json!({
        "DequeueCount": "1", "ExpirationTime": "2026-12-04T14:29:26+00:00", "Id": "\"5db0ad72-59d4-43b9-a425-0f8f90bc2f66\"",
        "InsertionTime": "2026-11-27T14:29:26+00:00", "NextVisibleTime": "2026-11-27T14:39:26+00:00",
        "PopReceipt": "\"MjdOb3YyMDI2MTQ6Mjk6MjY5ZTkx\"", "ReceivedAtUTC": "\"11/27/2026 14:29:26\"", "Webhook": members["Webhook"],
        "sys": {"MethodName": "thingsNetworkForwarding", "UtcNow": "2026-11-27T14:29:26.0043Z",
                "RandGuid": "35e6e68c-0000-4000-8000-000000000000"},
    });
    json!({ "Data": { "uplink": Value::from(text).to_string() }, "Metadata": metadata }).to_string()
}

/// Prints what it costs, and returns it.
fn layer<T, R>(name: &str, inputs: &[T], run: impl Fn(&T) -> R) -> f64 {
    let all = || (0..ROUNDS).for_each(|_| inputs.iter().for_each(|input| drop(black_box(run(input)))));
    all();
    let runs = (0..RUNS).map(|_| {
        let before = cpu();
        all();
        each(cpu() - before, ROUNDS * WEBHOOKS as u32)
    });
    let cpu = median(runs.collect());
    println!("    {name:<45} {cpu:.1}");
    cpu
}

/// Of this thread.
fn cpu() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(schedule.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).expect("a number"))
}
