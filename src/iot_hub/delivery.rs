//! Messages to the hub, as the device that stands for whoever they are of: which device that is, sending, and what to do
//! when the hub does not know the device any more.

use std::{sync::Arc, time::Instant as WallInstant};

use tokio::time::Instant;

use crate::{
    iot_hub::{
        Device, Message, SendError, Sender,
        devices::{DeviceError, Devices, Owner, StoreError},
    },
    support::meter::{Meter, Meters},
};

/// The devices that messages are sent as.
pub enum Identities {
    /// One for everything.
    One(Arc<Device>),
    /// One for each owner, through DPS.
    Provisioned(Devices),
}

/// The way from an owner's messages to the hub.
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
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Send(error) => error.kind(),
            Self::Device(error) => error.kind(),
        }
    }

    /// What went wrong, for a list in which the owners are named already: what concerns all of them reads the same for each.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Device(DeviceError::Dps { error, .. }) => format!("no device can be registered: {error}"),
            Self::Device(DeviceError::Store { error, .. }) => format!("no device can be looked up: {error}"),
            error => error.to_string(),
        }
    }

    /// Whether the hub will never take this very message.
    #[must_use]
    pub fn condemns_message(&self) -> bool {
        matches!(self, Self::Send(error) if error.condemns_message())
    }

    /// Whether another owner has the device: no attempt will help.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Taken { .. }))
    }

    /// Whether a service is away or busy, for everybody, and may be back in a moment.
    #[must_use]
    pub fn may_pass_soon(&self) -> bool {
        match self {
            Self::Send(error) => error.is_passing(),
            Self::Device(DeviceError::Dps { error, .. }) => error.is_passing(),
            Self::Device(DeviceError::Store { error, .. }) => matches!(error, StoreError::Cosmos(_)),
            Self::Device(_) => false,
        }
    }

    /// Whether nothing is wrong but the time: the next attempt goes on.
    #[must_use]
    pub fn is_underway(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Underway { .. }))
    }
}

impl Delivery {
    /// For the start of an invocation: what failed before is tried again, unless a service asked for a wait.
    pub fn try_again(&self) {
        self.sender.try_again();
        if let Identities::Provisioned(devices) = &self.identities {
            devices.try_again();
        }
    }

    /// Sends the owner's messages in order and waits for their acknowledgements until `deadline`; for a registration of the
    /// owner's device until `provision_until`.
    ///
    /// Returns how many, counted from the first, are acknowledged, and why it is not all of them. A device that the hub
    /// refuses is registered again, if that was not tried a moment ago, and the rest of the messages sent as what it is then,
    /// now or (`is_underway`) when somebody tries again.
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

/// As [`Delivery::send_in_order`], as one of these devices.
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
    // The refusal is that of the old registration, whoever waits for the new one.
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
    meter.count(began.elapsed(), bytes, outcome.as_ref().err().map(SendError::kind));
    (sent, outcome)
}
