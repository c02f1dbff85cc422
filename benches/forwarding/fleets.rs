//! One tick of fleets of different sizes, near and far from the services: how long it takes, how much memory, and what it asks
//! for. An hour of history is 60 rows for each site.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    handler::{Handler, invoke},
    settings,
    support::{BINARY, Emulator, emulator},
};

/// How many sites, and how many milliseconds each service takes for an answer.
const FLEETS: [(u32, u32); 7] =
    [(10, 0), (1_000, 0), (10_000, 0), (1_000, 10), (10_000, 10), (1_000, 50), (10_000, 50)];

pub async fn measure(http: &reqwest::Client) {
    println!(
        "\nthe first tick of a fleet: each cursor is read, 60 rows of 3 channels are forwarded; then a tick without news"
    );
    for (size, delay) in FLEETS {
        // A row a day: nothing new comes while it is measured.
        let rows = ["--interval", "86400", "--history", "5184000"];
        let sites = size.to_string();
        let backend =
            [["rapidm2m", "--plain"], ["--channels", "3"], ["--sites", &sites], [rows[0], rows[1]], [rows[2], rows[3]]];
        let backend = emulator(&backend.concat());
        let cosmos = emulator(&["cosmos", "--plain-items"]);
        let hub = emulator(&["iot_hub", "--keep-messages", "1000"]);
        if delay > 0 {
            put(&backend, &json!({ "rules": [{ "delayMs": delay }] }), http).await;
            put(&cosmos, &json!({ "delayMs": delay }), http).await;
            put(&hub, &json!({ "pubackDelayMs": delay }), http).await;
        }
        let handler = Handler::start(BINARY, &settings(&backend.ready, &cosmos.ready, &hub.ready), http).await;
        print!("  {size:>6} sites, {delay:>2} ms:");
        for tick in 0..2 {
            let (before, started, asked) = (handler.cpu(), Instant::now(), requests(&backend, http).await);
            invoke(handler.address, http).await;
            let asked = requests(&backend, http).await - asked;
            let (cpu, took) = (handler.cpu() - before, started.elapsed().as_secs_f64());
            if tick == 0 {
                print!(" {:>5.0} µs CPU a site-poll,", cpu.as_secs_f64() * 1e6 / f64::from(size));
                print!(" {took:.1} s for the tick, {asked} requests, RSS {:.0} MiB", handler.memory("VmRSS"));
                print!(" (peak {:.0});", handler.memory("VmHWM"));
            } else {
                println!(" without news {took:.2} s, {asked} requests, {:.0} ms CPU", cpu.as_secs_f64() * 1e3);
            }
        }
    }
}

/// Switches faults.
async fn put(emulator: &Emulator, faults: &Value, http: &reqwest::Client) {
    let url = format!("{}faults", emulator.ready["control"].as_str().expect("text"));
    let request = http.put(url).header("content-type", "application/json").body(faults.to_string());
    request.send().await.and_then(reqwest::Response::error_for_status).expect("faults are switched");
}

/// How many requests the backend has had.
async fn requests(backend: &Emulator, http: &reqwest::Client) -> u64 {
    let url = format!("{}counts", backend.ready["control"].as_str().expect("text"));
    let counts = http.get(url).send().await.expect("an answer").bytes().await.expect("a body");
    let counts: Value = serde_json::from_slice(&counts).expect("JSON");
    counts["requests"].as_u64().expect("a number")
}
