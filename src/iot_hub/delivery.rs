//! Sends messages to the hub as the device of their owner: finds the device, sends, and registers the device again if
//! the hub no longer knows it.

use std::{
    sync::Arc,
    time::{Duration, Instant as WallInstant},
};

use tokio::time::Instant;

use crate::{
    iot_hub::{
        Device, Message, SendError, Sender,
        devices::{DeviceError, Devices, DpsError, Owner},
    },
    support::kind::Kind,
    support::meter::{Meter, Meters},
};

/// The devices that send messages.
pub enum Identities {
    /// One device for everything.
    One(Arc<Device>),
    /// One device per owner, through DPS.
    Provisioned(Devices),
}

/// Delivers an owner's messages to the hub.
pub struct Delivery {
    pub identities: Identities,
    pub sender: Arc<Sender>,
    /// Sending is counted in `hub`.
    pub meters: Arc<Meters>,
}

/// Why messages are not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl DeliveryError {
    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Send(error) => error.kind(),
            Self::Device(error) => error.kind(),
        }
    }

    /// The error for a list that already names the owners. A failure that concerns all owners has the same text for
    /// each of them.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Device(DeviceError::Dps { error, .. }) => format!("no device can be registered: {error}"),
            Self::Device(DeviceError::Store { error, .. }) => format!("no device can be looked up: {error}"),
            error => error.to_string(),
        }
    }

    /// Whether the hub will never accept this message.
    #[must_use]
    pub fn condemns_message(&self) -> bool {
        matches!(self, Self::Send(error) if error.condemns_message())
    }

    /// Whether another owner has the device, so that no retry will help.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Taken { .. }))
    }

    /// The wait that a busy service requests.
    #[must_use]
    pub fn requested_wait(&self) -> Option<Duration> {
        match self {
            Self::Send(SendError::Throttled { wait }) => *wait,
            Self::Device(DeviceError::Dps { error: DpsError::Throttled { wait }, .. }) => Some(*wait),
            _ => None,
        }
    }

    /// Whether there is no failure and the registration only needs more time: the next attempt continues it.
    #[must_use]
    pub fn is_underway(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Underway { .. }))
    }
}

impl Delivery {
    /// For the start of an invocation: failed operations are tried again, unless a service requested a wait.
    pub fn try_again(&self) {
        self.sender.try_again();
        if let Identities::Provisioned(devices) = &self.identities {
            devices.try_again();
        }
    }

    /// Why nothing of this owner is sent now, as far as is known.
    #[must_use]
    pub fn closed(&self, owner: &Owner) -> Option<DeliveryError> {
        let error = match &self.identities {
            Identities::One(device) => self.sender.closed(device),
            Identities::Provisioned(devices) => self.sender.closed(&*devices.known(owner)?),
        };
        error.map(Into::into)
    }

    /// Sends the owner's messages in order and waits for their acknowledgements until `deadline`, and for a
    /// registration of the owner's device until `provision_until`.
    ///
    /// Returns the number of messages that are acknowledged, counted from the first, and why it is not all of them. A
    /// device that the hub refuses is registered again, unless that was tried a moment ago. The remaining messages are
    /// then sent as the new device: at once, or (`is_underway`) at the next attempt.
    pub async fn send_in_order(
        &self,
        owner: &Owner,
        messages: &[Message],
        provision_until: Instant,
        deadline: Instant,
    ) -> (usize, Result<(), DeliveryError>) {
        match &self.identities {
            Identities::One(device) => {
                let (sent, outcome) = send(&self.sender, &self.meters.hub, device, messages, deadline).await;
                (sent, outcome.map_err(Into::into))
            }
            Identities::Provisioned(devices) => {
                let (sender, meter) = (&self.sender, &self.meters.hub);
                send_as_provisioned(devices, sender, meter, owner, messages, provision_until, deadline).await
            }
        }
    }
}

/// Like [`Delivery::send_in_order`], with one of these devices.
pub async fn send_as_provisioned(
    devices: &Devices,
    sender: &Sender,
    meter: &Meter,
    owner: &Owner,
    messages: &[Message],
    provision_until: Instant,
    deadline: Instant,
) -> (usize, Result<(), DeliveryError>) {
    let device = match devices.device(owner, provision_until).await {
        Ok(device) => device,
        Err(error) => return (0, Err(error.into())),
    };
    let (sent, outcome) = send(sender, meter, &device, messages, deadline).await;
    match outcome {
        Err(error) if error.refuses_device() && devices.refused(owner, &device).await => {}
        outcome => return (sent, outcome.map_err(Into::into)),
    }
    // The refusal concerned the old registration, so it must not block the new one, whichever caller waits for it.
    sender.try_device_again(&device);
    let device = match devices.device(owner, provision_until).await {
        Ok(device) => device,
        Err(error) => return (sent, Err(error.into())),
    };
    let (rest, outcome) = send(sender, meter, &device, &messages[sent..], deadline).await;
    (sent + rest, outcome.map_err(Into::into))
}

async fn send(
    sender: &Sender,
    meter: &Meter,
    device: &Device,
    messages: &[Message],
    deadline: Instant,
) -> (usize, Result<(), SendError>) {
    if messages.is_empty() {
        return (0, Ok(()));
    }
    let began = WallInstant::now();
    let (sent, outcome) = sender.send_in_order(device, messages, deadline).await;
    let bytes = messages[..sent].iter().map(Message::size).sum();
    meter.count(began.elapsed(), bytes, outcome.as_ref().err().map(SendError::kind).as_ref());
    (sent, outcome)
}
