//! Measures the way from the webhook to the hub's acknowledgement: The Things Stack → host with a storage queue →
//! handler → hub, and the direct lane. All processes share all cores.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    APP, each,
    handler::Handler,
    median, runtime,
    support::{BINARY, Emulator, emulator},
};

const TRANSPORTS: [&str; 3] = ["mqtt", "mqtt-ws", "https"];
const DEVICES: u32 = 500;
const RUNS: usize = 3;
/// Uplinks per second by the schedule, and its length.
const RATE: u32 = 250;
const SECONDS: u32 = 8;
/// Uplinks per run that are sent as fast as the host answers.
const FAST: u32 = 5_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// A lookup of a device's document costs the database more than this, in microseconds. A known device must not be
/// looked up.
const NO_LOOKUP: f64 = 20.0;

/// All processes.
struct World {
    stack: Emulator,
    host: Emulator,
    handler: Handler,
    hub: Emulator,
    cosmos: Emulator,
    _storage: Emulator,
    http: reqwest::Client,
}

/// The result of one run.
struct Run {
    took: Duration,
    /// Microseconds of CPU per uplink.
    cpu: f64,
    /// Microseconds of the database's CPU per uplink.
    lookups: f64,
    /// Time until the answer that The Things Stack gets, in milliseconds.
    p50: f64,
    p99: f64,
}

pub fn measure() {
    println!("\nfrom webhook to acknowledgement, {DEVICES} devices, median of {RUNS} runs");
    println!("  {:<9} {:<10} | {RATE}/s for {SECONDS} s{:>22} | as fast as possible, {FAST} uplinks", "", "", "");
    println!(
        "  {:<9} {:<10} | {:>9} {:>12} {:>12} | {:>10} {:>9} {:>9} {:>7} {:>10}",
        "transport", "downlinks", "CPU each", "answer p50", "p99", "uplinks/s", "CPU each", "RSS", "peak", "Cosmos CPU"
    );
    for transport in TRANSPORTS {
        for downlinks in [false, true] {
            runtime().block_on(measure_one(transport, downlinks, false));
        }
        runtime().block_on(measure_one(transport, false, true));
    }
}

async fn measure_one(transport: &str, downlinks: bool, direct: bool) {
    let world = World::start(transport, downlinks, direct).await;
    // Now every device is registered, and connected if its transport keeps a connection.
    world.run(DEVICES, None).await;
    let before = world.counts().await;
    let (mut by_schedule, mut fast) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        by_schedule.push(world.run(RATE * SECONDS, Some(RATE)).await);
        fast.push(world.run(FAST, None).await);
    }
    let after = world.counts().await;
    assert_eq!(after["connects"], before["connects"], "devices stay connected");
    let requests =
        after["httpsRequests"].as_u64().zip(before["httpsRequests"].as_u64()).map(|(after, before)| after - before);
    let expected = u64::from(transport == "https") + u64::from(downlinks);
    let uplinks = u64::try_from(RUNS).expect("a small number") * u64::from(RATE * SECONDS + FAST);
    assert_eq!(requests, Some(expected * uplinks), "HTTPS for telemetry, and to ask for downlinks");
    for run in by_schedule.iter().chain(&fast) {
        assert!(run.lookups < NO_LOOKUP, "devices are looked up: {} µs an uplink", run.lookups);
    }
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    println!(
        "  {transport:<9} {:<10} | {:>6.0} µs {:>9.2} ms {:>9.2} ms | {:>10.0} {:>6.0} µs {:>5.0} MiB {:>3.0} MiB {:>7.1} µs",
        match (downlinks, direct) {
            (true, _) => "asked for",
            (false, true) => "direct",
            (false, false) => "no",
        },
        of(&by_schedule, |run| run.cpu),
        of(&by_schedule, |run| run.p50),
        of(&by_schedule, |run| run.p99),
        of(&fast, |run| f64::from(FAST) / run.took.as_secs_f64()),
        of(&fast, |run| run.cpu),
        world.handler.memory("VmRSS"),
        world.handler.memory("VmHWM"),
        of(&fast, |run| run.lookups),
    );
}

