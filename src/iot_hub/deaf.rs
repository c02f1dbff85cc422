//! Hubs and devices whose connections do not ask for commands for a while, because the hub did not grant it. Pure.
//!
//! Hubs of the Basic tier have no messages to devices. What a hub does with such a subscription is not documented; if it cuts the
//! connection, telemetry must go on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Endpoint, failures::DeviceKey};

/// How long a hub is not asked that has granted no subscription yet.
const HUB: Duration = Duration::from_secs(60 * 60);
/// How long a device does not ask whose hub grants it to others: its connection may have been cut for another reason.
const DEVICE: Duration = Duration::from_secs(10 * 60);
/// After that time, one device asks for all of its hub. So long the others wait for what becomes of it.
const PROBE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Deaf {
    hubs: Mutex<HashMap<Endpoint, Hub>>,
}

#[derive(Default)]
struct Hub {
    /// Whether it has granted a subscription.
    grants: bool,
    until: Option<Instant>,
    /// By device id.
    devices: HashMap<String, Instant>,
}

impl Deaf {
    /// Whether it makes sense to wait for the device's commands.
    pub fn may_expect(&self, key: &DeviceKey) -> bool {
        let (hubs, now) = (self.hubs(), Instant::now());
        let Some(hub) = hubs.get(&key.endpoint) else { return true };
        let is_over = |until: Option<&Instant>| until.is_none_or(|until| *until <= now);
        is_over(hub.until.as_ref()) && is_over(hub.devices.get(&key.id))
    }

    /// Whether the device's connection may ask for commands now. Whoever may, does.
    pub fn may_listen(&self, key: &DeviceKey) -> bool {
        let (mut hubs, now) = (self.hubs(), Instant::now());
        let Some(hub) = hubs.get_mut(&key.endpoint) else { return true };
        if hub.until.is_some_and(|until| now < until) || hub.devices.get(&key.id).is_some_and(|until| now < *until) {
            return false;
        }
        hub.devices.remove(&key.id);
        if let Some(until) = &mut hub.until {
            *until = now + PROBE;
        }
        true
    }

    /// The hub has granted a subscription.
    pub fn granted(&self, hub: &Endpoint) {
        let mut hubs = self.hubs();
        match hubs.get_mut(hub) {
            Some(hub) => (hub.grants, hub.until) = (true, None),
            None => drop(hubs.insert(hub.clone(), Hub { grants: true, ..Hub::default() })),
        }
    }

    /// The hub has not granted the device's subscription. Returns whether it is the first refusal of a hub that has granted none.
    pub fn refused(&self, key: &DeviceKey) -> bool {
        let (mut hubs, now) = (self.hubs(), Instant::now());
        let hub = hubs.entry(key.endpoint.clone()).or_default();
        if hub.grants {
            hub.devices.retain(|_, until| now < *until);
            hub.devices.insert(key.id.clone(), now + DEVICE);
            return false;
        }
        let is_new = hub.until.is_none();
        // The time of those that were refused together begins with the first of them.
        if hub.until.is_none_or(|until| until < now + PROBE) {
            hub.until = Some(now + HUB);
        }
        is_new
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<Endpoint, Hub>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hub: &str, device: &str) -> DeviceKey {
        DeviceKey { endpoint: Endpoint::parse(hub).unwrap(), id: device.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_grants_nothing_is_asked_by_one_device_an_hour() {
        let (deaf, one, other) = (Deaf::default(), key("basic.net", "a"), key("basic.net", "b"));
        assert!(deaf.may_listen(&one));
        assert!(deaf.refused(&one), "it is said");
        assert!(!deaf.refused(&other), "once");
        assert!(!deaf.may_listen(&other) && deaf.may_listen(&key("standard.net", "a")));
        tokio::time::advance(HUB).await;
        assert!(deaf.may_listen(&other) && !deaf.may_listen(&one), "one asks for all");
        deaf.granted(&other.endpoint);
        assert!(deaf.may_listen(&one), "the hub has a quota again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_device_that_is_refused_says_nothing_of_the_others() {
        let (deaf, one, other) = (Deaf::default(), key("hub.net", "a"), key("hub.net", "b"));
        deaf.granted(&one.endpoint);
        assert!(!deaf.refused(&one));
        assert!(!deaf.may_listen(&one) && deaf.may_listen(&other));
        tokio::time::advance(DEVICE).await;
        assert!(deaf.may_listen(&one));
    }
}
