//! Webhooks accepted: the handler on one core, the load on another if there is one. It talks to nobody else.

use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    each,
    envelopes::capture,
    handler::Handler,
    load::{Load, Report},
    median, runtime,
};

/// Different webhooks, posted over and over.
const WEBHOOKS: usize = 1_000;
const RUNS: usize = 5;
const RATE: u32 = 1_000;
const SECONDS: u32 = 10;
/// Connections of the host.
const CONNECTIONS: usize = 32;
/// Requests as fast as they are answered, for each run.
const FAST: u32 = 30_000;

/// One run: first by the schedule, then as fast as possible.
struct Run {
    by_schedule: Report,
    cpu_by_schedule: f64,
    fast: Report,
    cpu_fast: f64,
    memory: f64,
}

pub fn measure() {
    let requests = runtime().block_on(capture(WEBHOOKS));
    let bytes: usize = requests.iter().map(Vec::len).sum();
    let cores = cores();
    let (ours, theirs) = (cores[0], cores[cores.len() - 1]);
    println!("\nwebhooks accepted, handler on core {theirs}, load on core {ours}, median of {RUNS} runs");
    println!("  requests of {} bytes on average, {CONNECTIONS} connections", bytes / requests.len());
    let runs: Vec<_> = (0..RUNS).map(|_| run(&requests, ours, theirs)).collect();
    let of = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let ms = |micros: u64| micros as f64 / 1e3;
    println!("  at {RATE}/s for {SECONDS} s");
    let at = |quantile| of(&|run| ms(run.by_schedule.answer.value_at_quantile(quantile)));
    println!("    answered in, from the scheduled time: p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    println!("    slowest of a run                      {:.2} ms", of(&|run| ms(run.by_schedule.answer.max())));
    let each_p99: Vec<_> =
        runs.iter().map(|run| format!("{:.2}", ms(run.by_schedule.answer.value_at_quantile(0.99)))).collect();
    println!("    p99 of each run                       {} ms", each_p99.join(", "));
    let late = |quantile| of(&|run| ms(run.by_schedule.late.value_at_quantile(quantile)));
    println!("    of this, sent late by                 p50 {:.2} ms, p99 {:.2} ms", late(0.5), late(0.99));
    println!("    CPU of the handler                    {:.0} µs a webhook", of(&|run| run.cpu_by_schedule));
    println!("  as fast as possible, {FAST} webhooks");
    let rate = of(&|run| f64::from(FAST) / run.fast.took.as_secs_f64());
    println!("    accepted                              {rate:.0}/s");
    println!("    CPU of the handler                    {:.0} µs a webhook", of(&|run| run.cpu_fast));
    let at = |quantile| of(&|run| ms(run.fast.answer.value_at_quantile(quantile)));
    println!("    answered in                           p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    println!("    RSS                                   {:.0} MiB", of(&|run| run.memory));
}

fn run(requests: &[Vec<u8>], ours: usize, theirs: usize) -> Run {
    let handler = on_core(theirs, || runtime().block_on(Handler::start(&settings(), &reqwest::Client::new())));
    on_core(ours, || {
        let fast = Load { address: handler.address, requests, connections: CONNECTIONS, rate: None, count: FAST };
        let by_schedule = Load { rate: Some(RATE), count: RATE * SECONDS, ..fast };
        let measured = |load: Load<'_>| {
            let before = handler.cpu();
            let report = load.run();
            (report, each(handler.cpu() - before, load.count))
        };
        Load { count: RATE, ..fast }.run();
        let (by_schedule, cpu_by_schedule) = measured(by_schedule);
        let (fast, cpu_fast) = measured(fast);
        Run { by_schedule, cpu_by_schedule, fast, cpu_fast, memory: handler.memory("VmRSS") }
    })
}

/// Enough to start; nobody is connected to.
fn settings() -> [(&'static str, String); 5] {
    [
        ("UplinkQueueName", "uplinks".into()),
        ("DPSIDScopeDefault", "0ne00000000".into()),
        ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0".into()),
        ("M2MDocumentsDBUri", "https://127.0.0.1:1/".into()),
        ("M2MDocumentsDBPrimaryKey", "c2VjcmV0".into()),
    ]
}

/// Those that we may run on.
fn cores() -> Vec<usize> {
    let cores = sched_getaffinity(None).expect("Linux");
    (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect()
}

/// Threads and processes that are started meanwhile are on that core too.
fn on_core<T: Send>(core: usize, run: impl FnOnce() -> T + Send) -> T {
    let pinned = || {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores).expect("one of our own cores");
        run()
    };
    thread::scope(|scope| scope.spawn(pinned).join()).expect("no panic")
}
