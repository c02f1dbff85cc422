//! Tests what the host sends to a handler, and how it reads the answers.

use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use emulators::functions_host::{Event, Options};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::broadcast, time::timeout};

use crate::{
    PATIENCE,
    app::{App, NEVER, host, http, timer, triggered_by},
    client,
    handler::Handler,
};

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
    assert_eq!(header("x-azure-functions-hostversion"), "4.1037.0.0");
    assert_eq!(header("user-agent"), "Azure-Functions-Host/4.1037.0.0");
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
        (200, "application/json", "[]", "not a JSON object"),
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
async fn a_run_that_outlasts_its_interval_is_followed_by_the_next_one_at_once() {
    const INTERVAL: i64 = 4;
    let app = App::new(host(), &[("poll", timer("*/4 * * * * *"))]);
    let mut handler = Handler::start_closed().await;
    let _host = handler.hosted(&app, Options::default()).await;
    let due = |call: &Value| call["Metadata"]["sys"]["UtcNow"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let first = due(&handler.next().await.json());
    let missed = first + TimeDelta::seconds(INTERVAL);
    while Utc::now() < missed {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    handler.let_through(1);
    let second = handler.next().await.json();
    assert_eq!(second["Data"]["myTimer"]["IsPastDue"], false);
    assert!(due(&second) < missed + TimeDelta::seconds(INTERVAL), "{second} after {first}");
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

/// Whether the next finished invocation succeeded.
async fn finished(events: &mut broadcast::Receiver<Event>) -> bool {
    loop {
        if let Event::InvocationFinished(finished) = timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            return finished.succeeded;
        }
    }
}

#[tokio::test]
async fn a_host_that_stops_waits_ten_seconds_for_calls_in_flight() {
    let app = App::new(host(), &[("work", triggered_by("uplinks"))]);
    for is_let_through in [true, false] {
        let mut handler = Handler::start_closed().await;
        let host = handler.hosted(&app, Options::default()).await;
        let mut events = host.events();
        host.enqueue("uplinks", "in flight").await.unwrap();
        handler.next().await;
        if is_let_through {
            let stopped = tokio::spawn(host.stop());
            tokio::task::yield_now().await;
            handler.let_through(1);
            stopped.await.unwrap();
            assert!(finished(&mut events).await);
        } else {
            tokio::time::pause();
            let began = tokio::time::Instant::now();
            host.stop().await;
            assert_eq!(began.elapsed().as_secs(), 10);
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
    let posted = client.post(format!("{url}poll")).body(r#"{"input":"by hand"}"#).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::ACCEPTED);
    assert_eq!(handler.next().await.json()["Metadata"]["myTimer"], "\"by hand\"");
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
    let app =
        App::new(host(), &[("uplink", http("uplink/{id}", &["post"])), ("uplinkHome", http("uplink/home", &["get"]))]);
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
    for (method, path) in [(Method::GET, "7"), (Method::HEAD, "home"), (Method::POST, "7/8"), (Method::POST, "")] {
        let response = client.request(method, format!("{url}{path}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for (status, body, expected) in [
        (200, "{}", StatusCode::OK),
        (200, r#"{"outputs":{"res":{"statusCode":418}}}"#, StatusCode::IM_A_TEAPOT),
        (200, r#"{"Outputs":{"res":{"status":418}}}"#, StatusCode::OK),
        (200, r#"{"Outputs":{"res":"just text"}}"#, StatusCode::INTERNAL_SERVER_ERROR),
        (304, "{}", StatusCode::INTERNAL_SERVER_ERROR),
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
async fn what_the_real_host_would_log_is_counted() {
    let mut folder = host();
    folder["logging"] = json!({ "logLevel": { "Function": "Warning" } });
    let app = App::new(folder, &[("poll", timer(NEVER)), ("work", triggered_by("uplinks"))]);
    let handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    host.invoke("poll").await.unwrap();
    let all = host.telemetry().all;
    assert_eq!((all.records, all.bytes), (1, 1_070), "no line about storage: it is in no category of the host");
    handler.replies(500, "application/json", "{}");
    host.invoke("poll").await.unwrap();
    let answer = client().get(format!("{}admin/telemetry", host.ready().endpoint)).send().await.unwrap();
    let told: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!((&told["records"], &told["bytes"]), (&json!(5), &json!(24_120)));
    assert_eq!(told["categories"]["Host.Results"]["records"], 3);
    assert!(told["gigabytesAMonth"].as_f64().unwrap() > 0.0);
    let at_the_end = host.stop().await;
    // Seven numbers of the timer.
    assert_eq!(at_the_end.all.records, 5 + 7, "{at_the_end}");
}

#[tokio::test]
async fn a_default_lets_lines_about_storage_through() {
    let mut folder = host();
    folder["logging"] = json!({ "logLevel": { "default": "Information" } });
    let app = App::new(folder, &[("work", triggered_by("uplinks"))]);
    let handler = Handler::start().await;
    let host = handler.hosted(&app, Options::default()).await;
    host.enqueue("uplinks", "one").await.unwrap();
    assert!(host.wait_until_empty("uplinks", PATIENCE).await.unwrap());
    let telemetry = host.telemetry();
    let of_storage = telemetry.categories["Azure.Core"];
    // Put, taken, deleted.
    assert!(of_storage.records >= 2 * 3, "{telemetry}");
}
