//! Runs: webhooks by a schedule, in order for each device, at most so many at a time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use reqwest::Url;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Event, Stack,
    generate::{Kind, Webhook},
    journal::Attempt,
    sending::Sending,
    uplink::is_success,
};

/// What the target said to a webhook in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Of an uplink; see the module's documentation.
    pub marker: Option<u64>,
    /// `None`: no answer.
    pub status: Option<u16>,
    /// At most 64 KiB of it; what is not UTF-8 is replaced.
    pub body: String,
    /// Why there is no answer.
    pub error: Option<String>,
    pub attempts: u32,
}

/// A webhook of somebody's that was answered or given up; for those who watch.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub application: String,
    pub device: String,
    pub kind: Kind,
    /// Of the format: 2 or 3.
    pub version: u8,
    pub answer: Answer,
}

/// Where webhooks go and what happens when they fail.
pub struct Destination {
    pub target: Url,
    attempts: u32,
    retry_delay: Duration,
    timeout: Duration,
    /// Ends further attempts.
    stop: CancellationToken,
}

impl Destination {
    pub fn new(target: Url, sending: &Sending, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            target,
            attempts: sending.attempts,
            retry_delay: Duration::from_secs_f64(sending.retry_delay),
            timeout: Duration::from_secs_f64(sending.timeout),
            stop,
        })
    }
}

/// A webhook on its way.
pub struct Delivery {
    pub webhook: Webhook,
    pub destination: Arc<Destination>,
    /// When it should be sent.
    pub due: Option<Instant>,
    /// Its share of the run's concurrency.
    pub permit: Option<OwnedSemaphorePermit>,
    pub answered: Option<oneshot::Sender<Answer>>,
}

/// The devices that have a webhook on its way, with those that wait for it.
#[derive(Default)]
pub struct Lanes(Mutex<HashMap<usize, VecDeque<Delivery>>>);

impl Lanes {
    /// The delivery, if it is its turn already; otherwise it waits for its device's other ones.
    fn enter(&self, delivery: Delivery) -> Option<Delivery> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lanes.get_mut(&delivery.webhook.device.number) {
            Some(waiting) => {
                waiting.push_back(delivery);
                None
            }
            None => {
                lanes.insert(delivery.webhook.device.number, VecDeque::new());
                Some(delivery)
            }
        }
    }

    /// The device's next delivery, when the one before is over.
    fn next(&self, device: usize) -> Option<Delivery> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = lanes.get_mut(&device)?.pop_front();
        if next.is_none() {
            lanes.remove(&device);
        }
        next
    }
}

/// Sends what `sending` says, until its count is reached or it is stopped; returns when all is answered.
pub async fn run(stack: &Arc<Stack>, sending: &Sending, destination: Arc<Destination>) {
    let permits = Arc::new(Semaphore::new(sending.concurrency));
    let stop = destination.stop.clone();
    let start = Instant::now();
    let schedule = async {
        let mut woken = start;
        for number in 0..sending.count.unwrap_or(u64::MAX) {
            // From the start and not from the one before: what is late is caught up with.
            let due = (sending.rate > 0.0).then(|| start + Duration::from_secs_f64(number as f64 / sending.rate));
            if let Some(due) = due.filter(|due| *due > Instant::now()) {
                sleep_until(due).await;
                woken = Instant::now();
            }
            // Timers tick in milliseconds; what they are late is not the target's fault.
            let due = due.map(|due| due.max(woken));
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let webhook = stack.generator().next(sending, Utc::now());
            let destination = destination.clone();
            send(stack, Delivery { webhook, destination, due, permit: Some(permit), answered: None });
        }
    };
    stop.run_until_cancelled(schedule).await;
    // All permits are back when all is answered.
    let _ = permits.acquire_many(u32::try_from(sending.concurrency).unwrap_or(u32::MAX)).await;
}

/// Sends a webhook after those of the same device that were given before.
pub fn send(stack: &Arc<Stack>, delivery: Delivery) {
    let Some(first) = stack.lanes.enter(delivery) else { return };
    let stack = stack.clone();
    tokio::spawn(async move {
        let ended = stack.ended.clone();
        let lane = async {
            let mut next = Some(first);
            while let Some(delivery) = next {
                let device = delivery.webhook.device.number;
                deliver(&stack, delivery).await;
                next = stack.lanes.next(device);
            }
        };
        ended.run_until_cancelled(lane).await;
    });
}

async fn deliver(stack: &Stack, delivery: Delivery) {
    let Delivery { webhook, destination, due, permit, answered } = delivery;
    stack.journal.begun(&webhook);
    let mut attempts = 0;
    let result = loop {
        attempts += 1;
        let started = Instant::now();
        let result = stack.poster.post(&webhook, &destination.target, destination.timeout).await;
        let answer = result.as_ref().map(|(status, _)| *status).map_err(String::as_str);
        stack.journal.attempted(&Attempt { webhook: &webhook, answer, started, due: due.filter(|_| attempts == 1) });
        if is_settled(webhook.kind, answer.ok()) || attempts >= destination.attempts {
            break result;
        }
        if destination.stop.run_until_cancelled(sleep(destination.retry_delay)).await.is_none() {
            break result;
        }
    };
    // Before the permit: who has all permits back must find nothing in flight.
    stack.journal.ended();
    drop(permit);
    if answered.is_none() && stack.events.receiver_count() == 0 {
        return;
    }
    let marker = webhook.uplink.as_ref().map(|uplink| uplink.marker);
    let answer = match result {
        Ok((status, body)) => {
            let body = String::from_utf8_lossy(&body).into_owned();
            Answer { marker, status: Some(status), body, error: None, attempts }
        }
        Err(error) => Answer { marker, status: None, body: String::new(), error: Some(error), attempts },
    };
    if let Some(answered) = answered {
        // Who asked may have gone away meanwhile.
        let _ = answered.send(answer.clone());
    }
    let Webhook { device, kind, version, .. } = webhook;
    let (application, device) = (device.application.clone(), device.id.clone());
    // An error means that nobody listens.
    let _ = stack.events.send(Event::Delivered(Delivered { application, device, kind, version, answer }));
}

/// Whether a webhook needs no further attempt.
fn is_settled(kind: Kind, status: Option<u16>) -> bool {
    match status {
        Some(400..500) => kind == Kind::Malformed,
        Some(status) => is_success(status),
        None => false,
    }
}
