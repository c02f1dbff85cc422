//! Sends the hub's cloud-to-device messages to The Things Stack as downlinks.
//!
//! A message is completed only after The Things Stack has accepted its downlink. Otherwise it is abandoned: the hub
//! delivers it again, ten times in all. A message that can never be a downlink is rejected: the hub never delivers it again and
//! informs the sender if the sender requested feedback.
//!
//! A device's messages are fetched after its uplinks; or the hub pushes them over the device's MQTT connection.
//!
//! | Part | |
//! |---|---|
//! | `downlink`, `payload` | a message's properties and body as a downlink. Pure |
//! | `method` | what the settings say of IoT Central's commands. Pure |
//! | `stack`, `refusal` | the client of The Things Stack; what its answers mean (pure) |
//! | `fetching` | one task at a time passes a device's commands on |
//! | `settling` | what becomes of one message |
//! | `listening` | commands that the hub pushes |
//! | `confirming` | commands that are done when the device has confirmed them |
//! | `accepted` | which downlinks were accepted before. Pure |
//! | `address` | where downlinks go without a webhook's headers. Pure |

mod accepted;
pub mod address;
mod confirming;
pub mod downlink;
mod fetching;
mod listening;
pub mod method;
mod payload;
pub mod refusal;
mod settling;
pub mod stack;

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;

use self::{
    accepted::Accepted,
    address::{Address, EndDevice},
    confirming::Confirming,
    fetching::{Fetcher, Fetching},
    listening::{Listening, Place},
    settling::Told,
};
use crate::{
    iot_hub::{
        Device, Devicebound, Sender,
        devices::{Store, StoreError},
    },
    support::{
        backoff::{Backoff, Policy},
        clock::Clock,
        ending::{self, Ending},
    },
    things_network::{
        downlinks::{method::Methods, stack::Stack},
        event::Confirmed,
        queued::DownlinkKeys,
        tally::{Count, Tally},
    },
};

/// Messages that are fetched after one uplink: as many as a device's queue at the hub holds.
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>
const MOST: usize = 50;
/// Downlinks that are in flight to The Things Stack at once. Their invocations last until the downlinks are accepted,
/// and the host runs 64 invocations at a time. This limit leaves most of them to telemetry, however slow The Things
/// Stack is.
const POSTING: usize = 16;
/// The longest time that an uplink's invocation lasts for the device's downlinks.
const TIME: Duration = Duration::from_secs(20);
/// Back-off of a device whose downlink was not accepted. It doubles each time: the hub delivers a message only ten
/// times, and a backlog of uplinks must not use up these deliveries. The [last ones](settling) are hours apart.
const POLICY: Policy = Policy::exact(Duration::from_secs(5), Duration::from_secs(15 * 60));

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
    /// Keeps what became of confirmed downlinks, if commands wait for that.
    pub confirmations: Option<(Arc<Store>, Clock)>,
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
    confirming: Option<Confirming>,
    /// Devices whose downlinks were not accepted.
    failures: Backoff<String, Told>,
    /// The tasks that pass commands on without an uplink.
    workers: TaskTracker,
    /// Says that the settings' address is not for a device.
    warned_of_tenant: Once,
}

