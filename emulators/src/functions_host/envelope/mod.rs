//! Writes the bodies that are posted to the handler: the envelopes of the custom handler's contract.

mod queue;

use std::collections::BTreeMap;

use axum::{
    extract::Query,
    http::{HeaderName, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

pub use self::queue::queue;
use super::{function::TimerTrigger, route::Parameters};
use crate::queues::guid;

/// A timer's `ScheduleStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// `None` before the first run.
    pub last: Option<DateTime<Utc>>,
    pub next: DateTime<Utc>,
    pub updated: DateTime<Utc>,
}

/// The body for a timer function.
pub fn timer(
    function: &str,
    trigger: &TimerTrigger,
    status: Option<ScheduleStatus>,
    past_due: bool,
    now: DateTime<Utc>,
) -> Value {
    let status = status.map(|status| {
        let last = status.last.map_or_else(|| "0001-01-01T00:00:00+00:00".to_owned(), |last| dotnet(last, "+00:00"));
        json!({ "Last": last, "Next": dotnet(status.next, "+00:00"), "LastUpdated": dotnet(status.updated, "+00:00") })
    });
    let timer = json!({
        "Schedule": { "AdjustForDST": trigger.schedule.adjusts_for_dst() },
        "ScheduleStatus": status,
        "IsPastDue": past_due,
    });
    let data = Map::from_iter([(trigger.binding.clone(), timer)]);
    json!({ "Data": data, "Metadata": { "sys": sys(function, now) } })
}

/// The body for an HTTP function.
pub fn http(
    function: &str,
    binding: &str,
    request: &Parts,
    body: &[u8],
    parameters: &Parameters,
    now: DateTime<Utc>,
) -> Value {
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut query: BTreeMap<String, String> = BTreeMap::new();
    if let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&request.uri) {
        for (name, value) in pairs {
            // .NET joins repeated parameters.
            query.entry(name).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
        }
    }
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(capitalized(name)).or_default().push(value);
    }
    let joined: BTreeMap<_, _> = headers.iter().map(|(name, values)| (name, values.join(","))).collect();
    let mut http = json!({
        "Url": format!("http://{}{target}", header(header::HOST)),
        "Method": request.method.as_str(),
        "Query": query,
        "Headers": headers,
        "Params": parameters,
        "Identities": [],
    });
    // The host reads the body only if its length is announced.
    if !body.is_empty() && request.headers.contains_key(header::CONTENT_LENGTH) {
        let media_type = header(header::CONTENT_TYPE).to_ascii_lowercase();
        let binary = media_type.starts_with("application/octet-stream") || media_type.starts_with("multipart/");
        let text = if binary { BASE64_STANDARD.encode(body) } else { String::from_utf8_lossy(body).into_owned() };
        http["Body"] = text.into();
    }
    let data = Map::from_iter([(binding.to_owned(), http)]);
    json!({ "Data": data, "Metadata": { "Query": query, "Headers": joined, "sys": sys(function, now) } })
}

fn sys(function: &str, now: DateTime<Utc>) -> Value {
    json!({ "MethodName": function, "UtcNow": dotnet(now, "Z"), "RandGuid": guid() })
}

/// The time as .NET writes it: fractions of 100 ns without trailing zeros.
fn dotnet(time: DateTime<Utc>, zone: &str) -> String {
    let text = time.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
    let text = text[..text.len() - 2].trim_end_matches('0').trim_end_matches('.');
    format!("{text}{zone}")
}

