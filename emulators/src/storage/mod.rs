//! The queues of an Azure Storage account, and as much of its blobs as a Functions host needs, in memory, over the REST
//! APIs. <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>
//!
//! | Part | |
//! |---|---|
//! | `messages` | the messages of one queue. Pure |
//! | `queues`, `blobs` | all queues; all blobs with their leases |
//! | `clock` | the service's time |
//! | `service`, `blob_service` | requests and answers |
//! | `auth` | checks Shared Key signatures and shared access signatures of the account |
//!
//! # Requests for tests and tools
//! The address is `control` of the ready line.
//!
//! | | |
//! |---|---|
//! | `PUT /away` `true` | the ports refuse connections, until `false` |
//! | `PUT /clock` `{"aheadSeconds":86400}` | the service's time, from which visibility, expiry and the end of a lease follow |
//! | `GET /queues/{name}` | all messages, visible or not: `[{"id":"…","text":"…","dequeueCount":1,"insertionTime":"…","expirationTime":"…","nextVisibleTime":"…"}]`; `text` is the stored one |
//! | `DELETE /queues/{name}` | removes the queue |
//! | `/trouble` | wrong answers, see `trouble.rs` |

mod auth;
mod blob_service;
mod blobs;
mod clock;
mod messages;
mod queues;
mod service;

use std::{future::IntoFuture as _, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::{auth::Key, clock::Clock};
pub use self::{blobs::Blobs, queues::Queues};
use crate::{
    door::{self, Door},
    listing::{self, Route},
    trouble,
    trouble::Trouble,
};

/// The account's name is part of each path, as Azurite has it.
const ACCOUNT: &str = "devstoreaccount1";

/// How the emulator is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the queues; 0 takes any free one. The blobs always take any
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 0 }
    }
}

/// What a client needs to know.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// The connection string: the value of `AzureStorageConnectionString`.
    pub connection: String,
    pub control: String,
}

/// A running emulator. Dropping it stops it.
pub struct Emulator {
    ready: Ready,
    queues: Arc<Queues>,
    blobs: Arc<Blobs>,
    _tasks: JoinSet<()>,
}

impl Emulator {
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    #[must_use]
    pub fn queues(&self) -> Arc<Queues> {
        self.queues.clone()
    }

    #[must_use]
    pub fn blobs(&self) -> Arc<Blobs> {
        self.blobs.clone()
    }
}

struct Control {
    queues: Arc<Queues>,
    clock: Arc<Clock>,
    doors: [Door; 2],
}

/// Starts the emulator; returns when it listens.
///
/// # Errors
/// The address cannot be bound.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    let (door, listener) = door::open(&options.host, options.port)?;
    let (blob_door, blob_listener) = door::open(&options.host, 0)?;
    let (control_door, control_listener) = door::open(&options.host, 0)?;
    let key: [u8; 64] = std::array::from_fn(|_| fastrand::u8(..));
    let connection = format!(
        "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={};QueueEndpoint=http://{}/{ACCOUNT};BlobEndpoint=http://{}/{ACCOUNT};",
        BASE64_STANDARD.encode(key),
        door.address(),
        blob_door.address()
    );
    let ready = Ready { emulator: "storage", connection, control: format!("http://{}/", control_door.address()) };
    let clock = Arc::<Clock>::default();
    let (queues, blobs) = (Arc::new(Queues::new(clock.clone())), Arc::new(Blobs::new(clock.clone())));
    let (trouble, key) = (Trouble::default(), Arc::new(Key::new(ACCOUNT, &key)));
    let service = trouble.around(service::router(queues.clone(), key.clone()));
    let blob_service = trouble.around(blob_service::router(blobs.clone(), key));
    let control = Router::new()
        .route("/away", put(away))
        .route("/clock", put(set_clock))
        .route("/queues/{name}", get(show).delete(remove))
        .with_state(Arc::new(Control { queues: queues.clone(), clock, doors: [door, blob_door] }))
        .merge(trouble.control())
        .merge(listing::router(&[ROUTES, trouble::ROUTES]));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(axum::serve(listener, service).into_future().await) });
    tasks.spawn(async move { drop(axum::serve(blob_listener, blob_service).into_future().await) });
    tasks.spawn(async move { drop(axum::serve(control_listener, control).into_future().await) });
    Ok(Emulator { ready, queues, blobs, _tasks: tasks })
}

/// For `GET /` of the control endpoint.
const ROUTES: &[Route] = &[
    ("PUT", "/away", "true: refuses connections; false: accepts them again"),
    ("PUT", "/clock", "moves the service's clock"),
    ("GET, DELETE", "/queues/{name}", "a queue's messages"),
];

async fn away(State(control): State<Arc<Control>>, Json(away): Json<bool>) -> StatusCode {
    for door in &control.doors {
        if away {
            door.close().await;
        } else {
            door.reopen().await;
        }
    }
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ahead {
    ahead_seconds: i64,
}

async fn set_clock(State(control): State<Arc<Control>>, Json(ahead): Json<Ahead>) -> StatusCode {
    control.clock.set_ahead(ahead.ahead_seconds);
    StatusCode::NO_CONTENT
}

async fn remove(State(control): State<Arc<Control>>, Path(name): Path<String>) -> StatusCode {
    control.queues.remove(&name);
    StatusCode::NO_CONTENT
}

async fn show(State(control): State<Arc<Control>>, Path(name): Path<String>) -> Json<Vec<Value>> {
    let messages = control.queues.all(&name).into_iter();
    Json(
        messages
            .map(|message| {
                json!({
                    "id": message.id, "text": String::from_utf8_lossy(&message.content),
                    "dequeueCount": message.dequeue_count, "insertionTime": message.inserted,
                    "expirationTime": message.expires, "nextVisibleTime": message.next_visible,
                })
            })
            .collect(),
    )
}
