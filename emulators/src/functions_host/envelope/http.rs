//! The body for an HTTP function.

use std::{borrow::Cow, collections::BTreeMap};

use axum::{
    extract::Query,
    http::{HeaderName, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::functions_host::{function::HttpTrigger, route::Parameters};

/// The parameter with a function key. It is no data.
const KEY_PARAMETER: &str = "code";
const KEY_HEADER: &str = "x-functions-key";

/// The body for an HTTP function.
pub fn http(
    function: &str,
    trigger: &HttpTrigger,
    request: &Parts,
    body: &[u8],
    parameters: &Parameters,
    now: DateTime<Utc>,
) -> Value {
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let pairs =
        Query::<Vec<(String, String)>>::try_from_uri(&request.uri).map_or_else(|_| Vec::new(), |Query(all)| all);
    let mut query: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &pairs {
        // .NET joins repeated parameters.
        query.entry(name).and_modify(|all| *all = format!("{all},{value}")).or_insert_with(|| value.clone());
    }
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(capitalized(name)).or_default().push(value);
    }
    let joined: BTreeMap<_, _> = headers.iter().map(|(name, values)| (name, values.join(","))).collect();
    // The host reads the body only if its length is announced.
    let body = if request.headers.contains_key(header::CONTENT_LENGTH) { body } else { &[] };
    let text = decoded(body);
    let mut metadata = Metadata::default();
    metadata.copy_properties(&text, &trigger.binding);
    for (name, value) in pairs.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(KEY_PARAMETER)) {
        metadata.set_literal(name, value);
    }
    for (name, value) in parameters {
        metadata.set_literal(name, value);
    }
    metadata.add_if_absent("Query", json!(query));
    metadata.add_if_absent("Headers", json!(joined));
    metadata.add_system(function, now);
    let has_key = request.headers.contains_key(KEY_HEADER) || query.contains_key(KEY_PARAMETER);
    let mut http = json!({
        "Url": format!("http://{}{target}", header(header::HOST)),
        "Method": request.method.as_str(),
        "Query": query,
        "Headers": headers,
        "Params": parameters,
        "Identities": if has_key && trigger.needs_key { json!([key_holder()]) } else { json!([]) },
    });
    if !body.is_empty() {
        let media_type = header(header::CONTENT_TYPE).to_ascii_lowercase();
        let binary = media_type.starts_with("application/octet-stream") || media_type.starts_with("multipart/");
        http["Body"] = if binary { BASE64_STANDARD.encode(body).into() } else { (&*text).into() };
    }
    let data = Map::from_iter([(trigger.binding.clone(), http)]);
    json!({ "Data": data, "Metadata": metadata })
}

/// The text of a body. A byte order mark decides about its encoding and is removed; the charset of the content type
/// counts for nothing.
fn decoded(body: &[u8]) -> Cow<'_, str> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, _) = bytes.as_chunks();
        String::from_utf16_lossy(&units.iter().map(|bytes| unit(*bytes)).collect::<Vec<_>>()).into()
    };
    match body {
        [0xef, 0xbb, 0xbf, text @ ..] => String::from_utf8_lossy(text),
        [0xff, 0xfe, text @ ..] => utf16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf16(text, u16::from_be_bytes),
        text => String::from_utf8_lossy(text),
    }
}

/// What the host knows of a caller with a function key.
fn key_holder() -> Value {
    let claim = |kind: &str, value: &str| {
        json!({
            "Issuer": "LOCAL AUTHORITY",
            "OriginalIssuer": "LOCAL AUTHORITY",
            "Properties": {},
            "Type": format!("http://schemas.microsoft.com/2017/07/functions/claims/{kind}"),
            "Value": value,
            "ValueType": "http://www.w3.org/2001/XMLSchema#string",
        })
    };
    json!({
        "AuthenticationType": "WebJobsAuthLevel",
        "IsAuthenticated": true,
        "Actor": null,
        "BootstrapContext": null,
        "Claims": [claim("authlevel", "Function"), claim("invoke", "true"), claim("keyid", "default")],
        "Label": null,
        "Name": null,
        "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
        "RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
    })
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
    use crate::functions_host::route::Route;

    fn posted(content_type: &str, announced: bool, body: &[u8]) -> Value {
        let request = Request::post("/api/uplink/a%2Fb?x=1&y=%20&x=2").header("host", "localhost:7071");
        let request = request.header("content-type", content_type).header("x-twice", "1").header("x-twice", "2");
        let request = if announced { request.header("content-length", body.len()) } else { request };
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let parameters = Parameters::from([("id".to_owned(), "a/b".to_owned())]);
        let trigger = HttpTrigger {
            binding: "req".to_owned(),
            route: Route::parse("uplink/{id}").unwrap(),
            methods: Vec::new(),
            needs_key: true,
            output: None,
        };
        let now = "2024-05-14T15:14:15.128919Z".parse().unwrap();
        let mut envelope = http("uplink", &trigger, &parts, body, &parameters, now);
        assert_eq!(envelope["Metadata"]["sys"]["RandGuid"].take().as_str().unwrap().len(), 36);
        envelope
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
                "v": "\"7\"", "x": "\"2\"", "y": "\" \"", "id": "\"a/b\"",
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
