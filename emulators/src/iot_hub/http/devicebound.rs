//! Messages to a device over HTTPS. The device fetches them one by one, each with a lock, and completes, rejects or
//! abandons it.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::SecondsFormat;

use super::{
    device::Device,
    error::Failure,
    properties::{APPLICATION, SYSTEM},
};
use crate::iot_hub::{
    c2d::{self, Delivery, Outcome},
    hub::Hub,
};

/// `GET …/messages/devicebound`: 204, or 200 with the oldest message. Its lock token is the quoted `ETag`.
pub async fn receive(device: Device, State(hub): State<Arc<Hub>>) -> Result<Response, Failure> {
    match hub.c2d.mailbox(&device.id).with(|queue| queue.lock(None)) {
        Some(delivery) => to_response(&device.id, &delivery),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// `DELETE …/messages/devicebound/{etag}`: completes the message, or rejects it if the query has `reject`.
pub async fn delete(
    device: Device,
    Path((_, token)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    State(hub): State<Arc<Hub>>,
) -> Result<StatusCode, Failure> {
    let outcome = if query.contains_key("reject") { Outcome::Reject } else { Outcome::Complete };
    settle(&hub, &device, &token, outcome)
}

/// `POST …/messages/devicebound/{etag}/abandon`.
pub async fn abandon(
    device: Device,
    Path((_, token)): Path<(String, String)>,
    State(hub): State<Arc<Hub>>,
) -> Result<StatusCode, Failure> {
    settle(&hub, &device, &token, Outcome::Abandon)
}

fn settle(hub: &Hub, device: &Device, token: &str, outcome: Outcome) -> Result<StatusCode, Failure> {
    let token = token.trim_matches('"');
    let settled = hub.c2d.mailbox(&device.id).with(|queue| queue.settle(token, outcome));
    settled.map(|()| StatusCode::NO_CONTENT).map_err(|_| Failure::lock_lost())
}

fn to_response(device_id: &str, delivery: &Delivery) -> Result<Response, Failure> {
    let properties = &delivery.message.properties;
    let mut response = Response::new(Body::from(delivery.message.body.clone()));
    let mut put = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Failure::internal("a property of the message cannot stand in a header"));
        };
        response.headers_mut().insert(name, value);
        Ok(())
    };
    put(header::ETAG.as_str(), &format!("\"{}\"", delivery.token))?;
    put("iothub-to", &c2d::to(device_id))?;
    put("iothub-ack", "none")?;
    put("iothub-sequencenumber", &delivery.sequence.to_string())?;
    put("iothub-deliverycount", &delivery.delivery_count.to_string())?;
    put("iothub-enqueuedtime", &delivery.enqueued_at.to_rfc3339_opts(SecondsFormat::Millis, true))?;
    for (name, key) in SYSTEM {
        if let Some(value) = properties.system.get(key) {
            put(name, value)?;
        }
    }
    for (name, value) in &properties.application {
        put(&format!("{APPLICATION}{name}"), value)?;
    }
    Ok(response)
}
