//! Identifies the device of a request and checks its token.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::sleep;

use super::error::Failure;
use crate::iot_hub::{hub::Hub, login::Claim};

/// The versions of the device API that exist, as in `?api-version=`.
const API_VERSIONS: [&str; 16] = [
    "2016-02-03",
    "2016-11-14",
    "2017-06-30",
    "2017-11-08-preview",
    "2018-04-01",
    "2018-06-30",
    "2018-08-30-preview",
    "2019-03-30",
    "2019-07-01-preview",
    "2019-10-01",
    "2020-03-01",
    "2020-03-13",
    "2020-05-31-preview",
    "2020-09-30",
    "2021-04-12",
    "2021-06-01",
];

/// The device of a request, proved by its token. Takes the path's `{id}`.
pub struct Device {
    pub id: String,
}

impl FromRequestParts<Arc<Hub>> for Device {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Failure> {
        check_api_version(parts)?;
        let Path(path): Path<HashMap<String, String>> = Path::from_request_parts(parts, hub)
            .await
            .map_err(|_| Failure::bad_request("the path is not percent-encoded UTF-8"))?;
        let device_id = path.get("id").map_or("", String::as_str);
        let host = text(&parts.headers, header::HOST)?.unwrap_or_default();
        let token = text(&parts.headers, header::AUTHORIZATION)?
            .ok_or_else(|| Failure::unauthorized("there is no header Authorization"))?;
        let login = hub.authenticate(&Claim { host, device_id, token })?;
        hub.request_from(&login);
        Ok(Self { id: login.device_id })
    }
}

/// Counts requests and failures, and applies the faults.
pub async fn guard(
    State(hub): State<Arc<Hub>>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
    next: Next,
) -> Response {
    hub.counts.send_modify(|counts| counts.https_requests += 1);
    let device_id = path.get("id").map_or("", String::as_str);
    let delay = hub.faults().request_delay(device_id);
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let fault = hub.faults().on_request(device_id);
    let response = match fault {
        Some(fault) => Failure::from(fault).into_response(),
        None => next.run(request).await,
    };
    if response.status().as_u16() >= 400 {
        tracing::warn!(device = device_id, status = response.status().as_u16(), "HTTPS request refused");
        hub.counts.send_modify(|counts| counts.https_failures += 1);
    }
    response
}

fn check_api_version(parts: &Parts) -> Result<(), Failure> {
    let query: Query<HashMap<String, String>> =
        Query::try_from_uri(&parts.uri).map_err(|error| Failure::bad_request(error.body_text()))?;
    match query.get("api-version") {
        Some(version) if API_VERSIONS.contains(&version.as_str()) => Ok(()),
        Some(version) => Err(Failure::bad_request(format!("there is no api-version {version:?}"))),
        None => Err(Failure::bad_request("the query has no api-version")),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, Failure> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    text.map(Some).map_err(|_| Failure::bad_request(format!("the header {name} is not UTF-8")))
}
