//! The API for webhooks, for simulated uplinks, and for what a key may do: from a request to its answer.
//!
//! Source: lorawan-stack `api/ttn/lorawan/v3/applicationserver_web.proto` (routes and rights are in
//! `pkg/applicationserver/io/web/grpc_webhooks.go`), `SimulateUplink` in `pkg/applicationserver/io/grpc/grpc.go`,
//! `api/ttn/lorawan/v3/application_services.proto` (`ListRights`) and `identityserver.proto` (`AuthInfo`).

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
    routing::{get, post},
};
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Stack,
    fan_out::{self, Message},
    keys::{EDIT_SETTINGS, READ_DEVICES, READ_TRAFFIC, WRITE_DOWNLINKS, WRITE_UPLINKS},
    refusal::Refusal,
};

const TO_SET: [&str; 3] = [EDIT_SETTINGS, READ_TRAFFIC, WRITE_DOWNLINKS];
const UPLINK: &str = "uplink_message";

type Shared = State<Arc<Stack>>;
type Answered = Result<Json<Value>, Refusal>;

#[derive(Default, Deserialize)]
struct Masked {
    #[serde(default)]
    field_mask: String,
}

impl Masked {
    fn paths(&self) -> Vec<String> {
        self.field_mask.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect()
    }
}

pub fn routes() -> Router<Arc<Stack>> {
    Router::new()
        .route("/api/v3/as/webhooks/{application}", get(list).post(create))
        .route("/api/v3/as/webhooks/{application}/{webhook}", get(one).put(set).delete(delete))
        .route("/api/v3/as/applications/{application}/devices/{device}", get(device))
        .route("/api/v3/as/applications/{application}/devices/{device}/up/simulate", post(simulate))
        .route("/api/v3/applications/{application}/rights", get(rights))
        .route("/api/v3/auth_info", get(info))
}

/// What is not an application is one on which the caller has no rights.
fn require(stack: &Stack, headers: &HeaderMap, application: &str, needed: &[&str]) -> Result<(), Refusal> {
    stack.keys.require(headers, application, needed)?;
    if stack.generator().knows_application(application) { Ok(()) } else { Err(Refusal::no_rights(application)) }
}

async fn list(
    State(stack): Shared,
    Path(application): Path<String>,
    Query(masked): Query<Masked>,
    headers: HeaderMap,
) -> Answered {
    require(&stack, &headers, &application, &[READ_TRAFFIC])?;
    stack.registry.list(&application, &masked.paths()).map(Json)
}

async fn one(
    State(stack): Shared,
    Path((application, webhook)): Path<(String, String)>,
    Query(masked): Query<Masked>,
    headers: HeaderMap,
) -> Answered {
    require(&stack, &headers, &application, &[READ_TRAFFIC])?;
    stack.registry.get(&application, &webhook, &masked.paths()).map(Json)
}

async fn set(
    State(stack): Shared,
    Path((application, webhook)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answered {
    require(&stack, &headers, &application, &TO_SET)?;
    store(&stack, &application, Some(webhook), &body)
}

async fn create(State(stack): Shared, Path(application): Path<String>, headers: HeaderMap, body: Bytes) -> Answered {
    require(&stack, &headers, &application, &TO_SET)?;
    store(&stack, &application, None, &body)
}

fn store(stack: &Stack, application: &str, id: Option<String>, body: &[u8]) -> Answered {
    let body: Value = serde_json::from_slice(body).map_err(Refusal::bad_json)?;
    let webhook = body["webhook"].as_object().cloned().unwrap_or_default();
    let id = id.or_else(|| body["webhook"]["ids"]["webhook_id"].as_str().map(str::to_owned)).unwrap_or_default();
    stack.registry.set(application, &id, &webhook, &paths(&body["field_mask"])).map(Json)
}

/// In a body, a field mask is an object, or one text.
fn paths(mask: &Value) -> Vec<String> {
    match &mask["paths"] {
        Value::Array(paths) => paths.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Masked { field_mask: mask.as_str().unwrap_or_default().to_owned() }.paths(),
    }
}

async fn delete(
    State(stack): Shared,
    Path((application, webhook)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answered {
    require(&stack, &headers, &application, &TO_SET)?;
    stack.registry.delete(&application, &webhook);
    Ok(Json(json!({})))
}

async fn device(
    State(stack): Shared,
    Path((application, device)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answered {
    require(&stack, &headers, &application, &[READ_DEVICES])?;
    match stack.generator().ids(&application, &device) {
        Some(ids) => Ok(Json(json!({ "ids": ids }))),
        None => Err(Refusal::not_found()),
    }
}

/// Any device can be simulated, also one that does not exist.
async fn simulate(
    State(stack): Shared,
    Path((application, device)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answered {
    let body: Map<String, Value> = serde_json::from_slice(&body).map_err(Refusal::bad_json)?;
    if body.get("simulated") == Some(&Value::Bool(true)) {
        return Err(Refusal::simulated_again());
    }
    if !body.get(UPLINK).is_some_and(|uplink| uplink["settings"].is_object()) {
        return Err(Refusal::invalid("settings", "value is required"));
    }
    require(&stack, &headers, &application, &[WRITE_UPLINKS])?;
    let bare = json!({"device_id": device, "application_ids": {"application_id": application}});
    let ids = stack.generator().ids(&application, &device).unwrap_or(bare);
    let mut envelope = body;
    envelope.insert("end_device_ids".into(), ids);
    envelope.insert("received_at".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true).into());
    envelope.insert("simulated".into(), true.into());
    let message = Arc::new(Message { application, device, kind: UPLINK, envelope });
    tokio::spawn(async move {
        let ended = stack.ended.clone();
        ended.run_until_cancelled(fan_out::send(&stack, message)).await;
    });
    Ok(Json(json!({})))
}

async fn rights(State(stack): Shared, Path(application): Path<String>, headers: HeaderMap) -> Answered {
    let rights = stack.keys.rights(&headers, &application)?;
    let is_known = stack.generator().knows_application(&application);
    Ok(Json(if is_known { json!({ "rights": rights }) } else { json!({}) }))
}

async fn info(State(stack): Shared, headers: HeaderMap) -> Answered {
    stack.keys.info(&headers).map(Json)
}
