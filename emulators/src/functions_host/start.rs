//! Puts the parts of the host together.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use reqwest::Url;
use tokio::{
    sync::broadcast,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    Emulator, Options, Ready, admin,
    app::App,
    events::{self, Event, Level, Stream},
    front::{self, Front, HttpFunction},
    function::{Function, Trigger},
    handler::{self, Handler, READY_WITHIN},
    invoke::{Callee, Invoker},
    lifetime::Lifetime,
    listener::Listener,
    operation::Operations,
    process::Process,
    queue_set::QueueSet,
    settings,
    telemetry::{FLUSH_EVERY, Telemetry},
    timer::Timer,
};
use crate::{door, steps::Step};

/// Reads the app and starts the handler. Returns when the handler has answered; from then on timers run and HTTP
/// functions are served.
///
/// # Errors
/// A file, one of its members or an option is wrong, the port cannot be bound, or the handler does not start: then the
/// error quotes the last lines of its standard error.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    let mut settings = settings::load(options.settings.as_deref(), &options.env)?;
    let app = App::load(&options.app, &settings, options.schedule.as_deref())?;
    let cannot_listen = || format!("cannot listen on {} port {}", options.host, options.port);
    let (door, listener) = door::open(&options.host, options.port).with_context(cannot_listen)?;
    let (channel, first_events) = broadcast::channel(events::KEPT);
    let telemetry = Arc::new(Telemetry::new(app.logging.clone()));
    let observer = telemetry.clone();
    let events = events::Sender { channel, observer: Arc::new(move |event| observer.observe(event)) };
    let lifetime = Lifetime::default();
    let queues = Arc::new(QueueSet::open(&app.functions, app.queues.encoding).await?);

    settings.extend(queues.settings(&app.functions));
    let (handler, handler_task) = match options.handler_endpoint.clone() {
        Some(endpoint) => attach(endpoint, events.clone(), lifetime.clone()),
        None => launch(&app, &options, &settings, events.clone(), lifetime.clone())?,
    };
    let (timeout, steps) = (app.timeout, options.steps.clone());
    let invoker = Arc::new(Invoker {
        handler: handler.clone(),
        timeout,
        events: events.clone(),
        steps,
        lifetime: lifetime.clone(),
    });
    let ready = Ready {
        emulator: "functions_host",
        endpoint: format!("http://{}/", door.address()),
        handler: handler.endpoint.to_string(),
        functions: app.functions.iter().map(|function| function.name.clone()).collect(),
        timers: app.functions.iter().filter_map(Function::timer).collect(),
        queues: queues.urls(),
        storage: queues.control(),
    };
    let (mut timers, mut http, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
    for disabled in app.disabled {
        let Some(problem) = disabled.problem else { continue };
        let error = format!("The '{}' function is in error: {problem}", disabled.name);
        let warning = format!("Function '{}' is disabled and could not be indexed", disabled.name);
        for (level, text) in [(Level::Error, error), (Level::Warning, warning)] {
            events::send(&events, Event::Line { stream: Stream::Host, level, text });
        }
    }
    for function in app.functions {
        let steps = match &function.trigger {
            Trigger::Timer(_) => [Step::TimerCalled, Step::TimerAnswered],
            Trigger::Http(_) => [Step::WebhookCalled, Step::WebhookAnswered],
            Trigger::Queue(_) => [Step::UplinkCalled, Step::UplinkAnswered],
        };
        let callee = Callee { name: function.name, outputs: queues.outputs(function.queue_outputs), steps };
        match function.trigger {
            Trigger::Timer(trigger) => timers.push(Arc::new(Timer::new(callee, trigger, invoker.clone()))),
            Trigger::Http(trigger) => {
                // As in the real host: only a function with one input and one output gets the original request.
                let is_forwarded = app.forwards_http && trigger.output.is_some() && callee.outputs.is_empty();
                http.push(HttpFunction { function: callee, trigger, is_forwarded });
            }
            Trigger::Queue(trigger) => {
                let (queue, poison) = queues.of_trigger(&trigger);
                let (retry_after, lifetime) = (options.storage_retry, lifetime.clone());
                listeners.push(Arc::new(Listener {
                    function: callee,
                    binding: trigger.binding,
                    queue: Operations { queue, retry_after, lifetime },
                    poison,
                    options: app.queues,
                    invoker: invoker.clone(),
                    is_suspicious: AtomicBool::new(false),
                }));
            }
        }
    }
    let mut emulator = Emulator {
        ready,
        handler,
        timers,
        queues,
        events,
        telemetry: telemetry.clone(),
        first_events: Mutex::new(Some(first_events)),
        lifetime: lifetime.clone(),
        handler_task,
        tasks: JoinSet::new(),
        door,
    };
    emulator.handler.ready().await.map_err(|reason| anyhow!(reason))?;
    let home = options.home.as_ref().map(|name| {
        let place = http.iter().position(|function| function.function.name == *name);
        place.with_context(|| format!("--home {name}: there is no HTTP function of this name"))
    });
    let home = home.transpose()?;
    let prefix = if app.route_prefix.is_empty() { "/".to_owned() } else { format!("/{}/", app.route_prefix) };
    let front = Arc::new(Front { invoker, prefix, http, home, timers: emulator.timers.clone() });
    let router = front::router(front).merge(admin::router(emulator.queues.clone(), telemetry.clone()));
    let stopped = lifetime.stopping.clone().cancelled_owned();
    emulator.tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the front end ended");
        }
    });
    emulator.tasks.spawn({
        let stopping = lifetime.stopping.clone();
        async move {
            loop {
                tokio::select! {
                    () = sleep(FLUSH_EVERY) => telemetry.flush(),
                    () = stopping.cancelled() => break,
                }
            }
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
    for listener in listeners {
        emulator.tasks.spawn(listener.run());
    }
    Ok(emulator)
}

/// Uses a handler that was started elsewhere.
fn attach(mut endpoint: Url, events: events::Sender, lifetime: Lifetime) -> (Handler, JoinHandle<()>) {
    endpoint.set_path("/");
    let (handler, control) = handler::handler(endpoint, false);
    let task = async move {
        let is_lost = async {
            if control.becomes_ready(1, READY_WITHIN, &events).await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = is_lost => control.gone(format!("the handler failed: {}", control.never_ready(READY_WITHIN)), &events),
            () = lifetime.ended() => control.stopped(lifetime.reason(), &events),
        }
    };
    (handler, tokio::spawn(task))
}

fn launch(
    app: &App,
    options: &Options,
    settings: &settings::Settings,
    events: events::Sender,
    lifetime: Lifetime,
) -> anyhow::Result<(Handler, JoinHandle<()>)> {
    let command = app.handler_command(options.handler.as_deref())?;
    // Bound and released: the kernel does not soon reuse a port that it has just given out.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let (handler, control) = handler::handler(Url::parse(&format!("http://127.0.0.1:{port}/"))?, true);
    let process = Process {
        command,
        environment: settings::environment(settings, &app.root, port),
        only_settings: options.only_settings,
        restarts: options.restarts,
        ready_within: options.ready_within,
        stop_within: Duration::from_secs(options.stop_seconds),
        control,
        events,
        lifetime,
    };
    Ok((handler, tokio::spawn(process.supervise())))
}
