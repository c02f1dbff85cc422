//! Counts what the requests for documents would cost: an estimate by the size of the documents. The service's own figures depend on
//! the index, too.

use std::sync::{Mutex, PoisonError};

use axum::{
    body::HttpBody as _,
    http::{Method, StatusCode, request::Parts},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Request units of a write of up to 1 KB, of each further KB, of a point read of 1 KB, and of a query.
const WRITE: f64 = 4.95;
const FURTHER: f64 = 1.0;
const READ: f64 = 1.0;
const QUERY: f64 = 2.3;
const KB: usize = 1024;

/// What was asked for since the start, or since the last `DELETE cost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    pub requests: u64,
    /// Documents that were created, replaced or deleted.
    pub written: u64,
    pub written_bytes: u64,
    /// Point reads.
    pub read: u64,
    pub queries: u64,
    pub request_units: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation<'a> {
    #[serde(borrow)]
    resource_body: Option<&'a RawValue>,
}

#[derive(Debug, Default)]
pub struct Meter(Mutex<Cost>);

impl Meter {
    pub fn get(&self) -> Cost {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Cost::default();
    }

    pub fn count(&self, cost: Cost) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = Cost {
            requests: sum.requests + cost.requests,
            written: sum.written + cost.written,
            written_bytes: sum.written_bytes + cost.written_bytes,
            read: sum.read + cost.read,
            queries: sum.queries + cost.queries,
            request_units: sum.request_units + cost.request_units,
        };
    }
}

impl Cost {
    /// `None` for what concerns databases and containers, and for what failed.
    pub fn of(parts: &Parts, body: &[u8], response: &Response) -> Option<Self> {
        let is_documents = parts.uri.path().trim_matches('/').split('/').nth(4) == Some("docs");
        let is_found = response.status().is_success() || response.status() == StatusCode::NOT_FOUND;
        if !is_documents || !is_found {
            return None;
        }
        let has = |name| parts.headers.contains_key(name);
        let answered =
            response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
        let one = Self { requests: 1, ..Self::default() };
        if has("x-ms-documentdb-isquery") || has("x-ms-documentdb-query") {
            return Some(Self { queries: 1, request_units: QUERY * kilobytes(answered), ..one });
        }
        if has("x-ms-cosmos-is-batch-request") {
            // A batch that is refused is an answer, too: 207.
            if response.status() == StatusCode::MULTI_STATUS {
                return None;
            }
            let operations: Vec<Operation> = serde_json::from_slice(body).ok()?;
            let sizes = operations.iter().map(|operation| operation.resource_body.map_or(0, |body| body.get().len()));
            return Some(sizes.fold(one, Self::and_write));
        }
        Some(match parts.method {
            Method::GET => Self { read: 1, request_units: READ * kilobytes(answered), ..one },
            _ => one.and_write(body.len()),
        })
    }

    fn and_write(self, size: usize) -> Self {
        Self {
            written: self.written + 1,
            written_bytes: self.written_bytes + size as u64,
            request_units: self.request_units + WRITE + FURTHER * (kilobytes(size) - 1.0),
            ..self
        }
    }
}

/// Begun kilobytes, at least one.
fn kilobytes(size: usize) -> f64 {
    let begun = u32::try_from(size.div_ceil(KB).max(1)).unwrap_or(u32::MAX);
    f64::from(begun)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn cost(method: &str, path: &str, header: &str, body: &str, answer: (u16, usize)) -> Option<Cost> {
        let request = Request::builder().method(method).uri(path).header(header, "True").body(()).unwrap();
        let response = Response::builder().status(answer.0).body("x".repeat(answer.1).into()).unwrap();
        Cost::of(&request.into_parts().0, body.as_bytes(), &response)
    }

    #[test]
    fn documents_cost_by_their_size() {
        let path = "/dbs/d/colls/c/docs/cursor";
        let read = cost("GET", path, "x", "", (200, 1500)).unwrap();
        assert_eq!((read.read, read.request_units), (1, 2.0));
        let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000));
        let batch = format!(r#"[{{"resourceBody":{{}}}},{{"resourceBody":{large}}}]"#);
        let written = cost("POST", path, "x-ms-cosmos-is-batch-request", &batch, (200, 10)).unwrap();
        assert_eq!((written.requests, written.written, written.request_units), (1, 2, 2.0 * WRITE + FURTHER));
        assert_eq!(cost("POST", path, "x-ms-cosmos-is-batch-request", &batch, (207, 10)), None, "refused");
        assert_eq!(cost("POST", path, "x-ms-documentdb-isquery", "", (200, 3_000)).unwrap().request_units, QUERY * 3.0);
        assert_eq!(cost("GET", "/dbs/d/colls/c", "x", "", (200, 10)), None);
        assert_eq!(cost("PUT", path, "x", &large, (429, 10)), None);
    }
}
