//! `/dps/…` of the control endpoint, apart from the doors.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, put},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{faults::Faults, registrations::Registration, state::Settings};
use crate::iot_hub::{
    control::{Answer, Parameters, parse, time_to_wait},
    hub::Hub,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistrationsParameters {
    device: Option<String>,
    wait: Option<u64>,
    timeout_ms: Option<u64>,
}

/// What `PUT /dps/settings` changes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    assigned_hub: Option<String>,
    retry_after_seconds: Option<u32>,
}

pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/dps/registrations", get(get_registrations))
        .route("/dps/settings", get(get_settings).put(put_settings))
        .route("/dps/faults", put(put_faults).get(get_faults).delete(delete_faults))
        .with_state(hub)
}

/// `?device=ID&wait=K&timeout_ms=T`. With `wait`, answers when there have been `K` calls to register (this device, if one
/// is named) that were answered, or when the time is over.
async fn get_registrations(
    State(hub): State<Arc<Hub>>,
    query: Parameters<RegistrationsParameters>,
) -> Answer<Json<Vec<Value>>> {
    let Query(query) = query?;
    let wanted = |registration: &&Registration| {
        let id = &registration.registration_id;
        query.device.as_ref().is_none_or(|device| device.eq_ignore_ascii_case(id))
    };
    if let Some(number) = query.wait {
        let calls = || hub.dps.registrations().all().filter(wanted).map(|found| found.register_calls).sum::<u64>();
        let mut changed = hub.dps.changed.subscribe();
        // Time over is not an error: the answer says how far things have come.
        let _ = timeout(time_to_wait(query.timeout_ms)?, changed.wait_for(|()| calls() >= number)).await;
    }
    Ok(Json(hub.dps.registrations().all().filter(wanted).map(Registration::to_json).collect()))
}

async fn get_settings(State(hub): State<Arc<Hub>>) -> Json<Settings> {
    Json(hub.dps.settings().clone())
}

/// Changes what is named, and leaves the rest.
async fn put_settings(State(hub): State<Arc<Hub>>, body: Bytes) -> Answer<Json<Settings>> {
    let Change { assigned_hub, retry_after_seconds } = parse(&body)?;
    let mut settings = hub.dps.settings();
    if let Some(hub) = assigned_hub {
        settings.assigned_hub = hub;
    }
    if let Some(seconds) = retry_after_seconds {
        settings.retry_after_seconds = seconds;
    }
    Ok(Json(settings.clone()))
}

async fn get_faults(State(hub): State<Arc<Hub>>) -> Json<Faults> {
    Json(hub.dps.faults().clone())
}

async fn put_faults(State(hub): State<Arc<Hub>>, body: Bytes) -> Answer<Json<Faults>> {
    let faults: Faults = parse(&body)?;
    tracing::info!("faults of the Device Provisioning Service set: {}", serde_json::json!(faults));
    *hub.dps.faults() = faults.clone();
    Ok(Json(faults))
}

async fn delete_faults(State(hub): State<Arc<Hub>>) -> StatusCode {
    *hub.dps.faults() = Faults::default();
    StatusCode::NO_CONTENT
}
