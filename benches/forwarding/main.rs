//! What the main job costs: `cargo bench --bench forwarding`, about 20 minutes. With `-- --fleets` or `-- --instances` only those
//! parts. Executables that are named behind `--`, such as `target/package/app/iothub-connector`, are measured beside the release
//! build.
//!
//! Handlers and emulators run in processes of their own; what is printed is the handler's alone. CPU time is the kernel's
//! count for the process, all threads together.
//!
//! | Part | |
//! |---|---|
//! | here | the start: milliseconds from exec to the first answer, resident memory |
//! | `steady` | a poll in the steady state, beside the floor, and being idle |
//! | `floor` | the least that the same work takes with the same clients |
//! | `fleets` | ticks of up to a hundred thousand sites, with services that answer at once, in 10 and in 50 ms |
//! | `instances` | a tick of a hundred thousand sites that three instances share |

mod fleets;
mod floor;
#[path = "../support/handler.rs"]
mod handler;
mod instances;
mod steady;
#[path = "../support/mod.rs"]
mod support;

use std::time::Instant;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use handler::Handler;
use support::{BINARY, emulator};

/// As the connector has it: the floor is to have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STARTS: usize = 21;
const CUSTOMER: &str = "Demo Water Utility";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, services] = &arguments[..]
        && flag == "--floor"
    {
        return floor::run(serde_json::from_str(services).expect("JSON")).await;
    }
    if arguments.iter().any(|argument| argument == "--fleets") {
        return fleets::measure(&reqwest::Client::new()).await;
    }
    if arguments.iter().any(|argument| argument == "--instances") {
        return instances::measure(&reqwest::Client::new()).await;
    }
    let executables: Vec<_> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let http = reqwest::Client::new();
    for executable in [BINARY].into_iter().chain(executables.iter().map(String::as_str)) {
        start(executable, &http).await;
    }
    steady::measure(&executables, &http).await;
    fleets::measure(&http).await;
    instances::measure(&http).await;
}

async fn start(executable: &str, http: &reqwest::Client) {
    let backend = emulator(&["rapidm2m"]);
    let cosmos = emulator(&["cosmos"]);
    let hub = emulator(&["iot_hub"]);
    let settings = settings(&backend.ready, &cosmos.ready, &hub.ready);
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let _handler = Handler::start(executable, &settings, http).await;
        starts.push(started.elapsed());
    }
    starts.sort();
    let handler = Handler::start(executable, &settings, http).await;
    println!("{executable}, {:.2} MB", std::fs::metadata(executable).expect("a file").len() as f64 / 1e6);
    println!("  exec to first answer  {:.1} ms (median of {STARTS})", starts[STARTS / 2].as_secs_f64() * 1e3);
    println!("  idle, RSS             {:.1} MiB", handler.memory("VmRSS"));
}

fn credentials(backend: &Value) -> String {
    let text = |name: &str| backend[name].as_str().expect("text");
    BASE64_STANDARD.encode(format!("{}:{}", text("user"), text("password")))
}

fn settings(backend: &Value, cosmos: &Value, hub: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    vec![
        ("M2MBackendURL", text(&backend["endpoint"])),
        ("Base64encodedUsernamePassword", credentials(backend)),
        ("Customer_ID", CUSTOMER.into()),
        ("Site_ID", "*".into()),
        ("Channelnames", "ch0,ch1,ch2".into()),
        ("StartFrom", "all".into()),
        ("PollTimeoutSeconds", "290".into()),
        ("BackendRequestsPerSecond", "10000".into()),
        ("M2MDocumentsDBUri", text(&cosmos["endpoint"])),
        ("M2MDocumentsDBPrimaryKey", text(&cosmos["key"])),
        ("IoTHubURL", text(&hub["mqtt"])),
        ("IoTHubDeviceId", "gateway".into()),
        ("IoTHubDeviceKey", text(&hub["key"])),
        ("IoTHubTrustedCa", text(&hub["ca"])),
    ]
}
