//! Measures the cost of the main job: `cargo bench --bench forwarding`.
//!
//! The handler and the three emulators run in their own processes. The printed values are the handler's only:
//! milliseconds from exec to the first answer, resident memory, and CPU time per polled site (60 rows of 3 channels:
//! fetched, recorded, sent over TLS, acknowledged, marked). CPU time is measured in the first tick, and in the next one
//! a minute later, which costs as much as every later tick. It is the kernel's count for the process, all threads
//! together.

#[path = "support/handler.rs"]
mod handler;
mod support;

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use handler::Handler;
use support::emulator;

const STARTS: usize = 21;
const SIZES: [usize; 3] = [10, 1_000, 10_000];

async fn invoke(handler: &Handler, http: &reqwest::Client) {
    let envelope = json!({"Data":{"myTimer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}},"Metadata":{}});
    let response = http
        .post(format!("http://{}/rapidM2MForwarding", handler.address))
        .header("content-type", "application/json")
        .body(envelope.to_string())
        .send()
        .await
        .expect("an answer");
    let status = response.status();
    assert!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
}

fn settings(backend: &Value, cosmos: &Value, hub: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", text(&backend["user"]), text(&backend["password"])));
    vec![
        ("M2MBackendURL", text(&backend["endpoint"])),
        ("Base64encodedUsernamePassword", credentials),
        ("Customer_ID", "Demo Water Utility".into()),
        ("Site_ID", "*".into()),
        ("Channelnames", "ch0,ch1,ch2".into()),
        ("StartFrom", "all".into()),
        ("PollTimeoutSeconds", "600".into()),
        ("M2MDocumentsDBUri", text(&cosmos["endpoint"])),
        ("M2MDocumentsDBPrimaryKey", text(&cosmos["key"])),
        ("IoTHubURL", text(&hub["mqtt"])),
        ("IoTHubDeviceId", "gateway".into()),
        ("IoTHubDeviceKey", text(&hub["key"])),
        ("IoTHubTrustedCa", text(&hub["ca"])),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let http = reqwest::Client::new();
    for (index, size) in SIZES.into_iter().enumerate() {
        let sites = size.to_string();
        // One row per second: a minute of history is 60 rows, and so is the minute between two ticks.
        let backend = emulator(&[
            "rapidm2m",
            "--plain",
            "--channels",
            "3",
            "--interval",
            "60",
            "--history",
            "3600",
            "--sites",
            &sites,
        ]);
        let cosmos = emulator(&["cosmos", "--plain-items"]);
        let hub = emulator(&["iot_hub"]);
        let settings = settings(&backend.ready, &cosmos.ready, &hub.ready);
        if index == 0 {
            let mut starts = Vec::new();
            for _ in 0..STARTS {
                let started = Instant::now();
                let _handler = Handler::start(&settings, &http).await;
                starts.push(started.elapsed());
            }
            starts.sort();
            println!(
                "exec to first answer   {:>8.1} ms   (median of {STARTS})",
                starts[STARTS / 2].as_secs_f64() * 1e3
            );
        }
        let handler = Handler::start(&settings, &http).await;
        if index == 0 {
            println!("idle, RSS              {:>8.1} MiB", handler.memory("VmRSS"));
        }
        let (before, started) = (handler.cpu(), Instant::now());
        invoke(&handler, &http).await;
        let (cpu, wall) = (handler.cpu() - before, started.elapsed());
        let polls = f64::from(u32::try_from(size).expect("a small number"));
        println!(
            "{size:>6} sites           {:>8.0} µs CPU per site-poll, {:.1} s for the tick, RSS {:.0} MiB (peak {:.0})",
            cpu.as_secs_f64() * 1e6 / polls,
            wall.as_secs_f64(),
            handler.memory("VmRSS"),
            handler.memory("VmHWM"),
        );
        tokio::time::sleep(Duration::from_secs(60).saturating_sub(started.elapsed())).await;
        let before = handler.cpu();
        invoke(&handler, &http).await;
        let cpu = handler.cpu() - before;
        println!("        next tick      {:>8.0} µs CPU per site-poll", cpu.as_secs_f64() * 1e6 / polls);
    }
}