/// Header names as .NET writes them: `Content-Type`.
fn capitalized(name: &HeaderName) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.as_str()
        .split('-')
        .map(|part| if part.is_empty() { String::new() } else { word(part) })
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::functions_host::schedule::Schedule;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The envelope without its random part.
    fn settled(mut envelope: Value) -> Value {
        let guid = envelope["Metadata"]["sys"]["RandGuid"].take();
        assert_eq!(guid.as_str().unwrap().len(), 36);
        envelope
    }

    fn trigger(schedule: &str) -> TimerTrigger {
        TimerTrigger {
            binding: "myTimer".to_owned(),
            schedule: Schedule::parse(schedule).unwrap(),
            schedule_text: schedule.to_owned(),
            monitored: true,
            run_on_startup: false,
            retry: None,
        }
    }

    #[test]
    fn a_timer_is_told_as_the_real_host_tells_it() {
        let last = time("2024-10-01T10:50:00.0039671Z");
        let status = ScheduleStatus { last: Some(last), next: time("2024-10-01T10:55:00Z"), updated: last };
        let now = time("2024-10-01T10:55:00.004275Z");
        let envelope = timer("rapidM2MForwarding", &trigger("0 */5 * * * *"), Some(status), false, now);
        let expected = json!({
            "Data": { "myTimer": {
                "Schedule": { "AdjustForDST": true },
                "ScheduleStatus": {
                    "Last": "2024-10-01T10:50:00.0039671+00:00",
                    "Next": "2024-10-01T10:55:00+00:00",
                    "LastUpdated": "2024-10-01T10:50:00.0039671+00:00",
                },
                "IsPastDue": false,
            } },
            "Metadata": { "sys": {
                "MethodName": "rapidM2MForwarding", "UtcNow": "2024-10-01T10:55:00.004275Z", "RandGuid": null,
            } },
        });
        assert_eq!(settled(envelope), expected);
    }

    #[test]
    fn a_timer_without_history_or_status() {
        let now = time("2024-10-01T10:55:00Z");
        let status = ScheduleStatus { last: None, next: now, updated: now };
        let first = timer("f", &trigger("00:05:00"), Some(status), true, now);
        assert_eq!(first["Data"]["myTimer"]["ScheduleStatus"]["Last"], "0001-01-01T00:00:00+00:00");
        assert_eq!(first["Data"]["myTimer"]["Schedule"], json!({ "AdjustForDST": false }));
        assert_eq!(first["Data"]["myTimer"]["IsPastDue"], true);
        let unmonitored = timer("f", &trigger("00:05:00"), None, false, now);
        assert_eq!(unmonitored["Data"]["myTimer"]["ScheduleStatus"], Value::Null);
    }

    fn posted(content_type: &str, announced: bool, body: &[u8]) -> Value {
        let request = Request::post("/api/uplink/a%2Fb?x=1&y=%20&x=2").header("host", "localhost:7071");
        let request = request.header("content-type", content_type).header("x-twice", "1").header("x-twice", "2");
        let request = if announced { request.header("content-length", body.len()) } else { request };
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let parameters = Parameters::from([("id".to_owned(), "a/b".to_owned())]);
        settled(http("uplink", "req", &parts, body, &parameters, time("2024-05-14T15:14:15.128919Z")))
    }

    #[test]
    fn an_http_request_is_told_as_the_real_host_tells_it() {
        let expected = json!({
            "Data": { "req": {
                "Url": "http://localhost:7071/api/uplink/a%2Fb?x=1&y=%20&x=2",
                "Method": "POST",
                "Query": { "x": "1,2", "y": " " },
                "Headers": {
                    "Host": ["localhost:7071"], "Content-Type": ["application/json"], "Content-Length": ["7"],
                    "X-Twice": ["1", "2"],
                },
                "Params": { "id": "a/b" },
                "Identities": [],
                "Body": "{\"v\":7}",
            } },
            "Metadata": {
                "Query": { "x": "1,2", "y": " " },
                "Headers": {
                    "Host": "localhost:7071", "Content-Type": "application/json", "Content-Length": "7",
                    "X-Twice": "1,2",
                },
                "sys": { "MethodName": "uplink", "UtcNow": "2024-05-14T15:14:15.128919Z", "RandGuid": null },
            },
        });
        assert_eq!(posted("application/json", true, br#"{"v":7}"#), expected);
    }

    #[test]
    fn a_body_is_text_or_base64_or_absent() {
        let body = |content_type, announced, body| posted(content_type, announced, body)["Data"]["req"]["Body"].clone();
        assert_eq!(body("text/plain", true, "ü".as_bytes()), "ü");
        assert_eq!(body("text/plain", true, b"\xff"), "\u{fffd}");
        assert_eq!(body("application/octet-stream", true, b"\xff"), "/w==");
        assert_eq!(body("multipart/form-data; boundary=x", true, b"--x"), "LS14");
        assert_eq!(body("application/json", true, b""), Value::Null);
        assert_eq!(body("application/json", false, b"chunked"), Value::Null);
    }
}
