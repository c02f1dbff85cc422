//! `POST /devices/{id}/messages/events`: one message, its properties in headers, or a batch. 204 when all is recorded.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};

use super::{batch, body, device::Device, error::Failure, properties};
use crate::iot_hub::{
    hub::Hub,
    received::{Draft, Transport},
    telemetry::{self, MAX_MESSAGE},
};

pub async fn send(
    device: Device,
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    let body = body::read(body).await?;
    let messages =
        if is_batch(&headers) { batch::parse(&body)? } else { vec![(properties::of_headers(&headers)?, body)] };
    for (index, (properties, body)) in messages.iter().enumerate() {
        let size = telemetry::size(body, properties);
        if size > MAX_MESSAGE {
            return Err(Failure::too_large(format!("message {index} has {size} bytes; {MAX_MESSAGE} are allowed")));
        }
    }
    let draft = |(properties, body): (_, Vec<u8>)| Draft {
        device_id: device.id.clone(),
        transport: Transport::Https,
        properties,
        body: body.into(),
        dup: false,
    };
    hub.record(&device.id, messages.into_iter().map(draft));
    Ok(StatusCode::NO_CONTENT)
}

fn is_batch(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(batch::CONTENT_TYPE))
}
