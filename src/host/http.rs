//! Reads the host's envelope of an HTTP call and builds the answer to the caller.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::StatusCode;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

use super::input::{self, Text};

/// A request as the host passes it on. Headers and body may hold secrets, so they are not printed.
#[derive(Clone)]
pub struct HttpRequest<'a> {
    headers: Pairs<'a>,
    /// The part of the URL after the `?`, decoded. It may contain the function key.
    query: Pairs<'a>,
    /// The parameters of the function's route.
    route: Pairs<'a>,
    /// Also empty if the body was sent in chunks: the host does not read it then.
    pub body: Cow<'a, str>,
}

/// `Body` is a `B`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a, B> {
    #[serde(borrow, default)]
    headers: Pairs<'a>,
    #[serde(borrow)]
    query: Option<Pairs<'a>>,
    #[serde(borrow)]
    params: Option<Pairs<'a>>,
    body: Option<B>,
}

/// Names and values. There are few, so a search through all is fastest.
#[derive(Clone, Default)]
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((Text(name), First(value))) = members.next_entry()? {
            pairs.extend(value.map(|value| (name, value)));
        }
        Ok(Pairs(pairs))
    }
}

/// A header's value; the first if there are several. An untagged enum would copy everything first.
struct First<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FirstVisitor)
    }
}

struct FirstVisitor;

impl<'de> Visitor<'de> for FirstVisitor {
    type Value = First<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a header's value, or an array of them")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(First(Some(value.into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(First(Some(value.to_owned().into())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(First(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let first = values.next_element()?.map(|Text(first)| first);
        while let Some(IgnoredAny) = values.next_element()? {}
        Ok(First(first))
    }
}

impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpRequest").field("length", &self.body.len()).finish_non_exhaustive()
    }
}

impl<'a> HttpRequest<'a> {
    /// Reads the envelope of an HTTP call.
    ///
    /// # Errors
    /// What is missing.
    pub fn read(envelope: &'a [u8], binding: &str) -> Result<Self, String> {
        let read = input::read::<Request<'a, Text<'a>>, IgnoredAny>(envelope, binding);
        let (headers, query, route, body) = match read {
            Ok((request, _)) => (request.headers, request.query, request.params, request.body.map(|Text(body)| body)),
            // The host always sends a string. Operators who call by hand may send the object in it.
            Err(_) => {
                let (request, _) = input::read::<Request<'a, &'a RawValue>, IgnoredAny>(envelope, binding)?;
                (request.headers, request.query, request.params, request.body.map(|body| body.get().into()))
            }
        };
        let (query, route) = (query.unwrap_or_default(), route.unwrap_or_default());
        let mut request = Self { headers, query, route, body: body.unwrap_or_default() };
        // The host passes on a body in Base64 if it considers the body binary.
        let is_binary = request.header("content-type").is_some_and(|kind| {
            let kind = kind.to_ascii_lowercase();
            kind.starts_with("application/octet-stream") || kind.starts_with("multipart/")
        });
        if is_binary && let Ok(bytes) = BASE64_STANDARD.decode(&*request.body) {
            request.body = String::from_utf8_lossy(&bytes).into_owned().into();
        }
        Ok(request)
    }

    /// A header by its name in any case. If there are several, the first.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let Pairs(headers) = &self.headers;
        headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// A parameter of the function's route.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&str> {
        let Pairs(parameters) = &self.route;
        parameters.iter().find(|(parameter, _)| parameter == name).map(|(_, value)| &**value)
    }

    /// A parameter of the URL's query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let Pairs(parameters) = &self.query;
        parameters.iter().find(|(parameter, _)| parameter == name).map(|(_, value)| &**value)
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

    fn read(body: &str) -> HttpRequest<'_> {
        HttpRequest::read(body.as_bytes(), "req").unwrap()
    }

    #[test]
    fn the_hosts_envelope_is_read() {
        let request = read(REQUEST);
        assert_eq!(request.body, r#"{"v":7}"#);
        assert_eq!((request.header("content-type"), request.header("x-twice")), (Some("application/json"), Some("1")));
        assert_eq!((request.header("x-none"), request.parameter("x"), request.parameter("X")), (None, Some("1"), None));
        let path = read(r#"{"Data":{"req":{"Params":{"path":"up/x","other":null}}}}"#);
        assert_eq!((path.route("path"), path.route("other"), request.route("path")), (Some("up/x"), None, None));
        let odd = read(r#"{"Data":{"req":{"Headers":{"A":"b","None":[]},"Body":{"v": 7}}}}"#);
        assert_eq!((&*odd.body, odd.header("a"), odd.header("none")), (r#"{"v": 7}"#, Some("b"), None));
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
            let envelope = envelope.to_string();
            let request = read(&envelope);
            prop_assert_eq!((request.header("x-value"), &*request.body), (Some(&*value), &*body));
        }
    }
}
