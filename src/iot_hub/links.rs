//! The MQTT connections: one for each device, kept open between invocations, at most so many at a time.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use lru::LruCache;
use rustls::ClientConfig;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    SendError,
    device::Device,
    failures::{DeviceKey, Failures, Gate},
    mqtt::{Connection, Login, Over},
};

/// How long a renewal waits for outstanding acknowledgements.
const DRAIN: Duration = Duration::from_secs(10);
/// A connection that was cut before this had been short-lived.
const SHORT_LIFE: Duration = Duration::from_secs(30);
/// Short-lived connections in a row, all of them fruitful, after which a device takes its time.
const CUTS_IN_A_ROW: u32 = 3;
/// How long a connection that makes room for another may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connections, least recently used first to go.
pub struct Links {
    over: Over,
    token_lifetime: Duration,
    tls: Arc<ClientConfig>,
    slots: Arc<Semaphore>,
    links: Mutex<LruCache<DeviceKey, Arc<Link>>>,
    /// Somebody has finished with a link: it may make room.
    idle: Notify,
    /// Whether there was a connection before.
    has_connected: AtomicBool,
    /// Whether it was said that connections make room for each other.
    warned_of_room: AtomicBool,
    /// Whether it was said that another client takes devices over.
    warned_of_contest: AtomicBool,
}

/// The way to the hub for one device.
#[derive(Default)]
struct Link {
    open: tokio::sync::Mutex<Option<Open>>,
    users: AtomicUsize,
    /// Acknowledgements so far, over all connections.
    progress: AtomicU64,
    /// Whether it waits for other devices' connections to make room.
    is_queued: AtomicBool,
    /// Connections in a row that were cut soon after they had served.
    cut_short: AtomicU32,
}

struct Open {
    connection: Arc<Connection>,
    /// When to replace the connection, because its token ends soon after.
    renew_at: Option<SystemTime>,
    _slot: OwnedSemaphorePermit,
}

/// Somebody's use of a link. While there is one, the connection is not closed to make room.
pub struct Session<'a> {
    links: &'a Links,
    link: Arc<Link>,
    device: &'a Device,
    pub key: DeviceKey,
}

impl Links {
    pub fn new(over: Over, tls: Arc<ClientConfig>, most: NonZeroUsize, token_lifetime: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(most.get()));
        let links = Mutex::new(LruCache::unbounded());
        Self {
            over,
            token_lifetime,
            tls,
            slots,
            links,
            idle: Notify::new(),
            has_connected: AtomicBool::new(false),
            warned_of_room: AtomicBool::new(false),
            warned_of_contest: AtomicBool::new(false),
        }
    }

    /// Begins to use the device's link.
    pub fn enter<'a>(&'a self, device: &'a Device) -> Session<'a> {
        let key = DeviceKey::of(device);
        let mut links = self.links();
        let link = Arc::clone(links.get_or_insert(key.clone(), Arc::default));
        link.users.fetch_add(1, Ordering::Relaxed);
        Session { links: self, link, device, key }
    }

    /// Forgets the links that are neither open nor in use.
    pub fn forget_closed(&self) {
        let mut links = self.links();
        let closed = |link: &Link| link.is_unused() && link.open.try_lock().is_ok_and(|open| open.is_none());
        let gone: Vec<_> = links.iter().filter(|(_, link)| closed(link)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            links.pop(&key);
        }
    }

    /// Room for a connection; the one that was not used for longest makes it if there is none.
    async fn slot(&self) -> OwnedSemaphorePermit {
        loop {
            // Registered before looking: whoever becomes idle in between is not missed.
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                return slot;
            }
            if let Some(unused) = self.least_recently_used() {
                if !self.warned_of_room.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "more devices send than IoTHubMaxConnections lets be connected: connections are closed and opened \
                         anew in every run. Raise it, or set IoTHubTransport=https"
                    );
                }
                unused.connection.drain(FAREWELL).await;
                continue;
            }
            tokio::select! {
                () = idle => {}
                slot = Arc::clone(&self.slots).acquire_owned() => {
                    if let Ok(slot) = slot {
                        return slot;
                    }
                }
            }
        }
    }

    fn least_recently_used(&self) -> Option<Open> {
        let mut links = self.links();
        let open = |link: &Link| link.is_unused() && link.open.try_lock().is_ok_and(|open| open.is_some());
        let key = links.iter().rev().find(|(_, link)| open(link)).map(|(key, _)| key.clone())?;
        let link = links.pop(&key)?;
        // Nobody can begin to use it any more.
        link.open.try_lock().ok()?.take()
    }

    fn links(&self) -> MutexGuard<'_, LruCache<DeviceKey, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn is_unused(&self) -> bool {
        self.users.load(Ordering::Relaxed) == 0
    }
}

