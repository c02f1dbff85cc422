//! Ticks of fleets of different sizes, near and far from the services: how long they take, how much memory, and what they ask for and
//! write.
//!
//! | Tick | |
//! |---|---|
//! | first | each cursor is read, and a message of 60 rows, one a minute, is forwarded for each site |
//! | quiet | nobody has news |
//! | a row each | the second of two in which each site has one new row: the first one's records are marked with it |

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use iothub_connector::rapidm2m::Stamp;
use serde_json::{Value, json};

use crate::{
    handler::{Handler, invoke},
    settings,
    support::{BINARY, Emulator, emulator},
};

/// How many sites, and how many milliseconds each service takes for an answer.
const FLEETS: [(u32, u32); 9] = [
    (10, 0),
    (1_000, 0),
    (10_000, 0),
    (100_000, 0),
    (1_000, 10),
    (10_000, 10),
    (1_000, 50),
    (10_000, 50),
    (100_000, 50),
];
/// Once more without looking for late and corrected rows.
const WITHOUT_OVERLAP: (u32, u32) = (10_000, 0);
/// Minutes of history: with each poll the last hour comes again.
const HISTORY: i64 = 60;
/// What a unit of the hub takes: S1 takes 400,000 messages of 4 KB a day.
const UNIT: f64 = 400_000.0;
const TICKS_A_DAY: f64 = 24.0 * 60.0;

pub async fn measure(http: &reqwest::Client) {
    println!("\nticks of a fleet (3 channels; RU are estimated from the documents' sizes)");
    println!(
        "   sites, away: tick          seconds  µs CPU a site  requests  documents written, read      RU  RU a site"
    );
    for (size, delay) in FLEETS {
        Fleet::start(size, delay, &[], http).await.measure(http).await;
    }
    println!("  OverlapSeconds=0:");
    let (size, delay) = WITHOUT_OVERLAP;
    Fleet::start(size, delay, &[("OverlapSeconds", "0")], http).await.measure(http).await;
}

struct Fleet {
    size: u32,
    delay: u32,
    backend: Emulator,
    cosmos: Emulator,
    hub: Emulator,
    handler: Handler,
}

impl Fleet {
    async fn start(size: u32, delay: u32, others: &[(&'static str, &str)], http: &reqwest::Client) -> Self {
        let sites = size.to_string();
        let backend = emulator(&["rapidm2m", "--plain", "--no-generate", "--channels", "3", "--sites", &sites]);
        let cosmos = emulator(&["cosmos", "--plain-items"]);
        let hub = emulator(&["iot_hub", "--keep-messages", "1000"]);
        if delay > 0 {
            put(&backend, &json!({ "rules": [{ "delayMs": delay }] }), http).await;
            put(&cosmos, &json!({ "delayMs": delay }), http).await;
            put(&hub, &json!({ "pubackDelayMs": delay }), http).await;
        }
        let mut settings = settings(&backend.ready, &cosmos.ready, &hub.ready);
        settings.extend(others.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let handler = Handler::start(BINARY, &settings, http).await;
        Self { size, delay, backend, cosmos, hub, handler }
    }

    async fn measure(&self, http: &reqwest::Client) {
        self.add_rows(1..=HISTORY, http).await;
        self.tick("first", http).await;
        self.tick("quiet", http).await;
        let messages = self.messages(http).await;
        for second in 0..2 {
            self.add_rows(-second..=-second, http).await;
            if second == 0 {
                invoke(self.handler.address, http).await;
            } else {
                self.tick("a row each", http).await;
            }
        }
        let a_tick = (self.messages(http).await - messages) / 2.0;
        println!(
            "                 RSS {:.0} MiB (peak {:.0}); with a row each {:.0} messages a tick: {:.1} units S1",
            self.handler.memory("VmRSS"),
            self.handler.memory("VmHWM"),
            a_tick,
            a_tick * TICKS_A_DAY / UNIT
        );
    }

    /// Gives each site a row for each of these minutes before the last one.
    async fn add_rows(&self, minutes: impl Iterator<Item = i64>, http: &reqwest::Client) {
        let row = |minutes: i64| {
            let at = Utc::now() - TimeDelta::seconds(60 * (minutes + 2));
            json!([Stamp::from_time(at).to_string(), 32_000_000 + minutes, 21.75, 1])
        };
        let rows: Vec<_> = minutes.map(row).collect();
        let body = json!({ "site": "*", "rows": rows }).to_string();
        request(http.post(control(&self.backend, "rows")).body(body)).await;
    }

    async fn tick(&self, name: &str, http: &reqwest::Client) {
        request(http.delete(control(&self.cosmos, "cost"))).await;
        let (asked, before, started) = (self.requests(http).await, self.handler.cpu(), Instant::now());
        invoke(self.handler.address, http).await;
        let (cpu, took): (Duration, _) = (self.handler.cpu() - before, started.elapsed().as_secs_f64());
        let asked = self.requests(http).await - asked;
        let cost = request(http.get(control(&self.cosmos, "cost"))).await;
        let number = |name: &str| cost[name].as_f64().expect("a number");
        println!(
            "  {:>6}, {:>2} ms: {name:<11} {took:>8.2}  {:>13.0}  {asked:>8.0}  {:>17.0}, {:>4.0}  {:>6.0}  {:>9.2}",
            self.size,
            self.delay,
            cpu.as_secs_f64() * 1e6 / f64::from(self.size),
            number("written"),
            number("read"),
            number("requestUnits"),
            number("requestUnits") / f64::from(self.size),
        );
    }

    /// How many requests the backend has had.
    async fn requests(&self, http: &reqwest::Client) -> f64 {
        request(http.get(control(&self.backend, "counts"))).await["requests"].as_f64().expect("a number")
    }

    /// How many messages the hub has taken.
    async fn messages(&self, http: &reqwest::Client) -> f64 {
        request(http.get(control(&self.hub, "counts"))).await["messages"].as_f64().expect("a number")
    }
}

/// Switches faults.
async fn put(emulator: &Emulator, faults: &Value, http: &reqwest::Client) {
    request(http.put(control(emulator, "faults")).body(faults.to_string())).await;
}

pub fn control(emulator: &Emulator, path: &str) -> String {
    format!("{}{path}", emulator.ready["control"].as_str().expect("text"))
}

/// The answer as JSON; `null` if it has no body.
pub async fn request(request: reqwest::RequestBuilder) -> Value {
    let answer = request.header("content-type", "application/json").send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status).expect("an answer");
    serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default()
}
