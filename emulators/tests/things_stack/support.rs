//! A stand-in with its client, and a target for its webhooks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
};
use emulators::things_stack::{self, Emulator, Options, Sending};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

/// Nothing in these tests takes that long, so a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each test has its own stand-in.
pub struct Stack {
    pub emulator: Emulator,
    pub client: Client,
}

impl Stack {
    pub async fn start(options: Options) -> Self {
        let options = Options { seed: Some(1), ..options };
        let emulator = things_stack::start(options).await.unwrap();
        Self { emulator, client: Client::builder().no_proxy().build().unwrap() }
    }

    pub fn control(&self, path: &str) -> String {
        format!("{}{path}", self.emulator.ready().control)
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.client.get(self.control(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        json(response).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(self.control(path)).body(body.to_string()).send().await.unwrap()
    }

    pub async fn delete(&self, path: &str) {
        assert_eq!(self.client.delete(self.control(path)).send().await.unwrap().status(), 204);
    }

    /// Starts a run and waits for its end. Returns the statistics.
    pub async fn send(&self, body: Value) -> Value {
        let response = self.post("send", body).await;
        assert_eq!(response.status(), 202);
        let sent = self.get("sent?wait=done&timeout_ms=30000").await;
        assert_eq!(sent["isDone"], true, "{sent}");
        sent
    }

    /// Posts downlinks with the right key.
    pub async fn downlink(&self, path: &str, body: &str) -> reqwest::Result<Response> {
        let ready = self.emulator.ready();
        let request = self.client.post(format!("{}as/{path}", ready.endpoint)).bearer_auth(&ready.apikey);
        request.body(body.to_owned()).send().await
    }
}

pub async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// Sends only uplinks, as fast as possible.
pub fn uplinks_only() -> Options {
    let sending = Sending {
        rate: 0.0,
        v2_share: 0.0,
        repeat_share: 0.0,
        malformed_share: 0.0,
        event_share: 0.0,
        ..Sending::default()
    };
    Options { devices: 10, sending, ..Options::default() }
}

/// A webhook that the target received.
#[derive(Clone, Debug)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Number of requests of the same device that were being answered when it arrived, including itself.
    pub at_a_time: usize,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Application and device, if the body names them.
    pub fn device(&self) -> Option<(String, String)> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let ids = &body["end_device_ids"];
        let text = |v3: &Value, v2: &Value| v3.as_str().or(v2.as_str()).map(str::to_owned);
        Some((
            text(&ids["application_ids"]["application_id"], &body["app_id"])?,
            text(&ids["device_id"], &body["dev_id"])?,
        ))
    }
}

/// A target for webhooks. It answers with the requested statuses in order, then with 202. A body without a device gets
/// 400.
pub struct Target {
    pub url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    got: watch::Sender<Vec<Got>>,
    answers: Mutex<Vec<StatusCode>>,
    open: Semaphore,
    answering: Mutex<HashMap<Option<(String, String)>, usize>>,
}

impl Target {
    pub async fn start() -> Self {
        Self::start_with(Semaphore::MAX_PERMITS).await
    }

    /// Answers only this many requests; the others wait until [`Target::release`].
    pub async fn start_with(permits: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/uplink?code=s3cr3t", listener.local_addr().unwrap());
        let state = Arc::new(State {
            got: watch::Sender::default(),
            answers: Mutex::default(),
            open: Semaphore::new(permits),
            answering: Mutex::default(),
        });
        let shared = state.clone();
        let router =
            Router::new().fallback(move |headers: HeaderMap, body: Bytes| answer(shared.clone(), headers, body));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, server }
    }

    /// Sets the statuses of the next answers.
    pub fn answer_with(&self, statuses: &[u16]) {
        let statuses = statuses.iter().rev().map(|status| StatusCode::from_u16(*status).unwrap());
        *self.state.answers.lock().unwrap() = statuses.collect();
    }

    pub fn release(&self, permits: usize) {
        self.state.open.add_permits(permits);
    }

    pub fn got(&self) -> Vec<Got> {
        self.state.got.borrow().clone()
    }

    /// Waits until this many webhooks have arrived.
    pub async fn wait(&self, count: usize) -> Vec<Got> {
        let mut got = self.state.got.subscribe();
        let come = timeout(PATIENCE, got.wait_for(|got| got.len() >= count)).await;
        let is_late = come.is_err();
        // The borrowed value holds a lock on the channel.
        drop(come);
        assert!(!is_late, "{} of {count} have come", self.got().len());
        self.got()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(state: Arc<State>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    let mut got = Got { headers, body, at_a_time: 0 };
    let device = got.device();
    {
        let mut answering = state.answering.lock().unwrap();
        let at_a_time = answering.entry(device.clone()).or_default();
        *at_a_time += 1;
        got.at_a_time = *at_a_time;
    }
    state.got.send_modify(|all| all.push(got));
    state.open.acquire().await.unwrap().forget();
    *state.answering.lock().unwrap().get_mut(&device).unwrap() -= 1;
    let demanded = state.answers.lock().unwrap().pop();
    let usual = if device.is_some() { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    (demanded.unwrap_or(usual), "noted")
}
