//! Makes function apps in temporary folders.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use emulators::functions_host::{Event, Level, Options, Stream, start};
use serde_json::{Value, json};

use crate::handler::Handler;

/// The schedule of a timer that does not run during a test.
pub const NEVER: &str = "0 0 0 29 2 *";

/// A function app in its own folder. Dropping it removes the folder.
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

/// A function with a queue trigger.
pub fn triggered_by(queue: &str) -> Value {
    json!({ "bindings": [
        { "type": "queueTrigger", "direction": "in", "name": "uplink", "queueName": queue, "connection": "Account" },
    ] })
}

/// Adds an output to a queue.
pub fn with_output(mut function: Value, binding: &str, queue: &str) -> Value {
    let output =
        json!({ "type": "queue", "direction": "out", "name": binding, "queueName": queue, "connection": "Account" });
    function["bindings"].as_array_mut().unwrap().push(output);
    function
}

/// The host with settings for its queues.
pub fn host_with(queues: Value) -> Value {
    json!({ "version": "2.0", "functionTimeout": "00:00:30", "extensions": { "queues": queues } })
}

pub fn host() -> Value {
    json!({ "version": "2.0", "functionTimeout": "00:00:30" })
}

#[tokio::test]
async fn what_is_wrong_with_an_app_is_said_with_file_and_member() {
    let retried = json!({ "retry": { "strategy": "never", "maxRetryCount": 1 }, "bindings": timer(NEVER)["bindings"] });
    let (mut binary, mut retried_message) = (triggered_by("uplinks"), triggered_by("uplinks"));
    binary["bindings"][0]["dataType"] = json!("binary");
    retried_message["retry"] = json!({});
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
        (
            host(),
            timer("* *"),
            "poll/function.json: bindings[0].schedule is wrong: \"* *\" is not an NCRONTAB expression",
        ),
        (
            host(),
            timer("%Nowhere%"),
            "poll/function.json: bindings[0].schedule is \"%Nowhere%\": there is no such setting",
        ),
        (host(), outward, "poll/function.json: bindings[0].direction must be \"in\""),
        (host(), http("a/{b:int}", &[]), "poll/function.json: bindings[0].route is wrong"),
        (host(), http("a", &["SEND"]), "poll/function.json: bindings[0].methods[0] must be one of"),
        (host(), retried, "poll/function.json: retry.strategy must be"),
        (
            host(),
            triggered_by("%Queue%-x"),
            "poll/function.json: bindings[0].queueName has %Queue%: there is no setting Queue",
        ),
        (host(), triggered_by("50%"), "poll/function.json: bindings[0].queueName has a % without a second one"),
        (
            host(),
            triggered_by("up_links"),
            "poll/function.json: bindings[0].queueName is \"up_links\": a queue's name has lower",
        ),
        (host(), json!({ "bindings": [{ "type": "queueTrigger", "name": "q" }] }), "bindings[0].queueName is missing"),
        (
            host(),
            with_output(timer(NEVER), "rejected", "x"),
            "poll/function.json: bindings[1].queueName is \"x\": a queue's name has 3 to 63 characters",
        ),
        (host(), binary, "poll/function.json: bindings[0].dataType must be \"string\""),
        (host(), retried_message, "poll/function.json: retry is for timers only"),
        (host_with(json!({ "batchSize": 33 })), timer(NEVER), "host.json: extensions.queues.batchSize must be 1 to 32"),
        (
            host_with(json!({ "maxDequeueCount": 0 })),
            timer(NEVER),
            "extensions.queues.maxDequeueCount must be 1 or more",
        ),
        (
            host_with(json!({ "maxPollingInterval": "00:00:00.099" })),
            timer(NEVER),
            "host.json: extensions.queues.maxPollingInterval must be 00:00:00.100 or more",
        ),
        (host_with(json!({ "visibilityTimeout": 5 })), timer(NEVER), "queues.visibilityTimeout must be a string"),
        (host_with(json!({ "messageEncoding": "hex" })), timer(NEVER), "queues.messageEncoding must be \"base64\" or"),
    ] {
        let app = App::new(host, &[("poll", function)]);
        let error = start(app.options()).await.err().unwrap().to_string();
        assert!(error.contains(message), "{message}\n{error}");
    }
    let app = App::new(host(), &[]);
    assert!(start(app.options()).await.err().unwrap().to_string().contains("has no folder with a function.json"));
}

#[tokio::test]
async fn what_is_wrong_with_an_account_is_said_without_its_secrets() {
    for (name, value, message) in [
        ("Account", "", "connection is \"Account\", and that setting is not a connection string with an AccountName"),
        ("Account", "AccountName=a;AccountKey=?secret", "that setting has an AccountKey that is not Base64"),
        ("AzureWebJobsAccount", "AccountName=a", "that setting has no AccountKey"),
        (
            "Account__queueServiceUri",
            "https://a",
            "there is a setting Account__queueServiceUri: this host cannot use an identity",
        ),
    ] {
        let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
        let env = vec![(name.to_owned(), value.to_owned())];
        let error = start(Options { env, ..app.options() }).await.err().unwrap().to_string();
        assert!(error.contains("work/function.json: bindings[0].connection") && error.contains(message), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_function_without_its_setting_is_in_error_and_the_others_run() {
    let app = App::new(host(), &[("work", triggered_by("%Nowhere%")), ("poll", timer(NEVER))]);
    let handler = Handler::start().await;
    for switch in [Some("AzureWebJobs.work.Disabled"), Some("AzureWebJobs_work_Disabled"), None] {
        let env = switch.map(|switch| (switch.to_owned(), "true".to_owned())).into_iter().collect();
        let host = handler.hosted(&app, Options { env, ..Options::default() }).await;
        assert_eq!(host.ready().functions, ["poll"]);
        assert!(host.ready().queues.is_empty());
        let mut events = host.events();
        let mut levels = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let Event::Line { stream: Stream::Host, level, text } = event {
                assert!(text.contains("'work'"), "{text}");
                levels.push(level);
            }
        }
        assert_eq!(levels, [Level::Error, Level::Warning]);
    }
    let host = handler.hosted(&app, Options { without: vec!["work".to_owned()], ..Options::default() }).await;
    assert_eq!(host.ready().functions, ["poll"]);
    let mut events = host.events();
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::Line { stream: Stream::Host, .. }), "as if it were not there: {event:?}");
    }
}
