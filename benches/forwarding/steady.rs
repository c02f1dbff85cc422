//! What a poll costs in the steady state: the floor, the release build and whatever else is to be compared, in turn, each with
//! the same new rows. All others are idle meanwhile.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use iothub_connector::rapidm2m::Stamp;
use serde_json::{Value, json};

use crate::{
    CUSTOMER, floor,
    handler::{Handler, invoke},
    settings,
    support::{BINARY, Emulator, Process, cpu, emulator, memory, switches},
};

const SITES: usize = 500;
const ROWS: usize = 60;
const CHANNELS: usize = 3;
/// Besides the first, which connects and reads cursors.
const ROUNDS: usize = 15;
const IDLE: Duration = Duration::from_secs(30);
/// Threads that have nothing to do end within this, and take their count of CPU time with them.
const SETTLING: Duration = Duration::from_secs(12);

/// Who polls.
struct Subject {
    name: String,
    process: Process,
    drive: Drive,
    /// Microseconds of CPU, and context switches, of a poll in each round.
    rounds: Vec<(f64, f64)>,
}

enum Drive {
    Handler(SocketAddr),
    Floor(ChildStdin, BufReader<ChildStdout>),
}

pub async fn measure(executables: &[String], http: &reqwest::Client) {
    let (sites, channels) = (SITES.to_string(), CHANNELS.to_string());
    let backend = emulator(&["rapidm2m", "--no-generate", "--plain", "--channels", &channels, "--sites", &sites]);
    let hub = emulator(&["iot_hub", "--keep-messages", "1000"]);
    // The plain items know no containers: subjects with the same sites must not share them.
    let names: Vec<&str> = [BINARY].into_iter().chain(executables.iter().map(String::as_str)).collect();
    let cosmos: Vec<_> = names.iter().map(|_| emulator(&["cosmos", "--plain-items"])).collect();
    let mut subjects = Vec::new();
    for (index, executable) in names.into_iter().enumerate() {
        let mut settings = settings(&backend.ready, &cosmos[index].ready, &hub.ready);
        settings.push(("IoTHubDeviceId", format!("gateway-{index}")));
        let handler = Handler::start(executable, &settings, http).await;
        let name = if index == 0 { "the release build" } else { executable };
        subjects.push(Subject::new(name, handler.process, Drive::Handler(handler.address)));
    }
    let (started, mut forwarded) = (Utc::now() - TimeDelta::days(1), 0);
    for round in 0..=ROUNDS {
        add_rows(&backend, started, round, http).await;
        for subject in &mut subjects {
            subject.tick(http).await;
            forwarded += SITES;
            assert_eq!(received(&hub, http).await, forwarded, "{} forwards each site's rows", subject.name);
        }
        if round == 0 {
            // Only now is the container there. The first ticks, which connect and read cursors, do not count.
            let mut floor = Subject::floor(&backend, &cosmos[0], &hub);
            floor.tick(http).await;
            forwarded += SITES;
            subjects.push(floor);
            subjects.iter_mut().for_each(|subject| subject.rounds.clear());
        }
        // Nobody is always the first.
        subjects.rotate_left(1);
    }
    println!("\nsteady state: {SITES} sites × {ROWS} rows × {CHANNELS} channels, median of {ROUNDS} rounds");
    subjects.sort_by_key(|subject| matches!(subject.drive, Drive::Handler(_)));
    let floor = subjects[0].cpu();
    for subject in &subjects {
        println!(
            "  {:<50} {:>5.0} µs CPU a site-poll = {:.2} × the floor, {:.1} context switches, RSS {:.0} MiB",
            subject.name,
            subject.cpu(),
            subject.cpu() / floor,
            median(subject.rounds.iter().map(|(_, switches)| *switches).collect()),
            memory(subject.pid(), "VmRSS"),
        );
    }
    tokio::time::sleep(SETTLING).await;
    println!("connected and idle for {} s", IDLE.as_secs());
    let before: Vec<_> = subjects.iter().map(|subject| (cpu(subject.pid()), switches(subject.pid()))).collect();
    tokio::time::sleep(IDLE).await;
    for (subject, (cpu_before, switches_before)) in subjects.iter().zip(before) {
        let cpu = cpu(subject.pid()) - cpu_before;
        let switches = switches(subject.pid()) - switches_before;
        println!(
            "  {:<50} {:>5.0} µs CPU a second, {:.1} context switches",
            subject.name,
            cpu.as_secs_f64() * 1e6 / IDLE.as_secs_f64(),
            switches as f64 / IDLE.as_secs_f64()
        );
    }
}

