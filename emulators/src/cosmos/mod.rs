//! Azure Cosmos DB for NoSQL on loopback: Microsoft's own in-memory engine behind an HTTP listener.
//!
//! The engine (`azure_data_cosmos_driver`, feature `__internal_in_memory_emulator`) does everything that matters:
//! databases, containers, hierarchical partition keys, ETags, transactional batches, queries. This module adds the
//! socket, the check of the account key, and the faults that a network and a busy service add.

mod auth;
mod cost;
mod faults;
mod plain;
mod work;

use std::{future::IntoFuture as _, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use azure_core::http::{
    Method, Url,
    headers::{HeaderName, HeaderValue as AzureHeaderValue},
};
use azure_data_cosmos_driver::in_memory_emulator::{InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    door::{self, Door, Written},
    listing::{self, Route},
    steps::Steps,
    trouble,
    trouble::Trouble,
};

pub use cost::Cost;
use cost::Meter;
pub use faults::Faults;
use plain::PlainItems;
use work::Work;

/// Larger than the 2 MB that the service takes, so that the engine's own answer is seen.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// How the emulator is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Account key in Base64; a random one if absent
    #[arg(long)]
    pub key: Option<String>,
    /// Keep items under hierarchical keys in a plain map: point reads and batches only, and quick with very many documents. For benchmarks
    #[arg(long)]
    pub plain_items: bool,
    /// Who is told of its steps
    #[arg(skip)]
    pub steps: Steps,
}

impl Default for Options {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 0, key: None, plain_items: false, steps: Steps::default() }
    }
}

/// What a client needs to know.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// The account's endpoint.
    pub endpoint: String,
    /// The account's key, Base64.
    pub key: String,
    /// `GET|DELETE cost`; fault switches: `PUT away`, `POST cut`, `GET|PUT|DELETE faults`, and `/trouble` (see `trouble.rs`).
    pub control: String,
}

/// A running emulator; dropping it stops it.
pub struct Emulator {
    ready: Ready,
    account: Arc<Account>,
    _tasks: JoinSet<()>,
}

impl Emulator {
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// With `plain_items`: all items under hierarchical keys; else none.
    #[must_use]
    pub fn plain_items(&self) -> Vec<Value> {
        self.account.plain_items.as_ref().map_or_else(Vec::new, PlainItems::all)
    }

    /// With `plain_items`: batches that were refused for an ETag or an id that was there already.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.account.plain_items.as_ref().map_or(0, PlainItems::conflicts)
    }
}

struct Account {
    engine: InMemoryEmulatorHttpClient,
    plain_items: Option<PlainItems>,
    url: Url,
    key: Vec<u8>,
    faults: faults::Switch,
    door: Door,
    steps: Steps,
    meter: Meter,
}

/// For `GET /` of the control endpoint.
const ROUTES: &[Route] = &[
    ("PUT", "/away", "true: refuses connections; false: accepts them again"),
    ("POST", "/cut", "cuts all connections"),
    ("GET, DELETE", "/cost", "documents and request units since the start or the last DELETE"),
    ("GET, PUT, DELETE", "/faults", "throttling, delays and wrong answers"),
];

/// Starts the emulator; returns when it listens.
///
/// # Errors
/// The address cannot be bound, or the key is not Base64.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    let (door, listener) = door::open(&options.host, options.port)?;
    let (control_door, control_listener) = door::open(&options.host, 0)?;
    let key =
        options.key.unwrap_or_else(|| BASE64_STANDARD.encode(std::array::from_fn::<u8, 64, _>(|_| fastrand::u8(..))));
    let endpoint = format!("http://{}/", door.address());
    let url: Url = endpoint.parse()?;
    let config = VirtualAccountConfig::new(vec![VirtualRegion::new("East US", url.clone())])?;
    let account = Arc::new(Account {
        engine: InMemoryEmulatorHttpClient::try_new(config)?,
        plain_items: options.plain_items.then(PlainItems::default),
        url,
        key: BASE64_STANDARD.decode(&key).context("--key is not Base64")?,
        faults: faults::Switch::default(),
        door,
        steps: options.steps,
        meter: Meter::default(),
    });
    let ready = Ready { emulator: "cosmos", endpoint, key, control: format!("http://{}/", control_door.address()) };

    let trouble = Trouble::default();
    let service = trouble.around(Router::new().fallback(serve).with_state(account.clone()));
    let control = Router::new()
        .route("/away", put(away))
        .route("/cut", post(cut))
        .route("/cost", get(show_cost).delete(reset_cost))
        .route("/faults", get(show_faults).put(set_faults).delete(clear_faults))
        .with_state(account.clone())
        .merge(trouble.control())
        .merge(listing::router(&[ROUTES, trouble::ROUTES]));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        drop(axum::serve(listener, service.into_make_service_with_connect_info::<Written>()).into_future().await)
    });
    tasks.spawn(async move { drop(axum::serve(control_listener, control).into_future().await) });
    Ok(Emulator { ready, account, _tasks: tasks })
}

