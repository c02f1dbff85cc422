//! The Microtronics (rapidM2M, myDatanet) backend: its REST API under `/api/1/`, with sites that have measurements.
//!
//! | Part | |
//! |---|---|
//! | `request` | path and parameters of a request |
//! | `api` | turns a request into its answer |
//! | `respond` | turns an answer into the bytes on the wire, faults included |
//! | `table`, `generate`, `stamp` | the rows of an answer, their values, their time stamps |
//! | `sites` | sites, and the rows that were added |
//! | `faults`, `journal`, `control` | the control endpoint: faults to switch on, requests received |
//!
//! The vendor's documentation is not public; the requests and answers follow public client code. Where clients differ,
//! `PUT /faults` switches between the variants (order of rows, bounds of windows, content type, numbers as strings).
//!
//! The control endpoint takes and returns JSON (`204` without a body on success, `400 {"err"}` for unknown input):
//!
//! | Request | |
//! |---|---|
//! | `PUT /away` `true`, `false` | the API's port refuses connections, or accepts them again |
//! | `POST /cut` | cuts the API's connections |
//! | `GET`, `PUT`, `DELETE /faults` | `{"rules":[{"site":"…","resource":"histdata","times":2,"status":503,"retryAfter":"120"}],"order":"descending"}` |
//! | `GET`, `PUT`, `DELETE /trouble` | wrong answers of any kind, see `trouble.rs` |
//! | `POST /rows` | `{"site":"…","container":0,"rows":[["20170126133",51000,"NAN"]]}`, one value per channel; other rows are served unchanged |
//! | `PUT /rows` | the same; the rows take the places of those with their stamps |
//! | `DELETE /rows?site=…` | `&container=N` for one container only |
//! | `POST /sites` | `{"name":"…","channels":["ch0"],"generate":false}` |
//! | `PUT /sites/{name}` | `{"name":"…"}`: another name; `_uid` and rows stay. `{"contact":"2026…"}`, `{"contact":null}`: what the list tells as `device.stamp` from now on; without it, when rows were added |
//! | `DELETE /sites/{name}` | |
//! | `GET /requests?wait=N&timeout_ms=T` | the last 100,000 requests, as soon as there were `N` in total |
//! | `DELETE /requests` | deletes them and their counts |
//! | `GET /counts` | `{"requests":1,"rows":60,"inFlight":0,"maxInFlight":1}` |

mod api;
mod control;
mod faults;
mod generate;
mod journal;
mod options;
mod request;
mod respond;
mod sites;
mod stamp;
mod table;

use std::{
    iter,
    sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use anyhow::{Context, ensure};
use chrono::Utc;
use serde::Serialize;
use tokio::task::JoinSet;

use self::{
    faults::Faults,
    generate::Kind,
    journal::Journal,
    request::{ROOT, Target},
    sites::{Channel, Site, Sites},
    table::Grid,
};
use crate::{
    door::{self, Door, DoorListener, Written},
    steps::Steps,
    trouble::Trouble,
};

pub use self::{journal::Counts, options::Options, sites::uid};

/// The line of JSON with the backend's addresses and credentials.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// Ends with `/api/1/`.
    pub endpoint: String,
    pub user: String,
    pub password: String,
    pub control: String,
}

/// A running backend. Dropping it stops the backend.
pub struct Emulator {
    ready: Ready,
    backend: Arc<Backend>,
    tasks: JoinSet<()>,
}

/// The state that the API and the control endpoint share.
struct Backend {
    user: String,
    password: String,
    customer: String,
    /// Channels of sites that are added without their own.
    channels: Vec<Channel>,
    plain: bool,
    grid: Grid,
    door: Door,
    sites: RwLock<Sites>,
    faults: Mutex<Faults>,
    journal: Arc<Journal>,
    steps: Steps,
}

/// Starts the backend. It is listening when this returns.
///
/// # Errors
/// An option is out of range, two sites have the same name, or a port cannot be bound.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    options.check()?;
    let bound = |port| {
        door::open(&options.host, port).with_context(|| format!("cannot listen on {} port {port}", options.host))
    };
    let (door, api_listener) = bound(options.port)?;
    let (control_door, control_listener) = bound(0)?;

    let milliseconds = |seconds: f64| (seconds * 1000.0).round() as i64;
    let first_ms = Utc::now().timestamp_millis() - milliseconds(options.history);
    let channel = |number| Channel { name: format!("ch{number}"), kind: Kind::at(number, options.plain) };
    let channels: Vec<Channel> = (0..options.channels).map(channel).collect();
    let mut sites = Sites::default();
    for name in options.site_names() {
        ensure!(sites.add(Site::new(&name, channels.clone(), !options.no_generate)), "--site {name:?} is given twice");
    }
    let ready = Ready {
        emulator: "rapidm2m",
        endpoint: format!("http://{}{ROOT}", door.address()),
        user: options.user.clone(),
        password: options.password.unwrap_or_else(random_password),
        control: format!("http://{}/", control_door.address()),
    };
    let backend = Arc::new(Backend {
        user: options.user,
        password: ready.password.clone(),
        customer: options.customer,
        channels,
        plain: options.plain,
        grid: Grid { interval_ms: milliseconds(options.interval), first_ms },
        door,
        sites: RwLock::new(sites),
        faults: Mutex::default(),
        journal: Journal::new(),
        steps: options.steps,
    });
    let shared = backend.clone();
    let trouble = Trouble::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(api_listener, trouble.around(api::router(backend.clone()))));
    tasks.spawn(async move {
        // Keeps the door open as long as this task runs.
        let _control_door = control_door;
        serve(control_listener, control::router(shared).merge(trouble.control())).await;
    });
    Ok(Emulator { ready, backend, tasks })
}

async fn serve(listener: DoorListener, router: axum::Router) {
    if let Err(error) = axum::serve(listener, router.into_make_service_with_connect_info::<Written>()).await {
        tracing::error!(%error, "the server ended");
    }
}

fn random_password() -> String {
    iter::repeat_with(fastrand::alphanumeric).take(16).collect()
}

impl Emulator {
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Names of the sites, in the order in which they were added.
    #[must_use]
    pub fn site_names(&self) -> Vec<String> {
        self.backend.sites().all().iter().map(|site| site.name.clone()).collect()
    }

    /// Totals of the requests received so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.backend.journal.counts()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.tasks.abort_all();
        // The connections' own tasks end with their connections.
        self.backend.door.cut();
    }
}

impl Backend {
    // These locks are never poisoned: code that holds them neither indexes nor unwraps.
    fn sites(&self) -> RwLockReadGuard<'_, Sites> {
        self.sites.read().expect("no panic while locked")
    }

    fn sites_mut(&self) -> RwLockWriteGuard<'_, Sites> {
        self.sites.write().expect("no panic while locked")
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("no panic while locked")
    }

    fn is_customer(&self, name_or_uid: &str) -> bool {
        name_or_uid == self.customer || name_or_uid == sites::uid(&self.customer)
    }

    fn site(&self, target: &Target) -> Option<Arc<Site>> {
        self.sites().find(target.site.as_deref()?).cloned()
    }

    fn channels_named(&self, names: Vec<String>) -> Vec<Channel> {
        let kinds = (0..).map(|position| Kind::at(position, self.plain));
        names.into_iter().zip(kinds).map(|(name, kind)| Channel { name, kind }).collect()
    }
}
