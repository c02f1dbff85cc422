//! Keeps one MQTT connection for each device open between invocations, and limits how many are open at a time.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use lru::LruCache;
use rustls::ClientConfig;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    SendError,
    deaf::Deaf,
    device::Device,
    failures::{DeviceKey, Failures, Gate},
    mqtt::{Connection, Login, Over},
    pushed::Inbox,
};

/// How long a renewal waits for outstanding acknowledgements.
const DRAIN: Duration = Duration::from_secs(10);
/// A connection that is cut within this time counts as short-lived.
const SHORT_LIFE: Duration = Duration::from_secs(30);
/// After this many short-lived connections in a row that had acknowledgements, a device backs off.
const CUTS_IN_A_ROW: u32 = 3;
/// How long a connection that makes room for another may take to disconnect.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connections. The least recently used one is closed first.
pub struct Links {
    over: Over,
    token_lifetime: Duration,
    tls: Arc<ClientConfig>,
    slots: Arc<Semaphore>,
    links: Mutex<LruCache<DeviceKey, Arc<Link>>>,
    /// Notified when a session ends: its link may make room.
    idle: Notify,
    /// Whether there was a connection before.
    has_connected: AtomicBool,
    /// Whether the log already says that connections make room for each other.
    warned_of_room: AtomicBool,
    /// Whether the log already says that another client takes devices over.
    warned_of_contest: AtomicBool,
    deaf: Deaf,
}

/// The link to the hub for one device.
#[derive(Default)]
struct Link {
    open: tokio::sync::Mutex<Option<Open>>,
    users: AtomicUsize,
    /// Acknowledgements so far, over all connections.
    progress: AtomicU64,
    /// Whether it waits until other devices' connections make room.
    is_queued: AtomicBool,
    /// Connections in a row that were cut soon after they opened, but had acknowledgements.
    cut_short: AtomicU32,
    /// Who gets what the hub pushes to the device, and the connection that listens.
    listening: Mutex<Option<(Inbox, Weak<Connection>)>>,
}

struct Open {
    connection: Arc<Connection>,
    /// When to replace the connection: its token ends soon after.
    renew_at: Option<SystemTime>,
    /// Whether it is noted that the hub lets it listen.
    has_listened: bool,
    _slot: OwnedSemaphorePermit,
}

/// A caller's use of a link. While a session exists, the connection is not closed to make room.
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
            deaf: Deaf::default(),
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

    /// Listens on the device's connection, and on the later ones that take its place. Returns whether the next one must be
    /// [opened](Self::reopen), because this one has ended. A connection that made room for another is not opened again.
    pub async fn listen(&self, inbox: Inbox) -> bool {
        let key = DeviceKey::of(&inbox.device);
        let Some(link) = self.link(&key) else { return false };
        let connection = link.open.lock().await.as_ref().map(|open| open.connection.clone());
        match connection {
            Some(ref connection) if connection.refuses_commands() => self.refused(&key),
            Some(ref connection) if connection.has_listened() => self.deaf.granted(&key.endpoint),
            _ => {}
        }
        if !self.deaf.may_listen(&key) {
            return false;
        }
        let connection = connection.filter(|connection| connection.end().is_none());
        *link.listening() = Some((inbox.clone(), connection.as_ref().map_or_else(Weak::new, Arc::downgrade)));
        match connection {
            Some(connection) => connection.listen(inbox).await.is_err(),
            None => true,
        }
    }

    /// The hub has not granted the device's subscription.
    fn refused(&self, key: &DeviceKey) {
        if self.deaf.refused(key) {
            tracing::warn!(
                hub.host = key.endpoint.host,
                device.id = key.id,
                "the hub does not let devices subscribe to commands (its Basic tier has none): they are not pushed for an hour, but \
                 fetched after uplinks. Telemetry goes on"
            );
        }
    }

    /// The device's next connection listens from its beginning, if nobody has said how. So nothing is lost that the hub
    /// pushes at once, because its session has a subscription of an earlier process.
    pub fn expect(&self, inbox: Inbox) {
        let key = DeviceKey::of(&inbox.device);
        if !self.deaf.may_expect(&key) {
            return;
        }
        let mut links = self.links();
        let link = links.get_or_insert(key, Arc::default);
        link.listening().get_or_insert((inbox, Weak::new()));
    }

    /// Listens no more.
    pub async fn mute(&self, device: &Device) {
        let Some(link) = self.link(&DeviceKey::of(device)) else { return };
        let listening = link.listening().take();
        if let Some(connection) = listening.and_then(|(_, connection)| connection.upgrade()) {
            connection.mute().await;
        }
    }

    /// Whether the hub pushes the device's messages.
    pub fn listens(&self, device: &Device) -> bool {
        let connection = self.link(&DeviceKey::of(device)).and_then(|link| link.listening().as_ref()?.1.upgrade());
        connection.is_some_and(|connection| connection.listens())
    }

    /// Opens a connection of a device that listened, if it has none.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn reopen(&self, device: &Device, failures: &Failures) -> Result<(), SendError> {
        let is_wanted = self.link(&DeviceKey::of(device)).is_some_and(|link| link.listening().is_some());
        if is_wanted {
            self.enter(device).connection(failures).await?;
        }
        Ok(())
    }

    fn link(&self, key: &DeviceKey) -> Option<Arc<Link>> {
        // Whether somebody asks says nothing about its use.
        self.links().peek(key).cloned()
    }

    /// Closes all connections that are open.
    pub async fn disconnect(&self) {
        let links: Vec<_> = self.links().iter().map(|(_, link)| link.clone()).collect();
        let close = links.iter().filter_map(|link| link.open.try_lock().ok()?.take());
        join_all(close.map(|open| async move { open.connection.drain(FAREWELL).await })).await;
    }

    /// Forgets the links that are neither open nor in use.
    pub fn forget_closed(&self) {
        let mut links = self.links();
        let closed = |link: &Link| {
            let is_closed = link.is_unused() && link.open.try_lock().is_ok_and(|open| open.is_none());
            is_closed && link.listening().is_none()
        };
        let gone: Vec<_> = links.iter().filter(|(_, link)| closed(link)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            links.pop(&key);
        }
    }

    /// Reserves room for a connection. If there is none, the least recently used connection is closed.
    async fn slot(&self) -> OwnedSemaphorePermit {
        loop {
            // Register before looking, so that a link that becomes idle in between is not missed.
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
        // No caller can begin to use it any more.
        link.open.try_lock().ok()?.take()
    }

    fn links(&self) -> MutexGuard<'_, LruCache<DeviceKey, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn listening(&self) -> MutexGuard<'_, Option<(Inbox, Weak<Connection>)>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_unused(&self) -> bool {
        self.users.load(Ordering::Relaxed) == 0
    }
}

