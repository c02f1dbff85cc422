//! `/devices`: which devices are registered with the hub.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{Answer, Control, Parameters, Refused, c2d::DeviceParameters, parse};
use crate::iot_hub::{login, registry::Device};

/// What to change; what is absent stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    enabled: Option<bool>,
    key: Option<String>,
}

pub async fn get(State(control): State<Control>) -> Json<BTreeMap<String, Device>> {
    Json(control.hub.registry.all())
}

/// Registers a device, or changes it. One that is disabled is disconnected.
pub async fn put(
    State(control): State<Control>,
    query: Parameters<DeviceParameters>,
    body: Bytes,
) -> Answer<StatusCode> {
    let Query(DeviceParameters { device }) = query?;
    let Change { enabled, key } = parse(&body)?;
    if !login::is_device_id(&device) {
        return Err(Refused::bad_request(format!("no device can have the id {device:?}")));
    }
    let key = key.map(|key| BASE64_STANDARD.decode(key)).transpose();
    let key = key.map_err(|_| Refused::bad_request("the key is not Base64"))?;
    control.hub.registry.set(&device, enabled, key);
    if enabled == Some(false) {
        control.hub.show_out(&device, false);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a device, whether it was registered or not, and disconnects it.
pub async fn delete(State(control): State<Control>, query: Parameters<DeviceParameters>) -> Answer<StatusCode> {
    let Query(DeviceParameters { device }) = query?;
    control.hub.registry.delete(&device);
    control.hub.show_out(&device, true);
    Ok(StatusCode::NO_CONTENT)
}
