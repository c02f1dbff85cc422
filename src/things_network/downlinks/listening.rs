//! Commands at once: while a device has an MQTT connection, the hub pushes its commands over it, and nothing waits for an
//! uplink.
//!
//! The PUBACK completes a pushed message. MQTT can neither reject nor abandon one. So a message that is not accepted is left
//! unacknowledged, the subscription ends, and when the hub has taken all messages back (its lock ends after a minute), they
//! are fetched over HTTPS, where the one at fault is rejected or abandoned. When nothing is left, the device listens again. So
//! the order holds, and one state per device decides: either the hub pushes, or the connector fetches.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{Downlinks, Told};
use crate::{
    iot_hub::{
        CloudMessage, Device,
        pushed::{Arrival, Inbox, LOCK, Pushed},
    },
    support::{backoff::Policy, ending},
    things_network::queued::DownlinkKeys,
};

/// Devices whose downlink addresses are remembered: more than connect at once.
const MOST_PLACES: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// Arrivals that wait for the task that sorts them. A connection with more waits.
const ARRIVALS: usize = 256;
/// Messages that may wait for one device: as many as its queue at the hub holds.
const MOST_PUSHED: usize = 50;
/// After this, the hub has taken back all messages that were left.
pub(super) const TAKEN_BACK: Duration = LOCK.saturating_add(Duration::from_secs(2));
/// How long a worker may be at it, before another one takes its place.
const WORK: Duration = Duration::from_secs(60);
/// Devices that connect again at a time, after the hub has ended their connections.
const RECONNECTING: usize = 16;
/// The pauses before a connection is opened again.
const PAUSES: Policy = Policy::exact(Duration::from_secs(1), Duration::from_secs(5 * 60));
/// A connection that ends within this time may have been taken over: by another instance that listens for the same device. They
/// would take it from each other as fast as they can.
const SHORT_LIFE: Duration = Duration::from_secs(60);
/// After this many short lives in a row, the device is left to the other instance for an hour, or until its next uplink here.
const SHORT_LIVES: u32 = 3;
const LEFT_TO_ANOTHER: Duration = Duration::from_secs(60 * 60);
/// When what waits at the hub could not be fetched.
const FETCH_AGAIN: Duration = Duration::from_secs(30);

/// Where the downlinks of a device go. The API key is a secret: it stays in memory.
#[derive(Clone)]
pub struct Place {
    pub device: Arc<Device>,
    pub keys: Arc<DownlinkKeys>,
}

pub struct Listening {
    arrivals: OnceLock<mpsc::Sender<Arrival>>,
    pushed: Mutex<HashMap<String, VecDeque<Pushed>>>,
    places: Mutex<LruCache<String, Place>>,
    has_news: AtomicBool,
    /// By device, see [`Self::ended`].
    short_lives: Mutex<LruCache<String, u32>>,
    /// Devices that a task looks at again.
    retrying: Mutex<HashSet<String>>,
    reconnecting: Semaphore,
    /// Notified when a device may back off no longer.
    woken: Notify,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            arrivals: OnceLock::new(),
            pushed: Mutex::default(),
            places: Mutex::new(LruCache::new(MOST_PLACES)),
            has_news: AtomicBool::new(false),
            short_lives: Mutex::new(LruCache::new(MOST_PLACES)),
            retrying: Mutex::default(),
            reconnecting: Semaphore::new(RECONNECTING),
            woken: Notify::new(),
        }
    }
}

