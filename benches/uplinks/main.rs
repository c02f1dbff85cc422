//! What uplinks cost: `cargo bench --bench uplinks`, about six minutes; with `-- accepting` or `-- forwarding` only that part.
//!
//! The handler and all emulators run in processes of their own. CPU time is the handler's: the kernel's count for the
//! process, all threads together.
//!
//! | Part | |
//! |---|---|
//! | `accepting` | webhooks accepted by `thingsNetworkUplink` alone, on one core |
//! | `forwarding` | from the webhook to the hub's acknowledgement, through the emulated host and its queue |
//! | `envelopes` | what the host posts for a webhook, captured from the emulated one |
//! | `load` | posts them by a schedule, or as fast as they are answered |

mod accepting;
mod envelopes;
mod forwarding;
#[path = "../support/handler.rs"]
mod handler;
mod load;
#[path = "../support/mod.rs"]
mod support;

/// The function app.
const APP: &str = env!("CARGO_MANIFEST_DIR");

fn main() {
    let asked_for: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |part: &str| asked_for.is_empty() || asked_for.iter().any(|asked| asked == part);
    println!("load average before: {}", load_average());
    if is_wanted("accepting") {
        accepting::measure();
    }
    if is_wanted("forwarding") {
        forwarding::measure();
    }
    println!("load average after: {}", load_average());
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").expect("Linux");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// With a thread for what is spawned, whatever the caller waits for.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// What several runs of one kind came to.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds of CPU for each of so many.
fn each(cpu: std::time::Duration, count: u32) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(count)
}
