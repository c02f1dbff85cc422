//! Runs child processes that end when their handle is dropped, and collects everything they print.

use std::{
    any::Any,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// The product's binary, without any variable of the surrounding environment.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The lines that a process has printed so far, on either stream.
#[derive(Clone, Default)]
pub struct Output(Arc<Mutex<String>>);

impl Output {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Collects both streams of `child`. The receiver gets the first line of standard output.
    pub fn collect(&self, child: &mut Child) -> watch::Receiver<Option<String>> {
        let (first, first_line) = watch::channel(None);
        tokio::spawn(self.clone().read(child.stdout.take().unwrap(), Some(first)));
        tokio::spawn(self.clone().read(child.stderr.take().unwrap(), None));
        first_line
    }

    async fn read(self, stream: impl AsyncRead + Unpin, mut first: Option<watch::Sender<Option<String>>>) {
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            *self.0.lock().unwrap() += &format!("{line}\n");
            if let Some(first) = first.take() {
                first.send_replace(Some(line));
            }
        }
    }
}

/// One of the stand-ins. It ends when this value is dropped.
pub struct Emulator {
    pub ready: Value,
    name: &'static str,
    client: reqwest::Client,
    _running: Box<dyn Any>,
}

impl Emulator {
    pub async fn start(name: &'static str, options: &[&str]) -> Self {
        let mut child = binary().args(["emulator", name]).args(options).spawn().unwrap();
        let output = Output::default();
        let mut line = output.collect(&mut child);
        // The sender is dropped if the process ends without printing a line.
        if line.wait_for(Option::is_some).await.is_err() {
            panic!("emulator {name} does not start: {}", output.text());
        }
        let ready = serde_json::from_str(line.borrow().as_deref().unwrap()).unwrap();
        Self { ready, name, client: client(), _running: Box::new(child) }
    }

    /// A stand-in that runs inside this process.
    pub(super) fn within(name: &'static str, ready: impl Serialize, running: impl Any) -> Self {
        Self { ready: serde_json::to_value(ready).unwrap(), name, client: client(), _running: Box::new(running) }
    }

    pub fn ready(&self, member: &str) -> &str {
        self.ready[member].as_str().unwrap_or_else(|| panic!("no {member} in {}", self.ready))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).await
    }

    pub async fn put(&self, path: &str, body: Value) {
        self.call("PUT", path, Some(body)).await;
    }

    pub async fn post(&self, path: &str, body: Value) {
        self.call("POST", path, Some(body)).await;
    }

    pub async fn delete(&self, path: &str) {
        self.call("DELETE", path, None).await;
    }

    /// Ends all faults.
    pub async fn heal(&self) {
        self.delete("faults").await;
    }

    pub async fn away(&self, away: bool) {
        self.put("away", away.into()).await;
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.ready("control"));
        let mut request = self.client.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{} {method} {path}: {status} {text}", self.name);
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}

/// Longer than any invocation. A call that hangs fails the test.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn client() -> reqwest::Client {
    // These calls use no TLS, so the client does not load the platform's certificates, which takes time.
    reqwest::Client::builder().tls_certs_only([]).no_proxy().timeout(PATIENCE).build().unwrap()
}
