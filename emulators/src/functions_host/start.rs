//! Puts the parts of the host together.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};
use tokio::{sync::broadcast, task::JoinSet, time::sleep};

use super::{
    Emulator, Options, Ready, admin,
    app::App,
    events,
    front::{self, Front},
    function::{self, Function},
    job::Parts,
    jobs::Jobs,
    lifetime::Lifetime,
    queue_set::QueueSet,
    settings::{self, Settings},
    telemetry::{FLUSH_EVERY, Telemetry},
};
use crate::{door, queues::Container};

const LONGEST_HOST_ID: usize = 32;
/// Where hosts keep what they share.
const CONTAINER: &str = "azure-webjobs-hosts";

/// Reads the app and starts the handler. Returns when the handler has answered; from then on timers run and HTTP
/// functions are served.
///
/// # Errors
/// A file, one of its members or an option is wrong, the port cannot be bound, or the handler does not start: then the
/// error quotes the last lines of its standard error.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    let mut settings = settings::load(options.settings.as_deref(), &options.env)?;
    let app = App::load(&options.app, &settings, options.schedule.as_deref(), &options.without)?;
    let cannot_listen = || format!("cannot listen on {} port {}", options.host, options.port);
    let (door, listener) = door::open(&options.host, options.port).with_context(cannot_listen)?;
    let (channel, first_events) = broadcast::channel(events::KEPT);
    let telemetry = Arc::new(Telemetry::new(app.logging.clone()));
    let observer = telemetry.clone();
    let events = events::Sender { channel, observer: Arc::new(move |event| observer.observe(event)) };
    let lifetime = Arc::<Lifetime>::default();
    let has_timers = app.functions.iter().any(|function| function.timer().is_some());
    let account = function::default_account(&settings).and_then(Result::ok);
    let account = account.filter(|account| account.blobs.is_some());
    let queues = QueueSet::open(&app.functions, app.queues.encoding, has_timers && account.is_none()).await?;
    let container = match account.as_ref().or_else(|| queues.own_account()) {
        Some(account) => Container::open(account, CONTAINER)?.map(Arc::new),
        None => None,
    };
    let host_id = host_id(&settings, &app);
    let own_settings = queues.settings(&app.functions);
    settings.extend(own_settings.clone());
    let ready = Ready {
        emulator: "functions_host",
        endpoint: format!("http://{}/", reachable(door.address())),
        handler: String::new(),
        functions: app.functions.iter().map(|function| function.name.clone()).collect(),
        timers: app.functions.iter().filter_map(Function::timer).collect(),
        queues: queues.urls(),
        storage: queues.control(),
        settings: own_settings,
    };
    let (home, route_prefix) = (options.home.clone(), app.route_prefix.clone());
    let queues = Arc::new(queues);
    let stopping = lifetime.stopping.clone();
    let parts = Parts { app, options, settings, queues, container, host_id, events, lifetime };
    let jobs = Arc::new(Jobs::start(parts)?);
    let job = jobs.current();
    let mut emulator = Emulator {
        ready: Ready { handler: job.handler.endpoint.to_string(), ..ready },
        jobs: jobs.clone(),
        telemetry: telemetry.clone(),
        first_events: Mutex::new(Some(first_events)),
        tasks: JoinSet::new(),
        door,
    };
    job.listens().await.map_err(|reason| anyhow!(reason))?;
    let home = home.map(|name| {
        let place = job.http.iter().position(|function| function.function.name == name);
        place.with_context(|| format!("--home {name}: there is no HTTP function of this name"))
    });
    let home = home.transpose()?;
    let prefix = if route_prefix.is_empty() { "/".to_owned() } else { format!("/{route_prefix}/") };
    let front = Arc::new(Front { jobs: jobs.clone(), prefix, home });
    let router = front::router(front).merge(admin::router(jobs, telemetry.clone()));
    let stopped = stopping.clone().cancelled_owned();
    emulator.tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the front end ended");
        }
    });
    emulator.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = sleep(FLUSH_EVERY) => telemetry.flush(),
                () = stopping.cancelled() => break,
            }
        }
    });
    Ok(emulator)
}

/// Where this machine reaches a port that listens everywhere.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// Hosts of one app have the same id. The real host takes it from the app's name or, on a developer's machine, from the
/// app's folder.
fn host_id(settings: &Settings, app: &App) -> String {
    let setting = |name| settings.get(name).filter(|value| !value.is_empty());
    if let Some(id) = setting("AzureFunctionsWebHost__hostid").or_else(|| setting("WEBSITE_SITE_NAME")) {
        return id.to_lowercase().chars().take(LONGEST_HOST_ID).collect();
    }
    let hash = Sha256::digest(app.root.as_os_str().as_encoded_bytes());
    hash.iter().take(LONGEST_HOST_ID / 2).map(|byte| format!("{byte:02x}")).collect()
}