impl World {
    async fn start(transport: &str, downlinks: bool, direct: bool) -> Self {
        let cosmos = emulator(&["cosmos"]);
        let hub = emulator(&["iot_hub", "--dps-retry-after", "0", "--keep-messages", "1000"]);
        let devices = DEVICES.to_string();
        let mut stack = vec!["things_stack", "--devices", &devices, "--keep-uplinks", "0"];
        if !downlinks {
            stack.push("--no-downlink-key");
        }
        let stack = emulator(&stack);
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        let mut settings = settings(&cosmos.ready, &hub.ready, transport);
        if direct {
            settings.push(("ThingsNetworkDirectMilliseconds", "4000".into()));
        }
        // Both need the account: the handler puts messages back.
        let storage = emulator(&["storage"]);
        let connection = text(&storage, "connection").to_owned();
        settings.push(("AzureStorageConnectionString", connection.clone()));
        let handler = Handler::start(BINARY, &settings, &http).await;
        let endpoint = format!("http://{}/", handler.address);
        let connection = format!("AzureStorageConnectionString={connection}");
        let host = emulator(&[
            "functions_host",
            "--app",
            APP,
            "--attach",
            &endpoint,
            "--env",
            "UplinkQueueName=uplinks",
            "--env",
            &connection,
        ]);
        Self { stack, host, handler, hub, cosmos, _storage: storage, http }
    }

    /// Sends uplinks and waits until the hub has acknowledged all of them.
    async fn run(&self, count: u32, rate: Option<u32>) -> Run {
        let received = self.counts().await["messages"].as_u64().expect("a number");
        let (cpu, lookups, started) = (self.handler.cpu(), self.cosmos.cpu(), Instant::now());
        let sent = self.send(count, rate).await;
        let url = format!("{}admin/queues/uplinks?wait=empty&timeout_ms=60000", text(&self.host, "endpoint"));
        let left = json_of(self.http.get(url).send().await).await;
        let took = started.elapsed();
        assert!(left == json!([]), "{} messages are still in the queue", left.as_array().map_or(0, Vec::len));
        let (cpu, lookups) = (each(self.handler.cpu() - cpu, count), each(self.cosmos.cpu() - lookups, count));
        assert_eq!(sent["statuses"], json!({"202": count}), "{sent}");
        let received = self.counts().await["messages"].as_u64().expect("a number") - received;
        assert_eq!(received, u64::from(count), "each uplink is one message");
        let latency = if rate.is_some() { &sent["scheduledLatencyMs"] } else { &sent["latencyMs"] };
        let ms = |name: &str| latency[name].as_f64().expect("a number");
        Run { took, cpu, lookups, p50: ms("p50"), p99: ms("p99") }
    }

    /// Sends uplinks. Returns the statistics when all are answered.
    async fn send(&self, count: u32, rate: Option<u32>) -> Value {
        let control = text(&self.stack, "control");
        let cleared = self.http.delete(format!("{control}sent")).send().await.expect("an answer");
        assert!(cleared.status().is_success(), "{}", cleared.status());
        // V2 has no headers for downlinks.
        let run = json!({
            "target": format!("{}api/uplink", text(&self.host, "endpoint")), "count": count, "rate": rate.unwrap_or(0),
            "v2Share": 0, "repeatShare": 0, "malformedShare": 0, "eventShare": 0
        });
        let request = self.http.post(format!("{control}send")).header("content-type", "application/json");
        let begun = request.body(run.to_string()).send().await.expect("an answer");
        assert!(begun.status().is_success(), "{}", begun.status());
        json_of(self.http.get(format!("{control}sent?wait=done&timeout_ms=60000")).send().await).await
    }

    /// The hub's counts.
    async fn counts(&self) -> Value {
        json_of(self.http.get(format!("{}counts", text(&self.hub, "control"))).send().await).await
    }
}

async fn json_of(response: reqwest::Result<Response>) -> Value {
    let response = response.and_then(Response::error_for_status).expect("an answer");
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

fn text<'a>(of: &'a Emulator, name: &str) -> &'a str {
    of.ready[name].as_str().expect("text")
}

fn settings(cosmos: &Value, hub: &Value, transport: &str) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    vec![
        ("UplinkQueueName", "uplinks".into()),
        ("M2MDocumentsDBUri", text(&cosmos["endpoint"])),
        ("M2MDocumentsDBPrimaryKey", text(&cosmos["key"])),
        ("DPSGlobalDeviceEndpoint", text(&hub["dps"])),
        ("DPSIDScopeDefault", text(&hub["idScope"])),
        ("DPSEnrollmentGroupSymmetricKeyDefault", text(&hub["groupKey"])),
        ("IoTHubTrustedCa", text(&hub["ca"])),
        ("IoTHubTransport", transport.into()),
    ]
}
