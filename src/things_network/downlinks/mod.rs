//! Cloud-to-device messages of the hub become downlinks of The Things Stack.
//!
//! A message is completed when The Things Stack has accepted its downlink, and only then. Else it is abandoned: the hub
//! gives it again after the device's next uplink, ten times in all. One that can never be a downlink is rejected: the hub
//! keeps it from everybody, and says so to whoever asked for feedback.

pub mod downlink;
mod fetching;
pub mod stack;

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use self::fetching::Fetching;
use crate::{
    iot_hub::{CloudMessage, Device, Devicebound, Settlement},
    support::retry,
    things_network::{
        downlinks::{
            downlink::{Downlink, Operation},
            stack::{PushError, Stack},
        },
        queued::DownlinkKeys,
        tally::{Count, Tally},
    },
};

/// Messages that are taken after one uplink: as many as a device's queue at the hub holds.
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>
const MOST: usize = 50;
/// Attempts for a downlink after one uplink.
const ATTEMPTS: u32 = 3;
/// An attempt that is to wait for longer is left to the next uplink.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Downlinks that are on their way to The Things Stack at once. Their invocations last until they are accepted, and the host
/// runs 64 at a time: however slow The Things Stack is, most of them are left to telemetry.
const POSTING: usize = 16;
/// How long a downlink waits for others to be on their way no more.
const PLACE_WAIT: Duration = Duration::from_secs(2);
/// The longest that an uplink's invocation lasts for the device's downlinks.
const TIME: Duration = Duration::from_secs(20);
/// A device whose downlink was not accepted is left alone for so long, doubling each time: the hub gives a message ten times
/// only, and a backlog of uplinks must not use them up.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);
/// What is handled is settled although the time is over.
const SETTLING: Duration = Duration::from_secs(10);
/// Accepted downlinks whose messages could not be completed: they come again, and must not be accepted twice. Also devices
/// that rest.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The way of all downlinks.
pub struct Downlinks {
    devicebound: Devicebound,
    stack: Stack,
    fetching: Fetching,
    posting: Semaphore,
    accepted: Mutex<LruCache<MessageKey, ()>>,
    /// Devices whose downlinks were not accepted.
    resting: Mutex<LruCache<String, Rest>>,
}

/// Device, sequence number and id: a device that is deleted and made again has the same numbers again.
type MessageKey = (String, u64, Option<String>);

struct Rest {
    failures: u32,
    until: Instant,
}

