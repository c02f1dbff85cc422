//! Compares the envelopes with requests that were recorded from the real host.

use axum::http::Request;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ScheduleStatus, http, queue, timer};
use crate::{
    functions_host::{
        function::{HttpTrigger, TimerTrigger},
        route::{Parameters, Route},
        schedule::Schedule,
    },
    queues::{Message, Taken},
};

const REQUESTS: &str = include_str!("../../../../tests/fixtures/host/requests.json");
const IDENTITIES: &str = include_str!("../../../../tests/fixtures/host/identities.json");

#[derive(Deserialize)]
struct Recorded {
    name: String,
    /// The body of the caller's request in Base64, where it differs from the text.
    sent: Option<String>,
    body: Value,
}

fn requests(kind: &str) -> Vec<Recorded> {
    let all: Vec<Recorded> = serde_json::from_str(REQUESTS).unwrap();
    let all: Vec<_> = all.into_iter().filter(|request| request.name.starts_with(kind)).collect();
    assert!(all.len() > 4, "{kind}");
    all
}

fn assert_same(mut envelope: Value, mut recorded: Recorded) {
    for body in [&mut envelope, &mut recorded.body] {
        let system = if body["Metadata"]["sys"].is_object() { "sys" } else { "$sys" };
        assert!(body["Metadata"][system]["RandGuid"].take().is_string(), "{}", recorded.name);
        // HTTP/1.1 leaves the case of these names to the caller, and this server does not keep it.
        for headers in ["/Data/req/Headers", "/Metadata/Headers"] {
            if let Some(headers) = body.pointer_mut(headers).and_then(Value::as_object_mut) {
                let lower = std::mem::take(headers).into_iter().map(|(name, value)| (name.to_lowercase(), value));
                headers.extend(lower.collect::<Map<_, _>>());
            }
        }
    }
    assert_eq!(envelope, recorded.body, "{}\n{envelope}\n{}", recorded.name, recorded.body);
}

fn now(body: &Value) -> DateTime<Utc> {
    let metadata = &body["Metadata"];
    let text = metadata["sys"]["UtcNow"].as_str().or(metadata["$sys"]["UtcNow"].as_str());
    text.unwrap().parse().unwrap()
}

fn function(body: &Value) -> String {
    let metadata = &body["Metadata"];
    metadata["sys"]["MethodName"].as_str().or(metadata["$sys"]["MethodName"].as_str()).unwrap().to_owned()
}

#[test]
fn http_requests_are_those_of_the_real_host() {
    for mut recorded in requests("http") {
        recorded.body["Data"]["req"]["Identities"] = serde_json::from_str(IDENTITIES).unwrap();
        let request = &recorded.body["Data"]["req"];
        let mut caller = Request::builder()
            .method(request["Method"].as_str().unwrap())
            .uri(request["Url"].as_str().unwrap().strip_prefix("http://localhost:7071").unwrap());
        for (name, values) in request["Headers"].as_object().unwrap() {
            for value in values.as_array().unwrap() {
                caller = caller.header(name, value.as_str().unwrap());
            }
        }
        let text = request["Body"].as_str().unwrap_or_default();
        let sent = recorded.sent.as_ref().map(|sent| BASE64_STANDARD.decode(sent).unwrap());
        let trigger = HttpTrigger {
            binding: "req".to_owned(),
            route: Route::parse("uplink").unwrap(),
            methods: Vec::new(),
            needs_key: true,
            output: None,
        };
        let (parts, ()) = caller.body(()).unwrap().into_parts();
        let body = sent.unwrap_or_else(|| text.as_bytes().to_vec());
        let (name, now) = (function(&recorded.body), now(&recorded.body));
        assert_same(http(&name, &trigger, &parts, &body, &Parameters::default(), now), recorded);
    }
}

#[test]
fn queue_messages_are_those_of_the_real_host() {
    // The real host's parser takes NaN for a number. This one takes the message for no JSON, so it copies no members.
    for recorded in requests("queue").into_iter().filter(|recorded| !recorded.name.contains("NaN")) {
        let metadata = &recorded.body["Metadata"];
        let text: String = serde_json::from_str(recorded.body["Data"]["uplink"].as_str().unwrap()).unwrap();
        let member = |name: &str| metadata[name].as_str().unwrap();
        let plain = |name: &str| member(name).trim_matches('"').to_owned();
        let time = |name: &str| member(name).parse::<DateTime<Utc>>().unwrap();
        let message = Message {
            content: text.clone().into(),
            inserted: time("InsertionTime"),
            expires: time("ExpirationTime"),
            next_visible: Some(time("NextVisibleTime")),
            dequeue_count: plain("DequeueCount").parse().unwrap(),
            ..Message::with_id(&plain("Id"))
        };
        let taken = Taken { message, receipt: plain("PopReceipt") };
        let envelope = queue(&function(&recorded.body), "uplink", &taken, &text, now(&recorded.body));
        assert_same(serde_json::from_str(&envelope).unwrap(), recorded);
    }
}

#[test]
fn timers_are_those_of_the_real_host() {
    for recorded in requests("timer") {
        let timer_data = &recorded.body["Data"]["myTimer"];
        let status = &timer_data["ScheduleStatus"];
        let time = |name: &str| {
            let text = status[name].as_str().unwrap();
            Some(text.parse::<DateTime<Utc>>().unwrap()).filter(|_| !text.starts_with("0001"))
        };
        let trigger = TimerTrigger {
            binding: "myTimer".to_owned(),
            schedule: Schedule::parse("0 * * * * *").unwrap(),
            schedule_text: String::new(),
            monitored: true,
            run_on_startup: false,
            retry: None,
        };
        let status = (!status.is_null()).then(|| ScheduleStatus {
            last: time("Last"),
            next: time("Next").unwrap(),
            updated: time("LastUpdated"),
        });
        let input = recorded.body["Metadata"]["myTimer"].as_str().map(|input| input.trim_matches('"').to_owned());
        let (name, now) = (function(&recorded.body), now(&recorded.body));
        let past_due = timer_data["IsPastDue"] == true;
        assert_same(timer(&name, &trigger, status, past_due, input.as_deref(), now), recorded);
    }
}