impl Session<'_> {
    /// Acknowledgements of the device so far.
    pub fn progress(&self) -> u64 {
        self.link.progress.load(Ordering::Relaxed)
    }

    /// Whether it waits for other devices' connections to make room: the hub is not to blame for that.
    pub fn is_queued(&self) -> bool {
        self.link.is_queued.load(Ordering::Relaxed)
    }

    /// Counts an acknowledgement.
    pub fn acknowledged(&self) {
        self.link.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// The open connection, or a new one. Everyone who needs one waits here while one of them makes it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connection(&self, failures: &Failures) -> Result<Arc<Connection>, SendError> {
        loop {
            let wait_until = {
                let mut open = self.link.open.lock().await;
                if let Some(connection) = self.usable(&mut open, failures).await {
                    return Ok(connection);
                }
                match failures.gate(&self.key) {
                    Gate::Closed(error) => return Err(error),
                    Gate::Wait(until) => until,
                    Gate::Open => {
                        let began = Instant::now();
                        match self.connect(&mut open).await {
                            Ok(connection) => {
                                failures.connected(&self.key);
                                return Ok(connection);
                            }
                            Err(error) => failures.failed(&self.key, &error, began),
                        }
                        continue;
                    }
                }
            };
            tokio::time::sleep_until(wait_until).await;
        }
    }

    /// Gives the connection up, at the latest at `deadline`.
    pub async fn give_up(&self, deadline: Instant) {
        if let Ok(mut open) = tokio::time::timeout_at(deadline, self.link.open.lock()).await {
            *open = None;
        }
    }

    /// The connection, if it is alive and its token not about to end.
    async fn usable(&self, open: &mut Option<Open>, failures: &Failures) -> Option<Arc<Connection>> {
        let current = open.as_ref()?;
        if let Some(end) = current.connection.end() {
            let opened = current.connection.opened();
            let fruitful = current.connection.acknowledged() > 0;
            *open = None;
            let lived = opened.elapsed();
            if !fruitful {
                failures.failed(&self.key, &end, opened);
            } else if lived < SHORT_LIFE {
                self.was_cut_short(failures, opened);
            } else {
                self.link.cut_short.store(0, Ordering::Relaxed);
            }
            return None;
        }
        if current.renew_at.is_some_and(|at| SystemTime::now() >= at) {
            let old = open.take()?;
            // Everyone else waits for the lock, so that nothing new is sent on the old connection.
            old.connection.drain(DRAIN).await;
            return None;
        }
        Some(current.connection.clone())
    }

    /// Two clients with the same device id would cut each other as fast as they can connect: from the third time on, this one
    /// takes its time. The hub is not to blame.
    fn was_cut_short(&self, failures: &Failures, opened: Instant) {
        let times = self.link.cut_short.fetch_add(1, Ordering::Relaxed) + 1;
        if times < CUTS_IN_A_ROW {
            return;
        }
        failures.failed(&self.key, &SendError::Cut, opened);
        if !self.links.warned_of_contest.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                device.id = self.key.id,
                "the hub cuts a device's connections again and again: another client uses the same device id. Both are served \
                 in turns; this is said once"
            );
        }
    }

    async fn connect(&self, open: &mut Option<Open>) -> Result<Arc<Connection>, SendError> {
        let (links, device) = (self.links, self.device);
        let slot = {
            let _queued = Queued::enter(&self.link.is_queued);
            links.slot().await
        };
        let now = SystemTime::now();
        let (token, holds) = device.token(now.into(), links.token_lifetime)?;
        let login = Login { device, token: &token, over: links.over, tls: links.tls.clone() };
        let connection = Arc::new(Connection::open(login).await?);
        // With a device for each site there are thousands of these.
        if links.has_connected.swap(true, Ordering::Relaxed) {
            tracing::debug!(hub.host = device.hub_host, device.id = device.id, "connected to IoT Hub");
        } else {
            tracing::info!(hub.host = device.hub_host, device.id = device.id, "connected to IoT Hub");
        }
        // A ready token cannot be renewed: the hub ends the connection with it.
        let renew_at = device.can_renew().then(|| now + holds.mul_f64(0.8));
        *open = Some(Open { connection: connection.clone(), renew_at, _slot: slot });
        Ok(connection)
    }
}

/// Someone's stay in the queue for room.
struct Queued<'a>(&'a AtomicBool);

impl<'a> Queued<'a> {
    fn enter(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.link.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.links.idle.notify_waiters();
        }
    }
}
