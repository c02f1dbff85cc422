//! Runs and calls the handler as the Functions host does.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use serde_json::Value;
use tokio::process::Child;

use super::process::{Output, binary, client};

/// The body that the host posts when a timer is due.
pub const TIMER: &str = include_str!("../fixtures/host/timer.json");
const PATIENCE: Duration = Duration::from_secs(60);
/// The same interval as the host's.
const PROBE: Duration = Duration::from_millis(25);
/// The size of a posted chunk, in bytes.
const PIECE: usize = 64;
/// Another test may take a port that was free a moment ago.
const PORTS_TRIED: usize = 5;

pub struct Handler {
    child: Child,
    port: u16,
    client: reqwest::Client,
    output: Output,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Handler {
    /// Starts the handler with only these settings, and waits until it answers.
    pub async fn start(settings: &BTreeMap<String, String>, output: Output) -> Self {
        for _ in 0..PORTS_TRIED {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = binary()
                .arg("serve")
                .envs(settings)
                .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
                .spawn()
                .unwrap();
            output.collect(&mut child);
            let mut handler = Self { child, port, client: client(), output: output.clone() };
            if handler.is_ready().await {
                return handler;
            }
        }
        panic!("the handler does not start: {}", output.text());
    }

    /// Probes until the handler answers. Returns `false` if the process ends instead.
    async fn is_ready(&mut self) -> bool {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if self.client.get(self.url("/")).send().await.is_ok() {
                // The answer must come from this process.
                return self.child.try_wait().unwrap().is_none();
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(PROBE).await;
        }
        panic!("the handler is not ready after {PATIENCE:?}: {}", self.output.text());
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Runs the timer's function once.
    pub async fn invoke(&self) -> Answer {
        self.post("/rapidM2MForwarding", TIMER).await
    }

    /// Runs once; the run must succeed.
    pub async fn invoke_ok(&self) {
        let answer = self.invoke().await;
        assert_eq!(answer.status, 200, "{} {}", answer.body, self.output.text());
        assert!(answer.body["Outputs"].is_object(), "the host hangs without an object: {}", answer.body);
    }

    /// Runs once; the run must fail. Returns the failed sites with their kinds, sorted.
    pub async fn invoke_failing(&self) -> Vec<(String, String)> {
        let answer = self.invoke().await;
        assert_eq!(answer.status, 500, "{} {}", answer.body, self.output.text());
        answer.failed()
    }

    /// Runs until one run succeeds, at most `most` times.
    pub async fn invoke_until_ok(&self, most: usize) {
        let mut answer = self.invoke().await;
        for _ in 1..most {
            if answer.status == 200 {
                break;
            }
            answer = self.invoke().await;
        }
        assert_eq!(answer.status, 200, "after {most} runs: {} {}", answer.body, self.output.text());
    }

    /// Posts as the host does.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        answer(self.request(path, body)).await
    }

    /// A request as the host posts it: chunked.
    pub fn request(&self, path: &str, body: impl Into<Bytes>) -> reqwest::RequestBuilder {
        let body = body.into();
        let piece = |at: usize| body.slice(at..body.len().min(at + PIECE));
        let chunks = (0..body.len()).step_by(PIECE).map(|at| Ok::<_, std::io::Error>(piece(at)));
        self.client
            .post(self.url(path))
            .header("content-type", "application/json; charset=utf-8")
            .header("x-azure-functions-invocationid", "5b2f9c6e-0000-4000-8000-000000000000")
            .header("x-azure-functions-hostversion", "4.1037.0")
            .body(reqwest::Body::wrap_stream(stream::iter(chunks.collect::<Vec<_>>())))
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.client.get(self.url(path))).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends Ctrl-C.
    pub fn interrupt(&self) {
        let pid = self.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    pub fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    /// Waits until the handler accepts no more calls.
    pub async fn is_closed(&self) {
        let give_up = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(self.address()).await.is_ok() {
            assert!(Instant::now() < give_up, "it still takes calls: {}", self.output.text());
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Waits until the handler ends by itself.
    pub async fn ended(mut self) -> std::process::ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it has not ended after {PATIENCE:?}: {}", self.output.text())).unwrap()
    }

    /// Sends SIGKILL, as the host does. Returns when the process is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    assert_eq!(kind.as_deref(), Some("application/json"), "the host takes nothing else");
    Answer { status, body: serde_json::from_str(&response.text().await.unwrap()).unwrap() }
}

impl Answer {
    /// The failed sites with their kinds, sorted.
    pub fn failed(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let failed = self.body["Failed"].as_array().unwrap_or_else(|| panic!("no Failed in {}", self.body));
        let mut failed: Vec<_> = failed.iter().map(|one| (text(&one["Site_Id"]), text(&one["Kind"]))).collect();
        failed.sort();
        failed
    }
}

/// Starts on a developer's machine with settings that stop the start. Returns the exit code and standard error.
pub async fn start_and_wait_for_exit(settings: &BTreeMap<String, String>) -> (Option<i32>, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = binary();
    command.arg("serve").envs(settings).env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string());
    command.env("AZURE_FUNCTIONS_ENVIRONMENT", "Development");
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it must end by itself").unwrap();
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8(output.stdout));
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
