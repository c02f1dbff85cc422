//! Starts the handler as the host does, and reads what it uses.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Process, cpu, memory};

pub struct Handler {
    pub address: SocketAddr,
    pub process: Process,
}

impl Handler {
    /// Starts the handler and polls it until it answers. It runs on the cores of the calling thread.
    pub async fn start(executable: &str, settings: &[(&str, String)], http: &reqwest::Client) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut command = Command::new(executable);
        command.arg("serve").env_clear().stdout(Stdio::null());
        command.envs(settings.iter().map(|(name, value)| (*name, value)));
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", free.port().to_string());
        let started = Instant::now();
        let process = Process(command.spawn().expect("the handler starts"));
        while http.get(format!("http://{free}/")).send().await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the handler does not answer");
        }
        Self { address: free, process }
    }

    /// A line of `/proc/PID/status`, in MiB.
    pub fn memory(&self, field: &str) -> f64 {
        memory(self.process.0.id(), field)
    }

    /// See [`cpu`].
    pub fn cpu(&self) -> Duration {
        cpu(self.process.0.id())
    }
}

/// One run of the timer's function.
#[allow(dead_code, reason = "not every benchmark polls")]
pub async fn invoke(handler: SocketAddr, http: &reqwest::Client) {
    let timer = json!({ "Schedule": { "AdjustForDST": true }, "ScheduleStatus": null, "IsPastDue": false });
    let envelope = json!({ "Data": { "myTimer": timer }, "Metadata": {} });
    let request = http.post(format!("http://{handler}/rapidM2MForwarding")).header("content-type", "application/json");
    let response = request.body(envelope.to_string()).send().await.expect("an answer");
    let status = response.status();
    assert!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
}
