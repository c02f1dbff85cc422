//! Sends the hub's cloud-to-device messages to The Things Stack as downlinks.
//!
//! A message is completed only after The Things Stack has accepted its downlink. Otherwise it is abandoned: the hub
//! redelivers it after the device's next uplink, ten deliveries in all. A message that can never be a downlink is
//! rejected: the hub never redelivers it and informs the sender if the sender requested feedback.
//!
//! | Part | |
//! |---|---|
//! | `downlink`, `payload` | a message's properties and body as a downlink. Pure |
//! | `method` | what the settings say of IoT Central's commands. Pure |
//! | `stack`, `refusal` | the client of The Things Stack; what its answers mean (pure) |
//! | `fetching` | one uplink of a device fetches at a time |

pub mod downlink;
mod fetching;
pub mod method;
mod payload;
pub mod refusal;
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
    support::{
        backoff::{Backoff, Policy},
        kind::Kind,
    },
    things_network::{
        downlinks::{
            downlink::{Downlink, Operation},
            method::Methods,
            refusal::PushError,
            stack::Stack,
        },
        queued::DownlinkKeys,
        tally::{Count, Tally},
    },
};

/// Messages that are fetched after one uplink: as many as a device's queue at the hub holds.
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>
const MOST: usize = 50;
/// Attempts for a downlink after one uplink.
const ATTEMPTS: u32 = 3;
/// An attempt that needs a longer wait is left to the next uplink.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Downlinks that are in flight to The Things Stack at once. Their invocations last until the downlinks are accepted,
/// and the host runs 64 invocations at a time. This limit leaves most of them to telemetry, however slow The Things
/// Stack is.
const POSTING: usize = 16;
/// How long a downlink waits for a free place among those in flight.
const PLACE_WAIT: Duration = Duration::from_secs(2);
/// The longest time that an uplink's invocation lasts for the device's downlinks.
const TIME: Duration = Duration::from_secs(20);
/// Back-off of a device whose downlink was not accepted. It doubles each time: the hub delivers a message only ten
/// times, and a backlog of uplinks must not use up these deliveries. It stays short enough that commands leave soon after
/// the cause is gone.
const POLICY: Policy = Policy::exact(Duration::from_secs(5), Duration::from_secs(15 * 60));
/// How often a cause that lasts is logged for a device.
const TOLD_AGAIN: Duration = Duration::from_secs(60 * 60);
/// Extra time to settle a message that was handled, even if the time has ended.
const SETTLING: Duration = Duration::from_secs(10);
/// Limit for accepted downlinks whose messages could not be completed: they are redelivered and must not be accepted
/// twice. Also the limit for devices that back off.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Passes downlinks on for all devices.
pub struct Downlinks {
    devicebound: Devicebound,
    stack: Stack,
    /// The commands of IoT Central.
    methods: Methods,
    fetching: Fetching,
    posting: Semaphore,
    accepted: Mutex<LruCache<MessageKey, ()>>,
    /// Devices whose downlinks were not accepted.
    failures: Backoff<String, Told>,
}

/// What was logged about a device whose downlinks are not accepted.
#[derive(Clone)]
struct Told {
    cause: (Kind, Option<u16>),
    at: Instant,
}

/// The end of an attempt to pass a message on.
struct Outcome {
    settlement: Settlement,
    /// Why the message is abandoned.
    error: Option<PushError>,
}

impl From<Settlement> for Outcome {
    fn from(settlement: Settlement) -> Self {
        Self { settlement, error: None }
    }
}

/// Device, sequence number and id: if a device is deleted and created again, its sequence numbers start again.
type MessageKey = (String, u64, Option<String>);

impl Downlinks {
    #[must_use]
    pub fn new(devicebound: Devicebound, stack: Stack, methods: Methods) -> Self {
        Self {
            devicebound,
            stack,
            methods,
            fetching: Fetching::default(),
            posting: Semaphore::new(POSTING),
            accepted: Mutex::new(LruCache::new(REMEMBERED)),
            failures: Backoff::new(POLICY),
        }
    }

    /// Passes on the device's pending messages, unless another uplink already does; then that one looks once more. A
    /// failure is logged, and the message stays pending until the next uplink.
    pub async fn pass_on(&self, device: &Device, keys: &DownlinkKeys, tally: &Tally) {
        let deadline = Instant::now() + TIME;
        let name = format!("{}/{}", device.endpoint, device.id);
        let Some(mut fetcher) = self.fetching.begin(&name) else { return };
        if self.failures.holding(&name).is_some() {
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
                            failure.kind = error.kind().as_str(),
                            "what waits for the device was not fetched, its next uplink tries again: {error}"
                        );
                    }
                    return;
                }
            };
            let Outcome { settlement, error } = self.outcome(device, &message, keys, deadline, tally).await;
            if let Some(error) = &error {
                self.wait(&name, device, &message, error, tally);
            }
            // Settling takes little time, and without it the message would be redelivered.
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
                // The next message would overtake this one.
                return;
            }
            self.failures.succeeded(&name);
            if let Some(key) = key(device, &message) {
                self.accepted().pop(&key);
            }
        }
    }

    /// Lets the device back off. Each cause is logged for each device: a person who looks after one device must not have
    /// to read the log of another.
    fn wait(&self, name: &str, device: &Device, message: &CloudMessage, error: &PushError, tally: &Tally) {
        let (now, cause) = (Instant::now(), error.cause());
        tally.failed(error.kind());
        let told = self.failures.last(&name.to_owned()).map(|failed| failed.error);
        let told = told.filter(|told| told.cause == cause && now - told.at < TOLD_AGAIN);
        if told.is_none() {
            tracing::warn!(
                device.id = device.id,
                message.id = message.message_id.as_deref().unwrap_or_default(),
                message.attempt = message.delivery_count,
                failure.kind = error.kind().as_str(),
                "a downlink waits for the device's next uplink: {error}"
            );
        }
        let told = told.unwrap_or(Told { cause, at: now });
        self.failures.failed(name.to_owned(), told, error.requested_wait(), now);
    }

    /// What becomes of a message, after all attempts for it.
    async fn outcome(
        &self,
        device: &Device,
        message: &CloudMessage,
        keys: &DownlinkKeys,
        deadline: Instant,
        tally: &Tally,
    ) -> Outcome {
        let key = key(device, message);
        if key.as_ref().is_some_and(|key| self.accepted().contains(key)) {
            return Settlement::Complete.into();
        }
        let id = message.message_id.as_deref();
        let reject = |reason: &str| {
            tally.count(Count::DownlinksRejected);
            let id = id.unwrap_or_default();
            tracing::warn!(device.id = device.id, message.id = id, "a cloud-to-device message is rejected: {reason}");
            Settlement::Reject.into()
        };
        let downlink = match Downlink::new(id, &message.properties, &message.body, &self.methods) {
            Ok(downlink) => downlink,
            Err(reason) => return reject(&reason),
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
                Settlement::Complete.into()
            }
            Err(error) if error.condemns_downlink(message.delivery_count) => reject(&error.to_string()),
            Err(error) => Outcome { settlement: Settlement::Abandon, error: Some(error) },
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

    fn accepted(&self) -> std::sync::MutexGuard<'_, LruCache<MessageKey, ()>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(device: &Device, message: &CloudMessage) -> Option<MessageKey> {
    Some((format!("{}/{}", device.endpoint, device.id), message.sequence_number?, message.message_id.clone()))
}
