//! The functions host with a handler that the tests serve themselves, and with real processes.

use std::{
    collections::HashMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use emulators::functions_host::{Emulator, Event, Level, Options, Stream, start};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
    task::JoinHandle,
    time::timeout,
};

/// Everything awaited here comes within seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// A timer that does not run by itself while a test runs.
const NEVER: &str = "0 0 0 29 2 *";

/// A function app in a folder of its own, removed when dropped.
struct App(PathBuf);

impl App {
    fn new(host: Value, functions: &[(&str, Value)]) -> Self {
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

    fn options(&self) -> Options {
        Options { app: self.0.clone(), ..Options::default() }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn timer(schedule: &str) -> Value {
    json!({ "bindings": [{ "type": "timerTrigger", "direction": "in", "name": "myTimer", "schedule": schedule }] })
}

fn http(route: &str, methods: &[&str]) -> Value {
    json!({ "bindings": [
        { "type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "function", "route": route, "methods": methods },
        { "type": "http", "direction": "out", "name": "res" },
    ] })
}

fn host() -> Value {
    json!({ "version": "2.0", "functionTimeout": "00:00:30" })
}

/// A request as the handler got it.
struct Received {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the handler answers: status, content type, body.
type Reply = (StatusCode, &'static str, &'static str);
const EMPTY: Reply = (StatusCode::OK, "application/json", "{}");

/// A handler inside the test.
struct Handler {
    url: String,
    reply: Arc<Mutex<Reply>>,
    received: mpsc::UnboundedReceiver<Received>,
    server: JoinHandle<()>,
}

impl Handler {
    async fn start() -> Self {
        let reply = Arc::new(Mutex::new(EMPTY));
        let (sender, received) = mpsc::unbounded_channel();
        let answered = reply.clone();
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            if parts.uri.path() == "/" {
                return (StatusCode::NOT_FOUND, [("content-type", "text/plain")], "any answer will do");
            }
            let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
            let _ = sender.send(Received { method: parts.method, uri: parts.uri, headers: parts.headers, body });
            let (status, content_type, body) = *answered.lock().unwrap();
            (status, [("content-type", content_type)], body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, reply, received, server }
    }

    fn replies(&self, status: u16, content_type: &'static str, body: &'static str) {
        *self.reply.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), content_type, body);
    }

    async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("the host must call the handler").unwrap()
    }

    async fn hosted(&self, app: &App, options: Options) -> Emulator {
        let endpoint = Some(self.url.parse().unwrap());
        start(Options { app: app.0.clone(), handler_endpoint: endpoint, ..options }).await.unwrap()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_timer_function_is_called_as_the_contract_says() {
    let app = App::new(host(), &[("poll", timer(NEVER))]);
    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    assert_eq!(host.ready().functions, ["poll"]);
    handler.replies(200, "application/json", r#"{"Outputs":{},"Logs":["one","two"],"ReturnValue":null}"#);
    let finished = host.invoke("poll").await.unwrap();
    assert!(finished.succeeded && finished.error.is_none());
    assert_eq!((finished.status, finished.logs), (Some(200), vec!["one".to_owned(), "two".to_owned()]));

    let received = handler.next().await;
    assert_eq!((received.method.as_str(), received.uri.path()), ("POST", "/poll"));
    let header = |name: &str| received.headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("transfer-encoding"), "chunked");
    assert_eq!(header("content-length"), "");
    assert_eq!(header("content-type"), "application/json; charset=utf-8");
    assert_eq!(header("x-azure-functions-invocationid"), finished.id);
    assert!(header("x-azure-functions-hostversion").starts_with("4."));
    assert_eq!(header("traceparent").split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
    let envelope = received.json();
    let timer = &envelope["Data"]["myTimer"];
    assert_eq!(
        (&timer["IsPastDue"], &timer["ScheduleStatus"]["Last"]),
        (&json!(false), &json!("0001-01-01T00:00:00+00:00"))
    );
    assert_eq!(envelope["Metadata"]["sys"]["MethodName"], "poll");
    host.invoke("other").await.unwrap_err();
}

#[tokio::test]
async fn an_answer_that_the_host_does_not_accept_fails_the_invocation() {
    let app = App::new(json!({ "version": "2.0", "functionTimeout": "00:00:01" }), &[("poll", timer(NEVER))]);
    let handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    for (status, content_type, body, problem) in [
        (500, "application/json", r#"{"Logs":["lost"]}"#, "status 500"),
        (200, "text/plain", "{}", "not application/json"),
        (200, "application/json", "[]", "no JSON object"),
        (200, "application/json", "null", "until functionTimeout was over"),
        (200, "application/json", "", "until functionTimeout was over"),
    ] {
        handler.replies(status, content_type, body);
        let finished = host.invoke("poll").await.unwrap();
        assert!(!finished.succeeded && finished.logs.is_empty());
        assert_eq!(finished.status, Some(status));
        let error = finished.error.unwrap();
        assert!(error.contains(problem), "{error}");
        assert_eq!(finished.duration >= Duration::from_secs(1), problem.contains("functionTimeout"));
    }
    handler.server.abort();
    let error = host.invoke("poll").await.unwrap().error.unwrap();
    assert!(!error.is_empty());
}

#[tokio::test]
async fn a_timer_runs_by_its_schedule_and_its_status_follows() {
    let app = App::new(host(), &[("poll", timer("%Every%"))]);
    let mut handler = Handler::start().await;
    let env = vec![("Every".to_owned(), "* * * * * *".to_owned())];
    let _host = handler.hosted(&app, Options { env, ..Options::default() }).await;
    let (first, second) = (handler.next().await.json(), handler.next().await.json());
    // More often than once a minute: not monitored.
    assert_eq!(first["Data"]["myTimer"]["ScheduleStatus"], Value::Null);
    assert_eq!(second["Data"]["myTimer"]["IsPastDue"], false);
    assert_ne!(first["Metadata"]["sys"]["RandGuid"], second["Metadata"]["sys"]["RandGuid"]);
}

#[tokio::test]
async fn a_missed_run_is_made_up_and_a_failed_one_repeated() {
    let mut function = timer("0 */5 * * * *");
    function["retry"] = json!({ "strategy": "fixedDelay", "maxRetryCount": 1, "delayInterval": "00:00:01" });
    let app = App::new(host(), &[("poll", function)]);
    let mut handler = Handler::start().await;
    handler.replies(500, "application/json", "{}");
    let options = Options { run_at_start: true, schedule: Some(NEVER.to_owned()), ..Options::default() };
    let host = handler.hosted(&app, options).await;
    for _ in 0..2 {
        let timer = &handler.next().await.json()["Data"]["myTimer"];
        assert_eq!(timer["IsPastDue"], true);
        let time = |name: &str| timer["ScheduleStatus"][name].as_str().unwrap().to_owned();
        assert!(time("Last").ends_with("-02-29T00:00:00+00:00") && time("Last") < time("Next"));
    }
    let mut events = host.events();
    assert!(!finished(&mut events).await && !finished(&mut events).await);
}

/// Whether the next invocation that finishes succeeded.
async fn finished(events: &mut broadcast::Receiver<Event>) -> bool {
    loop {
        if let Event::InvocationFinished(finished) = timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            return finished.succeeded;
        }
    }
}

#[tokio::test]
async fn timers_can_be_run_from_outside() {
    let app = App::new(host(), &[("poll", timer(NEVER)), ("uplink", http("uplink", &[]))]);
    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    let (client, url) = (client(), format!("{}admin/functions/", host.ready().endpoint));
    let posted = client.post(format!("{url}poll")).body(r#"{"input":""}"#).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::ACCEPTED);
    assert_eq!(handler.next().await.uri.path(), "/poll");
    handler.replies(500, "application/json", r#"{"error":"x"}"#);
    let waited = client.post(format!("{url}POLL?wait")).send().await.unwrap().bytes().await.unwrap();
    let waited: Value = serde_json::from_slice(&waited).unwrap();
    let error = "the handler answered with status 500";
    assert_eq!(
        waited,
        json!({ "succeeded": false, "status": 500, "logs": [], "body": { "error": "x" }, "error": error })
    );
    for name in ["uplink", "nothing"] {
        let response = client.post(format!("{url}{name}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn an_http_function_gets_an_envelope_and_makes_a_response() {
    let app = App::new(host(), &[("uplink", http("uplink/{id}", &["post"])), ("uplinkHome", http("uplink/home", &[]))]);
    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    let (client, url) = (client(), format!("{}api/uplink/", host.ready().endpoint));
    handler.replies(
        200,
        "application/json",
        r#"{"Outputs":{"res":{"statusCode":202,"headers":{"X-A":"b"},"body":"taken"}}}"#,
    );
    let response = client.post(format!("{url}7?x=1")).body("hello").send().await.unwrap();
    assert_eq!((response.status(), &response.headers()["x-a"]), (StatusCode::ACCEPTED, &"b".parse().unwrap()));
    assert_eq!(response.text().await.unwrap(), "taken");
    let received = handler.next().await;
    assert_eq!((received.method.as_str(), received.uri.path()), ("POST", "/uplink"));
    let request = received.json()["Data"]["req"].clone();
    assert_eq!((&request["Body"], &request["Params"]), (&json!("hello"), &json!({ "id": "7" })));
    assert_eq!(request["Url"], format!("{url}7?x=1"));

    client.get(format!("{url}home")).send().await.unwrap();
    assert_eq!(handler.next().await.uri.path(), "/uplinkHome");
    for (method, path) in [(Method::GET, "7"), (Method::POST, "7/8"), (Method::POST, "")] {
        let response = client.request(method, format!("{url}{path}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for (status, body, expected) in [
        (200, "{}", StatusCode::OK),
        (200, r#"{"Outputs":{"Res":{"statusCode":202}}}"#, StatusCode::OK),
        (200, r#"{"Outputs":{"res":{"statusCode":1}}}"#, StatusCode::INTERNAL_SERVER_ERROR),
        (400, "{}", StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        handler.replies(status, "application/json", body);
        assert_eq!(client.post(format!("{url}7")).send().await.unwrap().status(), expected, "{body}");
    }
}

#[tokio::test]
async fn a_forwarded_request_and_its_response_are_left_as_they_are() {
    let host = json!({ "version": "2.0", "customHandler": { "enableForwardingHttpRequest": true } });
    let app = App::new(host, &[("status", http("status/{*rest}", &[]))]);
    let mut handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    handler.replies(418, "text/html", "<h1>short and stout</h1>");
    let url = format!("{}api/status/a%2Fb?x=%20", host.ready().endpoint);
    let response = client().put(url).header("x-own", "1").body("hello").send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::IM_A_TEAPOT, &"text/html".parse().unwrap())
    );
    assert_eq!(response.text().await.unwrap(), "<h1>short and stout</h1>");
    let received = handler.next().await;
    assert_eq!((received.method.as_str(), received.uri.to_string().as_str()), ("PUT", "/api/status/a%2Fb?x=%20"));
    assert_eq!((&received.headers["x-own"], received.body.as_str()), (&"1".parse().unwrap(), "hello"));
    assert_eq!(received.headers["x-azure-functions-invocationid"].len(), 36);
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
    assert!(error.contains("exited 3 times") && error.contains("exit status: 3"), "{error}");
    assert!(error.ends_with(": line 2\nline 3\nline 4"), "{error}");
    assert_eq!(fs::read_to_string(app.0.join("runs")).unwrap(), "run\nrun\nrun\n", "it runs in the app's folder");
}

#[tokio::test]
async fn a_handler_that_exits_with_0_is_not_started_again() {
    let app = App::new(launched("sh", &["-c", "echo run >> runs"]), &[("poll", timer(NEVER))]);
    let error = start(app.options()).await.err().unwrap().to_string();
    assert!(error.contains("exited with code 0"), "{error}");
    assert_eq!(fs::read_to_string(app.0.join("runs")).unwrap(), "run\n");
}

#[tokio::test]
async fn a_handler_that_cannot_be_started_is_named() {
    let app = App::new(launched("no-such-executable", &[]), &[("poll", timer(NEVER))]);
    let error = start(app.options()).await.err().unwrap().to_string();
    assert!(error.contains("cannot start no-such-executable"), "{error}");
}

/// Not a test of its own: the tests below have the host start this very executable with this function as its handler.
/// `/poll` answers with its environment; a setting tells it to do worse.
#[tokio::test]
#[ignore = "the handler that other tests start"]
async fn handler_process() {
    let port: u16 = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT").unwrap().parse().unwrap();
    let behaviour = std::env::var("BEHAVIOUR").unwrap_or_default();
    eprintln!("a warning from the handler");
    let router = Router::new().fallback(async move |request: Request| {
        let path = request.uri().path().to_owned();
        match behaviour.as_str() {
            "hang" if path == "/poll" => std::future::pending().await,
            "crash" if path == "/poll" => std::process::exit(7),
            "leave" if path == "/poll" => std::process::exit(0),
            _ => {}
        }
        let environment: HashMap<String, String> = std::env::vars().collect();
        let answer =
            json!({ "Logs": [], "ReturnValue": { "env": environment, "cwd": std::env::current_dir().unwrap() } });
        ([("content-type", "application/json")], answer.to_string())
    });
    axum::serve(TcpListener::bind(("127.0.0.1", port)).await.unwrap(), router).await.unwrap();
}

/// The handler above in an app with one timer.
fn process_app() -> App {
    let arguments = ["--exact", "handler_process", "--ignored", "--nocapture"];
    App::new(launched(std::env::current_exe().unwrap().to_str().unwrap(), &arguments), &[("poll", timer(NEVER))])
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
async fn the_handler_gets_the_settings_and_the_machines_variables_only() {
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
    assert_eq!(env["CARGO_MANIFEST_DIR"], Value::Null, "what belongs to neither must not leak in");
    assert_eq!(cwd, &json!(app.0.canonicalize().unwrap()));

    let mut events = host.events();
    next(&mut events, |event| matches!(event, Event::HandlerStarted { .. })).await;
    let line = next(&mut events, |event| matches!(event, Event::Line { stream: Stream::Stderr, .. })).await;
    assert!(matches!(line, Event::Line { level: Level::Warning, text, .. } if text == "a warning from the handler"));
    next(&mut events, |event| matches!(event, Event::HandlerReady { .. })).await;
    assert!(listens(&host));
}

#[tokio::test]
async fn stopping_kills_the_handler() {
    let app = process_app();
    let host = start(app.options()).await.unwrap();
    let (mut events, handler) = (host.events(), host.ready().handler.clone());
    host.stop().await;
    let exited = next(&mut events, |event| matches!(event, Event::HandlerExited { .. })).await;
    assert!(matches!(exited, Event::HandlerExited { status } if status.code().is_none()), "SIGKILL leaves no code");
    client().get(&handler).send().await.unwrap_err();
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
    assert!(reason.contains("exited 3 times") && reason.ends_with("a warning from the handler"), "{reason}");
    assert_eq!(host.invoke("poll").await.unwrap().error.unwrap(), reason);
}

#[tokio::test]
async fn a_handler_that_leaves_stays_away() {
    let app = process_app();
    let host = start(behaviour(&app, "leave")).await.unwrap();
    assert!(!host.invoke("poll").await.unwrap().succeeded);
    let reason = timeout(PATIENCE, host.stopped()).await.unwrap();
    assert!(reason.contains("exited with code 0"), "{reason}");
}
