//! Runs sessions and reads what they print.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Lines, Read as _, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A call that hangs fails the test.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two polls of a state that cannot be awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Linux's flag: write to a pipe only as much as fits.
const O_NONBLOCK: i32 = 0o4000;

pub const SITES: [&str; 3] = ["Energy meter 1", "Reservoir Süd", "Well 7 / Level"];

/// A copy of the function app's folder with this local.settings.json.
pub fn app(name: &str, settings: Option<&Value>) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let app = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&app).unwrap();
    fs::copy(source.join("host.json"), app.join("host.json")).unwrap();
    for folder in fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()) {
        let file = folder.join("function.json");
        if file.is_file() {
            let copy = app.join(folder.file_name().unwrap());
            fs::create_dir_all(&copy).unwrap();
            fs::copy(file, copy.join("function.json")).unwrap();
        }
    }
    let file = app.join("local.settings.json");
    match settings {
        Some(values) => fs::write(file, json!({ "IsEncrypted": false, "Values": values }).to_string()).unwrap(),
        None => drop(fs::remove_file(file)),
    }
    app
}

pub fn command(app: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    command.arg("local").args(arguments).current_dir(app).env_remove("RUST_LOG").env_remove("LOG_FORMAT");
    command
}

/// A running session. The test ends it. If the test hangs, the session ends by itself.
pub struct Live {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    runtime: Runtime,
}

impl Live {
    pub fn start(mut command: Command) -> Self {
        let command = command.args(["--for", "60s"]);
        let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, runtime: Runtime::new().unwrap() }
    }

    /// The next line that contains this text.
    pub fn line(&mut self, part: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(part)).unwrap_or_else(|| panic!("no line with {part:?}"))
    }

    /// The first record that the session prints.
    pub fn start_record(&mut self) -> Value {
        serde_json::from_str(&self.line(r#""type":"start""#)).unwrap()
    }

    /// The handler's next line whose message begins with this text.
    pub fn told(&mut self, message: &str) -> Value {
        serde_json::from_str(&self.line(&format!(r#""message":"{message}"#))).unwrap()
    }

    /// Waits until the emulated hub has a message of the device whose commands the session takes.
    pub fn wait_for_uplink(&self, start: &Value) {
        let (hub, device) = start["commands"].as_str().unwrap().split_once("c2d?device=").unwrap();
        let (status, _, messages) = self.get(&format!("{hub}received?device={device}&wait=1&timeout_ms=60000"));
        assert_eq!(status, 200, "{messages}");
        assert_ne!(messages.trim(), "[]", "nothing came from {device}");
    }

    pub fn post(&self, url: &str, body: &Value) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        self.runtime.block_on(client.post(url).body(body.to_string()).send()).unwrap().status().as_u16()
    }

    /// Status, content type and body.
    pub fn get(&self, url: &str) -> (u16, String, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        self.runtime.block_on(async {
            let answer = client.get(url).send().await.unwrap();
            let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
            (answer.status().as_u16(), content_type, answer.text().await.unwrap())
        })
    }

    /// The processes that the session has started.
    pub fn child_processes(&self) -> Vec<u32> {
        let processes = fs::read_dir("/proc").unwrap();
        let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            // A process that has ended meanwhile does not count.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            behind_name.split(' ').nth(1) == Some(&self.child.id().to_string())
        })
        .collect()
    }

    /// From now on the session can print nothing: the pipe is full, and nothing reads from it.
    pub fn fill_output(&self) {
        let stdout = format!("/proc/{}/fd/1", self.child.id());
        // Opens the pipe a second time, so that the session's own writes still block.
        let mut stdout = fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(stdout).unwrap();
        let error = loop {
            if let Err(error) = stdout.write_all(b"\n") {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    }

    /// Sends Ctrl-C again and again, because two signals that come together count as one.
    pub fn interrupt_until_ended(mut self) -> ExitStatus {
        let (pid, give_up) = (self.child.id().to_string(), Instant::now() + PATIENCE);
        loop {
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
            sleep(LOOK_AGAIN);
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > give_up {
                self.child.kill().unwrap();
                panic!("it has not ended after {PATIENCE:?}");
            }
        }
    }

    /// Sends Ctrl-C as a terminal does: to the whole group, including the handler. Returns what is printed from then
    /// on.
    pub fn interrupt(mut self) -> (ExitStatus, String) {
        let group = format!("kill -INT -{}", self.child.id());
        assert!(Command::new("sh").args(["-c", &group]).status().unwrap().success());
        let rest: Vec<_> = self.lines.by_ref().map(Result::unwrap).collect();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(errors, "");
        (self.child.wait().unwrap(), rest.join("\n"))
    }
}

pub fn webhook(application: &str, device: &str) -> Value {
    json!({
        "end_device_ids": { "device_id": device, "application_ids": { "application_id": application } },
        "uplink_message": { "f_port": 1, "f_cnt": 3, "frm_payload": "AQ==" },
    })
}

pub fn last_record(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("a summary")).unwrap()
}

pub fn records(output: &Output) -> Vec<Value> {
    let text = str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The summary lines of the timer's runs.
pub fn runs(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["function.name"] == "rapidM2MForwarding").collect()
}

pub fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}
