//! What a request is to the application that makes it, for the names of [steps](crate::steps).

use axum::http::{Method, request::Parts};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::steps::Step;

/// Whether it is the id of a site's document that is not a poll: of its cursor, or of a backfill's.
fn is_cursor(id: &str) -> bool {
    id == "cursor" || id.starts_with("backfill-")
}

/// A request for documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    ReadCursor,
    ReadPoll,
    ReadDevice,
    /// A transaction that records rows, or moves the cursor alone. It may also mark a record that the cursor kept.
    Record,
    /// A transaction that only marks records: it replaces polls, or creates the one that the cursor kept.
    Mark,
    WriteDevice,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation_type: String,
    id: Option<String>,
    resource_body: Option<Document>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    outcome: Option<String>,
    record: Option<IgnoredAny>,
}

impl Operation {
    fn marks(&self) -> bool {
        let replaces_poll = self.operation_type == "Replace" && self.id.as_deref().is_some_and(|id| !is_cursor(id));
        replaces_poll || self.resource_body.as_ref().is_some_and(|body| body.outcome.as_deref() == Some("forwarded"))
    }

    /// Of a cursor: whether it keeps a record.
    fn keeps(&self) -> bool {
        self.resource_body.as_ref().is_some_and(|body| body.record.is_some())
    }
}

impl Work {
    /// `None` for queries, and for what concerns databases and containers.
    pub fn of(parts: &Parts, body: &[u8]) -> Option<Self> {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        // dbs/NAME/colls/NAME/docs[/ID]
        let mut path = parts.uri.path().trim_matches('/').split('/').skip(4);
        let (docs, id) = (path.next()?, path.next());
        if docs != "docs" || header("x-ms-documentdb-isquery").is_some() || header("x-ms-documentdb-query").is_some() {
            return None;
        }
        if header("x-ms-cosmos-is-batch-request").is_some() {
            let operations: Vec<Operation> = serde_json::from_slice(body).ok()?;
            let only_marks = operations.iter().any(Operation::marks) && !operations.iter().any(Operation::keeps);
            return Some(if only_marks { Self::Mark } else { Self::Record });
        }
        let key = header("x-ms-documentdb-partitionkey").and_then(|key| serde_json::from_str::<Vec<Value>>(key).ok());
        let is_hierarchical = key.is_some_and(|key| key.len() > 1);
        match (&parts.method, id) {
            (&Method::GET, Some(id)) if is_hierarchical && is_cursor(id) => Some(Self::ReadCursor),
            (&Method::GET, Some(_)) if is_hierarchical => Some(Self::ReadPoll),
            (&Method::GET, Some(_)) => Some(Self::ReadDevice),
            (&Method::POST | &Method::PUT, _) if !is_hierarchical => Some(Self::WriteDevice),
            _ => None,
        }
    }

    pub fn came(self) -> Step {
        match self {
            Self::ReadCursor => Step::CursorRead,
            Self::ReadPoll => Step::PollRead,
            Self::ReadDevice => Step::DeviceRead,
            Self::Record => Step::RecordCame,
            Self::Mark => Step::MarkCame,
            Self::WriteDevice => Step::DeviceCame,
        }
    }

    /// Only of what writes.
    pub fn applied(self) -> Option<Step> {
        match self {
            Self::ReadCursor | Self::ReadPoll | Self::ReadDevice => None,
            Self::Record => Some(Step::RecordApplied),
            Self::Mark => Some(Step::MarkApplied),
            Self::WriteDevice => Some(Step::DeviceApplied),
        }
    }

    /// Only of what writes.
    pub fn answered(self) -> Option<Step> {
        match self {
            Self::ReadCursor | Self::ReadPoll | Self::ReadDevice => None,
            Self::Record => Some(Step::RecordAnswered),
            Self::Mark => Some(Step::MarkAnswered),
            Self::WriteDevice => Some(Step::DeviceAnswered),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn work(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Work> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Work::of(&request.body(()).unwrap().into_parts().0, body.as_bytes())
    }

    #[test]
    fn requests_are_told_apart() {
        let site = [("x-ms-documentdb-partitionkey", r#"["customer","site"]"#)];
        let device = [("x-ms-documentdb-partitionkey", r#"["id"]"#)];
        let batch = [("x-ms-cosmos-is-batch-request", "True")];
        for (method, path, headers, expected) in [
            ("GET", "/dbs/d/colls/c/docs/cursor", &site, Some(Work::ReadCursor)),
            ("GET", "/dbs/d/colls/c/docs/20260101", &site, Some(Work::ReadPoll)),
            ("GET", "/dbs/d/colls/c/docs/cursor", &device, Some(Work::ReadDevice)),
            ("POST", "/dbs/d/colls/c/docs", &device, Some(Work::WriteDevice)),
            ("PUT", "/dbs/d/colls/c/docs/id", &device, Some(Work::WriteDevice)),
            ("POST", "/dbs/d/colls/c/docs", &[("x-ms-documentdb-isquery", "True")], None),
            ("GET", "/dbs/d/colls/c", &site, None),
            ("GET", "/", &site, None),
        ] {
            assert_eq!(work(method, path, headers, ""), expected, "{method} {path}");
        }
        for (operations, expected) in [
            (r#"[{"operationType":"Create"},{"operationType":"Replace","id":"cursor"}]"#, Work::Record),
            (r#"[{"operationType":"Create"}]"#, Work::Record),
            (r#"[{"operationType":"Replace","id":"cursor"}]"#, Work::Record),
            (r#"[{"operationType":"Replace","id":"2026"},{"operationType":"Replace","id":"cursor"}]"#, Work::Mark),
            (r#"[{"operationType":"Create","resourceBody":{"Outcome":"forwarded"}}]"#, Work::Mark),
            (
                r#"[{"operationType":"Create","resourceBody":{"Outcome":"forwarded"}},{"operationType":"Replace","id":"cursor","resourceBody":{"Record":{}}}]"#,
                Work::Record,
            ),
        ] {
            assert_eq!(work("POST", "/dbs/d/colls/c/docs", &batch, operations), Some(expected), "{operations}");
        }
    }
}
