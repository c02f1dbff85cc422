//! Tests the rapidM2M backend over HTTP, as a client uses it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use emulators::rapidm2m::{Emulator, Options, start};
use futures::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, StatusCode, header};
use serde_json::{Value, json};

struct Backend {
    emulator: Emulator,
    client: Client,
}

/// Serves only added rows, unless a test changes that.
fn options() -> Options {
    Options { no_generate: true, channels: 2, ..Options::default() }
}

async fn backend(options: Options) -> Backend {
    Backend { emulator: start(options).await.unwrap(), client: Client::builder().no_proxy().build().unwrap() }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn site_path(site: &str, rest: &str) -> String {
    format!("customers/{}/sites/{}{rest}", encoded("Demo Water Utility"), encoded(site))
}

fn histdata(site: &str, parameters: Value) -> String {
    site_path(site, &format!("/histdata0?json={}", encoded(&parameters.to_string())))
}

impl Backend {
    async fn get(&self, path: &str) -> Response {
        let ready = self.emulator.ready();
        let url = format!("{}{path}", ready.endpoint);
        self.client.get(url).basic_auth(&ready.user, Some(&ready.password)).send().await.unwrap()
    }

    async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.emulator.ready().control);
        let response = self.client.request(method, url).body(body.to_string()).send().await.unwrap();
        let (status, body) = (response.status(), response.bytes().await.unwrap());
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn put_faults(&self, faults: Value) {
        let answered = self.control(Method::PUT, "faults", faults).await;
        assert_eq!(answered, (StatusCode::NO_CONTENT, Value::Null));
    }

    async fn add_rows(&self, site: &str, rows: Value) {
        let answered = self.control(Method::POST, "rows", json!({ "site": site, "rows": rows })).await;
        assert_eq!(answered, (StatusCode::NO_CONTENT, Value::Null));
    }
}

const SITE: &str = "Well 7 / Level";

fn all() -> Value {
    json!({ "select": ["ch0", "ch1"], "until": "*" })
}

