//! Measures the cost of uplinks: `cargo bench --bench uplinks`, about six minutes. With `-- accepting`, `-- forwarding` or
//! `-- parsing`, only that part runs.
//!
//! The handler and all emulators run in their own processes. CPU time is the handler's: the kernel's count for the
//! process, all threads together.
//!
//! | Part | |
//! |---|---|
//! | `accepting` | webhooks accepted by `thingsNetworkUplink` alone, on one core |
//! | `forwarding` | from the webhook to the hub's acknowledgement, through the emulated host and its queue |
//! | `parsing` | reading and writing JSON in between, layer by layer |
//! | `envelopes` | captures what the emulated host posts for a webhook |
//! | `load` | posts these envelopes by a schedule, or as fast as they are answered |

mod accepting;
mod envelopes;
mod forwarding;
#[path = "../support/handler.rs"]
mod handler;
mod load;
mod parsing;
#[path = "../support/mod.rs"]
mod support;

/// The function app's folder.
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
    if is_wanted("parsing") {
        parsing::measure();
    }
    println!("load average after: {}", load_average());
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").expect("Linux");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Has its own thread for spawned tasks, even while the caller is blocked.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// The median of several runs of one kind.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds of CPU for each of `count` items.
fn each(cpu: std::time::Duration, count: u32) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(count)
}
