//! What is sent next: which device, which kind of webhook, and its body.
//!
//! Everything but the times follows from the seed and the order of the calls.

mod events;
mod json;
mod malformed;
mod readings;
mod reception;
mod v2;
mod v3;
mod wanted;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use fastrand::Rng;
use serde_json::{Value, json};

use self::{
    malformed::FLAWS,
    v3::{Content, Network},
};
use super::{devices::Device, options::Options, sending::Sending, uplink::Uplink};

pub use self::wanted::Wanted;

/// Webhooks among which a repeated one is chosen: the last ones.
const REPEATABLE: usize = 16;

/// The kinds of webhooks, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An uplink for the first time.
    Uplink,
    /// A well-formed webhook that was sent before: the very same bytes.
    Repeat,
    Malformed,
    /// Anything else that happened to a device.
    Event,
}

/// Something to be posted.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub device: Arc<Device>,
    pub kind: Kind,
    /// 2 or 3.
    pub version: u8,
    pub content_type: &'static str,
    pub body: Bytes,
    /// What is remembered of a well-formed uplink; repeats share it.
    pub uplink: Option<Arc<Uplink>>,
}

pub struct Generator {
    rng: Rng,
    devices: Vec<Arc<Device>>,
    /// The frame counter of each device's next uplink.
    counters: Vec<u32>,
    by_name: HashMap<(String, String), usize>,
    /// The devices that take turns; those that were added on demand come after them.
    fleet: usize,
    turn: usize,
    last_marker: u64,
    recent: VecDeque<Webhook>,
    /// Base of the old API for downlinks, as in V2's `downlink_url`.
    downlinks: String,
    network: Network,
}

impl Generator {
    pub fn new(options: &Options, downlinks: String) -> Self {
        let mut generator = Self {
            rng: Rng::with_seed(options.seed.unwrap_or_else(|| fastrand::u64(..))),
            devices: Vec::with_capacity(options.devices),
            counters: Vec::with_capacity(options.devices),
            by_name: HashMap::with_capacity(options.devices),
            fleet: options.devices,
            turn: 0,
            last_marker: 0,
            recent: VecDeque::with_capacity(REPEATABLE),
            downlinks,
            network: Network { tenant: options.tenant.clone(), cluster_address: options.domains().1 },
        };
        for number in 0..options.devices {
            generator.add(Device::numbered(number, options.applications, options.shared_device_ids));
        }
        generator
    }

    fn add(&mut self, device: Device) -> usize {
        let number = self.devices.len();
        self.by_name.insert((device.application.clone(), device.id.clone()), number);
        self.devices.push(Arc::new(device));
        self.counters.push(0);
        number
    }

    pub fn knows(&self, application: &str, device: &str) -> bool {
        self.by_name.contains_key(&(application.to_owned(), device.to_owned()))
    }

    /// The ids of a device as the API shows them.
    pub fn ids(&self, application: &str, device: &str) -> Option<Value> {
        let number = *self.by_name.get(&(application.to_owned(), device.to_owned()))?;
        Some(v3::end_device_ids(&self.devices[number]))
    }

    /// A device that sends nothing by itself.
    pub fn add_device(&mut self, application: String, device: String) {
        if !self.knows(&application, &device) {
            self.add(Device::new(self.devices.len(), application, device));
        }
    }

    /// The devices of an application belong to another one from now on. Returns how many.
    pub fn move_devices(&mut self, from: &str, to: &str) -> usize {
        let mut moved = 0;
        for (number, device) in self.devices.iter_mut().enumerate().filter(|(_, device)| device.application == from) {
            *device = Arc::new(Device { application: to.to_owned(), ..Device::clone(device) });
            self.by_name.remove(&(from.to_owned(), device.id.clone()));
            self.by_name.insert((to.to_owned(), device.id.clone()), number);
            moved += 1;
        }
        moved
    }

    pub fn knows_application(&self, application: &str) -> bool {
        self.devices.iter().any(|device| device.application == application)
    }

    /// The devices that take turns.
    pub fn fleet(&self) -> &[Arc<Device>] {
        &self.devices[..self.fleet]
    }