async fn away(State(account): State<Arc<Account>>, Json(away): Json<bool>) -> StatusCode {
    if away {
        account.door.close().await;
    } else {
        account.door.reopen().await;
    }
    StatusCode::NO_CONTENT
}

async fn cut(State(account): State<Arc<Account>>) -> StatusCode {
    account.door.cut();
    StatusCode::NO_CONTENT
}

async fn show_cost(State(account): State<Arc<Account>>) -> Json<Cost> {
    Json(account.meter.get())
}

async fn reset_cost(State(account): State<Arc<Account>>) -> StatusCode {
    account.meter.reset();
    StatusCode::NO_CONTENT
}

async fn show_faults(State(account): State<Arc<Account>>) -> Json<Faults> {
    Json(account.faults.get())
}

async fn set_faults(State(account): State<Arc<Account>>, Json(faults): Json<Faults>) -> StatusCode {
    account.faults.set(faults);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(account): State<Arc<Account>>) -> StatusCode {
    account.faults.set(Faults::default());
    StatusCode::NO_CONTENT
}

/// Carries out a request, and tells of its steps.
async fn serve(
    State(account): State<Arc<Account>>,
    ConnectInfo(written): ConnectInfo<Written>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let work = if account.steps.is_watched() { Work::of(&parts, &body) } else { None };
    let execute = async || {
        let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let response = execute(&account, request).await;
        if let Some(cost) = Cost::of(&parts, &body, &response) {
            account.meter.count(cost);
        }
        response
    };
    let Some(work) = work else { return execute().await };
    if account.steps.loses(work.came()) {
        return std::future::pending().await;
    }
    let response = execute().await;
    if let Some(step) = work.applied() {
        account.steps.reached(step);
    }
    match work.answered() {
        Some(step) => account.steps.when_written(step, &written, response),
        None => response,
    }
}

async fn execute(account: &Account, request: Request) -> Response {
    if !auth::is_signed_with(&account.key, &request) {
        return problem(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "The input authorization token can't serve the request.",
        );
    }
    let fault = account.faults.take(request.method(), request.uri().path());
    if !fault.delay.is_zero() {
        tokio::time::sleep(fault.delay).await;
    }
    if let Some(status) = fault.status {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut response = problem(status, "Fault", "The fault switch says so.");
        if let Some(after) = fault.retry_after_ms {
            response.headers_mut().insert("x-ms-retry-after-ms", HeaderValue::from(after));
        }
        return response;
    }
    let response = match &account.plain_items {
        Some(items) if PlainItems::concern(&request) => match items.execute(request).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(request)) => forward(account, request).await,
            Err(error) => Err(error),
        },
        _ => forward(account, request).await,
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => problem(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
    };
    if fault.swallow_answer {
        // The write has happened, the client never learns: the ambiguous case that every client must survive.
        account.door.cut();
        return std::future::pending().await;
    }
    response
}

async fn forward(account: &Account, request: Request) -> anyhow::Result<Response> {
    let (parts, body) = request.into_parts();
    let url = account.url.join(parts.uri.path_and_query().map_or("/", |path| path.as_str()))?;
    let method: Method = parts.method.as_str().parse()?;
    let mut forwarded = azure_core::http::Request::new(url, method);
    for (name, value) in &parts.headers {
        let value = AzureHeaderValue::from(value.to_str()?.to_owned());
        forwarded.headers_mut().insert(HeaderName::from(name.as_str().to_owned()), value);
    }
    let body = axum::body::to_bytes(body, BODY_LIMIT).await?;
    if !body.is_empty() {
        forwarded.set_body(body);
    }
    let raw = account.engine.execute_request(&forwarded).await?.try_into_raw_response().await?;
    let mut response = Response::builder().status(u16::from(raw.status()));
    for (name, value) in raw.headers().iter() {
        response = response.header(name.as_str(), value.as_str());
    }
    let body: &[u8] = raw.body().as_ref();
    Ok(response.body(Body::from(body.to_vec()))?)
}

fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(serde_json::json!({ "code": code, "message": message }))).into_response()
}
