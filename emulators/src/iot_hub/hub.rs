//! What all connections share: who is connected, the sessions, the messages, the counts, the faults.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mqtt_protocol_core::mqtt::packet::Qos;
use tokio::sync::{oneshot, watch};

use super::{
    c2d::C2d,
    counts::Counts,
    denied::Denied,
    dps::state::Dps,
    faults::Faults,
    login::{self, Claim, Login},
    received::{Draft, Log},
    registry::Registry,
    twin::Twins,
};
use crate::steps::Steps;

/// Topics a device may subscribe to at a time.
pub const MAX_SUBSCRIPTIONS: usize = 5;

/// Why the hub ends a connection that did nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// The same device connected again.
    TakenOver,
    /// `POST /expire`.
    TokenExpired,
    /// The device was disabled or deleted.
    NotWelcome,
}

pub struct Hub {
    /// The devices and their keys.
    pub registry: Registry,
    /// The Device Provisioning Service, which registers devices here.
    pub dps: Dps,
    /// The names the hub answers to; with none, to any.
    pub hosts: Vec<String>,
    pub log: Log,
    pub counts: watch::Sender<Counts>,
    pub c2d: C2d,
    pub twins: Twins,
    pub steps: Steps,
    faults: Mutex<Faults>,
    devices: Mutex<Devices>,
}

#[derive(Default)]
struct Devices {
    next_connection: u64,
    connections: HashMap<String, Connection>,
    sessions: HashMap<String, Session>,
    /// Signatures of tokens that `POST /expire?refuse=true` ended before their time.
    expired: HashSet<Vec<u8>>,
    /// By device, the signature of the token of its newest HTTPS request.
    https_tokens: HashMap<String, Vec<u8>>,
}

struct Connection {
    number: u64,
    kick: oneshot::Sender<Kick>,
    signature: Vec<u8>,
}

/// What MQTT asks a server to remember of a client, apart from the messages to it, which are in its mailbox.
struct Session {
    clean: bool,
    /// Subscriptions, with the QoS granted.
    filters: BTreeMap<String, Qos>,
}

/// A device's stay. Dropping it counts the device out.
pub struct Presence {
    hub: Arc<Hub>,
    pub device_id: String,
    /// Of this connection, among all of the hub's.
    pub number: u64,
    pub session_present: bool,
}

impl Hub {
    pub fn new(registry: Registry, dps: Dps, hosts: Vec<String>, log: Log) -> Self {
        Self {
            registry,
            dps,
            hosts,
            log,
            counts: watch::Sender::default(),
            c2d: C2d::default(),
            twins: Twins::default(),
            steps: Steps::default(),
            faults: Mutex::default(),
            devices: Mutex::default(),
        }
    }

    /// The same hub, whose steps somebody is told of.
    pub fn with_steps(self, steps: Steps) -> Self {
        Self { steps, ..self }
    }

    /// A hub that knows no device.
    #[cfg(test)]
    pub fn for_tests(log: Log) -> Self {
        Self::new(Registry::new(vec![], vec![], false), Dps::for_tests(), vec![], log)
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a device may come in, over whatever protocol.
    ///
    /// # Errors
    /// Why not.
    pub fn authenticate(&self, claim: &Claim<'_>) -> Result<Login, Denied> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.faults().accepts_any_token(claim.device_id) {
            return Ok(Login { device_id: claim.device_id.into(), expiry: u64::MAX, signature: Vec::new() });
        }
        let login = login::check(claim, &self.registry, &self.hosts, now)?;
        if self.is_expired(&login.signature) {
            return Err(Denied::Unauthorized("the token was declared expired".into()));
        }
        Ok(login)
    }

    /// Whether a token was declared expired.
    fn is_expired(&self, signature: &[u8]) -> bool {
        self.devices().expired.contains(signature)
    }

    /// Lets a device in. An older connection of the same device is kicked. The receiver says when this one is.
    pub fn enter(self: &Arc<Self>, login: Login, clean_session: bool) -> (Presence, oneshot::Receiver<Kick>) {
        let Login { device_id, signature, .. } = login;
        let lost = self.faults().loses_session(&device_id);
        let mut devices = self.devices();
        let number = devices.next_connection;
        devices.next_connection += 1;
        let (kick, kicked) = oneshot::channel();
        if let Some(older) = devices.connections.insert(device_id.clone(), Connection { number, kick, signature }) {
            // An error means that it is ending already.
            let _ = older.kick.send(Kick::TakenOver);
        }
        let kept = devices.sessions.get(&device_id).is_some_and(|session| !session.clean);
        let session_present = kept && !clean_session && !lost;
        if !session_present {
            devices.sessions.insert(device_id.clone(), Session { clean: clean_session, filters: BTreeMap::new() });
        }
        self.counts.send_modify(|counts| {
            counts.connects += 1;
            counts.connected.insert(device_id.clone());
            counts.most_connected = counts.most_connected.max(counts.connected.len());
            counts.per_device.entry(device_id.clone()).or_default().connects += 1;
        });
        drop(devices);
        if !session_present {
            self.c2d.mailbox(&device_id).with(|queue| match clean_session {
                true => queue.drop_waiting(),
                false => queue.forget_packet_ids(),
            });
        }
        (Presence { hub: Arc::clone(self), device_id, number, session_present }, kicked)
    }

