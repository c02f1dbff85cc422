//! Forwards the queue's webhooks, each as the hub device of its LoRaWAN device.
//!
//! | Part | |
//! |---|---|
//! | `message` | converts a webhook to a message and identifies its owner. Pure |
//! | `owning` | whose a webhook is |
//! | `rejected` | text for the queue of rejected messages. Pure |
//! | `putting_back` | puts messages back that cannot be forwarded now |
//! | `direct` | sends an uplink in its webhook's own call |
//! | `turns` | keeps one device's messages in order |
//! | `polling` | asks for commands between uplinks |
//! | `activities` | recent activity of devices, for the status page |

mod activities;
mod direct;
pub mod message;
mod owning;
pub mod polling;
pub mod putting_back;
pub mod rejected;
mod turns;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use self::activities::Activities;
use self::{
    direct::Waiting,
    message::Forwardable,
    owning::NoOwner,
    polling::{Poll, Polling},
    putting_back::{Back, Cause},
    turns::Turns,
};
use super::tally::{Count, Tally};
use crate::things_network::downlinks::{Downlinks, Parts as DownlinkParts, address::EndDevice};
use crate::{
    host::queue::QueueMessage,
    iot_hub::{
        Device, Sender,
        delivery::{DeliveryError, send_as_provisioned},
        devices::{DeviceError, Devices, Owner, PerApplication, Store},
    },
    support::progress::{Progress, Step},
    support::{
        clock::Clock,
        ending::{self, Ending},
        kind::Kind,
        meter::Meters,
    },
    things_network::{
        members::Members,
        queued::{DownlinkKeys, Queued},
        template::Template,
    },
};

/// Messages that wait in the function for their device's registration. All others go back to the queue: the host runs 64
/// messages at a time, and waiting messages must not hold up the others.
const REGISTERING: usize = 16;
/// How long a message waits for earlier messages of its device.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// The name of the function's folder. The log uses it too.
const NAME: &str = "thingsNetworkForwarding";

/// Forwards the messages of the queue.
pub struct Forwarding {
    devices: PerApplication,
    sender: Arc<Sender>,
    downlinks: Arc<Downlinks>,
    activities: Activities,
    device_ids: Template,
    members: Members,
    timeout: Duration,
    clock: Clock,
    turns: Turns,
    back: Option<Arc<Back>>,
    ending: Ending,
    /// How long the direct lane waits for an acknowledgement. `None` if it is off.
    direct: Option<Duration>,
    waiting: Waiting,
    store: Arc<Store>,
    polling: Polling,
    registering: Semaphore,
    tally: Tally,
    meters: Arc<Meters>,
}

pub struct Options {
    /// Devices' ids in DPS and in the hub.
    pub device_ids: Template,
    /// What a message has beside the members of the C# sample.
    pub members: Members,
    /// How long a message waits for its device and its acknowledgement.
    pub timeout: Duration,
    /// `None` if the storage account is not known: then invocations fail, and the host puts messages back.
    pub back: Option<Arc<Back>>,
    pub ending: Ending,
    /// How long the direct lane waits for an acknowledgement. `None` if it is off.
    pub direct: Option<Duration>,
    /// The container of devices.
    pub store: Arc<Store>,
    /// `None`: commands are not asked for between uplinks.
    pub poll: Option<Poll>,
}

/// The outcome of a queue message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The hub has acknowledged it.
    Forwarded,
    /// It can never be forwarded. Holds the text for the queue of rejected messages.
    Rejected(String),
    /// It cannot be forwarded now. It is in the queue again and comes back later.
    PutBack,
    /// It cannot be forwarded now and could not be put back: the host must do that. Holds the reason, in one sentence.
    Failed(String),
}

impl Forwarding {
    #[must_use]
    pub fn new(
        options: Options,
        devices: PerApplication,
        sender: Arc<Sender>,
        downlinks: DownlinkParts,
        activities: Activities,
        clock: Clock,
    ) -> Self {
        let Options { device_ids, members, timeout, back, ending, direct, store, poll } = options;
        let meters = devices.meters().clone();
        let tally = Tally::new(NAME, meters.clone(), Some(sender.clone()));
        Self {
            devices,
            downlinks: Arc::new(Downlinks::new(downlinks, tally.clone())),
            activities,
            device_ids,
            members,
            timeout,
            clock,
            turns: Turns::default(),
            back,
            ending,
            direct,
            waiting: Waiting::default(),
            store,
            polling: Polling::new(poll),
            registering: Semaphore::new(REGISTERING),
            tally,
            meters,
            sender,
        }
    }

