//! A tick of a hundred thousand sites that three instances share through a storage queue (`PollQueueName`), on the same cores. This
//! program carries the batches to the instances, as each one's Functions host does.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use iothub_connector::rapidm2m::Stamp;
use serde_json::{Value, json};

use crate::{
    fleets::{control, request},
    handler::Handler,
    settings,
    support::{BINARY, emulator},
};

const SITES: u32 = 100_000;
const INSTANCES: usize = 3;
const QUEUE: &str = "polls";
/// Batches that an instance works on at once: the host's default `batchSize` and half of it again.
const AT_ONCE: usize = 24;
/// Rows of each site.
const ROWS: i64 = 15;

pub async fn measure(http: &reqwest::Client) {
    let sites = SITES.to_string();
    let backend = emulator(&["rapidm2m", "--plain", "--no-generate", "--channels", "3", "--sites", &sites]);
    let cosmos = emulator(&["cosmos", "--plain-items"]);
    let hub = emulator(&["iot_hub", "--keep-messages", "1000"]);
    let storage = emulator(&["storage"]);
    let mut settings = settings(&backend.ready, &cosmos.ready, &hub.ready);
    let connection = storage.ready["connection"].as_str().expect("text").to_owned();
    settings.extend([
        ("PollQueueName", QUEUE.to_owned()),
        ("AzureStorageConnectionString", connection),
        // Over MQTT the instances would take the device's connection from each other.
        ("IoTHubTransport", "https".to_owned()),
    ]);
    let handlers = join_all((0..INSTANCES).map(|_| Handler::start(BINARY, &settings, http))).await;
    let row = |minutes: i64| {
        let at = Utc::now() - TimeDelta::minutes(minutes + 2);
        json!([Stamp::from_time(at).to_string(), 32_000_000 + minutes, 21.75, 1])
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    request(http.post(control(&backend, "rows")).body(json!({ "site": "*", "rows": rows }).to_string())).await;

    let before: Duration = handlers.iter().map(Handler::cpu).sum();
    let started = Instant::now();
    // The next run is in 5 minutes: no batch is dropped, and this one tells how long it takes.
    let schedule = json!({ "Last": Utc::now() - TimeDelta::minutes(5), "Next": Utc::now() });
    let timer = json!({ "Data": { "myTimer": { "ScheduleStatus": schedule } }, "Metadata": {} });
    call(&handlers[0], "rapidM2MForwarding", &timer, http).await;
    let handed_out = started.elapsed();
    let stored = request(http.get(control(&storage, &format!("queues/{QUEUE}")))).await;
    let text = |message: &Value| {
        let stored = BASE64_STANDARD.decode(message["text"].as_str().expect("text")).expect("Base64");
        json!(String::from_utf8(stored).expect("UTF-8")).to_string()
    };
    let batches: Vec<String> = stored.as_array().expect("messages").iter().map(text).collect();
    let (count, waiting) = (batches.len(), Mutex::new(batches));
    let taken: Vec<AtomicUsize> = (0..INSTANCES).map(|_| AtomicUsize::new(0)).collect();
    let workers = handlers.iter().zip(&taken).flat_map(|worker| std::iter::repeat_n(worker, AT_ONCE));
    join_all(workers.map(|(handler, taken)| async {
        loop {
            let Some(batch) = waiting.lock().expect("no panic").pop() else { return };
            let envelope = json!({ "Data": { "sites": batch }, "Metadata": { "DequeueCount": "1" } });
            call(handler, "rapidM2MSites", &envelope, http).await;
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }))
    .await;
    let took = started.elapsed();
    let cpu = handlers.iter().map(Handler::cpu).sum::<Duration>() - before;
    let asked = &request(http.get(control(&backend, "counts"))).await["requests"];
    let messages = &request(http.get(control(&hub, "counts"))).await["messages"];
    let shares: Vec<_> = taken.iter().map(|taken| taken.load(Ordering::Relaxed)).collect();
    let memory: Vec<_> = handlers.iter().map(|handler| format!("{:.0}", handler.memory("VmHWM"))).collect();
    println!("\n{SITES} sites shared by {INSTANCES} instances on these cores, {ROWS} rows each");
    println!(
        "  handed out in {:.1} s as {count} batches, of which the instances took {shares:?}",
        handed_out.as_secs_f64()
    );
    println!(
        "  all done after {:.1} s, {:.0} µs CPU a site; {asked} requests to the backend, {messages} messages at the hub",
        took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / f64::from(SITES)
    );
    println!("  peak RSS {} MiB", memory.join(", "));
}

/// Calls a function as the host does.
async fn call(handler: &Handler, function: &str, envelope: &Value, http: &reqwest::Client) {
    let call = http.post(format!("http://{}/{function}", handler.address)).body(envelope.to_string());
    let answer = call.header("content-type", "application/json").send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
}
