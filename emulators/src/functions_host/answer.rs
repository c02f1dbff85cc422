//! How the handler's answer is read: the other half of the custom handler's contract.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde_json::{Map, Value};

/// What the handler answered, if it is what the host accepts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub outputs: Map<String, Value>,
    pub logs: Vec<String>,
    pub return_value: Value,
}

/// Why an answer fails the invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Because(String),
    /// The host waits for more until `functionTimeout`.
    Hangs,
}

/// Reads the handler's answer as the host does.
pub fn read(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Answer, Refused> {
    let because = |problem: String| Err(Refused::Because(problem));
    if !(200..300).contains(&status) {
        return because(format!("the handler answered with status {status}"));
    }
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return because(format!("the handler answered with Content-Type {content_type:?}, not application/json"));
    }
    if body.trim_ascii().is_empty() {
        return Err(Refused::Hangs);
    }
    let mut members = match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => members,
        Ok(Value::Null) => return Err(Refused::Hangs),
        Ok(_) => return because("the handler's answer is no JSON object".to_owned()),
        Err(error) => return because(format!("the handler's answer is no JSON: {error}")),
    };
    let outputs = match take(&mut members, "Outputs") {
        Value::Object(outputs) => outputs,
        Value::Null => Map::new(),
        _ => return because("Outputs is no object".to_owned()),
    };
    let Ok(logs) = serde_json::from_value::<Option<Vec<String>>>(take(&mut members, "Logs")) else {
        return because("Logs is no array of strings".to_owned());
    };
    Ok(Answer { outputs, logs: logs.unwrap_or_default(), return_value: take(&mut members, "ReturnValue") })
}

/// The host reads the names of the answer's own members in any case.
fn take(members: &mut Map<String, Value>, name: &str) -> Value {
    let key = members.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
    key.and_then(|key| members.remove(&key)).unwrap_or_default()
}

/// The caller's response from the value of the `http` output.
///
/// # Errors
/// Says which part is no valid HTTP.
pub fn http_response(output: &Value) -> Result<Response<Body>, String> {
    let Value::Object(members) = output else { return with_body(Response::new(Body::empty()), output) };
    let member = |name: &str| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let mut response = Response::new(Body::empty());
    if let Some(status) = member("statusCode").or(member("status")) {
        let text = status.as_str().map_or_else(|| status.to_string(), str::to_owned);
        *response.status_mut() = text.parse().map_err(|_| format!("statusCode {status} is no HTTP status"))?;
        if response.status() < StatusCode::OK {
            return Err(format!("statusCode {status} cannot end a response"));
        }
    }
    match member("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(headers)) => {
            for (name, value) in headers {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let value =
                    HeaderValue::from_str(&text).map_err(|_| format!("header {name}: {text:?} is not valid"))?;
                let name = name.parse::<HeaderName>().map_err(|_| format!("{name:?} is no header name"))?;
                response.headers_mut().insert(name, value);
            }
        }
        Some(_) => return Err("headers is no object".to_owned()),
    }
    remove_hop_headers(response.headers_mut());
    with_body(response, member("body").unwrap_or(&Value::Null))
}

/// Takes out what belongs to one connection only; the length follows from the body.
pub fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE] {
        headers.remove(name);
    }
}

fn with_body(mut response: Response<Body>, body: &Value) -> Result<Response<Body>, String> {
    let (body, content_type) = match body {
        Value::Null => return Ok(response),
        Value::String(text) => (text.clone(), "text/plain; charset=utf-8"),
        json => (json.to_string(), "application/json; charset=utf-8"),
    };
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().entry(header::CONTENT_TYPE).or_insert(content_type);
    *response.body_mut() = Body::from(body);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_object_as_json_is_an_read() {
        let json = Some("application/json; charset=utf-8");
        let full = br#"{"Outputs":{"res":{"statusCode":202}},"logs":["a"],"ReturnValue":1}"#;
        let outputs = Map::from_iter([("res".to_owned(), json!({ "statusCode": 202 }))]);
        let expected = Answer { outputs, logs: vec!["a".to_owned()], return_value: json!(1) };
        assert_eq!(read(200, json, full), Ok(expected));
        assert_eq!(read(202, json, b"{}"), Ok(Answer::default()));
        assert_eq!(read(200, json, br#"{"Outputs":null,"Logs":null}"#), Ok(Answer::default()));
        for hanging in [&b""[..], b" \r\n", b"null"] {
            assert_eq!(read(200, json, hanging), Err(Refused::Hangs));
        }
        for (status, content_type, body, problem) in [
            (500, json, &b"{}"[..], "status 500"),
            (302, json, b"{}", "status 302"),
            (200, Some("text/plain"), b"{}", "not application/json"),
            (200, None, b"{}", "not application/json"),
            (200, json, b"[]", "no JSON object"),
            (200, json, b"{", "no JSON:"),
            (200, json, br#"{"Outputs":[]}"#, "Outputs is no object"),
            (200, json, br#"{"Logs":[1]}"#, "Logs is no array of strings"),
        ] {
            let Err(Refused::Because(text)) = read(status, content_type, body) else { panic!("{problem}") };
            assert!(text.contains(problem), "{text}");
        }
    }

    #[test]
    fn an_http_output_is_the_callers_response() {
        let output = json!({ "StatusCode": "202", "headers": { "X-A": 1, "Content-Length": "9" }, "body": { "a": 1 } });
        let response = http_response(&output).unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()["x-a"], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json; charset=utf-8");
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        assert_eq!(http_response(&Value::Null).unwrap().status(), StatusCode::OK);
        let own = json!({ "headers": { "content-type": "text/html" }, "body": "<p>" });
        assert_eq!(http_response(&own).unwrap().headers()[header::CONTENT_TYPE], "text/html");
        for output in [
            json!({ "statusCode": 99 }),
            json!({ "statusCode": 101 }),
            json!({ "headers": [] }),
            json!({ "headers": { "a b": "" } }),
        ] {
            http_response(&output).expect_err(&output.to_string());
        }
    }
}