impl Subject {
    fn new(name: &str, process: Process, drive: Drive) -> Self {
        Self { name: name.to_owned(), process, drive, rounds: Vec::new() }
    }

    fn floor(backend: &Emulator, cosmos: &Emulator, hub: &Emulator) -> Self {
        let text = |emulator: &Emulator, name: &str| emulator.ready[name].as_str().expect("text").to_owned();
        let services = floor::Services {
            backend: format!("{}customers/{}/sites/", text(backend, "endpoint"), CUSTOMER.replace(' ', "%20")),
            authorization: format!("Basic {}", crate::credentials(&backend.ready)),
            sites: SITES,
            cosmos: text(cosmos, "endpoint"),
            cosmos_key: text(cosmos, "key"),
            database: "M2MBackendForwarderData".into(),
            container: "pollingAttempts".into(),
            hub: text(hub, "mqtt"),
            hub_key: text(hub, "key"),
            ca: text(hub, "ca"),
        };
        let mut command = Command::new(std::env::current_exe().expect("this benchmark"));
        command.args(["--floor", &json!(services).to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the floor starts");
        let input = process.stdin.take().expect("piped");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        output.read_line(&mut String::new()).expect("it is ready");
        Self::new("the floor: the same clients without the connector", Process(process), Drive::Floor(input, output))
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    async fn tick(&mut self, http: &reqwest::Client) {
        let before = (cpu(self.pid()), switches(self.pid()));
        match &mut self.drive {
            Drive::Handler(address) => invoke(*address, http).await,
            Drive::Floor(input, output) => {
                writeln!(input).expect("the floor runs");
                let read = output.read_line(&mut String::new()).expect("it is ready");
                assert!(read > 0, "the floor has ended");
            }
        }
        let (cpu, switches) = (cpu(self.pid()) - before.0, switches(self.pid()) - before.1);
        self.rounds.push((cpu.as_secs_f64() * 1e6 / SITES as f64, switches as f64 / SITES as f64));
    }

    fn cpu(&self) -> f64 {
        median(self.rounds.iter().map(|(cpu, _)| *cpu).collect())
    }
}

/// How many messages the hub has.
async fn received(hub: &Emulator, http: &reqwest::Client) -> usize {
    let url = format!("{}counts", hub.ready["control"].as_str().expect("text"));
    let counts = http.get(url).send().await.expect("an answer").bytes().await.expect("a body");
    let counts: Value = serde_json::from_slice(&counts).expect("JSON");
    counts["messages"].as_u64().and_then(|count| usize::try_from(count).ok()).expect("a number")
}

/// A minute of rows, one a second, for all sites.
async fn add_rows(backend: &Emulator, started: DateTime<Utc>, round: usize, http: &reqwest::Client) {
    let row = |number: usize| {
        let at = started + TimeDelta::seconds(i64::try_from(number).expect("a small number"));
        let tenths = 100 + number % 400;
        let (stamp, count) = (Stamp::from_time(at).to_string(), 32_000_000 + number);
        format!(r#"["{stamp}",{count},{}.{}7,{count}]"#, tenths / 10, tenths % 10)
    };
    let rows = (round * ROWS..(round + 1) * ROWS).map(row).collect::<Vec<_>>().join(",");
    let url = format!("{}rows", backend.ready["control"].as_str().expect("text"));
    let requests = (0..SITES).map(|site| {
        let body = format!(r#"{{"site":"site-{site:05}","rows":[{rows}]}}"#);
        let request = http.post(&url).header("content-type", "application/json").body(body);
        async { request.send().await.and_then(reqwest::Response::error_for_status).expect("rows are added") }
    });
    futures::stream::iter(requests).buffer_unordered(16).collect::<Vec<_>>().await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
