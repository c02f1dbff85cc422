//! Reads the handler's answer as the host does. This is the second half of the custom handler's contract.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde::Deserialize as _;
use serde_json::Value;

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The handler's answer, if the host accepts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// An object.
    body: Arc<Value>,
    pub logs: Vec<String>,
}

/// Why an answer makes the invocation fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Because(String),
    /// The host waits for more until `functionTimeout`.
    Hangs,
}

impl Answer {
    /// The value for an output binding, whose name must match exactly. `null` if there is none.
    pub fn output(&self, binding: &str) -> &Value {
        match binding {
            "$return" => member(&self.body, "ReturnValue"),
            _ => member(&self.body, "Outputs").get(binding).unwrap_or(&Value::Null),
        }
    }
}

/// Reads the handler's answer as the host does. The result's first part is the body, or a text if the body is not valid JSON.
pub fn read(status: u16, content_type: Option<&str>, body: &[u8]) -> (Arc<Value>, Result<Answer, Refused>) {
    let parsed = serde_json::from_slice(body);
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let value = parsed.unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body)));
    let value = Arc::new(value);
    let answer = check(status, content_type, body, problem).and_then(|()| {
        let logs = accepted(&value).map_err(Refused::from)?;
        Ok(Answer { body: value.clone(), logs })
    });
    (value, answer)
}

impl From<Option<&str>> for Refused {
    fn from(problem: Option<&str>) -> Self {
        problem.map_or(Self::Hangs, |problem| Self::Because(problem.to_owned()))
    }
}

fn check(status: u16, content_type: Option<&str>, body: &[u8], no_json: Option<String>) -> Result<(), Refused> {
    if !(200..300).contains(&status) {
        return Err(Refused::Because(format!("the handler answered with status {status}")));
    }
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let problem = format!("the handler answered with Content-Type {content_type:?}, not application/json");
        return Err(Refused::Because(problem));
    }
    match no_json {
        _ if body.trim_ascii().is_empty() => Err(Refused::Hangs),
        Some(error) => Err(Refused::Because(format!("the handler's answer is not valid JSON: {error}"))),
        None => Ok(()),
    }
}

/// The logs of an answer that the host accepts.
///
/// # Errors
/// The problem, or `None` if the host keeps waiting.
fn accepted(body: &Value) -> Result<Vec<String>, Option<&'static str>> {
    if body.is_null() {
        return Err(None);
    }
    if !body.is_object() {
        return Err(Some("the handler's answer is not a JSON object"));
    }
    if !matches!(member(body, "Outputs"), Value::Object(_) | Value::Null) {
        return Err(Some("Outputs is not an object"));
    }
    let logs = Option::<Vec<String>>::deserialize(member(body, "Logs"));
    Ok(logs.map_err(|_| Some("Logs is not an array of strings"))?.unwrap_or_default())
}

/// The host ignores the case of the names of the answer's own members.
fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    let found = object.as_object().and_then(|members| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
    found.map_or(&Value::Null, |(_, value)| value)
}

/// Turns the value of the `http` output into the caller's response.
///
/// # Errors
/// Names the part that is not valid HTTP.
pub fn http_response(output: &Value) -> Result<Response<Body>, String> {
    let in_text = output.as_str().map(serde_json::from_str::<Value>).transpose();
    let in_text = in_text.map_err(|_| format!("the http output is a text that is not valid JSON: {output}"))?;
    let members = match in_text.as_ref().unwrap_or(output) {
        Value::Null => return Ok(with_content(Response::new(Body::from("{}")), JSON)),
        Value::Object(members) => members,
        other => return Err(format!("the http output is not an object: {other}")),
    };
    let member = |name: &str| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let mut response = Response::new(Body::empty());
    if let Some(status) = member("statusCode") {
        let text = status.as_str().map_or_else(|| status.to_string(), str::to_owned);
        *response.status_mut() = text.parse().map_err(|_| format!("statusCode {status} is not an HTTP status"))?;
        if response.status() < StatusCode::OK {
            return Err(format!("statusCode {status} cannot end a response"));
        }
    }
    match member("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(headers)) => {
            for (name, value) in headers {
                if value.is_array() || value.is_object() {
                    return Err(format!("header {name} is not text: {value}"));
                }
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let value =
                    HeaderValue::from_str(&text).map_err(|_| format!("header {name}: {text:?} is not valid"))?;
                let name = name.parse::<HeaderName>().map_err(|_| format!("{name:?} is not a header name"))?;
                response.headers_mut().insert(name, value);
            }
        }
        Some(_) => return Err("headers is not an object".to_owned()),
    }
    remove_hop_headers(response.headers_mut());
    *response.body_mut() = match member("body") {
        None | Some(Value::Null) => Body::empty(),
        Some(Value::String(text)) => Body::from(text.clone()),
        // Objects are indented.
        Some(json) => Body::from(format!("{json:#}")),
    };
    Ok(with_content(response, TEXT))
}

