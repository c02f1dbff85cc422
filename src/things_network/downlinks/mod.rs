//! Sends the hub's cloud-to-device messages to The Things Stack as downlinks.
//!
//! A message is completed only after The Things Stack has accepted its downlink. Otherwise it is abandoned: the hub
//! redelivers it after the device's next uplink, ten deliveries in all. A message that can never be a downlink is
//! rejected: the hub never redelivers it and informs the sender if the sender requested feedback.
//!
//! A device's messages are fetched after its uplinks; or the hub pushes them over the device's MQTT connection.
//!
//! | Part | |
//! |---|---|
//! | `downlink`, `payload` | a message's properties and body as a downlink. Pure |
//! | `method` | what the settings say of IoT Central's commands. Pure |
//! | `stack`, `refusal` | the client of The Things Stack; what its answers mean (pure) |
//! | `fetching` | one task at a time passes a device's commands on |
//! | `listening` | commands that the hub pushes |
//! | `accepted` | which downlinks were accepted before. Pure |
//! | `address` | where downlinks go without a webhook's headers. Pure |

mod accepted;
pub mod address;
pub mod downlink;
mod fetching;
mod listening;
pub mod method;
mod payload;
pub mod refusal;
pub mod stack;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use self::{
    accepted::{Accepted, Way},
    address::Address,
    fetching::Fetching,
    listening::{Listening, Place},
};
use crate::{
    iot_hub::{CloudMessage, Device, Devicebound, Sender, Settlement, pushed::Pushed},
    support::{
        backoff::{Backoff, Policy},
        ending::Ending,
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

/// What downlinks are passed on with.
pub struct Parts {
    pub devicebound: Devicebound,
    pub stack: Stack,
    /// The commands of IoT Central.
    pub methods: Methods,
    /// Its connections may carry commands too.
    pub sender: Arc<Sender>,
    pub ending: Ending,
    /// Where downlinks go of a device whose webhooks name no address.
    pub address: Option<Address>,
    /// Whether a timer asks for commands.
    pub is_polled: bool,
}

/// Passes downlinks on for all devices.
pub struct Downlinks {
    devicebound: Devicebound,
    stack: Stack,
    methods: Methods,
    sender: Arc<Sender>,
    ending: Ending,
    address: Option<Address>,
    is_polled: bool,
    tally: Tally,
    fetching: Fetching,
    listening: Listening,
    posting: Semaphore,
    accepted: Accepted,
    /// Devices whose downlinks were not accepted.
    failures: Backoff<String, Told>,
}

/// What was logged about a device whose downlinks are not accepted.
#[derive(Clone)]
struct Told {
    cause: (Kind, Option<u16>),
    at: Instant,
}

/// What becomes of a message, after all attempts for it.
enum Fate {
    Accepted,
    /// It can never be a downlink.
    Condemned(String),
    Waits(PushError),
}

impl Downlinks {
    #[must_use]
    pub fn new(parts: Parts, tally: Tally) -> Self {
        let Parts { devicebound, stack, methods, sender, ending, address, is_polled } = parts;
        Self {
            devicebound,
            stack,
            methods,
            sender,
            ending,
            address,
            is_polled,
            tally,
            fetching: Fetching::default(),
            listening: Listening::default(),
            posting: Semaphore::new(POSTING),
            accepted: Accepted::default(),
            failures: Backoff::new(POLICY),
        }
    }

    /// Where the downlinks of an uplink's device go: as its webhook says, else as the settings say. `None`: there are none.
    #[must_use]
    pub fn keys_of(&self, queued: Option<DownlinkKeys>, application: &str, device: &str) -> Option<DownlinkKeys> {
        queued.or_else(|| Some(self.address.as_ref()?.of(application, device)))
    }

    /// Where the downlinks of a device go that has sent no uplink just now: as its last webhook here said, else as the
    /// settings say.
    #[must_use]
    pub fn keys(&self, device: &Device, application: &str, end_device: &str) -> Option<DownlinkKeys> {
        let place = self.listening.place(&Self::name(device));
        self.keys_of(place.map(|place| (*place.keys).clone()), application, end_device)
    }

    /// Whether devices have sent an uplink that had sent none at the last call.
    #[must_use]
    pub fn has_new_devices(&self) -> bool {
        self.listening.take_news()
    }

    /// The device has sent an uplink: passes on what waits for it, unless the hub pushes its messages anyway.
    pub async fn after_uplink(self: &Arc<Self>, device: &Arc<Device>, keys: &DownlinkKeys) {
        let keys = Arc::new(keys.clone());
        if self.sender.can_listen() || self.is_polled {
            let place = Place { device: device.clone(), keys: keys.clone() };
            self.listening.remember(&Self::name(device), place);
            if self.sender.listens(device) {
                return;
            }
        }
        self.pass_on(device, &keys, Instant::now() + TIME).await;
    }

    /// Passes on what waits for a device that has sent no uplink, unless the hub pushes its messages anyway. Returns `false` if
    /// the hub gets no questions now.
    pub async fn ask(self: &Arc<Self>, device: &Arc<Device>, keys: &DownlinkKeys, deadline: Instant) -> bool {
        if self.sender.listens(device) {
            return true;
        }
        if self.devicebound.is_backing_off(device) {
            return false;
        }
        self.pass_on(device, keys, deadline).await;
        true
    }

    /// Passes on the device's pending messages, unless another task already does; then that one looks once more. A failure
    /// is logged, and the message stays pending.
    async fn pass_on(self: &Arc<Self>, device: &Arc<Device>, keys: &DownlinkKeys, deadline: Instant) {
        let name = Self::name(device);
        self.pass_on_in_turn(&name, device, keys, deadline).await;
        // What came while the last look ended.
        if self.listening.has(&name) {
            self.clone().work(name);
        }
    }

    async fn pass_on_in_turn(
        self: &Arc<Self>,
        name: &String,
        device: &Arc<Device>,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) {
        let Some(mut fetcher) = self.fetching.begin(name) else { return };
        if self.failures.holding(name).is_some() {
            return self.listening.leave(name);
        }
        for _ in 0..MOST {
            if Instant::now() >= deadline {
                return;
            }
            if let Some(pushed) = self.listening.take(name) {
                if !self.pass_on_pushed(name, &pushed, keys, deadline).await {
                    return;
                }
                continue;
            }
            if self.sender.listens(device) {
                if fetcher.is_wanted_again() {
                    continue;
                }
                return;
            }
            match self.devicebound.receive(device, deadline).await {
                Ok(Some(message)) if self.pass_on_fetched(name, device, &message, keys, deadline).await => {}
                Ok(Some(_)) => return,
                Ok(None) if fetcher.is_wanted_again() => {}
                Ok(None) => return self.listen(name).await,
                Err(error) => {
                    if self.tally.count(Count::DownlinkChecksFailed) {
                        tracing::warn!(
                            device.id = device.id,
                            failure.kind = error.kind().as_str(),
                            "what waits for the device was not fetched, its next uplink tries again: {error}"
                        );
                    }
                    return self.fetch_again(name);
                }
            }
        }
    }

    /// Returns whether the next message may follow.
    async fn pass_on_fetched(
        self: &Arc<Self>,
        name: &String,
        device: &Device,
        message: &CloudMessage,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) -> bool {
        let settlement = match self.fate(name, message, Way::Fetched, keys, deadline).await {
            Fate::Accepted => Settlement::Complete,
            Fate::Condemned(reason) => {
                self.tally.count(Count::DownlinksRejected);
                let id = message.message_id.as_deref().unwrap_or_default();
                tracing::warn!(
                    device.id = device.id,
                    message.id = id,
                    "a cloud-to-device message is rejected: {reason}"
                );
                Settlement::Reject
            }
            Fate::Waits(error) => {
                let told = self.tell(name, device, message, &error);
                self.failures.failed(name.clone(), told, error.requested_wait(), Instant::now());
                Settlement::Abandon
            }
        };
        // Settling takes little time, and without it the message would be redelivered.
        let settled = self.devicebound.settle(device, message, settlement, Instant::now() + SETTLING).await;
        if let Err(error) = settled {
            let id = message.message_id.as_deref().unwrap_or_default();
            tracing::warn!(
                device.id = device.id,
                message.id = id,
                "a cloud-to-device message was handled but not settled ({settlement:?}), it comes again: {error}"
            );
            self.fetch_again(name);
            return false;
        }
        if settlement == Settlement::Abandon {
            // The next message would overtake this one.
            self.look_again(name, Duration::ZERO);
            return false;
        }
        self.failures.succeeded(name);
        self.accepted.settled(name, message);
        true
    }

    /// Returns whether the next message may follow.
    async fn pass_on_pushed(
        self: &Arc<Self>,
        name: &String,
        pushed: &Pushed,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) -> bool {
        let Pushed { device, message, .. } = pushed;
        let fate = if pushed.is_late() {
            Fate::Waits(PushError::Busy)
        } else {
            self.fate(name, message, Way::Pushed, keys, deadline).await
        };
        let told = match fate {
            Fate::Accepted => {
                if !pushed.complete().await {
                    tracing::debug!(
                        device.id = device.id,
                        "a message's acknowledgement is lost: the hub pushes it again"
                    );
                }
                self.failures.succeeded(name);
                return true;
            }
            // It is logged when it is rejected.
            Fate::Condemned(reason) => {
                tracing::debug!(device.id = device.id, "a message will be rejected over HTTPS: {reason}");
                Told { cause: (Kind::DownlinkRejected, None), at: Instant::now() }
            }
            Fate::Waits(error) => self.tell(name, device, message, &error),
        };
        self.leave(name, device, told).await;
        false
    }

    /// Each cause is logged for each device: a person who looks after one device must not have to read the log of another.
    fn tell(&self, name: &String, device: &Device, message: &CloudMessage, error: &PushError) -> Told {
        let (now, cause) = (Instant::now(), error.cause());
        self.tally.failed(error.kind());
        let told = self.failures.last(name).map(|failed| failed.error);
        let told = told.filter(|told| told.cause == cause && now - told.at < TOLD_AGAIN);
        if told.is_none() {
            let until = if self.sender.can_listen() {
                "waits, and is tried again"
            } else {
                "waits for the device's next uplink"
            };
            tracing::warn!(
                device.id = device.id,
                message.id = message.message_id.as_deref().unwrap_or_default(),
                message.attempt = message.delivery_count,
                failure.kind = error.kind().as_str(),
                "a downlink {until}: {error}"
            );
        }
        told.unwrap_or(Told { cause, at: now })
    }

    async fn fate(&self, name: &str, message: &CloudMessage, way: Way, keys: &DownlinkKeys, deadline: Instant) -> Fate {
        if self.accepted.has(name, message, way) {
            return Fate::Accepted;
        }
        let id = message.message_id.as_deref();
        let downlink = match Downlink::new(id, &message.properties, &message.body, &self.methods) {
            Ok(downlink) => downlink,
            Err(reason) => return Fate::Condemned(reason),
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
                self.tally.count(Count::DownlinksForwarded);
                self.accepted.put(name, message, way);
                Fate::Accepted
            }
            Err(error) if error.condemns_downlink(message.delivery_count) => Fate::Condemned(error.to_string()),
            Err(error) => Fate::Waits(error),
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
}
