//! `POST /devices/{id}/messages/events`: records one message with its properties in headers, or a batch. The answer is
//! 204 when all are recorded.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::time::sleep;

use super::{Connection, batch, body, device::Device, error::Failure, properties};
use crate::{
    iot_hub::{
        faults::OnSend,
        hub::Hub,
        received::{Draft, Transport},
        telemetry::{self, MAX_MESSAGE},
    },
    steps::Step,
};

/// How long an ignored request stays without an answer before its connection ends.
const SILENCE: Duration = Duration::from_secs(600);

pub async fn send(
    device: Device,
    Extension(connection): Extension<Connection>,
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
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
    let drafts = messages.into_iter().map(draft);
    let fate = hub.faults().on_send(&device.id);
    match fate {
        OnSend::Accept { delay } => {
            if hub.steps.loses(Step::MessageCame) {
                connection.hang_up().await;
            }
            hub.record(&device.id, drafts);
            hub.steps.reached(Step::MessageTaken);
            // Even a sleep of zero lasts until the timer's next millisecond.
            if !delay.is_zero() {
                sleep(delay).await;
            }
        }
        OnSend::Ignore => {
            sleep(SILENCE).await;
            connection.hang_up().await;
        }
        OnSend::Cut { record } => {
            if record {
                hub.record(&device.id, drafts);
            }
            connection.hang_up().await;
        }
    }
    let response = StatusCode::NO_CONTENT.into_response();
    Ok(hub.steps.when_written(Step::MessageAnswered, &connection.written, response))
}

fn is_batch(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(batch::CONTENT_TYPE))
}
