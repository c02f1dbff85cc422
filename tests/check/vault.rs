//! Emulates a Key Vault with its secrets, and the endpoint where an app's managed identity gets tokens for it and for storage.
//! <https://learn.microsoft.com/rest/api/keyvault/secrets>,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use futures::{StreamExt as _, stream};
use rcgen::CertificateParams;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::support::{Authority, Settings};

/// The secret that the identity's endpoint requires; `TOKEN` is the token that it gives.
pub const APP_SECRET: &str = "secret-of-the-app";
pub const TOKEN: &str = "token-of-the-app";
/// The number of secrets on a page of their names.
const PAGE: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The identity's endpoint gives no token.
    Identity(u16),
    /// Every request to the vault fails with this inner code.
    Vault(u16, &'static str),
    /// Secrets are listed, but cannot be read.
    Read(u16, &'static str),
    /// A secret is listed, but is gone when it is read.
    Gone,
    Garbage,
    Endless,
    Hang,
}

pub struct Vault {
    pub url: String,
    identity: String,
    authority: Authority,
    state: Arc<Inner>,
    _tasks: JoinSet<()>,
}

struct Inner {
    url: String,
    secrets: BTreeMap<String, (String, bool)>,
    fault: Mutex<Option<Fault>>,
    /// The secrets that were read, in order.
    read: Mutex<Vec<String>>,
}

impl Inner {
    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }
}

impl Vault {
    /// Starts with these secrets. A secret with an empty value is disabled.
    pub async fn start(secrets: &[(&str, &str)], fault: Option<Fault>) -> Self {
        let authority = Authority::new("vault");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let secret = |(name, value): &(&str, &str)| ((*name).to_owned(), ((*value).to_owned(), !value.is_empty()));
        let secrets = secrets.iter().map(secret).collect();
        let state = Arc::new(Inner { url: url.clone(), secrets, fault: Mutex::new(fault), read: Mutex::default() });
        let routes = Router::new().route("/secrets", get(list)).route("/secrets/{name}/", get(read));
        let vault = routes.with_state(state.clone());
        let at_identity = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = format!("http://{}/msi/token", at_identity.local_addr().unwrap());
        let tokens = Router::new().route("/msi/token", get(token)).with_state(state.clone());
        let mut tasks = JoinSet::new();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let listener = Tls { listener, acceptor: TlsAcceptor::from(authority.server(certificate)) };
        tasks.spawn(async move { axum::serve(listener, vault).await.unwrap() });
        tasks.spawn(async move { axum::serve(at_identity, tokens).await.unwrap() });
        Self { url, identity, authority, state, _tasks: tasks }
    }

    /// The settings of an app with an identity, besides `KeyVaultURI`.
    pub fn settings(&self) -> Settings {
        let identity = self.identity().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.trusted().into_iter().chain(identity).collect()
    }

    /// The settings of an app with an identity and no vault.
    pub fn identity(&self) -> [(&'static str, &str); 2] {
        [("IDENTITY_ENDPOINT", &self.identity), ("IDENTITY_HEADER", APP_SECRET)]
    }

    /// The settings with a vault and without an identity.
    pub fn trusted(&self) -> Settings {
        let file = self.authority.path().to_owned();
        [("KeyVaultURI".to_owned(), self.url.clone()), ("SSL_CERT_FILE".to_owned(), file)].into()
    }

    pub fn heal(&self) {
        *self.state.fault.lock().unwrap() = None;
    }

    pub fn read(&self) -> Vec<String> {
        let mut read = self.state.read.lock().unwrap().clone();
        read.sort();
        read
    }
}

async fn token(
    State(state): State<Arc<Inner>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(Fault::Identity(status)) = state.fault() {
        // A careless service shows the whole request in its error.
        return (StatusCode::from_u16(status).unwrap(), format!("{headers:?}")).into_response();
    }
    let resource = query["resource"].as_str();
    assert!(["https://vault.azure.net", "https://storage.azure.com"].contains(&resource), "{query:?}");
    assert_eq!(query["api-version"], "2019-08-01");
    assert!(query.len() == 2, "the system-assigned identity has no id: {query:?}");
    assert_eq!(headers["x-identity-header"], APP_SECRET);
    let in_a_day = (chrono::Utc::now().timestamp() + 24 * 3600).to_string();
    Json(json!({
        "access_token": TOKEN, "expires_on": in_a_day, "resource": resource, "token_type": "Bearer",
    }))
    .into_response()
}

/// The answer, if the token is missing or a fault prevents the request.
async fn obstacle(state: &Inner, headers: &HeaderMap) -> Option<Response> {
    match headers.get("authorization") {
        None => {
            let challenge =
                r#"Bearer authorization="https://login.windows.net/tenant", resource="https://vault.azure.net""#;
            return Some((StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response());
        }
        Some(token) => assert_eq!(token, &format!("Bearer {TOKEN}")),
    }
    match state.fault()? {
        Fault::Vault(status, code) => Some(error(status, code)),
        Fault::Garbage => Some("<html>please log in</html>".into_response()),
        Fault::Endless => {
            let piece = stream::repeat("[1,2],".repeat(10_000)).map(Ok::<_, std::io::Error>);
            Some(Body::from_stream(piece).into_response())
        }
        Fault::Hang => std::future::pending().await,
        _ => None,
    }
}

fn error(status: u16, code: &str) -> Response {
    let body = json!({ "error": {
        "code": "Forbidden", "message": "hunter2 may not do this", "innererror": { "code": code },
    } });
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn list(
    State(state): State<Arc<Inner>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(obstacle) = obstacle(&state, &headers).await {
        return obstacle;
    }
    let from = query.get("$skiptoken").map_or(0, |from| from.parse().unwrap());
    let secret = |(name, (_, is_enabled)): (&String, &(String, bool))| json!({ "id": format!("{}secrets/{name}", state.url), "attributes": { "enabled": is_enabled } });
    let page: Vec<Value> = state.secrets.iter().skip(from).take(PAGE).map(secret).collect();
    let next = (from + PAGE < state.secrets.len())
        .then(|| format!("{}secrets?api-version=7.6&$skiptoken={}", state.url, from + PAGE));
    Json(json!({ "value": page, "nextLink": next })).into_response()
}

async fn read(State(state): State<Arc<Inner>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Some(obstacle) = obstacle(&state, &headers).await {
        return obstacle;
    }
    state.read.lock().unwrap().push(name.clone());
    match (state.fault(), state.secrets.get(&name)) {
        (Some(Fault::Read(status, code)), _) => error(status, code),
        (Some(Fault::Gone), _) | (_, None) => error(404, "SecretNotFound"),
        (_, Some((value, _))) => {
            let id = format!("{}secrets/{name}/0123456789abcdef", state.url);
            Json(json!({ "id": id, "value": value, "attributes": { "enabled": true } })).into_response()
        }
    }
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A client that does not trust the certificate hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
