//! The state of the handler as the other parts of the host see it: starting, ready, or gone for good.

use std::time::Duration;

use reqwest::{Client, Url, redirect::Policy};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    events::{Event, Sender, send},
    lifetime::Lifetime,
};

/// How often the host polls a new handler until it answers.
const PROBE_EVERY: Duration = Duration::from_millis(25);
/// How long a new handler may take until its first answer.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

/// The handler's state.
#[derive(Clone)]
pub enum State {
    Starting,
    /// Each start has its own client: connections to a former process must not be reused.
    Ready {
        client: Client,
        start: u64,
    },
    /// Gone for good, with the reason.
    Gone(String),
}

/// Where the handler listens, and a way to kill it. Cheap to clone.
#[derive(Clone)]
pub struct Handler {
    pub endpoint: Url,
    state: watch::Receiver<State>,
    /// Number of the newest start that must be killed.
    kill: watch::Sender<u64>,
    /// Whether this host starts and kills the process.
    is_supervised: bool,
}

/// The other end of a [`Handler`], for the task that runs the process.
pub struct Control {
    pub endpoint: Url,
    pub state: watch::Sender<State>,
    pub kill: watch::Receiver<u64>,
}

/// `is_supervised`: this host runs the process and obeys its kill switch.
pub fn handler(endpoint: Url, is_supervised: bool) -> (Handler, Control) {
    let (state_sender, state) = watch::channel(State::Starting);
    let (kill, killed) = watch::channel(0);
    let handler = Handler { endpoint: endpoint.clone(), state, kill, is_supervised };
    (handler, Control { endpoint, state: state_sender, kill: killed })
}

impl Handler {
    /// Waits until the handler is ready. Returns a client for it and the number of its start.
    ///
    /// # Errors
    /// Says why the handler is gone.
    pub async fn ready(&self) -> Result<(Client, u64), String> {
        let mut state = self.state.clone();
        let is_settled = |state: &State| match state {
            State::Starting => false,
            // A process that is about to be killed gets no more calls.
            State::Ready { start, .. } => *start > *self.kill.borrow(),
            State::Gone(_) => true,
        };
        match state.wait_for(is_settled).await.as_deref() {
            Ok(State::Ready { client, start }) => Ok((client.clone(), *start)),
            Ok(State::Gone(reason)) => Err(reason.clone()),
            _ => Err("the host has stopped".to_owned()),
        }
    }

    /// Waits until the handler is gone for good.
    pub async fn gone(&self) -> String {
        match self.state.clone().wait_for(|state| matches!(state, State::Gone(_))).await.as_deref() {
            Ok(State::Gone(reason)) => reason.clone(),
            _ => "the host has stopped".to_owned(),
        }
    }

    /// Waits until the handler answers. After a call was cut, this shows whether the process still exists: the host
    /// notices the end of a process a little later than the end of its connections.
    ///
    /// # Errors
    /// Says why the handler is gone.
    pub async fn answers(&self) -> Result<(), String> {
        loop {
            let (client, _) = self.ready().await?;
            if client.get(self.endpoint.clone()).timeout(READY_WITHIN).send().await.is_ok() {
                return Ok(());
            }
            sleep(PROBE_EVERY).await;
        }
    }

    /// Kills the process, so that it is started again. Does nothing if that start is already over, or if the process is
    /// not this host's.
    pub fn kill(&self, start: u64) {
        if !self.is_supervised {
            return;
        }
        self.kill.send_if_modified(|newest| std::mem::replace(newest, start.max(*newest)) < start);
    }
}

impl Control {
    /// Waits for the handler's first answer, with any status. `false` if none came in time.
    pub async fn becomes_ready(&self, start: u64, within: Duration, events: &Sender) -> bool {
        let started = Instant::now();
        let Ok(client) = client() else { return false };
        let answered = timeout(within, async {
            while client.get(self.endpoint.clone()).send().await.is_err() {
                sleep(PROBE_EVERY).await;
            }
        });
        if answered.await.is_err() {
            return false;
        }
        let after_ms = started.elapsed().as_millis() as u64;
        tracing::info!(endpoint = %self.endpoint, after_ms, "the handler is ready");
        self.state.send_replace(State::Ready { client, start });
        send(events, Event::HandlerReady { after_ms });
        true
    }

    /// The host gives up on the handler.
    pub fn gone(&self, reason: String, events: &Sender) {
        tracing::warn!(reason, "the handler is gone");
        self.state.send_replace(State::Gone(reason.clone()));
        send(events, Event::Stopped { reason });
    }

    /// The host has been stopped, or its job host was: then another one goes on.
    pub fn stopped(&self, lifetime: &Lifetime, events: &Sender) {
        tracing::info!("the handler is stopped");
        let reason = lifetime.reason();
        self.state.send_replace(State::Gone(reason.clone()));
        if lifetime.is_over() {
            send(events, Event::Stopped { reason });
        }
    }

    pub fn never_ready(&self, within: Duration) -> String {
        format!("it did not answer GET {} within {} seconds", self.endpoint, within.as_secs_f64())
    }
}

fn client() -> reqwest::Result<Client> {
    Client::builder().no_proxy().redirect(Policy::none()).build()
}
