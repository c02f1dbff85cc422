//! Tests the handler's process: its start, its environment, its end.

use std::{
    collections::HashMap, fs, net::TcpStream, os::unix::process::ExitStatusExt as _, path::Path, time::Duration,
};

use axum::{Router, extract::Request};
use emulators::functions_host::{Emulator, Event, Level, Options, Stream, start};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::broadcast,
    time::{sleep, timeout},
};

use crate::{
    PATIENCE,
    app::{App, NEVER, timer, triggered_by},
    client,
};

fn launched(executable: &str, arguments: &[&str]) -> Value {
    json!({ "version": "2.0", "functionTimeout": "00:00:01", "customHandler": { "description": {
        "defaultExecutablePath": executable, "arguments": arguments,
    } } })
}

#[tokio::test]
async fn a_handler_that_fails_three_times_stops_the_host() {
    let script = "echo run >> runs; for n in 1 2 3 4; do echo line $n >&2; done; exit 3";
    let app = App::new(launched("sh", &["-c", script]), &[("poll", timer(NEVER))]);
    let error = start(app.options()).await.err().unwrap().to_string();
    assert!(error.contains("failed 3 times") && error.contains("exit status: 3"), "{error}");
    assert!(error.ends_with(": line 2\nline 3\nline 4"), "{error}");
    assert_eq!(fs::read_to_string(app.0.join("runs")).unwrap(), "run\nrun\nrun\n", "it runs in the app's folder");
}

#[tokio::test]
async fn a_handler_that_exits_with_0_is_started_again_and_that_counts_for_nothing() {
    let script = "echo run >> runs; test $(wc -l < runs) -gt 4";
    let app = App::new(launched("sh", &["-c", &format!("! {{ {script}; }}")]), &[("poll", timer(NEVER))]);
    let error = start(Options { restarts: 0, ..app.options() }).await.err().unwrap().to_string();
    assert!(error.contains("failed 1 times"), "{error}");
    assert_eq!(fs::read_to_string(app.0.join("runs")).unwrap(), "run\n".repeat(5));
}

#[tokio::test]
async fn a_handler_that_does_not_answer_in_time_has_failed_and_is_started_again() {
    let app = App::new(launched("sh", &["-c", "echo run >> runs; exec sleep 60"]), &[("poll", timer(NEVER))]);
    let options = Options { ready_within: Duration::from_millis(300), ..app.options() };
    let error = start(options).await.err().unwrap().to_string();
    assert!(error.contains("failed 3 times") && error.contains("it did not answer GET"), "{error}");
    assert_eq!(fs::read_to_string(app.0.join("runs")).unwrap(), "run\n".repeat(3));
}

#[tokio::test]
async fn a_handler_that_cannot_be_started_is_named() {
    let app = App::new(launched("no-such-executable", &[]), &[("poll", timer(NEVER))]);
    let error = start(app.options()).await.err().unwrap().to_string();
    assert!(error.contains("cannot start no-such-executable"), "{error}");
}

/// Number of calls that crash the handler in "crash at first".
const CRASHES: usize = 3;

