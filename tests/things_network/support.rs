//! Starts everything between The Things Stack and the hub, each part in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use iothub_connector::{
    config::{Problems, ledger},
    cosmos::Account,
    iot_hub::devices::Store,
};
use serde_json::{Value, json};
use tokio::{join, process::Child, time::sleep};

pub use crate::support::start_and_wait_for_exit;
use crate::support::{Emulator, Output, Settings, binary, client};

pub const QUEUE: &str = "uplinks";
/// A call that hangs fails the test.
const PATIENCE: Duration = Duration::from_secs(50);
/// The pause between two polls of a state that cannot be awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The services, and the settings with which the handler finds them.
pub struct World {
    pub cosmos: Emulator,
    pub hub: Emulator,
    pub stack: Emulator,
    pub settings: Settings,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Commands are fetched after uplinks: the hub pushes them over MQTT only.
    pub async fn start_fetching() -> Self {
        let mut world = Self::start().await;
        world.set("IoTHubTransport", "https");
        world
    }

    /// Starts with options of the emulated Things Stack, which sends nothing by itself.
    pub async fn start_with(stack: &[&str]) -> Self {
        let (cosmos, hub, stack) = join!(
            Emulator::start("cosmos", &[]),
            Emulator::start("iot_hub", &["--dps-retry-after", "0"]),
            Emulator::start("things_stack", stack)
        );
        let settings = [
            ("UplinkQueueName", QUEUE),
            ("M2MDocumentsDBUri", cosmos.ready("endpoint")),
            ("M2MDocumentsDBPrimaryKey", cosmos.ready("key")),
            ("DPSGlobalDeviceEndpoint", hub.ready("dps")),
            ("DPSIDScopeDefault", hub.ready("idScope")),
            ("DPSEnrollmentGroupSymmetricKeyDefault", hub.ready("groupKey")),
            ("IoTHubTrustedCa", hub.ready("ca")),
            ("RUST_LOG", "debug"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { cosmos, hub, stack, settings }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// The container of devices.
    pub fn store(&self) -> Store {
        let settings =
            ["M2MDocumentsDBUri", "M2MDocumentsDBPrimaryKey"].map(|name| (name, self.settings[name].as_str()));
        let config = ledger::read(&settings.into_iter().collect(), &mut Problems::default()).unwrap();
        Store::new(Arc::new(Account::new(config.account)))
    }

    pub fn unset(&mut self, name: &str) {
        assert!(self.settings.remove(name).is_some(), "{name} is not set");
    }

    /// Waits until the hub has `count` messages. Returns them with their bodies as JSON.
    pub async fn received(&self, count: usize) -> Vec<Value> {
        let path = format!("received?wait={count}&timeout_ms={}", PATIENCE.as_millis());
        let mut before = 0;
        let mut received = loop {
            let received = self.hub.get(&path).await.as_array().unwrap().clone();
            if received.len() >= count {
                break received;
            }
            // A busy machine is slow, but something always goes on.
            assert!(received.len() > before, "{before} of {count} messages: {received:#?}");
            before = received.len();
        };
        for message in &mut received {
            message["body"] = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        }
        received
    }
}

/// A running host, and how its settings differ from host.json.
pub struct Host {
    child: Child,
    endpoint: String,
    /// The control endpoint of the storage account.
    storage: String,
    output: Output,
    client: reqwest::Client,
}

/// The answer to a webhook.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Value,
}

impl Host {
    /// Runs the app with these settings. A failed message becomes visible again after a second.
    pub async fn start(settings: &Settings) -> Self {
        Self::start_with(settings, json!({ "visibilityTimeout": "00:00:01" }), &[]).await
    }

    /// Starts with other members of host.json's `extensions.queues`, and with options of the host.
    pub async fn start_with(settings: &Settings, queues: Value, options: &[&str]) -> Self {
        let app = app(queues, settings);
        let mut command = binary();
        command.args(["emulator", "functions_host", "--app"]).arg(&app);
        command.args(["--handler", env!("CARGO_BIN_EXE_iothub-connector")]).args(options);
        for (name, value) in settings {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        let mut child = command.spawn().unwrap();
        let output = Output::default();
        let mut line = output.collect(&mut child);
        if line.wait_for(Option::is_some).await.is_err() {
            panic!("the host does not start: {}", output.text());
        }
        let ready: Value = serde_json::from_str(line.borrow().as_deref().unwrap()).unwrap();
        let endpoint = ready["endpoint"].as_str().unwrap().to_owned();
        let storage = ready["storage"].as_str().unwrap_or_default().to_owned();
        Self { child, endpoint, storage, output, client: client() }
    }

    /// The URL for webhooks.
    pub fn target(&self) -> String {
        format!("{}api/uplink", self.endpoint)
    }

    pub async fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        self.post_with(body, &[]).await
    }

    pub async fn post_with(&self, body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Answer {
        self.post_to("", body, headers).await
    }

    /// Posts to a path behind the URL for webhooks.
    pub async fn post_to(&self, path: &str, body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.post(format!("{}{path}", self.target()));
        let has_type = headers.iter().any(|(name, _)| *name == "content-type");
        for (name, value) in headers.iter().chain((!has_type).then_some(&("content-type", "application/json"))) {
            request = request.header(*name, *value);
        }
        let response = request.body(body.into()).send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        Answer { status, content_type, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// Sets a switch of the storage account.
    pub async fn set_storage(&self, switch: &str, value: Value) {
        let url = format!("{}{switch}", self.storage);
        let request = self.client.put(url).header("content-type", "application/json").body(value.to_string());
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// Moves the queues' time to this much ahead of the machine's: what is hidden until then comes back now.
    pub async fn set_clock(&self, ahead: Duration) {
        self.set_storage("clock", json!({"aheadSeconds": ahead.as_secs()})).await;
    }

    /// All messages of a queue.
    pub async fn queue(&self, name: &str) -> Vec<Value> {
        let response = self.client.get(format!("{}admin/queues/{name}", self.endpoint)).send().await.unwrap();
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Vec::new();
        }
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    /// Waits until the queue has `count` texts. Returns them as JSON.
    pub async fn texts(&self, name: &str, count: usize) -> Vec<Value> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let messages = self.queue(name).await;
            if messages.len() >= count {
                let text = |message: &Value| serde_json::from_str(message["text"].as_str().unwrap()).unwrap();
                return messages.iter().map(text).collect();
            }
            assert!(Instant::now() < give_up, "{} of {count} in {name}: {}", messages.len(), self.output.text());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the queue has exactly `count` messages. Returns them.
    pub async fn left(&self, name: &str, count: usize) -> Vec<Value> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let messages = self.queue(name).await;
            if messages.len() == count {
                return messages;
            }
            assert!(Instant::now() < give_up, "{} in {name}, not {count}: {}", messages.len(), self.output.text());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until this is so.
    pub async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !is_so().await {
            assert!(Instant::now() < give_up, "it does not come to that: {}", self.output.text());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Puts a message into a queue directly, not through the function.
    pub async fn put(&self, name: &str, text: impl Into<String>) {
        let url = format!("{}admin/queues/{name}", self.endpoint);
        let response = self.client.post(url).body(text.into()).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
    }

    /// Waits until the queue of uplinks has no message, neither visible nor invisible.
    pub async fn drained(&self) {
        let url = format!("{}admin/queues/{QUEUE}?wait=empty&timeout_ms={}", self.endpoint, PATIENCE.as_millis());
        let mut before = usize::MAX;
        loop {
            let response = self.client.get(&url).timeout(2 * PATIENCE).send().await.unwrap();
            let left: Vec<Value> = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            if left.is_empty() {
                return;
            }
            // A busy machine is slow, but something always goes on.
            assert!(left.len() < before, "{left:?} in the queue: {}", self.output.text());
            before = left.len();
        }
    }

    /// The process ids of the handlers so far.
    fn handlers(&self) -> Vec<u32> {
        let text = self.output.text();
        let pids = text.lines().filter_map(|line| line.strip_prefix("handler started, process "));
        pids.map(|pid| pid.parse().unwrap()).collect()
    }

    /// The process id of the current handler.
    pub fn handler(&self) -> u32 {
        *self.handlers().last().expect("a handler")
    }

    /// Calls an HTTP function. Returns its status and its text.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}api/{path}", self.endpoint)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Runs a timer's function now, without waiting for its end.
    pub async fn run(&self, function: &str) {
        let response = self.client.post(format!("{}admin/functions/{function}", self.endpoint)).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }

    /// Runs a timer's function and waits for its end. Returns the result.
    pub async fn invoke(&self, function: &str) -> Value {
        let url = format!("{}admin/functions/{function}?wait", self.endpoint);
        let response = self.client.post(url).send().await.unwrap();
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    /// Restarts the job host. Returns when the new handler has answered; the old one may still run.
    pub async fn restart(&self) {
        let response = self.client.post(format!("{}admin/host/restart?wait", self.endpoint)).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }

    /// Kills the host, as if the machine had no memory left for it, and not its handler.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGKILL to the handler, as the host does. Waits until the host has started another handler.
    pub async fn kill_handler(&self) {
        let before = self.handlers();
        let pid = before.last().expect("a handler").to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        let give_up = Instant::now() + PATIENCE;
        while self.handlers().len() == before.len() {
            assert!(Instant::now() < give_up, "no new handler: {}", self.output.text());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The output of host and handler.
    pub fn log(&self) -> String {
        self.output.text()
    }

    /// Waits for a line that contains this.
    pub async fn logged(&self, part: &str) {
        self.logged_times(part, 1).await;
    }

    /// Waits until this was logged `count` times.
    pub async fn logged_times(&self, part: &str, count: usize) {
        let give_up = Instant::now() + PATIENCE;
        while self.log().matches(part).count() < count {
            assert!(Instant::now() < give_up, "{part:?} is not logged {count} times: {}", self.log());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends host and handler without a shutdown, as if the machine were switched off.
    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Drop for Host {
    /// A killed host leaves its handler behind, and nothing else would end it.
    fn drop(&mut self) {
        // An error means that the process has already ended.
        let _ = self.child.start_kill();
        if let Some(pid) = self.handlers().last() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

/// A copy of the app's folder with other queue settings. Functions that the settings do not want are left out.
fn app(queues: Value, settings: &Settings) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = format!("app-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join("things_network").join(name);
    let optional = [("PollQueueName", "rapidM2MSites"), ("DownlinkPollSeconds", "thingsNetworkDownlinks")];
    let wanted =
        optional.into_iter().filter(|(setting, _)| settings.contains_key(*setting)).map(|(_, function)| function);
    let functions = ["rapidM2MForwarding", "thingsNetworkUplink", "thingsNetworkForwarding", "status"];
    for function in functions.into_iter().chain(wanted) {
        fs::create_dir_all(app.join(function)).unwrap();
        let file = Path::new(function).join("function.json");
        fs::copy(source.join(&file), app.join(&file)).unwrap();
    }
    let mut host: Value = serde_json::from_slice(&fs::read(source.join("host.json")).unwrap()).unwrap();
    let own = host["extensions"]["queues"].as_object_mut().unwrap();
    own.extend(queues.as_object().unwrap().clone());
    fs::write(app.join("host.json"), host.to_string()).unwrap();
    app
}

/// A V3 webhook.
pub fn uplink(application: &str, device: &str, counter: u32) -> Value {
    json!({
        "end_device_ids": {"device_id": device, "application_ids": {"application_id": application}, "dev_eui": "0004A30B001C0530"},
        "received_at": "2026-01-31T12:00:00.5Z",
        "uplink_message": {
            "session_key_id": "AXA50tHUGUucuzS/bCGMNw==", "f_port": 1, "f_cnt": counter, "frm_payload": "AQ==",
            "decoded_payload": {"level": counter}, "received_at": "2026-01-31T12:00:00.25Z"
        }
    })
}
