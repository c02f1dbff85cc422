//! The processes of a benchmark, and their memory and CPU time from the kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
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
    /// User and system time so far.
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

/// User and system time of a process so far. The kernel counts in steps of 10 ms.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// A line of `/proc/PID/status`, in MiB.
pub fn memory(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kib: f64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number");
    kib / 1024.0
}
