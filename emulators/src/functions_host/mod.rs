//! The Azure Functions host as a custom handler meets it: starts the handler of a function app, runs its timers, serves
//! its HTTP functions, brings it the messages of its queues.
//!
//! | Part | |
//! |---|---|
//! | `app`, `function`, `queue_options`, `settings`, `document` | host.json, function.json, app settings |
//! | `schedule`, `time_span`, `route`, `polling` | when a timer runs or a queue is asked, which path is whose |
//! | `handler`, `process` | the handler's process, from its start to its restart |
//! | `envelope`, `answer`, `outputs`, `invoke` | the custom handler's contract, and calls that follow it |
//! | `timer`, `front`, `listener` | what causes calls: the clock, HTTP, and messages |
//! | `start`, `options` | the parts put together |
//! | `queue_set`, `admin` | the app's queues, and who looks into them |
//! | `events` | what happens, for whoever wants to show it |
//!
//! The contract is that of the host's source (Azure/azure-functions-host, `src/WebJobs.Script/Workers/Http`), queues are
//! run as the WebJobs SDK's storage extension runs them.
//!
//! # Queues
//! They are in memory, or in the storage account whose connection string is in the setting that the binding's
//! `connection` names. A binding without `connection` uses an account only if `AzureWebJobsStorage` has one with its
//! `AccountName`; `UseDevelopmentStorage=true` counts there as none. In memory they end with the host, not with the
//! handler.
//!
//! # Requests for tests and tools
//! | | |
//! |---|---|
//! | `POST /admin/functions/{timer}` | runs it now, `202`. With `?wait`, when the invocation is over: `{"succeeded":true,"status":200,"logs":[],"body":{},"error":null}` |
//! | `GET /admin/queues` | `[{"name":"uplinks","visible":0,"invisible":1}]`: bound queues, and poison queues of triggers. Of an account approximate, `visible` up to 32 |
//! | `GET /admin/queues/{name}` | `[{"id":"…","text":"…","dequeueCount":0,"insertionTime":"…","expirationTime":"…","nextVisibleTime":"…"}]`; of an account the first 32 visible ones |
//! | `?wait=empty&timeout_ms=30000` | with either of them: the answer comes when the queue, or each queue that triggers a function, is empty, visible messages and others; or when the time is over |
//! | `POST /admin/queues/{name}` | the body is a message, with `x-batch: true` a JSON array of strings; `201` `{"added":1}` |

mod admin;
mod answer;
mod app;
mod document;
mod envelope;
mod events;
mod front;
mod function;
mod handler;
mod invoke;
mod listener;
mod options;
mod outputs;
mod polling;
mod process;
mod queue_options;
mod queue_set;
mod route;
mod schedule;
mod settings;
mod start;
mod time_span;
mod timer;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    events::{Event, InvocationFinished, Level, Stream},
    options::Options,
    queue_set::{QueueMessage, QueueSummary},
    start::start,
};
use self::{handler::Handler, queue_set::QueueSet, timer::Timer};
use crate::{door::Door, queues::Queue};

/// The line that says where the host and its handler are.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// HTTP functions are below its `api/`.
    pub endpoint: String,
    pub handler: String,
    pub functions: Vec<String>,
    /// The timers among them, with their schedules.
    pub timers: BTreeMap<String, String>,
    /// Where each queue is: `memory`, or its URL.
    pub queues: BTreeMap<String, String>,
}

/// A running host. When this is dropped the handler is killed; [`stop`](Emulator::stop) also waits for its end.
pub struct Emulator {
    ready: Ready,
    handler: Handler,
    timers: Vec<Arc<Timer>>,
    queues: Arc<QueueSet>,
    events: broadcast::Sender<Event>,
    first_events: Mutex<Option<broadcast::Receiver<Event>>>,
    stop: CancellationToken,
    handler_task: JoinHandle<()>,
    tasks: JoinSet<()>,
    door: Door,
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
        let timer = self.timers.iter().find(|timer| timer.function.name == function);
        Ok(timer.with_context(|| format!("there is no timer function {function:?}"))?.invoke(false).await)
    }

    /// The messages of a queue, next visible first: all of them, or the first 32 visible ones of an account.
    ///
    /// # Errors
    /// No function is bound to the queue, or the account does not answer.
    pub async fn queue_messages(&self, queue: &str) -> anyhow::Result<Vec<QueueMessage>> {
        Ok(self.queue(queue)?.peek().await?.into_iter().map(QueueMessage::from).collect())
    }

    /// Puts a message into a queue.
    ///
    /// # Errors
    /// No function is bound to the queue, the message is too large, or the account does not take it.
    pub async fn enqueue(&self, queue: &str, text: impl Into<String>) -> anyhow::Result<()> {
        Ok(self.queue(queue)?.put(text.into().into()).await?)
    }

    /// Waits until a queue has no message, visible or not. `false`: the time was over first.
    ///
    /// # Errors
    /// No function is bound to the queue, or the account does not answer.
    pub async fn wait_until_empty(&self, queue: &str, time: Duration) -> anyhow::Result<bool> {
        Ok(queue_set::is_empty_within(self.queue(queue)?, time).await?)
    }

    fn queue(&self, name: &str) -> anyhow::Result<&Arc<Queue>> {
        self.queues.find(name).with_context(|| format!("no function is bound to a queue {name:?}"))
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
