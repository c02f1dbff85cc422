//! Reads the host's envelope of an HTTP call and builds the answer to the caller.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::StatusCode;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

use crate::support::http::{MAX_ERROR_TEXT, one_line};

/// A request as the host passes it on. Headers and body may hold secrets, so they are not printed.
#[derive(Clone)]
pub struct HttpRequest {
    /// By lower-case names.
    headers: BTreeMap<String, String>,
    /// The part of the URL after the `?`, decoded. It may contain the function key.
    query: BTreeMap<String, String>,
    /// Also empty if the body was sent in chunks: the host does not read it then.
    pub body: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "Data")]
    data: BTreeMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(default)]
    headers: BTreeMap<String, First>,
    query: Option<BTreeMap<String, First>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// A header's value; the first if there are several. An untagged enum would copy everything first.
struct First(Option<String>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FirstVisitor)
    }
}

struct FirstVisitor;

impl<'de> Visitor<'de> for FirstVisitor {
    type Value = First;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a header's value, or an array of them")
    }

    fn visit_str<E>(self, value: &str) -> Result<First, E> {
        Ok(First(Some(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<First, A::Error> {
        let first = values.next_element()?;
        while let Some(IgnoredAny) = values.next_element()? {}
        Ok(First(first))
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpRequest").field("length", &self.body.len()).finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// Reads the envelope of an HTTP call.
    ///
    /// # Errors
    /// What is missing.
    pub fn read(body: &[u8], binding: &str) -> Result<Self, String> {
        let envelope: Envelope<'_> =
            serde_json::from_slice(body).map_err(|error| one_line(&error.to_string(), MAX_ERROR_TEXT))?;
        let raw = envelope.data.get(binding).ok_or_else(|| format!("there is no {binding} in Data"))?;
        let request: Request<'_> = serde_json::from_str(raw.get())
            .map_err(|error| one_line(&format!("{binding}: {error}"), MAX_ERROR_TEXT))?;
        let lower_case = |(mut name, First(value)): (String, First)| {
            name.make_ascii_lowercase();
            Some((name, value?))
        };
        let headers: BTreeMap<_, _> = request.headers.into_iter().filter_map(lower_case).collect();
        let body = request.body.map_or(Cow::Borrowed(""), |raw| {
            serde_json::from_str::<String>(raw.get()).map_or(Cow::Borrowed(raw.get()), Cow::Owned)
        });
        // The host passes on a body in Base64 if it considers the body binary.
        let is_binary = headers.get("content-type").is_some_and(|kind| {
            let kind = kind.to_ascii_lowercase();
            kind.starts_with("application/octet-stream") || kind.starts_with("multipart/")
        });
        let decoded = if is_binary { BASE64_STANDARD.decode(&*body).ok() } else { None };
        let body = match decoded {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => body.into_owned(),
        };
        let query =
            request.query.into_iter().flatten().filter_map(|(name, First(value))| Some((name, value?))).collect();
        Ok(Self { headers, query, body })
    }

    /// A header by its lower-case name. If there are several, the first.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// A parameter of the URL's query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

/// The value of an `http` output: a status without a body.
#[must_use]
pub fn status(status: StatusCode) -> Value {
    json!({ "statusCode": status.as_u16() })
}

/// The value of an `http` output: a document. No cache on the way may store it.
#[must_use]
pub fn document(status: StatusCode, content_type: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let mut all = json!({
        "Content-Type": content_type,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    });
    headers.iter().for_each(|(name, value)| all[*name] = (*value).into());
    json!({ "statusCode": status.as_u16(), "headers": all, "body": body })
}

/// The value of an `http` output that says what is wrong with the request. <https://www.rfc-editor.org/rfc/rfc9457>
#[must_use]
pub fn problem(status: StatusCode, detail: &str) -> Value {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    // As text: the host would choose its own format for an object.
    json!({
        "statusCode": status.as_u16(),
        "headers": { "Content-Type": "application/problem+json" },
        "body": body.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Captured from the host, shortened.
    const REQUEST: &str = r#"{"Data":{"req":{"Url":"http://localhost:7071/api/uplink?x=1","Method":"POST","Query":{"x":"1"},"Headers":{"Host":["localhost:7071"],"Content-Type":["application/json"],"X-Twice":["1","2"]},"Params":{},"Identities":[],"Body":"{\"v\":7}"}},"Metadata":{"Query":{"x":"1"},"Headers":{"Host":"localhost:7071"},"sys":{"MethodName":"thingsNetworkUplink"}}}"#;

    fn read(body: &str) -> HttpRequest {
        HttpRequest::read(body.as_bytes(), "req").unwrap()
    }

    #[test]
    fn the_hosts_envelope_is_read() {
        let request = read(REQUEST);
        assert_eq!(request.body, r#"{"v":7}"#);
        assert_eq!((request.header("content-type"), request.header("x-twice")), (Some("application/json"), Some("1")));
        assert_eq!((request.header("x-none"), request.parameter("x"), request.parameter("X")), (None, Some("1"), None));
        let odd = read(r#"{"Data":{"req":{"Headers":{"A":"b","None":[]},"Body":{"v": 7}}}}"#);
        assert_eq!((odd.body.as_str(), odd.header("a"), odd.header("none")), (r#"{"v": 7}"#, Some("b"), None));
    }

    #[test]
    fn a_body_may_be_absent_or_binary() {
        assert_eq!(read(r#"{"Data":{"req":{}}}"#).body, "");
        assert_eq!(read(r#"{"Data":{"req":{"Body":null}}}"#).body, "");
        let binary =
            r#"{"Data":{"req":{"Headers":{"Content-Type":["application/octet-stream"]},"Body":"eyJ2Ijo3fQ=="}}}"#;
        assert_eq!(read(binary).body, r#"{"v":7}"#);
    }

    #[test]
    fn problems_are_told_as_text() {
        let problem = problem(StatusCode::BAD_REQUEST, "no ids");
        let body: Value = serde_json::from_str(problem["body"].as_str().unwrap()).unwrap();
        let expected = json!({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "no ids"});
        assert_eq!((&problem["statusCode"], body), (&json!(400), expected));
    }

    #[test]
    fn what_is_no_envelope_says_what_is_missing() {
        for (body, problem) in
            [("{}", "Data"), (r#"{"Data":{"other":""}}"#, "no req in Data"), (r#"{"Data":{"req":7}}"#, "req:")]
        {
            let error = HttpRequest::read(body.as_bytes(), "req").unwrap_err();
            assert!(error.contains(problem), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn body_and_headers_are_what_was_sent(body: String, value: String) {
            let envelope = json!({"Data": {"req": {"Headers": {"X-Value": [value], "Accept": ["*/*"]}, "Body": body}}});
            let request = read(&envelope.to_string());
            prop_assert_eq!((request.header("x-value"), &request.body), (Some(&*value), &body));
        }
    }
}
