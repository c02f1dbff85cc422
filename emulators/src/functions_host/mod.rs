//! The Azure Functions host from a custom handler's point of view. It starts the handler of a function app, runs its
//! timers, serves its HTTP functions, and delivers the messages of its queues.
//!
//! | Part | |
//! |---|---|
//! | `app`, `function`, `queue_options`, `settings`, `document` | host.json, function.json, app settings |
//! | `schedule`, `time_span`, `route`, `polling` | when a timer runs or a queue is polled, which function serves a path |
//! | `handler`, `process` | the handler's process, from its start to its restart |
//! | `envelope`, `answer`, `outputs`, `invoke` | the custom handler's contract, and calls that follow it |
//! | `timer`, `front`, `listener` | the causes of calls: the clock, HTTP, and messages |
//! | `lock`, `monitor` | which of several hosts runs a timer, and what it must know of the others' runs |
//! | `operation` | what the host asks of a storage account |
//! | `job`, `jobs` | a handler with all that calls it, and its restart |
//! | `start`, `lifetime`, `options` | the start of all parts, their end, and the options |
//! | `queue_set`, `admin` | the app's queues, and the requests that show them |
//! | `events` | the host's events, for a caller that shows them |
//! | `telemetry`, `logging` | what the real host would send to Application Insights, and what host.json lets through |
//!
//! The contract follows the host's source (Azure/azure-functions-host, `src/WebJobs.Script/Workers/Http`). Queues run
//! as in the WebJobs SDK's storage extension.
//!
//! # Queues
//! The binding's `connection` names the setting with the storage account's connection string. A binding without
//! `connection` uses `AzureWebJobsStorage`, if that holds an account with its `AccountName`; `UseDevelopmentStorage=true`
//! there does not count. If the setting is absent, the host emulates an account and gives the handler its connection
//! string in this setting. The emulated account ends with the host, not with the handler.
//!
//! # Its end
//! It ends at the third failure of the handler, when a storage account refuses a request, when one has not answered six
//! tries within 25 seconds, and when it has lost the lock of a timer that it runs. A message that was taken is invisible
//! for ten minutes. Host.json's `visibilityTimeout` counts only if the host lives to release the message. The delete of a
//! message that the handler has put back meanwhile fails, and nothing is said about it.
//!
//! # Timers
//! Of all hosts with the same account in `AzureWebJobsStorage` (with its blob endpoint) and the same id, one runs a timer:
//! the one that holds the lease of the blob `locks/{host id}/Host.Functions.{function}.Listener` in the container
//! `azure-webjobs-hosts`. The lease lasts 60 seconds and is renewed each 30. The others try each 60 seconds. A host that
//! stops releases the lease. One that is killed does not: so the next run comes up to two minutes later, in another host.
//! That host finds in the blob `timers/{host id}/Host.Functions.{function}/status` that a run was missed, and makes up for
//! it at once, with `IsPastDue`. (Schedules of less than a minute have no status.) Without such an account the blobs are in
//! the emulated one, where this host is alone. The id is the setting `AzureFunctionsWebHost__hostid` or
//! `WEBSITE_SITE_NAME`, or follows from the app's folder.
//!
//! # A function in error
//! A function with a `%Setting%` that the app does not have does not run, whether it is disabled or not. The host logs that as an
//! error at its start, and the other functions run.
//!
//! # A restart
//! `POST /admin/host/restart` starts another handler. The old one gets no new calls from that moment; HTTP calls wait for
//! the new one. The old one is asked to end when its calls from queues and timers have ended. So both run for a while,
//! and so may two runs of a timer.
//!
//! # What the real host does and this one does not
//! - A restart does not read host.json and the function.json files again, and no change of them causes one.
//! - A handler that cannot be started is an error here. The real host goes on, and calls hang.
//! - A host that is killed takes the handler with it. The real one leaves it behind.
//! - A call without a function key is accepted.
//!
//! # Requests for tests and tools
//! | | |
//! |---|---|
//! | `POST /admin/functions/{timer}` | runs it now, `202`. With `?wait` the answer comes after the invocation: `{"succeeded":true,"status":200,"logs":[],"body":{},"error":null}` |
//! | `POST /admin/host/restart` | see above; `200`, `{"scriptPath":"…"}`. With `?wait` the answer comes when the new handler has answered |
//! | `GET /admin/queues` | `[{"name":"uplinks","visible":0,"invisible":1}]`: bound queues, and poison queues of triggers. For another account than the emulated one the numbers are approximate, with `visible` up to 32 |
//! | `GET /admin/queues/{name}` | `[{"id":"…","text":"…","dequeueCount":0,"insertionTime":"…","expirationTime":"…","nextVisibleTime":"…"}]`; for another account the first 32 visible ones |
//! | `?wait=empty&timeout_ms=30000` | with either `GET`: the answer comes when the queue (or each queue that triggers a function) has no message, visible or not, or when the time is over |
//! | `GET /admin/telemetry` | what the real host would have sent to Application Insights: `{"seconds":60.0,"records":3,"bytes":3470,"gigabytesAMonth":0.1,"categories":{"Host.Results":{"records":1,"bytes":1070}}}` |
//! | `POST /admin/queues/{name}` | the body is a message, with `x-batch: true` a JSON array of strings; `201` `{"added":1}` |

mod admin;
mod answer;
mod app;
mod document;
mod ending;
mod envelope;
mod events;
mod front;
mod function;
mod handler;
mod invoke;
mod job;
mod jobs;
mod lifetime;
mod listener;
mod lock;
mod logging;
mod monitor;
mod operation;
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
mod telemetry;
mod time_span;
mod timer;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{sync::broadcast, task::JoinSet, time::timeout};

