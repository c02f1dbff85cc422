//! What the APIs and the runs share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use chrono::Utc;
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Event, Ready,
    fan_out::Threshold,
    generate::{Generator, Wanted},
    journal::{Journal, Statistics},
    keys::Keys,
    options::Options,
    post::Poster,
    queues::Queues,
    refusal::Refusal,
    registry::Registry,
    send::{self, Answer, Delivery, Destination, Lanes},
    sending::Sending,
};
use crate::door::Door;

/// Events that a slow subscriber may fall behind before it misses some.
const LIVE_QUEUE: usize = 4096;

pub struct Stack {
    pub keys: Keys,
    pub registry: Registry,
    pub threshold: Threshold,
    pub webhook: String,
    /// Those of the options.
    pub sending: Sending,
    /// The port for downlinks.
    pub door: Door,
    generator: Mutex<Generator>,
    pub poster: Poster,
    pub journal: Journal,
    pub lanes: Lanes,
    pub queues: Queues,
    pub events: broadcast::Sender<Event>,
    run: Mutex<Run>,
    is_running: watch::Sender<bool>,
    has_sent: AtomicBool,
    /// The stand-in has been dropped.
    pub ended: CancellationToken,
}

/// The run under way, or the last one.
struct Run {
    sending: Sending,
    stop: CancellationToken,
}

impl Stack {
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(options: &Options, ready: &Ready, door: Door) -> anyhow::Result<Self> {
        let ended = CancellationToken::new();
        Ok(Self {
            keys: Keys::new(ready.apikey.clone()),
            registry: Registry::default(),
            threshold: options.threshold(),
            webhook: options.webhook.clone(),
            sending: options.sending.clone(),
            generator: Mutex::new(Generator::new(options, format!("http://{}/", door.address()))),
            door,
            poster: Poster::new(options, &ready.apikey, &ready.endpoint)?,
            journal: Journal::new(options.keep_uplinks),
            lanes: Lanes::default(),
            queues: Queues::new(),
            events: broadcast::Sender::new(LIVE_QUEUE),
            run: Mutex::new(Run { sending: options.sending.clone(), stop: ended.child_token() }),
            is_running: watch::Sender::new(false),
            has_sent: AtomicBool::new(false),
            ended,
        })
    }

    pub fn generator(&self) -> MutexGuard<'_, Generator> {
        self.generator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// There is no target, or a run is under way.
    pub fn start_run(self: &Arc<Self>, sending: Sending) -> anyhow::Result<()> {
        let target = sending.target.clone().context("there is no target to send to")?;
        let is_first = self.is_running.send_if_modified(|is_running| !std::mem::replace(is_running, true));
        ensure!(is_first, "a run is under way");
        self.has_sent.store(true, Ordering::Relaxed);
        let stop = self.ended.child_token();
        let destination = Destination::new(target, &sending, stop.clone());
        *self.run() = Run { sending: sending.clone(), stop };
        let stack = self.clone();
        tokio::spawn(async move {
            stack.ended.run_until_cancelled(send::run(&stack, &sending, destination)).await;
            stack.is_running.send_replace(false);
        });
        Ok(())
    }

    pub async fn stop_run(&self) {
        self.run().stop.cancel();
        self.done().await;
    }

    /// Waits until no run is under way.
    pub async fn done(&self) {
        // An error is impossible while `self` holds the sender.
        let _ = self.is_running.subscribe().wait_for(|is_running| !is_running).await;
    }

    pub async fn done_within(&self, time: Duration) {
        // Who waits sees from the statistics whether it was long enough.
        let _ = timeout(time, self.done()).await;
    }

    pub fn statistics(&self) -> Statistics {
        Statistics { is_done: !*self.is_running.borrow(), ..self.journal.statistics() }
    }

    /// # Errors
    /// There is no target, or the uplink cannot be made.
    pub async fn send_uplink(self: &Arc<Self>, wanted: Wanted) -> anyhow::Result<Answer> {
        let sending = self.run().sending.clone();
        let target = match &wanted.target {
            Some(text) => text.parse().with_context(|| format!("target {text:?} is not a URL"))?,
            None => sending.target.clone().context("there is no target to send to")?,
        };
        let webhook = self.generator().wanted(wanted, Utc::now()).map_err(anyhow::Error::msg)?;
        self.has_sent.store(true, Ordering::Relaxed);
        let destination = Destination::new(target, &sending, self.ended.child_token());
        let (answered, answer) = oneshot::channel();
        send::send(self, Delivery { webhook, destination, due: None, permit: None, answered: Some(answered) });
        answer.await.context("the emulator ends")
    }

    /// Whether downlinks may be sent to a device. Everything is known as long as nothing was sent.
    ///
    /// # Errors
    /// What of it is not known.
    pub fn check_known(&self, application: &str, webhook: &str, device: &str) -> Result<(), Refusal> {
        if !self.has_sent.load(Ordering::Relaxed) {
            return Ok(());
        }
        let generator = self.generator();
        if !generator.knows_application(application) {
            return Err(Refusal::unknown_application(application));
        }
        match self.registry.find(application, webhook) {
            Some(webhook) if webhook.get("paused") == Some(&true.into()) => return Err(Refusal::paused()),
            None if webhook != self.webhook => return Err(Refusal::unknown_webhook()),
            _ => {}
        }
        if !generator.knows(application, device) {
            return Err(Refusal::unknown_device(device));
        }
        Ok(())
    }
}