/// No test by itself: the tests below let the host start this executable with this function as its handler. `/poll`
/// answers with its environment, or fails as a setting says.
#[tokio::test]
#[ignore = "the handler that other tests start"]
async fn handler_process() {
    let port: u16 = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT").unwrap().parse().unwrap();
    let behaviour = std::env::var("BEHAVIOUR").unwrap_or_default();
    eprintln!("a warning from the handler");
    if Path::new("broken").exists() {
        std::process::exit(7);
    }
    if behaviour == "deaf" {
        // Listened to and ignored.
        let mut terminated = signal(SignalKind::terminate()).unwrap();
        tokio::spawn(async move { while terminated.recv().await.is_some() {} });
    }
    let router = Router::new().fallback(async move |request: Request| {
        let path = request.uri().path().to_owned();
        match behaviour.as_str() {
            "hang" if path == "/poll" => std::future::pending().await,
            "crash" if path == "/poll" => std::process::exit(7),
            "leave" if path == "/poll" => std::process::exit(0),
            "wait" if path != "/" => {
                while !Path::new("open").exists() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            // Every call is recorded. The first ones crash, or the first one hangs.
            "crash at first" | "hang at first" if path == "/work" => {
                let calls = fs::read_to_string("calls").unwrap_or_default();
                let envelope: Value =
                    serde_json::from_slice(&axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap())
                        .unwrap();
                fs::write("calls", format!("{calls}{} ", envelope["Metadata"]["DequeueCount"].as_str().unwrap()))
                    .unwrap();
                match behaviour.as_str() {
                    "crash at first" if calls.len() < 2 * CRASHES => std::process::exit(7),
                    "hang at first" if calls.is_empty() => std::future::pending().await,
                    _ => {}
                }
            }
            _ => {}
        }
        let environment: HashMap<String, String> = std::env::vars().collect();
        let answer =
            json!({ "Logs": [], "ReturnValue": { "env": environment, "cwd": std::env::current_dir().unwrap() } });
        ([("content-type", "application/json")], answer.to_string())
    });
    axum::serve(TcpListener::bind(("127.0.0.1", port)).await.unwrap(), router).await.unwrap();
}

/// The handler above, in an app with a timer and a queue.
fn process_app() -> App {
    let arguments = ["--exact", "process::handler_process", "--ignored", "--nocapture"];
    let functions = [("poll", timer(NEVER)), ("work", triggered_by("uplinks"))];
    App::new(launched(std::env::current_exe().unwrap().to_str().unwrap(), &arguments), &functions)
}

fn behaviour(app: &App, behaviour: &str) -> Options {
    Options { env: vec![("BEHAVIOUR".to_owned(), behaviour.to_owned())], ..app.options() }
}

async fn next(events: &mut broadcast::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the event must come")
}

fn listens(host: &Emulator) -> bool {
    let handler: reqwest::Url = host.ready().handler.parse().unwrap();
    TcpStream::connect(("127.0.0.1", handler.port().unwrap())).is_ok()
}

#[tokio::test]
async fn the_handler_gets_the_settings_and_the_hosts_environment() {
    let app = process_app();
    let settings = app.0.join("local.settings.json");
    fs::write(&settings, r#"{"IsEncrypted":false,"Values":{"A":"file","B":"file","N":7},"Host":{}}"#).unwrap();
    let env = vec![("B".to_owned(), "option".to_owned())];
    let host = start(Options { settings: Some(settings), env, ..app.options() }).await.unwrap();
    let finished = host.invoke("poll").await.unwrap();
    let (env, cwd) = (&finished.response["ReturnValue"]["env"], &finished.response["ReturnValue"]["cwd"]);
    assert_eq!((&env["A"], &env["B"], &env["N"]), (&json!("file"), &json!("option"), &json!("7")));
    assert_eq!(env["FUNCTIONS_CUSTOMHANDLER_PORT"], env["FUNCTIONS_HTTPWORKER_PORT"]);
    assert_eq!(env["PATH"], std::env::var("PATH").unwrap());
    assert_eq!(env["CARGO_MANIFEST_DIR"], std::env::var("CARGO_MANIFEST_DIR").unwrap());
    assert_eq!((cwd, &env["FUNCTIONS_APP_ROOT_PATH"]), (&json!(app.0.canonicalize().unwrap()), cwd));

    let mut events = host.events();
    next(&mut events, |event| matches!(event, Event::HandlerStarted { .. })).await;
    let line = next(&mut events, |event| matches!(event, Event::Line { stream: Stream::Stderr, .. })).await;
    assert!(matches!(line, Event::Line { level: Level::Warning, text, .. } if text == "a warning from the handler"));
    next(&mut events, |event| matches!(event, Event::HandlerReady { .. })).await;
    assert!(listens(&host));
}

#[tokio::test]
async fn the_handler_may_get_the_settings_and_the_machines_variables_only() {
    let app = process_app();
    let host = start(Options { only_settings: true, ..app.options() }).await.unwrap();
    let env = host.invoke("poll").await.unwrap().response["ReturnValue"]["env"].clone();
    assert_eq!((&env["CARGO_MANIFEST_DIR"], env["PATH"].is_string()), (&Value::Null, true));
}

#[tokio::test]
async fn a_host_that_stops_ends_the_handler_with_sigterm_and_then_with_sigkill() {
    const SIGTERM: i32 = 15;
    const SIGKILL: i32 = 9;
    for (behaviour, stop_seconds, expected) in [("", 30, SIGTERM), ("", 0, SIGKILL), ("deaf", 1, SIGKILL)] {
        let app = process_app();
        let host = start(Options { stop_seconds, ..self::behaviour(&app, behaviour) }).await.unwrap();
        let (mut events, handler) = (host.events(), host.ready().handler.clone());
        host.stop().await;
        let exited = next(&mut events, |event| matches!(event, Event::HandlerExited { .. })).await;
        let Event::HandlerExited { status } = exited else { panic!("{exited:?}") };
        assert_eq!(status.signal(), Some(expected), "{behaviour} {stop_seconds}");
        client().get(&handler).send().await.unwrap_err();
    }
}

#[tokio::test]
async fn dropping_kills_the_handler() {
    let app = process_app();
    let host = start(app.options()).await.unwrap();
    let handler = host.ready().handler.clone();
    drop(host);
    let client = client();
    timeout(PATIENCE, async { while client.get(&handler).send().await.is_ok() {} }).await.expect("it must be killed");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_killed_and_started_again() {
    let app = process_app();
    let host = start(behaviour(&app, "hang")).await.unwrap();
    let mut events = host.events();
    let finished = host.invoke("poll").await.unwrap();
    assert_eq!(finished.error.unwrap(), "no answer came until functionTimeout was over");
    next(&mut events, |event| matches!(event, Event::HandlerExited { .. })).await;
    next(&mut events, |event| matches!(event, Event::HandlerReady { .. })).await;
    assert!(listens(&host));
}

#[tokio::test]
async fn a_crash_fails_the_invocation_and_the_third_one_stops_the_host() {
    let app = process_app();
    let host = start(behaviour(&app, "crash")).await.unwrap();
    let mut events = host.events();
    let reason = loop {
        tokio::select! {
            reason = host.stopped() => break reason,
            finished = host.invoke("poll") => assert!(!finished.unwrap().succeeded),
        }
    };
    for _ in 0..3 {
        next(&mut events, |event| matches!(event, Event::HandlerReady { .. })).await;
    }
    next(&mut events, |event| matches!(event, Event::Stopped { .. })).await;
    assert!(reason.contains("failed 3 times") && reason.ends_with("a warning from the handler"), "{reason}");
    assert_eq!(host.invoke("poll").await.unwrap().error.unwrap(), reason);
}

#[tokio::test]
async fn a_handler_that_leaves_is_started_again() {
    let app = process_app();
    let host = start(Options { restarts: 0, ..behaviour(&app, "leave") }).await.unwrap();
    let mut events = host.events();
    for _ in 0..3 {
        next(&mut events, |event| matches!(event, Event::HandlerReady { .. })).await;
        assert!(!host.invoke("poll").await.unwrap().succeeded);
    }
}

#[tokio::test]
async fn a_message_outlives_the_handlers_that_die_of_it() {
    let app = process_app();
    let host = start(Options { restarts: CRASHES, ..behaviour(&app, "crash at first") }).await.unwrap();
    host.enqueue("uplinks", "heavy").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    assert!(host.queue_messages("uplinks-poison").await.unwrap().is_empty());
    let calls = fs::read_to_string(app.0.join("calls")).unwrap();
    assert_eq!(calls, "1 2 3 4 ", "while no handler is there, no attempt is counted");
}

#[tokio::test]
async fn a_message_that_takes_too_long_comes_again_when_the_next_handler_is_ready() {
    let app = process_app();
    let host = start(behaviour(&app, "hang at first")).await.unwrap();
    host.enqueue("uplinks", "slow").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    assert_eq!(fs::read_to_string(app.0.join("calls")).unwrap(), "1 2 ");
    let mut events = host.events();
    for _ in 0..2 {
        next(&mut events, |event| matches!(event, Event::HandlerStarted { .. })).await;
    }
}

async fn started(events: &mut broadcast::Receiver<Event>) -> u32 {
    match next(events, |event| matches!(event, Event::HandlerStarted { .. })).await {
        Event::HandlerStarted { pid } => pid,
        _ => unreachable!("it is the event that was awaited"),
    }
}

#[tokio::test]
async fn a_restart_overlaps() {
    let app = process_app();
    let host = start(behaviour(&app, "wait")).await.unwrap();
    let mut events = host.events();
    let old = started(&mut events).await;
    host.enqueue("uplinks", "in flight").await.unwrap();
    next(&mut events, |event| matches!(event, Event::InvocationStarted { .. })).await;
    let url = format!("{}admin/host/restart", host.ready().endpoint);
    let answer: Value = client().post(url).send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
    assert_eq!(answer["scriptPath"], json!(app.0.canonicalize().unwrap()));
    let new = started(&mut events).await;
    next(&mut events, |event| matches!(event, Event::HandlerReady { .. })).await;
    let is_there = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(old != new && is_there(old) && is_there(new));
    assert_eq!(host.queue_messages("uplinks").await.unwrap().len(), 1);

    fs::write(app.0.join("open"), "").unwrap();
    let finished = next(&mut events, |event| matches!(event, Event::InvocationFinished(_))).await;
    assert!(matches!(finished, Event::InvocationFinished(finished) if finished.succeeded), "the old one was not cut");
    next(&mut events, |event| matches!(event, Event::HandlerExited { .. })).await;
    assert!(!is_there(old) && is_there(new));
    let port =
        host.invoke("poll").await.unwrap().response["ReturnValue"]["env"]["FUNCTIONS_CUSTOMHANDLER_PORT"].clone();
    assert!(!host.ready().handler.contains(port.as_str().unwrap()), "the new one gets the calls");
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    host.stop().await;
    assert!(!is_there(new));
    let stopped = std::iter::from_fn(|| events.try_recv().ok()).filter(|event| matches!(event, Event::Stopped { .. }));
    assert_eq!(stopped.count(), 1, "the end of the old one was not the host's");
}

#[tokio::test]
async fn a_handler_that_does_not_start_again_ends_the_host() {
    let app = process_app();
    let host = start(behaviour(&app, "")).await.unwrap();
    fs::write(app.0.join("broken"), "").unwrap();
    let error = host.restart().await.unwrap_err().to_string();
    assert!(error.contains("failed 3 times"), "{error}");
    assert_eq!(timeout(PATIENCE, host.stopped()).await.unwrap(), error);
}

#[tokio::test]
async fn the_number_of_restarts_is_an_option() {
    let app = process_app();
    let host = start(Options { restarts: 0, ..behaviour(&app, "crash") }).await.unwrap();
    assert!(!host.invoke("poll").await.unwrap().succeeded);
    let reason = timeout(PATIENCE, host.stopped()).await.unwrap();
    assert!(reason.contains("failed 1 times"), "{reason}");
    // The messages stay in the queues.
    host.enqueue("uplinks", "late").await.unwrap();
    assert!(!host.wait_until_empty("uplinks", Duration::ZERO).await.unwrap());
    assert_eq!(host.queue_messages("uplinks").await.unwrap()[0].dequeue_count, 0);
}
