//! The processes of a benchmark, and their memory and CPU time from the kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

pub const BINARY: &str = env!("CARGO_BIN_EXE_iothub-connector");

/// A process that is killed when this is dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// A stand-in in its own process.
pub struct Emulator {
    pub ready: Value,
    process: Process,
}

impl Emulator {
    /// See [`cpu`].
    #[allow(dead_code, reason = "not every benchmark asks")]
    pub fn cpu(&self) -> Duration {
        cpu(self.process.0.id())
    }
}

pub fn emulator(arguments: &[&str]) -> Emulator {
    let mut command = Command::new(BINARY);
    command.arg("emulator").args(arguments).env("RUST_LOG", "error").stdout(Stdio::piped());
    if arguments[0] == "functions_host" {
        // It prints every invocation.
        command.stderr(Stdio::null());
    }
    let mut process = command.spawn().expect("the emulator starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a ready line");
    Emulator { ready: serde_json::from_str(&line).expect("JSON"), process: Process(process) }
}

/// How long the threads of a process that are there have run so far, to the nanosecond. (Of threads that have ended the kernel
/// tells no more than to 10 ms.)
pub fn cpu(pid: u32) -> Duration {
    Duration::from_nanos(of_threads(pid, "schedstat", |text| text.split(' ').next()?.parse().ok()))
}

/// How often the threads of a process have stopped so far for another one to run.
#[allow(dead_code, reason = "not every benchmark asks")]
pub fn switches(pid: u32) -> u64 {
    of_threads(pid, "status", |text| {
        text.lines()
            .filter(|line| line.contains("ctxt_switches"))
            .map(|line| line.split('\t').nth(1)?.parse::<u64>().ok())
            .sum()
    })
}

/// The sum of what a file in `/proc` says of each thread of a process.
pub fn of_threads(pid: u32, file: &str, value: impl Fn(&str) -> Option<u64>) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("Linux");
    // A thread may end meanwhile.
    let of_thread = |path: PathBuf| Some(value(&fs::read_to_string(path.join(file)).ok()?).expect("a number"));
    threads.filter_map(|thread| of_thread(thread.expect("a thread").path())).sum()
}

/// A line of `/proc/PID/status`, in MiB.
pub fn memory(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kib: f64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number");
    kib / 1024.0
}
