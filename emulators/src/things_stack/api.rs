//! The API for downlinks: from a request to its answer.

use std::sync::Arc;

use axum::{
    Router,
    body::to_bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::Utc;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    Event, Stack, downlink,
    faults::Effect,
    keys::WRITE_DOWNLINKS,
    queues::{DownlinkRequest, LONGEST_QUEUE, Operation},
    refusal::Refusal,
    serve::Cut,
    storage, webhook_api,
};

/// Where the API begins.
pub const ROOT: &str = "/api/v3/";
/// For an application's API key, without a webhook.
const ROUTE_OF_DEVICE: &str = "/api/v3/as/applications/{application}/devices/{device}/down/{operation}";
const ROUTE: &str = "/api/v3/as/applications/{application}/webhooks/{webhook}/devices/{device}/down/{operation}";
/// Bytes of a body.
const LARGEST_BODY: usize = 1024 * 1024;

pub fn router(stack: Arc<Stack>) -> Router {
    Router::new()
        .route(ROUTE, post(down))
        .route(ROUTE_OF_DEVICE, post(down_of_device))
        .route(storage::ROUTE, get(storage::of_application))
        .route(storage::ROUTE_OF_DEVICE, get(storage::of_device))
        .fallback(|| async { Refusal::unknown_route() })
        .method_not_allowed_fallback(|| async { Refusal::unknown_route() })
        .merge(webhook_api::routes())
        .with_state(stack)
}

/// What the path names.
struct Addressed {
    application: String,
    webhook: String,
    device: String,
    operation: Operation,
}

async fn down_of_device(
    State(stack): State<Arc<Stack>>,
    Path((application, device, operation)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let webhook = stack.webhook.clone();
    down(State(stack), Path((application, webhook, device, operation)), request).await
}

async fn down(
    State(stack): State<Arc<Stack>>,
    Path((application, webhook, device, operation)): Path<(String, String, String, String)>,
    request: Request,
) -> Response {
    let at = Utc::now();
    let operation = match operation.as_str() {
        "push" => Operation::Push,
        "replace" => Operation::Replace,
        _ => return Refusal::unknown_route().into_response(),
    };
    let addressed = Addressed { application, webhook, device, operation };
    let (parts, body) = request.into_parts();
    let effect = stack.queues.with_faults(|faults| faults.take(&addressed.device));
    let result = match &effect {
        Some(Effect::Refuse { status, .. }) => Err(Refusal::with_status(*status)),
        _ => match to_bytes(body, LARGEST_BODY).await {
            Ok(body) => take(&stack, &addressed, &parts.headers, &body),
            Err(_) => Err(Refusal::too_large(LARGEST_BODY)),
        },
    };
    let Addressed { application, webhook, device, operation } = addressed;
    let (downlinks, status, reason) = match &result {
        Ok(downlinks) => (downlinks.clone(), StatusCode::OK, None),
        Err(refusal) => (Vec::new(), refusal.status, Some(refusal.text.clone())),
    };
    let status = status.as_u16();
    let request = DownlinkRequest { application, device, webhook, operation, downlinks, status, reason, at };
    let request = stack.queues.record(request);
    // An error means that nobody listens.
    let _ = stack.events.send(Event::Downlink(request));
    answer(result, effect).await
}

/// Checks a request as the original does, rights first, and puts its downlinks into the device's queue.
fn take(stack: &Stack, addressed: &Addressed, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Value>, Refusal> {
    let Addressed { application, webhook, device, operation } = addressed;
    stack.keys.require(headers, application, &[WRITE_DOWNLINKS])?;
    stack.check_known(application, webhook, device)?;
    let downlinks = downlink::parse(body).map_err(Refusal::bad_body)?;
    stack.queues.with_formatters(|formatters| formatters.check(device, &downlinks))?;
    match stack.queues.put(application, device, *operation, &downlinks) {
        true => Ok(downlinks),
        false => Err(Refusal::queue_full(LONGEST_QUEUE)),
    }
}

async fn answer(result: Result<Vec<Value>, Refusal>, effect: Option<Effect>) -> Response {
    // The original's good answer has no body.
    let mut response = result.map_or_else(IntoResponse::into_response, |_| StatusCode::OK.into_response());
    match effect {
        Some(Effect::Refuse { retry_after: Some(retry_after), .. }) => {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after);
        }
        Some(Effect::Accept { delay, cut }) => {
            sleep(delay).await;
            if cut {
                response.extensions_mut().insert(Cut);
            }
        }
        _ => {}
    }
    response
}
