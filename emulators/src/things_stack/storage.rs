//! The Storage Integration: what was sent can be had again.
//!
//! Source: The Things Stack's documentation, "Retrieve Messages", and its API reference, `GetStoredApplicationUp`.

use std::{cmp::Reverse, sync::Arc};

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Stack, keys::READ_TRAFFIC, refusal::Refusal};

pub const ROUTE: &str = "/api/v3/as/applications/{application}/packages/storage/{kind}";
pub const ROUTE_OF_DEVICE: &str = "/api/v3/as/applications/{application}/devices/{device}/packages/storage/{kind}";
/// The kind of message that is stored.
const UPLINK: &str = "uplink_message";

/// The bounds are exclusive.
#[derive(Deserialize)]
pub struct Wanted {
    after: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
    #[serde(default)]
    order: Order,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum Order {
    #[serde(rename = "received_at")]
    OldestFirst,
    #[default]
    #[serde(rename = "-received_at")]
    NewestFirst,
}

type Parsed = Result<Query<Wanted>, axum::extract::rejection::QueryRejection>;

pub async fn of_application(
    State(stack): State<Arc<Stack>>,
    Path((application, kind)): Path<(String, String)>,
    query: Parsed,
    headers: HeaderMap,
) -> Response {
    answer(&stack, &application, None, &kind, query, &headers).unwrap_or_else(IntoResponse::into_response)
}

pub async fn of_device(
    State(stack): State<Arc<Stack>>,
    Path((application, device, kind)): Path<(String, String, String)>,
    query: Parsed,
    headers: HeaderMap,
) -> Response {
    answer(&stack, &application, Some(&device), &kind, query, &headers).unwrap_or_else(IntoResponse::into_response)
}

fn answer(
    stack: &Stack,
    application: &str,
    device: Option<&str>,
    kind: &str,
    query: Parsed,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    stack.keys.require(headers, application, &[READ_TRAFFIC])?;
    if kind != UPLINK {
        return Err(Refusal::bad_query(format!("type {kind:?} is not stored")));
    }
    if !stack.generator().knows_application(application) {
        return Err(Refusal::unknown_application(application));
    }
    let Query(wanted) = query.map_err(Refusal::bad_query)?;
    let mut stored: Vec<(DateTime<Utc>, Value)> = Vec::new();
    for uplink in stack.journal.kept() {
        let Some((of, body)) = uplink.stored() else { continue };
        if of.application != application || device.is_some_and(|device| of.id != device) {
            continue;
        }
        let mut body: Value = serde_json::from_slice(body).expect("the generator's own JSON");
        body.as_object_mut().expect("an object").remove("correlation_ids");
        let at = body["received_at"].as_str().and_then(|text| text.parse().ok()).expect("the generator's own time");
        if wanted.after.is_none_or(|after| at > after) && wanted.before.is_none_or(|before| at < before) {
            stored.push((at, body));
        }
    }
    match wanted.order {
        Order::OldestFirst => stored.sort_by_key(|(at, _)| *at),
        Order::NewestFirst => stored.sort_by_key(|(at, _)| Reverse(*at)),
    }
    let lines = stored.iter().take(wanted.limit.unwrap_or(usize::MAX));
    let text: String = lines.map(|(_, body)| format!("{}\n", json!({ "result": body }))).collect();
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], text).into_response())
}