/// Without a content type of the handler's own.
fn with_content(mut response: Response<Body>, kind: &'static str) -> Response<Body> {
    response.headers_mut().entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    response
}

/// Removes the headers that belong to one connection only. The length follows from the body.
pub fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_object_as_json_is_an_read() {
        let json = Some("application/json; charset=utf-8");
        let full = br#"{"Outputs":{"res":{"statusCode":202}},"logs":["a"],"ReturnValue":1}"#;
        let read = |status, content_type, body: &[u8]| read(status, content_type, body).1;
        let answer = read(200, json, full).unwrap();
        assert_eq!(answer.output("res"), &json!({ "statusCode": 202 }));
        assert_eq!((answer.output("Res"), answer.output("$return")), (&Value::Null, &json!(1)));
        assert_eq!(answer.logs, ["a"]);
        for empty in [&b"{}"[..], br#"{"Outputs":null,"Logs":null}"#] {
            let answer = read(202, json, empty).unwrap();
            assert!(answer.logs.is_empty() && answer.output("res").is_null() && answer.output("$return").is_null());
        }
        for hanging in [&b""[..], b" \r\n", b"null"] {
            assert_eq!(read(200, json, hanging), Err(Refused::Hangs));
        }
        for (status, content_type, body, problem) in [
            (500, json, &b"{}"[..], "status 500"),
            (302, json, b"{}", "status 302"),
            (200, Some("text/plain"), b"{}", "not application/json"),
            (200, None, b"{}", "not application/json"),
            (200, json, b"[]", "not a JSON object"),
            (200, json, b"{", "not valid JSON:"),
            (200, json, br#"{"Outputs":[]}"#, "Outputs is not an object"),
            (200, json, br#"{"Logs":[1]}"#, "Logs is not an array of strings"),
        ] {
            let Err(Refused::Because(text)) = read(status, content_type, body) else { panic!("{problem}") };
            assert!(text.contains(problem), "{text}");
        }
    }

    #[test]
    fn what_was_answered_is_kept_whatever_it_is() {
        assert_eq!(*read(500, None, b"{\"a\":1}").0, json!({ "a": 1 }));
        assert_eq!(*read(200, None, b"text").0, json!("text"));
        assert_eq!(*read(200, None, b"").0, json!(""));
    }

    #[tokio::test]
    async fn an_http_output_is_the_callers_response() {
        for (output, status, kind, body) in [
            (json!({ "statusCode": 418 }), 418, TEXT, ""),
            (json!({ "StatusCode": "418" }), 418, TEXT, ""),
            (json!("{\"statusCode\":418}"), 418, TEXT, ""),
            (json!({ "status": 418 }), 200, TEXT, ""),
            (Value::Null, 200, JSON, "{}"),
            (json!({ "body": { "a": [1] } }), 200, TEXT, "{\n  \"a\": [\n    1\n  ]\n}"),
            (json!({ "body": "abcd" }), 200, TEXT, "abcd"),
            (json!({ "headers": { "content-type": "text/html" }, "body": "<p>" }), 200, "text/html", "<p>"),
        ] {
            let response = http_response(&output).unwrap();
            assert_eq!(response.status(), status, "{output}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], kind, "{output}");
            assert_eq!(axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap(), body, "{output}");
        }
        let response = http_response(&json!({ "headers": { "X-A": 1, "Content-Length": "9" } })).unwrap();
        assert_eq!(response.headers()["x-a"], "1");
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        for output in [
            json!("just text"),
            json!([]),
            json!(202),
            json!({ "statusCode": 99 }),
            json!({ "statusCode": 101 }),
            json!({ "headers": [] }),
            json!({ "headers": { "a b": "" } }),
            json!({ "headers": { "X-A": ["1", "2"] } }),
        ] {
            http_response(&output).expect_err(&output.to_string());
        }
    }
}