impl Downlinks {
    #[must_use]
    pub fn new(devicebound: Devicebound, stack: Stack) -> Self {
        Self {
            devicebound,
            stack,
            fetching: Fetching::default(),
            posting: Semaphore::new(POSTING),
            accepted: Mutex::new(LruCache::new(REMEMBERED)),
            resting: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }

    /// Passes on what waits for the device, unless somebody else is at it, who then looks once more. What fails is logged, and
    /// waits for the next uplink.
    pub async fn pass_on(&self, device: &Device, keys: &DownlinkKeys, tally: &Tally) {
        let deadline = Instant::now() + TIME;
        let name = format!("{}/{}", device.endpoint, device.id);
        let Some(mut fetcher) = self.fetching.begin(&name) else { return };
        if self.is_resting(&name) {
            return;
        }
        for _ in 0..MOST {
            if Instant::now() >= deadline {
                return;
            }
            let message = match self.devicebound.receive(device, deadline).await {
                Ok(Some(message)) => message,
                Ok(None) if fetcher.is_wanted_again() => continue,
                Ok(None) => return,
                Err(error) => {
                    if tally.count(Count::DownlinkChecksFailed) {
                        tracing::warn!(
                            device.id = device.id,
                            failure.kind = error.kind(),
                            "what waits for the device was not fetched, its next uplink tries again: {error}"
                        );
                    }
                    return;
                }
            };
            let settlement = self.settlement(device, &message, keys, deadline, tally).await;
            // It takes no time, and without it the message comes again.
            let settled = self.devicebound.settle(device, &message, settlement, Instant::now() + SETTLING).await;
            if let Err(error) = settled {
                let id = message.message_id.as_deref().unwrap_or_default();
                tracing::warn!(
                    device.id = device.id,
                    message.id = id,
                    "a cloud-to-device message was handled but not settled ({settlement:?}), it comes again: {error}"
                );
                return;
            }
            if settlement == Settlement::Abandon {
                // The next would overtake it.
                self.rest(name);
                return;
            }
            self.resting().pop(&name);
            if let Some(key) = key(device, &message) {
                self.accepted().pop(&key);
            }
        }
    }

    /// What is to become of a message, after everything was done for it.
    async fn settlement(
        &self,
        device: &Device,
        message: &CloudMessage,
        keys: &DownlinkKeys,
        deadline: Instant,
        tally: &Tally,
    ) -> Settlement {
        let key = key(device, message);
        if key.as_ref().is_some_and(|key| self.accepted().contains(key)) {
            return Settlement::Complete;
        }
        let id = message.message_id.as_deref().unwrap_or_default();
        let downlink = match Downlink::new(message.message_id.as_deref(), &message.properties, &message.body) {
            Ok(downlink) => downlink,
            Err(reason) => {
                tally.count(Count::DownlinksRejected);
                tracing::warn!(
                    device.id = device.id,
                    message.id = id,
                    "a cloud-to-device message is rejected: {reason}"
                );
                return Settlement::Reject;
            }
        };
        let (url, header) = match downlink.operation {
            Operation::Push => (&keys.push, "X-Downlink-Push"),
            Operation::Replace => (&keys.replace, "X-Downlink-Replace"),
        };
        let posted = match url {
            Some(url) => self.post(url, keys, &downlink, deadline).await,
            None => Err(PushError::Unusable(format!("the webhook came without the header {header}"))),
        };
        match posted {
            Ok(()) => {
                tally.count(Count::DownlinksForwarded);
                if let Some(key) = key {
                    self.accepted().put(key, ());
                }
                Settlement::Complete
            }
            Err(error) if error.condemns_downlink() => {
                tally.count(Count::DownlinksRejected);
                tracing::warn!(
                    device.id = device.id,
                    message.id = id,
                    "a cloud-to-device message is rejected: {error}"
                );
                Settlement::Reject
            }
            Err(error) => {
                if tally.failed(error.kind()) {
                    tracing::warn!(
                        device.id = device.id,
                        message.id = id,
                        message.attempt = message.delivery_count,
                        "a downlink waits for the device's next uplink: {error}"
                    );
                }
                Settlement::Abandon
            }
        }
    }

    async fn post(
        &self,
        url: &str,
        keys: &DownlinkKeys,
        downlink: &Downlink,
        deadline: Instant,
    ) -> Result<(), PushError> {
        let Ok(_place) = timeout(PLACE_WAIT, self.posting.acquire()).await else { return Err(PushError::Busy) };
        let mut attempt = 1;
        loop {
            let error = match self.stack.post(url, &keys.api_key, downlink.body.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let wait = error.retry_after().filter(|wait| *wait <= LONGEST_WAIT && Instant::now() + *wait < deadline);
            match wait {
                Some(wait) if attempt < ATTEMPTS => sleep(wait).await,
                _ => return Err(error),
            }
            attempt += 1;
        }
    }

    fn is_resting(&self, device: &str) -> bool {
        self.resting().get(device).is_some_and(|rest| Instant::now() < rest.until)
    }

    fn rest(&self, device: String) {
        let mut resting = self.resting();
        let failures = resting.get(&device).map_or(0, |rest| rest.failures).saturating_add(1);
        let until = Instant::now() + retry::exponential(failures, FIRST_REST, LONGEST_REST);
        resting.put(device, Rest { failures, until });
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, LruCache<String, Rest>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> std::sync::MutexGuard<'_, LruCache<MessageKey, ()>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(device: &Device, message: &CloudMessage) -> Option<MessageKey> {
    Some((format!("{}/{}", device.endpoint, device.id), message.sequence_number?, message.message_id.clone()))
}
