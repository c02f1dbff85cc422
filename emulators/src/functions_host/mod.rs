//! The Azure Functions host as a custom handler meets it: starts the handler of a function app, runs its timers, serves
//! its HTTP functions.
//!
//! | Part | |
//! |---|---|
//! | `app`, `function`, `settings`, `document` | host.json, function.json, app settings |
//! | `schedule`, `time_span`, `route` | when a timer runs, which path is whose |
//! | `handler`, `process` | the handler's process, from its start to its restart |
//! | `envelope`, `answer`, `invoke` | the custom handler's contract, and calls that follow it |
//! | `timer`, `front` | what causes calls: the clock, and HTTP |
//! | `events` | what happens, for whoever wants to show it |
//!
//! The contract is that of the host's source (Azure/azure-functions-host, `src/WebJobs.Script/Workers/Http`). Queues are
//! not there: an app that binds to one is refused at the start.
//!
//! The front end also takes `POST /admin/functions/{timer}`: runs it now, `202`. With `?wait` it answers
//! `{"succeeded":true,"status":200,"logs":[],"body":{},"error":null}` when the invocation is over.

mod answer;
mod app;
mod document;
mod envelope;
mod events;
mod front;
mod function;
mod handler;
mod invoke;
mod options;
mod process;
mod route;
mod schedule;
mod settings;
mod time_span;
mod timer;

use std::sync::{Arc, Mutex};

use anyhow::{Context, anyhow};
use reqwest::Url;
use serde::Serialize;
use tokio::{
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use self::{
    app::App, front::Front, function::Trigger, handler::Handler, invoke::Invoker, process::Process, timer::Timer,
};
pub use self::{
    events::{Event, InvocationFinished, Level, Stream},
    options::Options,
};
use crate::door::{self, Door};

/// The line that says where the host and its handler are.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// HTTP functions are below its `api/`.
    pub endpoint: String,
    pub handler: String,
    pub functions: Vec<String>,
}

/// A running host. When this is dropped the handler is killed; [`stop`](Emulator::stop) also waits for its end.
pub struct Emulator {
    ready: Ready,
    handler: Handler,
    timers: Vec<Arc<Timer>>,
    events: broadcast::Sender<Event>,
    first_events: Mutex<Option<broadcast::Receiver<Event>>>,
    stop: CancellationToken,
    handler_task: JoinHandle<()>,
    tasks: JoinSet<()>,
    door: Door,
}

/// Reads the app, starts the handler and returns when it has answered; then timers run and HTTP functions are served.
///
/// # Errors
/// A file, a member of it or an option is wrong, the port cannot be bound, or the handler does not come up: then the
/// error quotes the last lines of its standard error.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    let settings = settings::load(options.settings.as_deref(), &options.env)?;
    let app = App::load(&options.app, &settings, options.schedule.as_deref())?;
    let cannot_listen = || format!("cannot listen on {} port {}", options.host, options.port);
    let (door, listener) = door::open(&options.host, options.port).with_context(cannot_listen)?;
    let (events, first_events) = broadcast::channel(events::KEPT);
    let stop = CancellationToken::new();
    let (handler, handler_task) = match options.handler_endpoint {
        Some(endpoint) => attach(endpoint, events.clone(), stop.clone()),
        None => launch(&app, options.handler.as_deref(), &settings, events.clone(), stop.clone())?,
    };
    let invoker = Arc::new(Invoker { handler: handler.clone(), timeout: app.timeout, events: events.clone() });
    let ready = Ready {
        emulator: "functions_host",
        endpoint: format!("http://{}/", door.address()),
        handler: handler.endpoint.to_string(),
        functions: app.functions.iter().map(|function| function.name.clone()).collect(),
    };
    let (mut timers, mut http) = (Vec::new(), Vec::new());
    for function in app.functions {
        match function.trigger {
            Trigger::Timer(trigger) => timers.push(Arc::new(Timer::new(function.name, trigger, invoker.clone()))),
            Trigger::Http(trigger) => http.push((function.name, trigger)),
        }
    }
    let mut emulator = Emulator {
        ready,
        handler,
        timers,
        events,
        first_events: Mutex::new(Some(first_events)),
        stop,
        handler_task,
        tasks: JoinSet::new(),
        door,
    };
    emulator.handler.ready().await.map_err(|reason| anyhow!(reason))?;
    let prefix = if app.route_prefix.is_empty() { "/".to_owned() } else { format!("/{}/", app.route_prefix) };
    let front = Front { invoker, prefix, forwards: app.forwards_http, http, timers: emulator.timers.clone() };
    emulator.tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, front::router(Arc::new(front))).await {
            tracing::error!(%error, "the front end ended");
        }
    });
    for timer in emulator.timers.clone() {
        let handler = emulator.handler.clone();
        emulator.tasks.spawn(async move {
            tokio::select! {
                () = timer.run(options.run_at_start) => {}
                _ = handler.gone() => {}
            }
        });
    }
    Ok(emulator)
}

/// Uses a handler that someone else has started.
fn attach(mut endpoint: Url, events: events::Sender, stop: CancellationToken) -> (Handler, JoinHandle<()>) {
    endpoint.set_path("/");
    let (handler, control) = handler::handler(endpoint);
    let task = async move {
        let ready = tokio::select! {
            ready = control.becomes_ready(1, &events) => ready,
            () = stop.cancelled() => true,
        };
        if ready {
            stop.cancelled().await;
        }
        if ready { control.stopped(&events) } else { control.gone(control.never_ready(), &events) }
    };
    (handler, tokio::spawn(task))
}

fn launch(
    app: &App,
    replacement: Option<&std::path::Path>,
    settings: &settings::Settings,
    events: events::Sender,
    stop: CancellationToken,
) -> anyhow::Result<(Handler, JoinHandle<()>)> {
    let command = app.handler_command(replacement)?;
    // Bound and released: what the kernel has just given out it does not give out again soon.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let (handler, control) = handler::handler(Url::parse(&format!("http://127.0.0.1:{port}/"))?);
    let environment = settings::environment(settings, port);
    let process = Process { command, environment, control, events, stop };
    Ok((handler, tokio::spawn(process.supervise())))
}

impl Emulator {
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What happens. The first receiver gets everything since the start (the last 4096 events), later ones what happens
    /// from now on. One that is too slow is told how many it has missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.first_events.lock().expect("no panic while locked").take();
        first.unwrap_or_else(|| self.events.subscribe())
    }

    /// Runs a timer function now and waits for its end.
    ///
    /// # Errors
    /// There is no such timer function. (A failed invocation is no error, but `succeeded: false`.)
    pub async fn invoke(&self, function: &str) -> anyhow::Result<InvocationFinished> {
        let timer = self.timers.iter().find(|timer| timer.function == function);
        Ok(timer.with_context(|| format!("there is no timer function {function:?}"))?.invoke(false).await)
    }

    /// Waits until the host has given up on the handler, and says why.
    pub async fn stopped(&self) -> String {
        self.handler.gone().await
    }

    /// Kills the handler, as the real host does, and waits for its end.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.stop.cancel();
        // An error would mean that the task has panicked or was aborted: the handler is gone in any case.
        let _ = (&mut self.handler_task).await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The aborted task drops the child, which kills it.
        self.handler_task.abort();
        self.tasks.abort_all();
        self.door.cut();
    }
}
