//! Items in a plain map, for benchmarks. The engine copies a whole physical partition for each transaction, and with a
//! hierarchical key all sites of a customer are in one: at ten thousand sites it is the emulator that is measured. This
//! knows point reads, transactional batches (create, replace with If-Match) and the queries for all cursors and for the latest ones.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{BODY_LIMIT, problem};

/// Partition key (as the client writes it) and id; ETag and body.
type Items = HashMap<(String, String), (u64, Value)>;

#[derive(Default)]
pub struct PlainItems {
    state: Mutex<(u64, Items)>,
    conflicts: AtomicU64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation_type: String,
    id: Option<String>,
    if_match: Option<String>,
    resource_body: Value,
}

impl PlainItems {
    /// Whether a request is for items under a hierarchical key.
    pub fn concern(request: &Request) -> bool {
        is_query(request.headers()) || Self::concern_one(request)
    }

    fn concern_one(request: &Request) -> bool {
        let key = request.headers().get("x-ms-documentdb-partitionkey").and_then(|key| key.to_str().ok());
        let components = key.and_then(|key| serde_json::from_str::<Vec<Value>>(key).ok()).map_or(0, |key| key.len());
        components > 1 && request.uri().path().split('/').nth(5) == Some("docs")
    }

    /// Every item.
    pub fn all(&self) -> Vec<Value> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.values().map(|(_, item)| item.clone()).collect()
    }

    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }

    /// Answers a request for `…/docs` or `…/docs/ID`, or gives it back: a query that is not known.
    ///
    /// # Errors
    /// The request is not a point read and no batch.
    pub async fn execute(&self, request: Request) -> anyhow::Result<Result<Response, Request>> {
        let (parts, body) = request.into_parts();
        if is_query(&parts.headers) {
            let body = axum::body::to_bytes(body, BODY_LIMIT).await?;
            let query: Value = serde_json::from_slice(&body)?;
            let Some(since) = query["query"].as_str().and_then(cursors_since) else {
                return Ok(Err(Request::from_parts(parts, body.into())));
            };
            let is_meant = |item: &Value| item["Kind"] == "cursor" && item["_ts"].as_i64() >= Some(since);
            let cursors: Vec<_> = self.all().into_iter().filter(is_meant).collect();
            return Ok(Ok(Json(json!({ "_rid": "", "_count": cursors.len(), "Documents": cursors })).into_response()));
        }
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let partition = header("x-ms-documentdb-partitionkey").context("no partition key")?.to_owned();
        if parts.method == Method::GET {
            let id = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(Ok(match state.1.get(&(partition, id)) {
                Some((etag, body)) => ([("etag", format!("\"{etag}\""))], Json(body)).into_response(),
                None => problem(StatusCode::NOT_FOUND, "NotFound", "no such item"),
            }));
        }
        anyhow::ensure!(header("x-ms-cosmos-is-batch-request").is_some(), "only point reads and batches are known");
        let body = axum::body::to_bytes(body, BODY_LIMIT).await?;
        let operations: Vec<Operation> = serde_json::from_slice(&body)?;
        Ok(Ok(self.batch(&partition, operations)))
    }

    fn batch(&self, partition: &str, operations: Vec<Operation>) -> Response {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last_etag, items) = &mut *state;
        let keys: Vec<_> = operations
            .iter()
            .map(|operation| {
                let id = operation.id.as_deref().or(operation.resource_body["id"].as_str()).unwrap_or_default();
                (partition.to_owned(), id.to_owned())
            })
            .collect();
        let refusal =
            operations.iter().zip(&keys).position(|(operation, key)| refused(operation, items.get(key)).is_some());
        if let Some(at) = refusal {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            let status =
                |index| if index == at { refused(&operations[at], items.get(&keys[at])).unwrap_or(400) } else { 424 };
            let results: Vec<_> = (0..operations.len()).map(|index| json!({ "statusCode": status(index) })).collect();
            return (StatusCode::MULTI_STATUS, Json(results)).into_response();
        }
        let mut results = Vec::with_capacity(operations.len());
        for (operation, key) in operations.into_iter().zip(keys) {
            *last_etag += 1;
            results.push(json!({ "statusCode": 200, "eTag": format!("\"{last_etag}\""), "requestCharge": 1.0 }));
            let mut item = operation.resource_body;
            item["_ts"] = json!(chrono::Utc::now().timestamp());
            items.insert(key, (*last_etag, item));
        }
        Json(results).into_response()
    }
}

/// Since when the cursors were written that a query asks for. `None` if it asks for something else.
fn cursors_since(query: &str) -> Option<i64> {
    let (_, condition) = query.split_once(" WHERE c.Kind = 'cursor'")?;
    if condition.is_empty() { Some(0) } else { condition.strip_prefix(" AND c._ts >= ")?.parse().ok() }
}

/// Whether a request is a query, and not for the plan of one.
fn is_query(headers: &HeaderMap) -> bool {
    let is_set =
        |name| headers.get(name).is_some_and(|value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"true"));
    is_set("x-ms-documentdb-isquery") && !is_set("x-ms-cosmos-is-query-plan-request")
}

/// The status of an operation that cannot be carried out.
fn refused(operation: &Operation, existing: Option<&(u64, Value)>) -> Option<u16> {
    match (operation.operation_type.as_str(), existing) {
        ("Create", None) => None,
        ("Create", Some(_)) => Some(409),
        ("Replace", None) => Some(404),
        ("Replace", Some((etag, _))) => {
            let unchanged = operation.if_match.as_ref().is_none_or(|wanted| *wanted == format!("\"{etag}\""));
            (!unchanged).then_some(412)
        }
        _ => Some(400),
    }
}
