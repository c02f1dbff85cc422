//! Measures how webhooks are accepted. The handler is on one core and the load on another, if there is one. The handler
//! connects to no other service.
//!
//! On a shared machine, other work shows in the slowest answers. Two values make that visible. The same requests are
//! also posted to a path without a function, where the handler reads them and answers 404. And the kernel reports how
//! long the handler was ready to run but did not, because its core was busy.

use std::{thread, time::Duration};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    each,
    envelopes::{UPLINK, capture},
    handler::Handler,
    load::{Load, Report},
    median, runtime,
    support::{BINARY, of_threads},
};

/// Number of different webhooks, posted again and again.
const WEBHOOKS: usize = 1_000;
const RUNS: usize = 5;
const RATE: u32 = 1_000;
const SECONDS: u32 = 10;
/// Length of the run of requests to no function.
const NOTHING_SECONDS: u32 = 5;
/// Connections from the host.
const CONNECTIONS: usize = 32;
/// Requests of each run that are sent as fast as they are answered.
const FAST: u32 = 30_000;

/// One run: requests to no function, webhooks by the schedule, and webhooks as fast as possible. CPU and waiting are in
/// microseconds per webhook.
struct Run {
    nothing: Report,
    by_schedule: Report,
    cpu_by_schedule: f64,
    waited: f64,
    fast: Report,
    cpu_fast: f64,
    memory: f64,
}

/// The requests that are posted.
struct Requests {
    webhooks: Vec<Vec<u8>>,
    to_nothing: Vec<Vec<u8>>,
}

pub fn measure() {
    let envelopes = runtime().block_on(capture(WEBHOOKS));
    let requests = |path| envelopes.iter().map(|envelope| envelope.request(path)).collect::<Vec<_>>();
    let requests = Requests { webhooks: requests(UPLINK), to_nothing: requests("/nothing") };
    let bytes: usize = requests.webhooks.iter().map(Vec::len).sum();
    let cores = cores();
    let (ours, theirs) = (cores[0], cores[cores.len() - 1]);
    println!("\nwebhooks accepted, handler on core {theirs}, load on core {ours}, median of {RUNS} runs");
    println!("  requests of {} bytes on average, {CONNECTIONS} connections", bytes / WEBHOOKS);
    let runs: Vec<_> = (0..RUNS).map(|_| run(&requests, ours, theirs)).collect();
    let of = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let line = |name: &str, report: &dyn Fn(&Run) -> &Report| {
        let at = |quantile| of(&|run| ms(report(run).answer.value_at_quantile(quantile)));
        let p99 = runs.iter().map(|run| format!("{:.2}", ms(report(run).answer.value_at_quantile(0.99))));
        let p99 = p99.collect::<Vec<_>>().join(" ");
        let max = of(&|run| ms(report(run).answer.max()));
        println!(
            "    {name:<30} p50 {:.2} ms, p99 {:.2} ms, max {max:.1} ms; p99 of each run {p99}",
            at(0.5),
            at(0.99)
        );
    };
    println!("  at {RATE}/s, from the scheduled time to the answer");
    line(&format!("webhooks, {SECONDS} s"), &|run| &run.by_schedule);
    line(&format!("to no function, {NOTHING_SECONDS} s"), &|run| &run.nothing);
    let late = |quantile| of(&|run| ms(run.by_schedule.late.value_at_quantile(quantile)));
    println!("    of it, webhooks sent late by   p50 {:.2} ms, p99 {:.2} ms", late(0.5), late(0.99));
    let (cpu, waited) = (of(&|run| run.cpu_by_schedule), of(&|run| run.waited));
    println!("    the handler's                  {cpu:.0} µs CPU a webhook, waiting for its core {waited:.0} µs");
    println!("  as fast as possible, {FAST} webhooks");
    line("from sending to the answer", &|run| &run.fast);
    let (rate, cpu) = (of(&|run| f64::from(FAST) / run.fast.took.as_secs_f64()), of(&|run| run.cpu_fast));
    let memory = of(&|run| run.memory);
    println!("    accepted                       {rate:.0}/s, {cpu:.0} µs CPU a webhook, RSS {memory:.0} MiB");
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn run(requests: &Requests, ours: usize, theirs: usize) -> Run {
    let handler = on_core(theirs, || runtime().block_on(Handler::start(BINARY, &settings(), &reqwest::Client::new())));
    on_core(ours, || {
        let fast = Load {
            address: handler.address,
            requests: &requests.webhooks,
            answer: r#""statusCode":202"#,
            connections: CONNECTIONS,
            rate: None,
            count: FAST,
        };
        let by_schedule = Load { rate: Some(RATE), count: RATE * SECONDS, ..fast };
        let nothing = Load {
            requests: &requests.to_nothing,
            answer: "there is no function",
            count: RATE * NOTHING_SECONDS,
            ..by_schedule
        };
        let measured = |load: Load<'_>| {
            let before = (handler.cpu(), waited(&handler));
            let report = load.run();
            let (cpu, waited) = (handler.cpu() - before.0, waited(&handler) - before.1);
            (report, each(cpu, load.count), each(waited, load.count))
        };
        Load { count: RATE, ..fast }.run();
        let nothing = nothing.run();
        let (by_schedule, cpu_by_schedule, waited) = measured(by_schedule);
        let (fast, cpu_fast, _) = measured(fast);
        Run { nothing, by_schedule, cpu_by_schedule, waited, fast, cpu_fast, memory: handler.memory("VmRSS") }
    })
}

/// How long its threads were ready to run but did not, so far.
fn waited(handler: &Handler) -> Duration {
    Duration::from_nanos(of_threads(handler.process.0.id(), "schedstat", |text| text.split(' ').nth(1)?.parse().ok()))
}

/// Enough settings to start. The handler connects to no service.
fn settings() -> [(&'static str, String); 5] {
    [
        ("UplinkQueueName", "uplinks".into()),
        ("DPSIDScopeDefault", "0ne00000000".into()),
        ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0".into()),
        ("M2MDocumentsDBUri", "https://127.0.0.1:1/".into()),
        ("M2MDocumentsDBPrimaryKey", "c2VjcmV0".into()),
    ]
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    let cores = sched_getaffinity(None).expect("Linux");
    (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect()
}

/// Runs it on this core. Threads and processes started meanwhile are on that core too.
fn on_core<T: Send>(core: usize, run: impl FnOnce() -> T + Send) -> T {
    let pinned = || {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores).expect("one of our own cores");
        run()
    };
    thread::scope(|scope| scope.spawn(pinned).join()).expect("no panic")
}
