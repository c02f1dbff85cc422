//! The control endpoint: sets faults, adds rows and sites, shows the received requests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    routing::{get, post, put},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use super::{
    Backend,
    faults::Faults,
    sites::{CONTAINERS, Site},
};
use crate::{
    listing::{self, Route},
    trouble,
};

/// Largest request body, in bytes: one request may add many rows.
const LARGEST_BODY: usize = 64 * 1024 * 1024;
/// How long `GET /requests?wait=` waits without `timeout_ms`.
const WAIT_MS: u64 = 10_000;

type Refusal = (StatusCode, Json<Value>);
type Done = Result<StatusCode, Refusal>;
type Shared = State<Arc<Backend>>;

/// For `GET /`.
const ROUTES: &[Route] = &[
    ("PUT", "/away", "true: refuses connections; false: accepts them again"),
    ("POST", "/cut", "cuts all connections"),
    ("GET, PUT, DELETE", "/faults", "statuses, delays and wrong answers to chosen requests"),
    ("POST, PUT, DELETE", "/rows", "adds, replaces or removes rows"),
    ("POST", "/sites", "adds a site"),
    ("PUT, DELETE", "/sites/{name}", "changes or removes a site"),
    ("GET, DELETE", "/requests", "what was requested; ?wait=N waits for N requests"),
    ("GET", "/counts", "how much was requested"),
];

pub fn router(backend: Arc<Backend>) -> Router {
    Router::new()
        .route("/away", put(away))
        .route("/cut", post(cut))
        .route("/faults", get(faults).put(set_faults).delete(clear_faults))
        .route("/rows", post(add_rows).put(put_rows).delete(clear_rows))
        .route("/sites", post(add_site))
        .route("/sites/{name}", put(change_site).delete(remove_site))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/counts", get(counts))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(backend)
        .merge(listing::router(&[ROUTES, trouble::ROUTES]))
}

fn refusal(status: StatusCode, message: impl Into<String>) -> Refusal {
    (status, Json(json!({ "err": message.into() })))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Passes the known parameters of a query and refuses unknown ones.
fn parameters(query: HashMap<String, String>, known: &[&str]) -> Result<HashMap<String, String>, Refusal> {
    match query.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(refusal(StatusCode::BAD_REQUEST, format!("unknown parameter {name:?}; known: {known:?}"))),
        None => Ok(query),
    }
}

fn number(query: &HashMap<String, String>, name: &str) -> Result<Option<u64>, Refusal> {
    let parse =
        |text: &String| text.parse().map_err(|_| refusal(StatusCode::BAD_REQUEST, format!("{name}: no number")));
    query.get(name).map(parse).transpose()
}

async fn away(State(backend): Shared, body: Bytes) -> Done {
    if parsed(&body)? {
        backend.door.close().await
    } else {
        backend.door.reopen().await
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn cut(State(backend): Shared) -> StatusCode {
    backend.door.cut();
    StatusCode::NO_CONTENT
}

async fn faults(State(backend): Shared) -> Json<Faults> {
    Json(backend.faults().clone())
}

async fn set_faults(State(backend): Shared, body: Bytes) -> Done {
    let faults: Faults = parsed(&body)?;
    faults.check().map_err(|problem| refusal(StatusCode::BAD_REQUEST, problem))?;
    tracing::info!(rules = faults.rules.len(), "faults set");
    *backend.faults() = faults;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(backend): Shared) -> StatusCode {
    *backend.faults() = Faults::default();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRows {
    /// `*`: each site gets them.
    site: String,
    #[serde(default)]
    container: usize,
    rows: Vec<Box<RawValue>>,
}

impl NewRows {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let new: Self = parsed(body)?;
        if new.container < CONTAINERS {
            return Ok(new);
        }
        let text = format!("container {} is not in 0..={}", new.container, CONTAINERS - 1);
        Err(refusal(StatusCode::BAD_REQUEST, text))
    }
}

async fn add_rows(State(backend): Shared, body: Bytes) -> Done {
    let NewRows { site, container, rows } = NewRows::read(&body)?;
    if site == "*" {
        backend.sites().all().iter().for_each(|site| site.add(container, rows.clone()));
    } else {
        known_site(&backend, &site)?.add(container, rows);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn put_rows(State(backend): Shared, body: Bytes) -> Done {
    let NewRows { site, container, rows } = NewRows::read(&body)?;
    known_site(&backend, &site)?.put(container, rows);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_rows(State(backend): Shared, Query(query): Query<HashMap<String, String>>) -> Done {
    let query = parameters(query, &["site", "container"])?;
    let site = query.get("site").ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "the parameter site is missing"))?;
    let container = number(&query, "container")?;
    known_site(&backend, site)?.clear(container.map(|container| usize::try_from(container).unwrap_or(CONTAINERS)));
    Ok(StatusCode::NO_CONTENT)
}

fn known_site(backend: &Backend, name: &str) -> Result<Arc<Site>, Refusal> {
    let unknown = || refusal(StatusCode::NOT_FOUND, format!("there is no site {name:?}"));
    backend.sites().find(name).cloned().ok_or_else(unknown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSite {
    name: String,
    channels: Option<Vec<String>>,
    #[serde(default)]
    generate: bool,
}

async fn add_site(State(backend): Shared, body: Bytes) -> Done {
    let NewSite { name, channels, generate } = parsed(&body)?;
    let channels = match channels {
        Some(names) => backend.channels_named(names),
        None => backend.channels.clone(),
    };
    if !backend.sites_mut().add(Site::new(&name, channels, generate)) {
        return Err(refusal(StatusCode::CONFLICT, format!("there is a site {name:?} already")));
    }
    Ok(StatusCode::CREATED)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    contact: Option<Option<String>>,
}

/// Tells `null` from a member that is not there.
fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(member).map(Some)
}

async fn change_site(State(backend): Shared, Path(name): Path<String>, body: Bytes) -> Done {
    let Changes { name: new, contact } = parsed(&body)?;
    let site = known_site(&backend, &name)?;
    if let Some(contact) = contact {
        site.pin(contact);
    }
    let Some(new) = new else { return Ok(StatusCode::NO_CONTENT) };
    if !backend.sites_mut().rename(&name, &new) {
        return Err(refusal(StatusCode::CONFLICT, format!("there is a site {new:?} already")));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_site(State(backend): Shared, Path(name): Path<String>) -> Done {
    if !backend.sites_mut().remove(&name) {
        return Err(refusal(StatusCode::NOT_FOUND, format!("there is no site {name:?}")));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn requests(
    State(backend): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Refusal> {
    let query = parameters(query, &["wait", "timeout_ms"])?;
    let at_most = Duration::from_millis(number(&query, "timeout_ms")?.unwrap_or(WAIT_MS));
    Ok(Json(backend.journal.requests(number(&query, "wait")?.unwrap_or(0), at_most).await))
}

async fn clear_requests(State(backend): Shared) -> StatusCode {
    backend.journal.clear();
    StatusCode::NO_CONTENT
}

async fn counts(State(backend): Shared) -> Json<Value> {
    Json(json!(backend.journal.counts()))
}