#[tokio::test]
async fn only_the_right_credentials_get_in() {
    let backend = backend(Options { user: "us:er".to_owned(), password: Some("pä:ss".to_owned()), ..options() }).await;
    let me = format!("{}me", backend.emulator.ready().endpoint);
    for request in [
        backend.client.get(&me),
        backend.client.get(&me).basic_auth("us:er", Some("pass")),
        backend.client.get(&me).header(header::AUTHORIZATION, "Basic ???"),
        backend.client.get(&me).bearer_auth("dXM6ZXI6cMOkOnNz"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Basic realm=\"rapidM2M\"");
        assert_eq!(response.text().await.unwrap(), r#"{"err":"unauthorized"}"#);
    }
    assert_eq!(backend.get_json("me").await["customers"], json!(["Demo Water Utility"]));
}

#[tokio::test]
async fn sites_are_found_by_any_name_and_by_uid() {
    let name = r#"a/b@c "d" Süd%2F+"#;
    let backend = backend(Options { site: vec![name.to_owned()], ..options() }).await;
    let customers = backend.get_json("customers").await;
    let customer = customers[0]["_uid"].as_str().unwrap();
    let sites = backend.get_json(&format!("customers/{customer}/sites")).await;
    assert_eq!(sites[0]["name"], name);
    let uid = sites[0]["_uid"].as_str().unwrap();
    assert!(uid.len() == 16 && uid.bytes().all(|digit| digit.is_ascii_hexdigit()));
    for path in [site_path(name, ""), site_path(uid, "")] {
        assert_eq!(backend.get_json(&path).await, sites[0]);
    }
    for path in ["customers/nobody/sites", &site_path("nowhere", "/blueprint"), "nothing", &site_path(name, "/config0")]
    {
        let response = backend.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(response.text().await.unwrap().starts_with(r#"{"err":"unknown "#));
    }
    let (_, requests) = backend.control(Method::GET, "requests?wait=6", Value::Null).await;
    assert_eq!(requests[2]["path"], format!("/api/1/{}", site_path(name, "")));
    assert_eq!(requests[2]["segments"], json!(["customers", "Demo Water Utility", "sites", name]));
    assert_eq!(requests[4]["status"], 404);
}

#[tokio::test]
async fn generated_rows_reach_from_the_history_to_now_and_stay_the_same() {
    let options = Options { interval: 0.5, history: 100.0, channels: 6, ..Options::default() };
    let backend = backend(options).await;
    let blueprint = backend.get_json(&site_path(SITE, "/blueprint")).await;
    let channels: Vec<&String> = blueprint["histdata0"].as_object().unwrap().keys().collect();
    assert_eq!(channels, ["calc0", "ch0", "ch1", "ch2", "ch3", "ch4", "ch5"]);
    assert_eq!(blueprint["histdata0"]["ch1"], json!({ "title": "Temperature", "units": "°C" }));

    let rows = backend.get_json(&histdata(SITE, json!({ "select": ["ch5", "CH0"], "from": "2017" }))).await;
    let rows = rows.as_array().unwrap();
    assert!((200..=260).contains(&rows.len()), "100 s of history and the test's own time: {}", rows.len());
    assert!(rows[0].as_array().unwrap().len() == 3 && rows[0][1].is_string() && rows[0][2].is_i64());
    let (from, until) = (rows[10][0].as_str().unwrap(), rows[20][0].as_str().unwrap());
    let window = json!({ "select": ["ch5", "CH0"], "from": from, "until": until });
    assert_eq!(backend.get_json(&histdata(SITE, window.clone())).await, json!(rows[10..=20]));
    backend.put_faults(json!({ "fromInclusive": false, "untilInclusive": false, "order": "descending" })).await;
    let inner: Vec<Value> = rows[11..20].iter().rev().cloned().collect();
    assert_eq!(backend.get_json(&histdata(SITE, window.clone())).await, json!(inner));

    let youngest = histdata(SITE, json!({ "select": ["ch0"] })).replace("histdata0?", "histdata0/youngest?");
    let youngest = backend.get_json(&youngest).await;
    assert!(youngest.as_array().unwrap().len() == 1 && youngest[0][0].as_str() >= rows.last().unwrap()[0].as_str());
    let other_container = histdata(SITE, window).replace("histdata0?", "histdata1?");
    assert_eq!(backend.get_json(&other_container).await, json!([]));
}

#[tokio::test]
async fn wrong_parameters_are_refused() {
    let backend = backend(options()).await;
    let json = all().to_string();
    let refused = |response: Response| async move {
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.text().await.unwrap(), r#"{"err":"missing or invalid parameters"}"#);
    };
    refused(backend.get(&site_path(SITE, "/histdata0")).await).await;
    refused(backend.get(&histdata(SITE, json!({ "select": ["ch9"] }))).await).await;
    refused(backend.get(&site_path(SITE, "/histdata0/youngest?json=%7B")).await).await;
    let ready = backend.emulator.ready();
    let url = format!("{}{}", ready.endpoint, site_path(SITE, "/histdata0"));
    let with_body = backend.client.get(&url).body(json).basic_auth(&ready.user, Some(&ready.password));
    refused(with_body.send().await.unwrap()).await;
    let posted = backend.client.post(&url).basic_auth(&ready.user, Some(&ready.password)).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn added_rows_sites_and_requests_can_be_managed() {
    let backend = backend(options()).await;
    let new_site = json!({ "name": "a/b", "channels": ["Druck"] });
    assert_eq!(backend.control(Method::POST, "sites", new_site.clone()).await.0, StatusCode::CREATED);
    assert_eq!(backend.control(Method::POST, "sites", new_site).await.0, StatusCode::CONFLICT);
    assert_eq!(backend.emulator.site_names().len(), 4);
    backend.add_rows("a/b", json!([["20170126133", 1.5], ["soon"]])).await;
    let path = histdata("a/b", json!({ "select": ["druck"] }));
    assert_eq!(backend.get_json(&path).await, json!([["20170126133", 1.5], ["soon"]]));

    let put = json!({ "site": "a/b", "rows": [["20170126133", 2.5], ["20170126134", 3.5]] });
    assert_eq!(backend.control(Method::PUT, "rows", put).await.0, StatusCode::NO_CONTENT);
    assert_eq!(backend.get_json(&path).await, json!([["20170126133", 2.5], ["20170126134", 3.5], ["soon"]]));

    let (status, error) = backend.control(Method::POST, "rows", json!({ "site": "x", "rows": [] })).await;
    assert_eq!((status, error), (StatusCode::NOT_FOUND, json!({ "err": "there is no site \"x\"" })));
    let (status, error) = backend.control(Method::POST, "rows", json!({ "site": "a/b", "row": [] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error["err"].as_str().unwrap().contains("unknown field `row`"), "{error}");
    assert_eq!(backend.control(Method::GET, "requests?waits=1", Value::Null).await.0, StatusCode::BAD_REQUEST);

    backend.control(Method::DELETE, "rows?site=a%2Fb&container=1", Value::Null).await;
    assert_eq!(backend.get_json(&path).await.as_array().unwrap().len(), 3);
    backend.control(Method::DELETE, "rows?site=a%2Fb", Value::Null).await;
    assert_eq!(backend.get_json(&path).await, json!([]));
    assert_eq!(backend.control(Method::DELETE, "sites/a%2Fb", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(backend.get(&path).await.status(), StatusCode::NOT_FOUND);

    let (_, requests) = backend.control(Method::GET, "requests", Value::Null).await;
    assert_eq!(requests.as_array().unwrap().len(), 5);
    assert_eq!(requests[0]["query"], json!({ "select": ["druck"] }));
    assert_eq!((&requests[0]["rows"], &requests[0]["status"]), (&json!(2), &json!(200)));
    let received = requests[0]["receivedAt"].as_str().unwrap();
    assert!(DateTime::parse_from_rfc3339(received).unwrap() <= Utc::now());
    let (_, counts) = backend.control(Method::GET, "counts", Value::Null).await;
    assert_eq!((&counts["requests"], &counts["rows"], &counts["maxInFlight"]), (&json!(5), &json!(8), &json!(1)));
    backend.control(Method::DELETE, "requests", Value::Null).await;
    assert_eq!(backend.control(Method::GET, "requests", Value::Null).await.1, json!([]));
}

#[tokio::test]
async fn answers_go_wrong_as_often_as_told() {
    let backend = backend(options()).await;
    backend.add_rows(SITE, json!([["20170126133", 51000, "NAN"]])).await;
    let path = histdata(SITE, all());
    backend
        .put_faults(json!({ "contentType": "text/plain", "rules": [
            { "site": SITE, "resource": "histdata", "times": 1, "status": 429, "retryAfter": "120" },
            { "times": 1, "status": 503, "body": "<h1>busy</h1>", "contentType": "text/html" },
            { "times": 1, "garbage": true },
            { "times": 1, "html": true },
            { "times": 1, "emptyBody": true },
            { "times": 1, "rawBody": "[[1]]" },
            { "times": 1, "delayMs": 1 },
            { "times": 1, "trickleMs": 1 },
        ] }))
        .await;
    let busy = backend.get(&path).await;
    assert_eq!(
        (busy.status(), &busy.headers()[header::RETRY_AFTER]),
        (StatusCode::TOO_MANY_REQUESTS, &"120".parse().unwrap())
    );
    assert_eq!(busy.text().await.unwrap(), r#"{"err":"429 Too Many Requests"}"#);
    let busy = backend.get(&path).await;
    assert_eq!(
        (busy.status(), &busy.headers()[header::CONTENT_TYPE]),
        (StatusCode::SERVICE_UNAVAILABLE, &"text/html".parse().unwrap())
    );
    assert_eq!(busy.text().await.unwrap(), "<h1>busy</h1>");
    let garbage = backend.get(&path).await;
    assert_eq!(garbage.status(), StatusCode::OK);
    assert!(std::str::from_utf8(&garbage.bytes().await.unwrap()).is_err());
    let html = backend.get(&path).await;
    assert_eq!(html.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let empty = backend.get(&path).await;
    assert_eq!((empty.status(), empty.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    assert_eq!(backend.get_json(&path).await, json!([[1]]));
    for _ in 0..3 {
        let normal = backend.get(&path).await;
        assert_eq!(normal.headers()[header::CONTENT_TYPE], "text/plain");
        assert_eq!(normal.text().await.unwrap(), r#"[["20170126133",51000,"NAN"]]"#);
    }
    let (_, faults) = backend.control(Method::GET, "faults", Value::Null).await;
    assert_eq!(faults["rules"][7], json!({ "times": 0, "trickleMs": 1 }));
    assert_eq!(backend.control(Method::PUT, "faults", json!({ "rules": [{}] })).await.0, StatusCode::BAD_REQUEST);
    backend.control(Method::DELETE, "faults", Value::Null).await;
    assert_eq!(backend.get(&path).await.headers()[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn a_cut_body_is_cut_after_its_first_half() {
    let backend = backend(options()).await;
    backend.add_rows(SITE, json!([["20170126133", 51000, "NAN"]])).await;
    backend.put_faults(json!({ "rules": [{ "cutBody": true }] })).await;
    let mut body = backend.get(&histdata(SITE, all())).await.bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), r#"[["20170126133""#.as_bytes()[..14]);
    body.next().await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_big_body_has_no_end() {
    let backend = backend(options()).await;
    backend.put_faults(json!({ "rules": [{ "bigBody": 1_000_000 }] })).await;
    let body = backend.get(&histdata(SITE, all())).await.bytes().await.unwrap();
    assert!((1_000_000..1_200_000).contains(&body.len()));
    assert!(body.starts_with(br#"[["20170126133",51000,21.37],["#) && body.ends_with(b"],"));
}

#[tokio::test]
async fn two_million_rows_are_streamed() {
    let options = Options { interval: 0.5, history: 1_000_000.0, plain: true, channels: 1, ..Options::default() };
    let backend = backend(options).await;
    let response = backend.get(&histdata(SITE, json!({ "select": ["ch0"] }))).await;
    assert_eq!(response.content_length(), None);
    let mut body = response.bytes_stream();
    // The first rows arrive before the last ones are made.
    assert!(body.next().await.unwrap().unwrap().starts_with(b"[[\"20"));
    let (_, requests) = backend.control(Method::GET, "requests", Value::Null).await;
    assert!((2_000_000..2_001_000).contains(&requests[0]["rows"].as_u64().unwrap()), "{requests}");
    assert_eq!(backend.emulator.counts().in_flight, 1);
}

#[tokio::test]
async fn a_request_that_hangs_is_seen_and_ends_with_its_connection() {
    let backend = backend(options()).await;
    backend.put_faults(json!({ "rules": [{ "resource": "me", "hang": true }] })).await;
    let hanging = async {
        let ready = backend.emulator.ready();
        let me = backend.client.get(format!("{}me", ready.endpoint));
        me.basic_auth(&ready.user, Some(&ready.password)).send().await
    };
    let cutting = async {
        let (_, requests) = backend.control(Method::GET, "requests?wait=1", Value::Null).await;
        assert_eq!(requests[0]["status"], Value::Null);
        assert_eq!(backend.emulator.counts().in_flight, 1);
        backend.control(Method::POST, "cut", Value::Null).await;
    };
    let (hung, ()) = tokio::join!(hanging, cutting);
    hung.unwrap_err();
    assert_eq!(backend.get(&site_path(SITE, "")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn it_goes_away_and_comes_back() {
    let backend = backend(options()).await;
    let url = format!("{}me", backend.emulator.ready().endpoint);
    backend.control(Method::PUT, "away", json!(true)).await;
    assert!(backend.client.get(&url).send().await.unwrap_err().is_connect());
    assert_eq!(backend.control(Method::PUT, "away", json!("no")).await.0, StatusCode::BAD_REQUEST);
    backend.control(Method::PUT, "away", json!(false)).await;
    assert_eq!(backend.get("me").await.status(), StatusCode::OK);
    drop(backend.emulator);
    let dropped =
        tokio::time::timeout(Duration::from_secs(10), async { while backend.client.get(&url).send().await.is_ok() {} });
    dropped.await.expect("a dropped emulator must stop serving");
}

#[tokio::test]
async fn options_out_of_range_are_refused() {
    for (options, named) in [
        (Options { interval: 0.0, ..options() }, "--interval"),
        (Options { history: f64::NAN, ..options() }, "--history"),
        (Options { channels: 0, ..options() }, "--channels"),
        (Options { sites: Some(usize::MAX), ..options() }, "--sites"),
        (Options { site: vec!["a".to_owned(), "a".to_owned()], ..options() }, "--site \"a\""),
    ] {
        let error = start(options).await.err().unwrap().to_string();
        assert!(error.contains(named), "{error}");
    }
}
