//! What the main job costs: `cargo bench --bench forwarding`.
//!
//! The handler and the three emulators run in processes of their own; what is printed is the handler's alone: milliseconds
//! from exec to the first answer, resident memory, CPU time for each site polled (60 rows of 3 channels: fetched, recorded,
//! sent over TLS, acknowledged, marked), in the first tick and in the next one a minute later, which is what every tick
//! after it costs. CPU time is the kernel's count for the process, all threads together.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_iothub-connector");
const STARTS: usize = 21;
const SIZES: [usize; 3] = [10, 1_000, 10_000];

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

struct Emulator {
    ready: Value,
    _process: Process,
}

fn emulator(arguments: &[&str]) -> Emulator {
    use std::io::{BufRead as _, BufReader};
    let mut process = Command::new(BINARY)
        .arg("emulator")
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the emulator starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a ready line");
    Emulator { ready: serde_json::from_str(&line).expect("JSON"), _process: Process(process) }
}

struct Handler {
    url: String,
    process: Process,
    first_answer: Duration,
}

/// Starts the handler and asks until it answers.
async fn handler(settings: &[(&str, String)], http: &reqwest::Client) -> Handler {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut command = Command::new(BINARY);
    command.arg("serve").env_clear().stdout(Stdio::null());
    command.envs(settings.iter().map(|(name, value)| (*name, value)));
    command.env("FUNCTIONS_CUSTOMHANDLER_PORT", free.port().to_string());
    let started = Instant::now();
    let process = Process(command.spawn().expect("the handler starts"));
    let url = format!("http://{free}/");
    while http.get(&url).send().await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "the handler does not answer");
    }
    Handler { url, process, first_answer: started.elapsed() }
}

impl Handler {
    /// A line of `/proc/PID/status`, in MiB.
    fn memory(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        let kib: f64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number");
        kib / 1024.0
    }

    /// User and system time so far. The kernel counts in 10 ms.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).expect("Linux");
        let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: u64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    async fn invoke(&self, http: &reqwest::Client) {
        let envelope = json!({"Data":{"myTimer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}},"Metadata":{}});
        let response = http
            .post(format!("{}rapidM2MForwarding", self.url))
            .header("content-type", "application/json")
            .body(envelope.to_string())
            .send()
            .await
            .expect("an answer");
        let status = response.status();
        assert!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
    }
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
        // A row each second: a minute of history is 60 rows, and so is the minute between two ticks.
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
                starts.push(handler(&settings, &http).await.first_answer);
            }
            starts.sort();
            println!(
                "exec to first answer   {:>8.1} ms   (median of {STARTS})",
                starts[STARTS / 2].as_secs_f64() * 1e3
            );
        }
        let handler = handler(&settings, &http).await;
        if index == 0 {
            println!("idle, RSS              {:>8.1} MiB", handler.memory("VmRSS"));
        }
        let (before, started) = (handler.cpu(), Instant::now());
        handler.invoke(&http).await;
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
        handler.invoke(&http).await;
        let cpu = handler.cpu() - before;
        println!("        next tick      {:>8.0} µs CPU per site-poll", cpu.as_secs_f64() * 1e6 / polls);
    }
}
