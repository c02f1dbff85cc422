//! Function apps in folders of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use emulators::functions_host::{Options, start};
use serde_json::{Value, json};

/// A timer that does not run by itself while a test runs.
pub const NEVER: &str = "0 0 0 29 2 *";

/// A function app in a folder of its own, removed when dropped.
pub struct App(pub PathBuf);

impl App {
    pub fn new(host: Value, functions: &[(&str, Value)]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("app-{}-{number}", std::process::id()));
        for (name, function) in functions {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("function.json"), function.to_string()).unwrap();
        }
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("host.json"), host.to_string()).unwrap();
        Self(root)
    }

    pub fn options(&self) -> Options {
        Options { app: self.0.clone(), ..Options::default() }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

pub fn timer(schedule: &str) -> Value {
    json!({ "bindings": [{ "type": "timerTrigger", "direction": "in", "name": "myTimer", "schedule": schedule }] })
}

pub fn http(route: &str, methods: &[&str]) -> Value {
    json!({ "bindings": [
        { "type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "function", "route": route, "methods": methods },
        { "type": "http", "direction": "out", "name": "res" },
    ] })
}

pub fn host() -> Value {
    json!({ "version": "2.0", "functionTimeout": "00:00:30" })
}

#[tokio::test]
async fn what_is_wrong_with_an_app_is_said_with_file_and_member() {
    let queue =
        json!({ "bindings": [{ "type": "queueTrigger", "name": "uplink", "direction": "in", "queueName": "q" }] });
    let retried = json!({ "retry": { "strategy": "never", "maxRetryCount": 1 }, "bindings": timer(NEVER)["bindings"] });
    let mut outward = timer(NEVER);
    outward["bindings"][0]["direction"] = json!("out");
    for (host, function, message) in [
        (json!({}), timer(NEVER), "host.json: version is missing"),
        (json!({ "version": "1.0" }), timer(NEVER), "host.json: version must be \"2.0\""),
        (
            json!({ "version": "2.0", "functionTimeout": 5 }),
            timer(NEVER),
            "host.json: functionTimeout must be a string",
        ),
        (host(), timer(NEVER), "host.json: customHandler.description.defaultExecutablePath is missing"),
        (
            json!({ "version": "2.0", "customHandler": { "description": { "defaultExecutablePath": "bin/none" } } }),
            timer(NEVER),
            "host.json: customHandler.description.defaultExecutablePath names no file: ",
        ),
        (
            json!({ "version": "2.0", "customHandler": { "description": { "defaultExecutablePath": "sh", "arguments": [1] } } }),
            timer(NEVER),
            "host.json: customHandler.description.arguments[0] must be a string",
        ),
        (host(), json!({}), "poll/function.json: bindings is missing"),
        (host(), json!({ "bindings": [] }), "poll/function.json: the file has 0 triggers"),
        (host(), timer("* *"), "poll/function.json: bindings[0].schedule is wrong: \"* *\" is no NCRONTAB expression"),
        (
            host(),
            timer("%Nowhere%"),
            "poll/function.json: bindings[0].schedule is \"%Nowhere%\": there is no such setting",
        ),
        (host(), outward, "poll/function.json: bindings[0].direction must be \"in\""),
        (host(), http("a/{b:int}", &[]), "poll/function.json: bindings[0].route is wrong"),
        (host(), http("a", &["SEND"]), "poll/function.json: bindings[0].methods[0] must be one of"),
        (host(), retried, "poll/function.json: retry.strategy must be"),
        (host(), queue, "poll/function.json: bindings[0].type \"queueTrigger\" of poll: this host has no queues"),
    ] {
        let app = App::new(host, &[("poll", function)]);
        let error = start(app.options()).await.err().unwrap().to_string();
        assert!(error.contains(message), "{message}\n{error}");
    }
    let app = App::new(host(), &[]);
    assert!(start(app.options()).await.err().unwrap().to_string().contains("has no folder with a function.json"));
}
