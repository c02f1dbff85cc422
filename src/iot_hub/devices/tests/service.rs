//! A provisioning service over TLS that gives the responses of a test's script.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response},
    serve::Listener,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use secrecy::{ExposeSecret as _, SecretBox};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::iot_hub::{Endpoint, devices::enrollment::EnrollmentGroup, sas};

pub const SCOPE: &str = "0ne00111111";
pub const GROUP_KEY: &str = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";

/// The parts of a request that the response depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: String,
    /// The operation whose result is requested; `None` in a registration.
    pub operation: Option<String>,
    /// The number of earlier requests, of any device.
    pub before: usize,
}

#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// The service never responds.
    pub hangs: bool,
}

type Script = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub struct Service {
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

struct Inner {
    script: Mutex<Script>,
    asked: watch::Sender<Vec<Asked>>,
}

impl Service {
    pub async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner { script: Mutex::new(Box::new(script)), asked: watch::Sender::default() });
        let app = Router::new().fallback(answer).with_state(inner.clone());
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(tls)) };
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, certificate, inner, server }
    }

    pub fn follow(&self, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Box::new(script);
    }

    /// Stops the service: nothing listens afterwards.
    pub async fn stop(&self) {
        self.server.abort();
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.borrow().clone()
    }

    pub fn registrations(&self) -> usize {
        self.asked().iter().filter(|asked| asked.operation.is_none()).count()
    }

    /// Waits until there were this many requests.
    pub async fn wait_for(&self, count: usize) {
        self.inner.asked.subscribe().wait_for(|asked| asked.len() >= count).await.unwrap();
    }

    pub fn config(&self) -> EnrollmentGroup {
        let endpoint = Endpoint::parse(&format!("https://{}", self.address)).unwrap();
        let group_key = SecretBox::new(Box::new(BASE64_STANDARD.decode(GROUP_KEY).unwrap()));
        EnrollmentGroup { endpoint, id_scope: SCOPE.into(), group_key }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path: Vec<_> = parts.uri.path().split('/').skip(1).collect();
    assert_eq!(parts.uri.query(), Some("api-version=2021-06-01"));
    let operation = match (parts.method.as_str(), path.as_slice()) {
        ("PUT", [_, "registrations", id, "register"]) => {
            let body = axum::body::to_bytes(body, 1000).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["registrationId"], *id);
            None
        }
        ("GET", [_, "registrations", _, "operations", operation]) => Some((*operation).to_owned()),
        other => panic!("{other:?}"),
    };
    let (scope, id) = (path[0], path[2].to_owned());
    assert_token(&parts.headers, scope, &id);
    let asked = Asked { id, operation, before: inner.asked.borrow().len() };
    let reply = inner.script.lock().unwrap()(&asked);
    inner.asked.send_modify(|all| all.push(asked));
    if reply.hangs {
        return std::future::pending().await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}

fn assert_token(headers: &HeaderMap, scope: &str, id: &str) {
    let token = headers["authorization"].to_str().unwrap();
    let expires = sas::expiry(token).unwrap();
    let minutes = (expires - chrono::Utc::now()).num_minutes();
    assert!((50..=60).contains(&minutes), "{minutes}");
    let key = sas::derive_key(&BASE64_STANDARD.decode(GROUP_KEY).unwrap(), id);
    let expected = sas::mint(&format!("{scope}/registrations/{id}"), &key, expires, Some("registration"));
    assert_eq!(token, expected.expose_secret());
}

pub fn reply(status: u16, body: serde_json::Value) -> Reply {
    Reply { status, body: body.to_string(), ..Reply::default() }
}

impl Reply {
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// Accepted; the result may be requested at once.
pub fn assigning(asked: &Asked) -> Reply {
    let operation = format!("4.op/{}", asked.id);
    reply(202, serde_json::json!({ "operationId": operation, "status": "assigning" })).with("Retry-After", 0)
}

pub fn assigned_to(asked: &Asked, hub: &str) -> Reply {
    let state = serde_json::json!({
        "registrationId": asked.id, "assignedHub": hub, "deviceId": asked.id, "status": "assigned"
    });
    let operation = asked.operation.clone().unwrap_or_default();
    reply(200, serde_json::json!({ "operationId": operation, "status": "assigned", "registrationState": state }))
}

/// The responses of a service without faults.
pub fn well(asked: &Asked) -> Reply {
    match asked.operation {
        None => assigning(asked),
        Some(_) => assigned_to(asked, "myhub.azure-devices.net"),
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A handshake that fails is the client's fault.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
