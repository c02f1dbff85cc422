//! Carries out the requests of the blob service: containers, blobs in one piece, and leases.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
};

use super::{
    auth::Key,
    blobs::Blobs,
    service::{Received, Refusal, empty, failure, received, success},
};

/// How long a lease may last, in seconds.
const LEASE: std::ops::RangeInclusive<u64> = 15..=60;
const BAD_HEADER: Refusal = (StatusCode::BAD_REQUEST, "InvalidHeaderValue");

struct Service {
    blobs: Arc<Blobs>,
    key: Arc<Key>,
}

pub fn router(blobs: Arc<Blobs>, key: Arc<Key>) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(Service { blobs, key }))
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response<Body> {
    let received = match received(request).await {
        Ok(received) => received,
        Err((status, code)) => return failure(status, code),
    };
    let permission = if received.parts.method == "GET" { 'r' } else { 'w' };
    if !service.key.allows(&received.parts, &received.query, received.body.len(), permission) {
        return failure(StatusCode::FORBIDDEN, "AuthenticationFailed");
    }
    carry_out(&service.blobs, received).unwrap_or_else(|(status, code)| failure(status, code))
}

fn carry_out(blobs: &Blobs, Received { parts, query, body }: Received) -> Result<Response<Body>, Refusal> {
    let part = |name: &str| query.get(name).map_or("", String::as_str);
    // Behind the account's name.
    let path: Vec<&str> = parts.uri.path().splitn(4, '/').skip(2).collect();
    match (parts.method.as_str(), &path[..], part("restype"), part("comp")) {
        ("PUT", [container], "container", "") => {
            if !blobs.create_container(container) {
                return Err((StatusCode::CONFLICT, "ContainerAlreadyExists"));
            }
            Ok(empty(StatusCode::CREATED))
        }
        ("PUT", [container, name], "", "lease") => lease(blobs, container, name, &parts.headers),
        ("PUT", [container, name], "", "") => {
            if text(&parts.headers, "x-ms-blob-type") != Some("BlockBlob") {
                return Err(BAD_HEADER);
            }
            blobs.write(container, name, body, text(&parts.headers, "x-ms-lease-id"))?;
            Ok(empty(StatusCode::CREATED))
        }
        ("GET", [container, name], "", "") => {
            let content = blobs.read(container, name)?;
            let answer = success(StatusCode::OK).header(header::CONTENT_TYPE, "application/octet-stream");
            Ok(answer.body(Body::from(content)).unwrap_or_default())
        }
        _ => Err((StatusCode::BAD_REQUEST, "UnsupportedHttpVerb")),
    }
}

/// <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
fn lease(blobs: &Blobs, container: &str, name: &str, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let id = || text(headers, "x-ms-lease-id").ok_or((StatusCode::BAD_REQUEST, "MissingRequiredHeader"));
    let with_id =
        |status, id: &str| success(status).header("x-ms-lease-id", id).body(Body::empty()).unwrap_or_default();
    match text(headers, "x-ms-lease-action") {
        Some("acquire") => {
            let seconds = text(headers, "x-ms-lease-duration").and_then(|text| text.parse().ok());
            let seconds = seconds.filter(|seconds| LEASE.contains(seconds)).ok_or(BAD_HEADER)?;
            let id = blobs.acquire(container, name, Duration::from_secs(seconds))?;
            Ok(with_id(StatusCode::CREATED, &id))
        }
        Some("renew") => {
            blobs.renew(container, name, id()?)?;
            Ok(with_id(StatusCode::OK, id()?))
        }
        Some("release") => {
            blobs.release(container, name, id()?)?;
            Ok(empty(StatusCode::OK))
        }
        _ => Err(BAD_HEADER),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
