//! Tests the unpacked package as the host starts it: in its folder, with only the port and the app's settings in the
//! environment.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use xtask::root;

use crate::support::{app, unpack, zip};

/// How long the host waits for the first answer.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often the host polls for it.
const PROBE: Duration = Duration::from_millis(25);

/// The command in host.json (`serve`), in the unpacked folder.
fn handler(folder: &Path, settings: &BTreeMap<String, String>) -> Command {
    let host: Value = serde_json::from_slice(&fs::read(folder.join("host.json")).unwrap()).unwrap();
    let description = &host["customHandler"]["description"];
    let mut command = Command::new(folder.join(description["defaultExecutablePath"].as_str().unwrap()));
    let arguments = description["arguments"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    command.args(arguments).current_dir(folder).env_clear().envs(settings);
    command
}

/// The settings of the example. They are complete, but their addresses lead nowhere.
fn settings() -> BTreeMap<String, String> {
    let example = fs::read(root().join("local.settings.json.example")).unwrap();
    let example: Value = serde_json::from_slice(&example).unwrap();
    let settings: BTreeMap<String, String> = serde_json::from_value(example["Values"].clone()).unwrap();
    settings.into_iter().map(|(name, value)| (name, filled_in(&value))).collect()
}

/// The value with something that can be decoded, and that is a part of a host name, in place of the placeholder.
fn filled_in(value: &str) -> String {
    let Some((before, rest)) = value.split_once("REPLACEwith") else { return value.to_owned() };
    format!("{before}dTpw{}", rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()))
}

/// A handler. Dropping it kills the handler, as the host would.
struct Running(Child, SocketAddr);

impl Running {
    fn start(folder: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = handler(folder, &settings());
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", address.port().to_string());
        let mut running = Self(command.stdout(Stdio::null()).spawn().unwrap(), address);
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert_eq!(running.0.try_wait().unwrap(), None, "it has ended");
            assert!(started.elapsed() < READY_WITHIN, "it does not answer");
            std::thread::sleep(PROBE);
        }
        running
    }

    /// The status of an answer.
    fn status(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.1).unwrap();
        stream.set_read_timeout(Some(READY_WITHIN)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_whitespace().nth(1).unwrap_or_else(|| panic!("no HTTP: {answer:?}")).to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn unpacked(name: &str) -> PathBuf {
    unpack(&zip(), name)
}

#[test]
fn it_answers_the_host_and_has_every_function() {
    let running = Running::start(&unpacked("started"));
    assert_eq!(running.status("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "200");
    let post = |function: &str| {
        // No function accepts this body as a call, so nothing runs.
        let head = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2";
        running.status(&format!("POST /{function} HTTP/1.1\r\n{head}\r\n\r\n[]"))
    };
    for function in app().functions {
        assert_eq!(post(&function), "400", "{function}");
    }
    assert_eq!(post("noSuchFunction"), "404");
}

fn without_settings(port: &str) -> Output {
    let mut command = handler(&unpacked("without-settings"), &BTreeMap::new());
    // In Azure it would go on, and say so with each call.
    command.env("AZURE_FUNCTIONS_ENVIRONMENT", "Development");
    command.env("FUNCTIONS_CUSTOMHANDLER_PORT", port).output().unwrap()
}

#[test]
fn without_settings_it_says_so_in_fewer_lines_than_the_host_shows() {
    let output = without_settings("1");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(text.contains("M2MBackendURL") && text.contains("UplinkQueueName"), "{text}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn it_has_the_commands_for_people_but_not_those_of_the_stand_ins() {
    let executable = unpacked("commands").join(app().executable);
    let help = Command::new(executable).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let has = |command: &str| help.lines().any(|line| line.trim_start().starts_with(command));
    assert!(has("serve ") && has("sas ") && has("devices "), "{help}");
    assert!(!has("local ") && !has("emulator "), "{help}");
}