pub use self::{
    events::{Event, InvocationFinished, Level, Stream},
    options::Options,
    queue_set::{QueueMessage, QueueSummary},
    start::start,
    telemetry::{Sent, TelemetrySummary},
};
use self::{jobs::Jobs, queue_set::Entry, telemetry::Telemetry};
use crate::door::Door;

/// How long calls in flight may last when the host stops.
const LONGEST_END: Duration = Duration::from_secs(10);

/// The line of JSON with the addresses of the host and its handler.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// HTTP functions are below `api/` of this address.
    pub endpoint: String,
    /// The first handler's.
    pub handler: String,
    pub functions: Vec<String>,
    /// The timers among them, with their schedules.
    pub timers: BTreeMap<String, String>,
    /// The URL of each queue.
    pub queues: BTreeMap<String, String>,
    /// The control endpoint of the emulated storage account, if the app needs it: see `storage/mod.rs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// The settings with the emulated storage account, as the handler gets them.
    #[serde(skip)]
    pub settings: BTreeMap<String, String>,
}

/// A running host. Dropping it kills the handler; [`stop`](Emulator::stop) also waits for the handler's end.
pub struct Emulator {
    ready: Ready,
    jobs: Arc<Jobs>,
    telemetry: Arc<Telemetry>,
    first_events: Mutex<Option<broadcast::Receiver<Event>>>,
    tasks: JoinSet<()>,
    door: Door,
}

impl Emulator {
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The host's events. The first receiver gets all events since the start (the last 4096), later ones get only new
    /// events. A receiver that is too slow gets the number of events that it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.first_events.lock().expect("no panic while locked").take();
        first.unwrap_or_else(|| self.jobs.parts.events.channel.subscribe())
    }

    /// Runs a timer function now and waits for its end.
    ///
    /// # Errors
    /// There is no such timer function. (A failed invocation is not an error; it returns `succeeded: false`.)
    pub async fn invoke(&self, function: &str) -> anyhow::Result<InvocationFinished> {
        let job = self.jobs.current();
        let timer = job.timers.iter().find(|timer| timer.function.name == function);
        Ok(timer.with_context(|| format!("there is no timer function {function:?}"))?.invoke(None).await)
    }

    /// The messages of a queue, ordered by visibility time: all in the emulated account, or the first 32
    /// visible ones of another.
    ///
    /// # Errors
    /// No function is bound to the queue, or the account does not answer.
    pub async fn queue_messages(&self, queue: &str) -> anyhow::Result<Vec<QueueMessage>> {
        Ok(self.queue(queue)?.messages().await?.into_iter().map(QueueMessage::from).collect())
    }

    /// Puts a message into a queue.
    ///
    /// # Errors
    /// No function is bound to the queue, the message is too large, or the account does not accept it.
    pub async fn enqueue(&self, queue: &str, text: impl Into<String>) -> anyhow::Result<()> {
        Ok(self.queue(queue)?.queue.put(text.into().into()).await?)
    }

    /// Waits until a queue has no message, visible or not. `false` if the time is over first.
    ///
    /// # Errors
    /// No function is bound to the queue, or the account does not answer.
    pub async fn wait_until_empty(&self, queue: &str, time: Duration) -> anyhow::Result<bool> {
        Ok(self.queue(queue)?.is_empty_within(time).await?)
    }

    fn queue(&self, name: &str) -> anyhow::Result<&Entry> {
        self.jobs.parts.queues.find(name).with_context(|| format!("no function is bound to a queue {name:?}"))
    }

    /// What the real host would have sent to Application Insights so far.
    #[must_use]
    pub fn telemetry(&self) -> TelemetrySummary {
        self.telemetry.summary(self.jobs.parts.queues.requests())
    }

    /// Waits until the host has ended by itself: it has given up on the handler or on a storage account. Returns the
    /// reason.
    pub async fn stopped(&self) -> String {
        tokio::select! {
            reason = self.jobs.parts.lifetime.failed() => reason,
            reason = self.jobs.gone() => reason,
        }
    }

    /// Restarts the job host, as `POST /admin/host/restart` does. Returns when the new handler has answered. The old one
    /// may still run.
    ///
    /// # Errors
    /// The new handler does not start.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.jobs.restart().await.map_err(anyhow::Error::msg)
    }

    /// Kills the handler and waits for its end, for whoever does not have the host itself.
    pub fn killing(&self) -> impl Future<Output = ()> + Send + use<> {
        let jobs = self.jobs.clone();
        async move {
            jobs.parts.lifetime.kill.cancel();
            jobs.gone().await;
        }
    }

    /// Ends as the real host does. Nothing new begins. Calls in flight get 10 seconds; then the handler gets SIGTERM,
    /// and SIGKILL if it does not end. Messages whose calls were cut stay invisible for the rest of their 10 minutes.
    /// Returns what the real host would have sent to Application Insights.
    pub async fn stop(mut self) -> TelemetrySummary {
        let (lifetime, job) = (&self.jobs.parts.lifetime, self.jobs.current());
        lifetime.stopping.cancel();
        let quiet = async {
            while self.tasks.join_next().await.is_some() {}
            job.is_drained.cancelled().await;
        };
        let _ = timeout(LONGEST_END, quiet).await;
        self.tasks.shutdown().await;
        lifetime.cut.cancel();
        job.is_drained.cancelled().await;
        lifetime.stop.cancel();
        self.jobs.ended().await;
        self.telemetry.flush();
        self.telemetry()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.jobs.abort();
        self.tasks.abort_all();
        self.door.cut();
    }
}
