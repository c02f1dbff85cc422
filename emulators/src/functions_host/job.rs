//! A job host: a handler, and everything that calls it.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use reqwest::Url;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    app::App,
    events::{self, Event, Level, Stream},
    front::HttpFunction,
    function::{TimerTrigger, Trigger},
    handler::{self, Handler, READY_WITHIN},
    invoke::{Callee, Invoker},
    lifetime::Lifetime,
    listener::Listener,
    lock::Lock,
    monitor::Monitor,
    operation::Operations,
    process::Process,
    queue_set::QueueSet,
    settings::{self, Settings},
    timer::Timer,
};
use crate::{door, queues::Container, steps::Step};

/// What all job hosts are made of. It is read once: a restart does not read the app's files again.
pub struct Parts {
    pub app: App,
    pub options: Options,
    pub settings: Settings,
    pub queues: Arc<QueueSet>,
    /// With the locks and the status of the timers. `None` if there are no timers.
    pub container: Option<Arc<Container>>,
    /// Of all hosts with the same id, one runs a timer.
    pub host_id: String,
    pub events: events::Sender,
    pub lifetime: Arc<Lifetime>,
}

pub struct Job {
    pub handler: Handler,
    pub invoker: Arc<Invoker>,
    pub timers: Vec<Arc<Timer>>,
    pub http: Vec<HttpFunction>,
    listeners: Vec<Arc<Listener>>,
    pub lifetime: Lifetime,
    /// It listens to its queues and timers.
    listening: CancellationToken,
    /// It has been told to stop, and no call from a queue or a timer is in flight.
    pub is_drained: CancellationToken,
}

/// Keeps a job's handler alive until it has ended for good.
type Supervision = BoxFuture<'static, ()>;

impl Job {
    /// # Errors
    /// There is no handler to start.
    pub fn new(parts: &Parts) -> anyhow::Result<(Self, Supervision)> {
        let Parts { app, options, queues, events, .. } = parts;
        let lifetime = Lifetime::of_job(&parts.lifetime);
        let (handler, supervision) = match &options.handler_endpoint {
            Some(endpoint) => attach(endpoint.clone(), events.clone(), lifetime.clone()),
            None => launch(parts, lifetime.clone())?,
        };
        let invoker = Arc::new(Invoker {
            handler: handler.clone(),
            timeout: app.timeout,
            events: events.clone(),
            steps: options.steps.clone(),
            lifetime: lifetime.clone(),
        });
        for disabled in &app.disabled {
            let Some(problem) = &disabled.problem else { continue };
            let error = format!("The '{}' function is in error: {problem}", disabled.name);
            let warning = format!("Function '{}' is disabled and could not be indexed", disabled.name);
            for (level, text) in [(Level::Error, error), (Level::Warning, warning)] {
                events::send(events, Event::Line { stream: Stream::Host, level, text });
            }
        }
        let (mut timers, mut http, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
        for function in app.functions.clone() {
            let steps = match &function.trigger {
                Trigger::Timer(_) => [Step::TimerCalled, Step::TimerAnswered],
                Trigger::Http(_) => [Step::WebhookCalled, Step::WebhookAnswered],
                Trigger::Queue(_) => [Step::UplinkCalled, Step::UplinkAnswered],
            };
            let callee = Callee { name: function.name, outputs: queues.outputs(function.queue_outputs), steps };
            match function.trigger {
                Trigger::Timer(trigger) => timers.push(Arc::new(timer(parts, callee, trigger, &invoker))),
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
        let (listening, is_drained) = (CancellationToken::new(), CancellationToken::new());
        Ok((Self { handler, invoker, timers, http, listeners, lifetime, listening, is_drained }, supervision))
    }

    /// Runs until the handler has ended for good and nothing is in flight.
    pub async fn live(self: Arc<Self>, supervision: Supervision, run_at_start: bool) {
        tokio::join!(supervision, self.work(run_at_start));
    }

    /// Listens until it is told to stop or the handler is gone for good.
    async fn work(&self, run_at_start: bool) {
        let mut tasks = JoinSet::new();
        let is_ready = tokio::select! {
            ready = self.handler.ready() => ready.is_ok(),
            () = self.lifetime.stopping.cancelled() => false,
        };
        if is_ready {
            for timer in &self.timers {
                let first = timer.try_lock().await;
                tasks.spawn(timer.clone().listen(first, run_at_start));
            }
            for listener in &self.listeners {
                tasks.spawn(listener.clone().run());
            }
            self.listening.cancel();
        }
        tokio::select! {
            () = self.lifetime.stopping.cancelled() => {}
            _ = self.handler.gone() => {}
        }
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => {}
            () = self.lifetime.cut.cancelled() => tasks.shutdown().await,
        }
        self.is_drained.cancel();
    }

    /// Waits until it listens to its queues and timers.
    ///
    /// # Errors
    /// Says why the handler is gone.
    pub async fn listens(&self) -> Result<(), String> {
        tokio::select! {
            () = self.listening.cancelled() => Ok(()),
            reason = self.handler.gone() => Err(reason),
        }
    }
}

fn timer(parts: &Parts, function: Callee, trigger: TimerTrigger, invoker: &Arc<Invoker>) -> Timer {
    let (host, name, options) = (&parts.host_id, &function.name, &parts.options);
    let container = parts.container.as_ref().expect("an app with timers has it");
    let lock = Lock {
        container: container.clone(),
        blob: format!("locks/{host}/Host.Functions.{name}.Listener"),
        renewed_every: options.lock_renewal,
        retry_after: options.storage_retry,
        lifetime: invoker.lifetime.clone(),
    };
    let blob = format!("timers/{host}/Host.Functions.{name}/status");
    let monitor = trigger.monitored.then(|| Monitor { container: container.clone(), blob });
    Timer {
        function,
        trigger,
        lock,
        tried_every: options.lock_retry,
        monitor,
        status: Mutex::default(),
        invoker: invoker.clone(),
    }
}

/// Uses a handler that was started elsewhere.
fn attach(mut endpoint: Url, events: events::Sender, lifetime: Lifetime) -> (Handler, Supervision) {
    endpoint.set_path("/");
    let (handler, control) = handler::handler(endpoint, false);
    let stays_attached = async move {
        let is_lost = async {
            if control.becomes_ready(1, READY_WITHIN, &events).await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = is_lost => control.gone(format!("the handler failed: {}", control.never_ready(READY_WITHIN)), &events),
            () = lifetime.ended() => control.stopped(&lifetime, &events),
        }
    };
    (handler, stays_attached.boxed())
}

fn launch(parts: &Parts, lifetime: Lifetime) -> anyhow::Result<(Handler, Supervision)> {
    let Parts { app, options, settings, events, .. } = parts;
    let command = app.handler_command(options.handler.as_deref())?;
    // Bound as long as the handler may be started: nobody else is given the port meanwhile.
    let placeholder = door::bound(([127, 0, 0, 1], 0).into())?;
    let port = placeholder.local_addr()?.port();
    let (handler, control) = handler::handler(Url::parse(&format!("http://127.0.0.1:{port}/"))?, true);
    let process = Process {
        command,
        environment: settings::environment(settings, &app.root, port),
        only_settings: options.only_settings,
        restarts: options.restarts,
        ready_within: options.ready_within,
        stop_within: Duration::from_secs(options.stop_seconds),
        control,
        events: events.clone(),
        lifetime,
    };
    let supervision = async move {
        process.supervise().await;
        drop(placeholder);
    };
    Ok((handler, supervision.boxed()))
}