    /// Handles one queue message.
    pub async fn message(&self, message: &QueueMessage) -> Outcome {
        let mut progress = Progress::of(NAME);
        let outcome = self.forward(message, &mut progress).await;
        progress.end();
        outcome
    }

    async fn forward(&self, message: &QueueMessage, progress: &mut Progress) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let queued = match Queued::parse(&message.text) {
            Ok(queued) => queued,
            Err(reason) => return self.reject(&message.text, None, Kind::Malformed, &reason),
        };
        let otherwise = message.inserted_at.unwrap_or_else(|| self.clock.now());
        let forwardable = match Forwardable::read(&queued, otherwise, &self.members) {
            Ok(forwardable) => forwardable,
            Err(invalid) => return self.reject(&message.text, None, Kind::Malformed, &invalid.to_string()),
        };
        let span = tracing::Span::current();
        span.record("application.id", &forwardable.application).record("end_device.id", &forwardable.device);
        let (devices, owner) = match self.owner(&forwardable, &queued).await {
            Ok(found) => found,
            Err(NoOwner::Never(reason)) => {
                return self.reject(&message.text, Some(&forwardable), Kind::NoDevice, &reason);
            }
            Err(NoOwner::NotNow(error)) => {
                let owner = Owner::things_network(&forwardable.application, &forwardable.device, "");
                let (kind, text) = (error.kind(), error.to_string());
                return self.put_back(message, (&forwardable, &owner), Cause::Away(None), kind, text).await;
            }
        };
        progress.step = Step::WaitingForTurn;
        let turn_until = deadline.min(Instant::now() + TURN_WAIT);
        let Ok(turn) = timeout_at(turn_until, self.turns.take(&owner)).await else {
            let text = "earlier messages of the device are still on their way".to_owned();
            return self.put_back(message, (&forwardable, &owner), Cause::Turn, Kind::Turn, text).await;
        };
        // First, so that it is not lost with this process.
        let awaiting = match self.note_result(&forwardable, &owner).await {
            Ok(awaiting) => awaiting,
            Err((kind, text)) => {
                return self.put_back(message, (&forwardable, &owner), Cause::Away(None), kind, text).await;
            }
        };
        progress.step = Step::Sending;
        if let Some(keys) = self.keys_of(&forwardable, &queued, &owner)
            && let Ok(device) = devices.device(&owner, Instant::now()).await
        {
            self.downlinks.before_uplink(&device, &keys);
        }
        let sent = self.send(devices, &owner, &forwardable, deadline).await;
        // Release the turn first: the device's next uplink does not wait for downlinks.
        drop(turn);
        match sent {
            Ok(()) => {
                progress.step = Step::PassingOnCommands;
                self.waiting.done(&owner);
                self.activities.forwarded(&forwardable, self.clock.now());
                self.tally.count(if forwardable.is_uplink { Count::UplinksForwarded } else { Count::EventsForwarded });
                let device = match awaiting {
                    None if forwardable.is_uplink => devices.device(&owner, Instant::now()).await.ok(),
                    awaiting => awaiting,
                };
                if let Some(device) = device
                    && let Some(keys) = self.keys_of(&forwardable, &queued, &owner)
                {
                    self.pass_on(&device, &keys).await;
                }
                Outcome::Forwarded
            }
            Err(error) if error.condemns_message() || error.is_taken() => {
                self.waiting.done(&owner);
                self.reject(&message.text, Some(&forwardable), error.kind(), &error.to_string())
            }
            Err(error) => {
                self.put_back(message, (&forwardable, &owner), Cause::of(&error), error.kind(), error.to_string()).await
            }
        }
    }

    async fn owner(&self, forwardable: &Forwardable, queued: &Queued<'_>) -> Result<(&Devices, Owner), NoOwner> {
        owning::owner(&self.devices, &self.device_ids, forwardable, queued).await
    }

    /// Notes what became of a command's confirmed downlink. Returns the device whose command waits for that.
    ///
    /// # Errors
    /// Why it cannot be noted now.
    async fn note_result(&self, of: &Forwardable, owner: &Owner) -> Result<Option<Arc<Device>>, (Kind, String)> {
        let Some(confirmed) = of.confirmed.as_ref().filter(|_| self.downlinks.awaits_confirmation()) else {
            return Ok(None);
        };
        // The command came to the device of the downlink's port.
        let Some((devices, port)) = self.devices.of(&of.application, confirmed.port) else { return Ok(None) };
        let device = match devices.device(&owner.clone().at_port(port), Instant::now()).await {
            Ok(device) => device,
            // There is no such device, so none of its commands waits.
            Err(DeviceError::Taken { .. } | DeviceError::RefusedByHub { .. }) => return Ok(None),
            Err(error) => return Err((error.kind(), error.to_string())),
        };
        let is_awaited = self.downlinks.has_result(&device, confirmed).await;
        let is_awaited = is_awaited.map_err(|error| (error.kind(), error.to_string()))?;
        Ok(is_awaited.then_some(device))
    }

    /// Sends and waits for the acknowledgement; also for the device's registration, if there is room to wait.
    async fn send(
        &self,
        devices: &Devices,
        owner: &Owner,
        forwardable: &Forwardable,
        deadline: Instant,
    ) -> Result<(), DeliveryError> {
        let messages = std::slice::from_ref(&forwardable.message);
        let send = async |provision_until| {
            let (sender, meter) = (&self.sender, &self.meters.hub);
            send_as_provisioned(devices, sender, meter, owner, messages, provision_until, deadline).await.1
        };
        let error = match send(Instant::now()).await {
            Err(error) if error.is_underway() => error,
            sent => return sent,
        };
        let Ok(_room) = self.registering.try_acquire() else { return Err(error) };
        tokio::select! {
            sent = send(deadline) => sent,
            () = self.ending.after(ending::SENDING) => Err(error),
        }
    }

    fn keys_of(&self, forwardable: &Forwardable, queued: &Queued<'_>, owner: &Owner) -> Option<DownlinkKeys> {
        let Forwardable { application, device, .. } = forwardable;
        self.downlinks.keys_of(queued.downlink.clone(), EndDevice { application, device, tenant: owner.tenant() })
    }

    /// Waits for the commands that are on their way, after the end has begun.
    pub async fn end(&self) {
        self.downlinks.end().await;
    }

    /// Passes on the device's commands. One that is still locked at the end of the process comes again.
    async fn pass_on(&self, device: &Arc<Device>, keys: &DownlinkKeys) {
        tokio::select! {
            () = self.downlinks.after_uplink(device, keys) => {}
            () = self.ending.after(ending::WORKING) => {}
        }
    }

    fn reject(&self, text: &str, of: Option<&Forwardable>, kind: Kind, reason: &str) -> Outcome {
        if let Some(of) = of {
            self.activities.failed(of, kind.clone(), reason, self.clock.now());
        }
        self.tally.count(Count::MessagesRejected);
        if self.tally.failed(kind.clone()) {
            tracing::error!(
                failure.kind = kind.as_str(),
                "a message is rejected ({kind}) and goes to the queue of rejected messages: {reason}"
            );
        }
        Outcome::Rejected(rejected::text(text, &kind, reason, self.clock.now()))
    }

    /// Puts the message back for a time that fits the cause.
    async fn put_back(
        &self,
        message: &QueueMessage,
        (of, owner): (&Forwardable, &Owner),
        cause: Cause,
        kind: Kind,
        text: String,
    ) -> Outcome {
        self.tally.count(Count::MessagesPutBack);
        if self.tally.lasts(kind.clone()) {
            tracing::warn!(
                failure.kind = kind.as_str(),
                message.attempt = message.dequeue_count,
                "not forwarded now, the message stays in the queue: {text}"
            );
        }
        self.activities.failed(of, kind, &text, self.clock.now());
        let failed = Outcome::Failed(format!("device {} of application {}: {text}", of.device, of.application));
        let Some(back) = &self.back else { return failed };
        match back.put(message, cause).await {
            Ok(wait) => {
                self.waiting.put_back(owner, wait);
                Outcome::PutBack
            }
            Err(error) => {
                if self.tally.failed(Kind::QueueUnusable) {
                    tracing::warn!(
                        failure.kind = Kind::QueueUnusable.as_str(),
                        "a message cannot be put back, so its invocation fails and the host puts it back: {error}"
                    );
                }
                failed
            }
        }
    }
}