impl Listening {
    pub fn remember(&self, name: &str, place: Place) {
        if lock(&self.places).put(name.to_owned(), place).is_none() {
            self.has_news.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there are devices that were not there at the last call.
    pub fn take_news(&self) -> bool {
        self.has_news.swap(false, Ordering::Relaxed)
    }

    /// Lets those who wait for the end of a back-off look whether it has ended.
    pub fn wake(&self) {
        self.woken.notify_waiters();
    }

    pub fn place(&self, name: &str) -> Option<Place> {
        lock(&self.places).get(name).cloned()
    }

    /// A device's connection has ended. Returns the pause before the next one.
    fn ended(&self, name: &str, lived: Duration) -> Duration {
        let mut all = lock(&self.short_lives);
        let before = all.pop(name).filter(|_| lived < SHORT_LIFE).unwrap_or_default();
        if lived < SHORT_LIFE {
            all.put(name.to_owned(), (before + 1).min(SHORT_LIVES));
        }
        // Two steps at once: a contest is not to cost telemetry anything.
        if before < SHORT_LIVES { PAUSES.wait(1 + 2 * before) } else { LEFT_TO_ANOTHER }
    }

    /// The device's oldest pushed message. What came on a connection that has ended comes again.
    pub fn take(&self, name: &str) -> Option<Pushed> {
        let mut all = lock(&self.pushed);
        let of_device = all.get_mut(name)?;
        while let Some(pushed) = of_device.pop_front() {
            if !pushed.is_gone() {
                return Some(pushed);
            }
        }
        all.remove(name);
        None
    }

    pub fn has(&self, name: &str) -> bool {
        lock(&self.pushed).get(name).is_some_and(|of_device| !of_device.is_empty())
    }

    /// How often the hub has delivered the messages that wait for the device and are equal to this one.
    pub fn deliveries_of_equal(&self, name: &str, message: &CloudMessage) -> Vec<u32> {
        let content = |of: &CloudMessage| (of.message_id.clone(), of.body.clone(), of.properties.clone());
        let wanted = content(message);
        let all = lock(&self.pushed);
        let of_device = all.get(name).into_iter().flatten().map(|pushed| &pushed.message);
        of_device.filter(|other| content(other) == wanted).map(|other| other.delivery_count).collect()
    }

    /// Leaves the device's pushed messages to the hub.
    pub fn leave(&self, name: &str) {
        lock(&self.pushed).remove(name);
    }

    fn put(&self, name: &str, pushed: Pushed) {
        let mut all = lock(&self.pushed);
        let of_device = all.entry(name.to_owned()).or_default();
        // The hub has no more of them, so this is never so; but what it pushes is not ours to decide.
        if of_device.len() < MOST_PUSHED {
            of_device.push_back(pushed);
        }
    }
}

impl Downlinks {
    /// The device's name in all memories here.
    pub(super) fn name(device: &Device) -> String {
        format!("{}/{}", device.endpoint, device.id)
    }

    /// Lets the hub push the device's commands from now on, if the device has an MQTT connection. Nothing may be waiting
    /// for it that this process has tried and not settled.
    pub(super) async fn listen(self: &Arc<Self>, name: &str) {
        let Some(inbox) = self.inbox(name) else { return };
        let device = inbox.device.clone();
        if self.sender.listen(inbox).await {
            tokio::spawn(self.clone().reconnect(device, Duration::MAX));
        }
    }

    /// An uplink of the device is about to be sent: lets its connection listen from the beginning, unless something waits at
    /// the hub that must be fetched.
    pub fn before_uplink(self: &Arc<Self>, device: &Arc<Device>, keys: &DownlinkKeys) {
        let name = Self::name(device);
        if !self.sender.can_listen() || self.sender.listens(device) || self.failures.last(&name).is_some() {
            return;
        }
        self.listening.remember(&name, Place { device: device.clone(), keys: Arc::new(keys.clone()) });
        if let Some(inbox) = self.inbox(&name) {
            self.sender.expect(inbox);
        }
    }

    fn inbox(self: &Arc<Self>, name: &str) -> Option<Inbox> {
        if !self.sender.can_listen() || self.ending.has_begun() {
            return None;
        }
        let Place { device, .. } = self.listening.place(name)?;
        let arrivals = self.listening.arrivals.get_or_init(|| {
            let (arrivals, arriving) = mpsc::channel(ARRIVALS);
            tokio::spawn(self.clone().sort(arriving));
            arrivals
        });
        Some(Inbox { device, arrivals: arrivals.clone() })
    }

    /// Takes what comes over all connections, and does nothing that takes time.
    async fn sort(self: Arc<Self>, mut arriving: mpsc::Receiver<Arrival>) {
        while let Some(arrival) = arriving.recv().await {
            match arrival {
                Arrival::Message(pushed) => {
                    let name = Self::name(&pushed.device);
                    self.accepted.comes(&name, &pushed.message);
                    self.listening.put(&name, *pushed);
                    self.clone().work(name);
                }
                Arrival::Ended(device, lived) => drop(tokio::spawn(self.clone().reconnect(device, lived))),
            }
        }
    }

    /// Passes on what waits for a device, in a task of its own.
    pub(super) fn work(self: Arc<Self>, name: String) {
        let Some(Place { device, keys }) = self.listening.place(&name) else { return self.listening.leave(&name) };
        let workers = self.workers.clone();
        workers.spawn(async move {
            tokio::select! {
                () = self.pass_on(&device, &keys, Instant::now() + WORK) => {}
                () = self.ending.after(ending::SENDING) => {}
            }
        });
    }

    /// A pushed message was not accepted: it and all later ones of the device are left to the hub. After a minute they are
    /// fetched over HTTPS.
    pub(super) async fn leave(self: &Arc<Self>, name: &str, device: &Device, told: Told) {
        // Before anything else: until then, an uplink lets the device listen.
        let wait = TAKEN_BACK.mul_f64(1.0 + fastrand::f64() / 4.0);
        self.failures.failed(name.to_owned(), told, Some(wait), Instant::now());
        self.hand_back(name, device).await;
    }

    /// The device backs off: what the hub has pushed is left to it, and it pushes no more.
    pub(super) async fn hand_back(self: &Arc<Self>, name: &str, device: &Device) {
        if self.sender.listens(device) || self.listening.has(name) {
            self.sender.mute(device).await;
            self.listening.leave(name);
            self.look_again(name, TAKEN_BACK);
        }
    }

    /// Looks at a device once more when it need not back off any longer, at the earliest after `wait`. Else a command that was
    /// not accepted would wait for the device's next uplink. One task per device.
    pub(super) fn look_again(self: &Arc<Self>, name: &str, wait: Duration) {
        if !self.sender.can_listen() || !lock(&self.listening.retrying).insert(name.to_owned()) {
            return;
        }
        let (downlinks, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let waiting = async {
                sleep(wait).await;
                loop {
                    let mut woken = pin!(downlinks.listening.woken.notified());
                    // Before looking, so that no call is missed.
                    woken.as_mut().enable();
                    let Some(failed) = downlinks.failures.holding(&name) else { break };
                    let _ = timeout(failed.left().max(Duration::from_millis(1)), woken).await;
                }
            };
            tokio::select! {
                () = waiting => {}
                () = downlinks.ending.after(Duration::ZERO) => return,
            }
            lock(&downlinks.listening.retrying).remove(&name);
            downlinks.work(name);
        });
    }

    pub(super) fn fetch_again(self: &Arc<Self>, name: &str) {
        self.look_again(name, FETCH_AGAIN);
    }

    /// Opens the connection of a device that listens, as often as it takes. Its next uplink may do so before.
    async fn reconnect(self: Arc<Self>, device: Arc<Device>, lived: Duration) {
        let mut pause = self.listening.ended(&Self::name(&device), lived);
        for attempt in 1.. {
            // The connections of a fleet end together.
            let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.ending.after(Duration::ZERO) => return,
            }
            // The semaphore is never closed.
            let _place = self.listening.reconnecting.acquire().await;
            match self.sender.reopen(&device).await {
                Ok(()) => return,
                // It may have been deleted. Its next uplink says so, or connects it.
                Err(error) if error.refuses_device() => return self.sender.mute(&device).await,
                Err(error) => {
                    tracing::debug!(
                        device.id = device.id,
                        "commands do not come at once, as nothing connects: {error}"
                    );
                }
            }
            pause = PAUSES.wait(attempt);
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_cut_again_and_again_comes_back_more_slowly() {
        let listening = Listening::default();
        let short = Duration::from_secs(2);
        let pauses: Vec<_> = (0..5).map(|_| listening.ended("d", short).as_secs()).collect();
        assert_eq!(pauses, [1, 4, 16, 3600, 3600]);
        let first = PAUSES.first;
        assert_eq!(listening.ended("other", short), first);
        assert_eq!(listening.ended("d", SHORT_LIFE), first, "it has worked in between");
        assert_eq!(listening.ended("d", short), first);
    }
}