    /// Ends every device's connection as if its token had run out; with `refuse`, those tokens are refused from now on,
    /// and those of HTTPS requests, which have no connection of their own to be ended.
    pub fn expire(&self, refuse: bool) -> usize {
        let mut devices = self.devices();
        let Devices { connections, expired, https_tokens, .. } = &mut *devices;
        let ended = connections.len();
        for (_, connection) in connections.drain() {
            let _ = connection.kick.send(Kick::TokenExpired);
            if refuse {
                expired.insert(connection.signature);
            }
        }
        if refuse {
            expired.extend(https_tokens.drain().map(|(_, signature)| signature));
        }
        ended
    }

    /// Ends the connection of a device that was disabled or deleted; of a deleted one, its session too.
    pub fn show_out(&self, device_id: &str, deleted: bool) {
        let mut devices = self.devices();
        if deleted {
            devices.sessions.remove(device_id);
        }
        if let Some(connection) = devices.connections.remove(device_id) {
            let _ = connection.kick.send(Kick::NotWelcome);
        }
    }

    /// Counts a refused CONNECT.
    pub fn refused(&self) {
        self.counts.send_modify(|counts| counts.refused += 1);
    }

    /// Takes note of an HTTPS request from a device that may come in.
    pub fn request_from(&self, login: &Login) {
        self.devices().https_tokens.insert(login.device_id.clone(), login.signature.clone());
        self.counts.send_modify(|counts| {
            counts.per_device.entry(login.device_id.clone()).or_default().requests += 1;
        });
    }

    /// Records messages of one device, one right after the other.
    pub fn record(&self, device_id: &str, drafts: impl IntoIterator<Item = Draft>) {
        let (mut messages, mut bytes) = (0, 0);
        self.log.append(drafts.into_iter().inspect(|draft| {
            messages += 1;
            bytes += draft.body.len() as u64;
        }));
        // After the log: who waits for the count must find the message.
        self.counts.send_modify(|counts| {
            counts.messages += messages;
            counts.bytes += bytes;
            if let Some(device) = counts.per_device.get_mut(device_id) {
                device.messages += messages;
            }
        });
    }
}

impl Presence {
    /// Adds subscriptions to the device's session, each with the QoS granted.
    ///
    /// # Errors
    /// They are too many.
    pub fn subscribe<'a>(&self, filters: impl Iterator<Item = (&'a str, Qos)>) -> Result<(), String> {
        let mut devices = self.hub.devices();
        let Some(session) = devices.sessions.get_mut(&self.device_id) else { return Ok(()) };
        session.filters.extend(filters.map(|(filter, qos)| (filter.to_owned(), qos)));
        if session.filters.len() > MAX_SUBSCRIPTIONS {
            return Err(format!("more than {MAX_SUBSCRIPTIONS} subscriptions"));
        }
        Ok(())
    }

    /// The QoS granted for a subscription; nothing if there is none.
    pub fn granted(&self, filter: &str) -> Option<Qos> {
        self.hub.devices().sessions.get(&self.device_id)?.filters.get(filter).copied()
    }

    pub fn unsubscribe<'a>(&self, filters: impl Iterator<Item = &'a str>) {
        let mut devices = self.hub.devices();
        let Some(session) = devices.sessions.get_mut(&self.device_id) else { return };
        for filter in filters {
            session.filters.remove(filter);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut devices = self.hub.devices();
        let newer = match devices.connections.get(&self.device_id) {
            Some(connection) if connection.number == self.number => {
                devices.connections.remove(&self.device_id);
                false
            }
            Some(_) => true,
            None => false,
        };
        if !newer && devices.sessions.get(&self.device_id).is_some_and(|session| session.clean) {
            devices.sessions.remove(&self.device_id);
        }
        self.hub.counts.send_modify(|counts| {
            counts.disconnects += 1;
            if !newer {
                counts.connected.remove(&self.device_id);
            }
        });
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