impl Downlinks {
    #[must_use]
    pub fn new(parts: Parts, tally: Tally) -> Self {
        let Parts { devicebound, stack, methods, sender, ending, address, is_polled, confirmations } = parts;
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
            confirming: confirmations.map(|(store, clock)| Confirming::new(store, clock)),
            failures: Backoff::new(POLICY),
            workers: TaskTracker::new(),
            warned_of_tenant: Once::new(),
        }
    }

    /// Runs a task that passes commands on. The end waits for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.workers.spawn(task);
    }

    /// Waits for the commands that are on their way, after the end has begun. Connections must be open until then: an
    /// acknowledgement that the hub does not get is a downlink that is sent again.
    pub async fn end(&self) {
        self.workers.close();
        // The workers end by themselves within that time.
        let _ = tokio::time::timeout(ending::SENDING, self.workers.wait()).await;
    }

    /// Where the downlinks of an uplink's device go: as its webhook says, else as the settings say. `None`: there are none.
    #[must_use]
    pub fn keys_of(&self, queued: Option<DownlinkKeys>, end_device: EndDevice<'_>) -> Option<DownlinkKeys> {
        if queued.is_some() {
            return queued;
        }
        let address = self.address.as_ref()?;
        let keys = address.of(end_device);
        if keys.is_none() {
            self.warned_of_tenant.call_once(|| {
                tracing::warn!(
                    application.id = end_device.application,
                    end_device.id = end_device.device,
                    "commands of the device are not sent: its webhook has no key for downlinks, and its tenant is {}, but \
                     ThingsStackUrl is {}. Give the webhook a key for downlinks. This is said once",
                    end_device.tenant.map(ToString::to_string).unwrap_or_default(),
                    address.host()
                );
            });
        }
        keys
    }

    /// Where the downlinks of a device go that has sent no uplink just now: as its last webhook here said, else as the
    /// settings say.
    #[must_use]
    pub fn keys(&self, device: &Device, end_device: EndDevice<'_>) -> Option<DownlinkKeys> {
        let place = self.listening.place(&Self::name(device));
        self.keys_of(place.map(|place| (*place.keys).clone()), end_device)
    }

    /// Whether devices have sent an uplink that had sent none at the last call.
    #[must_use]
    pub fn has_new_devices(&self) -> bool {
        self.listening.take_news()
    }

    /// The device has sent an uplink, or has confirmed a command: passes on what waits for it, unless the hub pushes its messages anyway.
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

    /// Passes on what waits for a device that has sent no uplink, unless the hub pushes its messages anyway, or gets no questions
    /// now.
    pub async fn ask(self: &Arc<Self>, device: &Arc<Device>, keys: &DownlinkKeys, deadline: Instant) {
        if !self.sender.listens(device) && !self.devicebound.is_backing_off(device) {
            self.pass_on(device, keys, deadline).await;
        }
    }

    /// Whether commands wait for the device's confirmation.
    #[must_use]
    pub fn awaits_confirmation(&self) -> bool {
        self.confirming.is_some()
    }

    /// A device has confirmed a command, or The Things Stack has given it up. Returns whether the command waits for that.
    ///
    /// # Errors
    /// The container of devices cannot be used.
    pub async fn has_result(&self, device: &Device, confirmed: &Confirmed) -> Result<bool, StoreError> {
        let Some(confirming) = &self.confirming else { return Ok(false) };
        let is_awaited = confirming.has_result(device, &confirmed.message_id, &confirmed.result).await?;
        let name = Self::name(device);
        // Other waits go on: for the hub's lock, or because The Things Stack wants it.
        if is_awaited && self.failures.last(&name).is_some_and(|last| last.is_held()) {
            self.failures.forget_key(&name);
            self.listening.wake();
        }
        Ok(is_awaited)
    }

    /// Passes on the device's pending messages, unless another task already does; then that one looks once more. A failure
    /// is logged, and the message stays pending.
    async fn pass_on(self: &Arc<Self>, device: &Arc<Device>, keys: &DownlinkKeys, deadline: Instant) {
        let name = Self::name(device);
        let Some(fetcher) = self.fetching.begin(&name) else { return };
        self.pass_on_in_turn(&name, fetcher, device, keys, deadline).await;
        // What came while the last look ended. Whoever has the turn looks.
        if self.listening.has(&name) && !self.ending.has_begun() {
            self.clone().work(name);
        }
    }

    async fn pass_on_in_turn(
        self: &Arc<Self>,
        name: &String,
        mut fetcher: Fetcher<'_>,
        device: &Arc<Device>,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) {
        if self.failures.holding(name).is_some() {
            return self.hand_back(name, device).await;
        }
        for _ in 0..MOST {
            if self.ending.has_begun() {
                return;
            }
            if Instant::now() >= deadline {
                break;
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
                Ok(None) => {
                    self.failures.succeeded(name);
                    return self.listen(name).await;
                }
                Err(error) => {
                    let is_asked_again = self.sender.can_listen() && !error.refuses_device();
                    if self.tally.count(Count::DownlinkChecksFailed) {
                        let again =
                            if is_asked_again { "the hub is asked again" } else { "its next uplink tries again" };
                        tracing::warn!(
                            device.id = device.id,
                            failure.kind = error.kind().as_str(),
                            "what waits for the device was not fetched, {again}: {error}"
                        );
                    }
                    if is_asked_again {
                        self.fetch_again(name);
                    }
                    return;
                }
            }
        }
        // More may wait. Only then, so that the next look finds the device free.
        drop(fetcher);
        self.look_again(name, Duration::ZERO);
    }
}
