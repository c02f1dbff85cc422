//! Runs emulators as commands: what they print, and what their control endpoints list.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Command, Stdio},
};

use reqwest::{Method, StatusCode, header::ALLOW};
use serde_json::Value;

struct Running {
    process: Child,
    ready: Value,
    stderr: ChildStderr,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emulators"));
        let command = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (ready, stderr) = (serde_json::from_str(&line).expect("one line of JSON"), process.stderr.take().unwrap());
        Self { process, ready, stderr }
    }

    fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap_or_else(|| panic!("{name} is not in {}", self.ready))
    }

    /// Ends it. Returns what it said.
    fn said(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        said
    }
}

#[tokio::test]
async fn a_control_endpoint_lists_what_it_takes() {
    for emulator in ["rapidm2m", "cosmos", "storage", "iot_hub", "things_stack"] {
        let running = Running::start(&[emulator]);
        let control = running.text("control").to_owned();
        let listed = reqwest::get(&control).await.unwrap().text().await.unwrap();
        assert!(listed.lines().count() > 2, "{emulator}: {listed}");
        for line in listed.lines() {
            let (methods, rest) = line.split_once("  ").unwrap();
            let path = rest.trim_start().split_once(' ').unwrap().0.replace("{name}", "x");
            let url = format!("{control}{}", &path[1..]);
            // No route takes it, so the answer says what the route takes.
            let response = reqwest::Client::new().request(Method::PATCH, url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{emulator}: {line}");
            let allowed = response.headers()[ALLOW].to_str().unwrap();
            let allowed: BTreeSet<_> = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD").collect();
            assert_eq!(methods.trim().split(", ").collect::<BTreeSet<_>>(), allowed, "{emulator}: {line}");
        }
        running.said();
    }
}

#[tokio::test]
async fn requests_and_faults_are_lines_on_standard_error() {
    let running = Running::start(&["rapidm2m", "--no-generate"]);
    let (endpoint, control) = (running.text("endpoint").to_owned(), running.text("control").to_owned());
    let client = reqwest::Client::new();
    let rules = r#"[{"path": "/me", "times": 1, "effect": "garbage"}]"#;
    let set = client.put(format!("{control}trouble")).header("content-type", "application/json").body(rules);
    assert_eq!(set.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    for _ in 0..2 {
        client.get(format!("{endpoint}me?secret=hunter2")).send().await.unwrap();
    }
    let said = running.said();
    let parts = ["a rule gives GET /api/1/me garbage", "GET /api/1/me: 200 in ", "GET /api/1/me: 401 in "];
    for part in parts {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}