impl Session<'_> {
    /// Acknowledgements of the device so far.
    pub fn progress(&self) -> u64 {
        self.link.progress.load(Ordering::Relaxed)
    }

    /// Whether it waits until other devices' connections make room. The hub is not the cause of that wait.
    pub fn is_queued(&self) -> bool {
        self.link.is_queued.load(Ordering::Relaxed)
    }

    /// Counts an acknowledgement.
    pub fn acknowledged(&self) {
        self.link.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// The open connection, or a new one. While one caller connects, all other callers that need the connection wait
    /// here.
    ///
    /// # Errors
    /// Why there is no connection.
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

    /// Closes the connection, at the latest at `deadline`.
    pub async fn give_up(&self, deadline: Instant) {
        if let Ok(mut open) = tokio::time::timeout_at(deadline, self.link.open.lock()).await {
            *open = None;
        }
    }

    /// The connection, if it is alive and its token does not end soon.
    async fn usable(&self, open: &mut Option<Open>, failures: &Failures) -> Option<Arc<Connection>> {
        let current = open.as_mut()?;
        if !current.has_listened && current.connection.has_listened() {
            current.has_listened = true;
            self.links.deaf.granted(&self.key.endpoint);
        }
        if let Some(end) = current.connection.end() {
            let opened = current.connection.opened();
            let fruitful = current.connection.acknowledged() > 0;
            let refuses_commands = current.connection.refuses_commands();
            *open = None;
            let lived = opened.elapsed();
            if refuses_commands {
                self.link.listening().take();
                self.links.refused(&self.key);
            }
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
            // All other callers wait for the lock, so nothing new is sent on the old connection.
            old.connection.drain(DRAIN).await;
            return None;
        }
        Some(current.connection.clone())
    }

    /// Two clients with the same device id would cut each other's connections as fast as they can connect. From the
    /// third time on, this client backs off. The hub is not the cause.
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
        let inbox = self.link.listening().as_ref().map(|(inbox, _)| inbox.clone());
        let inbox = inbox.filter(|_| links.deaf.may_listen(&self.key));
        let listens = inbox.is_some();
        let connection = Arc::new(Connection::open(login, inbox).await?);
        let is_muted = match &mut *self.link.listening() {
            Some((_, listening)) => {
                *listening = Arc::downgrade(&connection);
                false
            }
            None => listens,
        };
        // While it was opened.
        if is_muted {
            connection.mute().await;
        }
        // This can be thousands of lines if each site has its own device.
        if links.has_connected.swap(true, Ordering::Relaxed) {
            tracing::debug!(hub.host = device.hub_host, device.id = device.id, "connected to IoT Hub");
        } else {
            tracing::info!(hub.host = device.hub_host, device.id = device.id, "connected to IoT Hub");
        }
        // A ready-made token cannot be renewed: the hub ends the connection when the token expires.
        let renew_at = device.can_renew().then(|| now + holds.mul_f64(0.8));
        *open = Some(Open { connection: connection.clone(), renew_at, has_listened: false, _slot: slot });
        Ok(connection)
    }
}

/// Marks a link as waiting for room until it is dropped.
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