    /// The next webhook of a run.
    pub fn next(&mut self, sending: &Sending, now: DateTime<Utc>) -> Webhook {
        let dice = self.rng.f64();
        let malformed_from = sending.repeat_share;
        let events_from = malformed_from + sending.malformed_share;
        let uplinks_from = events_from + sending.event_share;
        if dice < malformed_from && !self.recent.is_empty() {
            // Half of the repeats come at once, the others after something else.
            let age = if self.rng.bool() { 0 } else { self.rng.usize(..self.recent.len()) };
            let webhook = &self.recent[self.recent.len() - 1 - age];
            return Webhook { kind: Kind::Repeat, ..webhook.clone() };
        }
        let number = self.turn % self.fleet;
        self.turn += 1;
        let device = self.devices[number].clone();
        let version = if device.is_v2(sending.v2_share) { 2 } else { 3 };
        if (malformed_from..events_from).contains(&dice) {
            return self.malformed(number, version, now);
        }
        let webhook = if (events_from..uplinks_from).contains(&dice) {
            let name = events::NAMES[self.rng.usize(..events::NAMES.len())];
            let body = events::body(&device, name, now, &mut self.rng).into();
            Webhook { device, kind: Kind::Event, version: 3, content_type: "application/json", body, uplink: None }
        } else {
            let marker = self.marker();
            let mut content = self.content(number, version, marker, sending.plain, now);
            // No die is cast without a share, so that a seed means the same as before.
            content.oversized = sending.oversized_share > 0.0 && self.rng.f64() < sending.oversized_share;
            self.uplink(number, version, marker, &content, now)
        };
        if self.recent.len() == REPEATABLE {
            self.recent.pop_front();
        }
        self.recent.push_back(webhook.clone());
        webhook
    }

    fn marker(&mut self) -> u64 {
        self.last_marker += 1;
        self.last_marker
    }

    /// An uplink's content. The payload begins with the marker, eight bytes with the highest first, unless it is
    /// empty; the decoded payload has it as a member, unless there is none or it is an array.
    fn content(&mut self, number: usize, version: u8, marker: u64, plain: bool, now: DateTime<Utc>) -> Content {
        let device = &self.devices[number];
        let rng = &mut self.rng;
        let mut decoded = readings::readings(device, now, rng);
        // What people look at has nothing in it that no sensor would measure.
        if !plain {
            decoded.insert("marker".to_owned(), marker.into());
        }
        let mut payload = marker.to_be_bytes().to_vec();
        payload.extend(rng.u64(..).to_le_bytes());
        let f_cnt = self.counters[number];
        self.counters[number] = f_cnt.wrapping_add(1);
        let f_port = (device.number % 10) as u8 + 1;
        let mut content = Content {
            f_port,
            f_cnt,
            payload,
            decoded: Some(decoded.into()),
            confirmed: false,
            simulated: false,
            oversized: false,
            plain,
        };
        if plain {
            return content;
        }
        content.confirmed = rng.u8(..8) == 0;
        content.simulated = rng.u8(..25) == 0;
        match rng.u8(..20) {
            0 => content.payload.clear(),
            1..=3 => content.decoded = None,
            4 if version == 2 => content.decoded = Some(json!([{ "marker": marker }, 21.5, "C", null, true])),
            5 => content.decoded = Some(json!({ "marker": marker })),
            _ => {}
        }
        if rng.u8(..20) == 0 {
            content.f_port = 0;
        }
        content
    }

    fn uplink(&mut self, number: usize, version: u8, marker: u64, content: &Content, now: DateTime<Utc>) -> Webhook {
        let device = self.devices[number].clone();
        let body: Bytes = self.body(&device, version, content, now).into();
        let uplink = Uplink::new(device.clone(), version, content.f_port, content.f_cnt, marker, body.clone());
        let uplink = Some(Arc::new(uplink));
        Webhook { device, kind: Kind::Uplink, version, content_type: "application/json", body, uplink }
    }

    fn malformed(&mut self, number: usize, version: u8, now: DateTime<Utc>) -> Webhook {
        // Not an uplink: it uses up neither a marker nor a frame counter.
        let f_cnt = self.counters[number];
        let content = self.content(number, version, 0, true, now);
        self.counters[number] = f_cnt;
        let device = self.devices[number].clone();
        let good = self.body(&device, version, &content, now);
        let flaw = FLAWS[self.rng.usize(..FLAWS.len())];
        let body = flaw.apply(good, &mut self.rng).into();
        Webhook { device, kind: Kind::Malformed, version, content_type: flaw.content_type(), body, uplink: None }
    }

    fn body(&mut self, device: &Device, version: u8, content: &Content, now: DateTime<Utc>) -> Vec<u8> {
        match version {
            2 => v2::body(device, content, &self.downlinks, now, &mut self.rng),
            _ => v3::body(device, &self.network, content, now, &mut self.rng),
        }
    }
}

/// A ULID, as correlation ids end with: 48 bits of milliseconds and 80 random ones, in Crockford's Base32.
fn ulid(time: DateTime<Utc>, rng: &mut Rng) -> String {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = (time.timestamp_millis() as u128) << 80 | rng.u128(..1 << 80);
    (0..26).rev().map(|digit| char::from(LETTERS[(bits >> (5 * digit)) as usize % 32])).collect()
}

#[cfg(test)]
mod tests;
