//! What becomes of one message: its downlink is accepted, it can never be one, or it waits.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Downlinks,
    accepted::Way,
    confirming::{self, Awaited},
    downlink::{Downlink, Operation},
    listening::TAKEN_BACK,
    refusal::PushError,
};
use crate::{
    iot_hub::{
        CloudMessage, Device, Settlement,
        devices::confirmations::{Confirmation, State},
        pushed::Pushed,
    },
    support::kind::Kind,
    things_network::{queued::DownlinkKeys, tally::Count},
};

/// Attempts for a downlink after one uplink.
const ATTEMPTS: u32 = 3;
/// An attempt that needs a longer wait is left to the next uplink.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a downlink waits for a free place among those in flight.
const PLACE_WAIT: Duration = Duration::from_secs(2);
/// How often a cause that lasts is logged for a device.
const TOLD_AGAIN: Duration = Duration::from_secs(60 * 60);
/// Extra time to settle a message that was handled, even if the time has ended.
const SETTLING: Duration = Duration::from_secs(10);
/// The hub delivers a message ten times, then the message is lost. While a cause lasts, the last deliveries are spread over a
/// time in which it may be mended: the first hour, which is how long the hub keeps a message unless its sender says otherwise,
/// and two more.
fn wait_after(delivery: u32) -> Option<Duration> {
    const MINUTE: u64 = 60;
    let minutes = match delivery {
        ..5 => return None,
        5..8 => 15,
        _ => 60,
    };
    Some(Duration::from_secs(minutes * MINUTE))
}

/// What was logged about a device whose downlinks are not accepted.
#[derive(Clone)]
pub(super) struct Told {
    /// `None`: nothing was logged, it waits for the device's confirmation.
    pub cause: Option<(Kind, Option<u16>)>,
    pub at: Instant,
}

/// What becomes of a message, after all attempts for it.
enum Fate {
    Accepted,
    /// It can never be a downlink.
    Condemned(String),
    Waits(PushError),
    /// Its downlink is accepted, and the device has not confirmed it yet.
    Unconfirmed,
}

impl Downlinks {
    /// Returns whether the next message may follow.
    pub(super) async fn pass_on_fetched(
        self: &Arc<Self>,
        name: &String,
        device: &Device,
        message: &CloudMessage,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) -> bool {
        let (fate, awaited) = self.fate((name, device), message, Way::Fetched, keys, deadline).await;
        let settlement = match fate {
            Fate::Accepted => Settlement::Complete,
            Fate::Unconfirmed => {
                self.failures.hold(name.clone(), Told { cause: None, at: Instant::now() }, confirming::LOOK);
                Settlement::Abandon
            }
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
                let wait = error.requested_wait().max(wait_after(message.delivery_count));
                self.failures.failed(name.clone(), told, wait, Instant::now());
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
            // It is locked until then.
            self.look_again(name, TAKEN_BACK);
            return false;
        }
        if settlement == Settlement::Abandon {
            // The next message would overtake this one.
            self.look_again(name, Duration::ZERO);
            return false;
        }
        self.failures.succeeded(name);
        self.accepted.settled(name, message);
        self.settled(awaited).await;
        true
    }

    /// Remembers a pushed message whose downlink is accepted: its acknowledgement may be lost. Not if an equal one waits behind
    /// it that is new: when that one comes again, nothing would tell the two apart.
    fn accept_pushed(&self, name: &str, message: &CloudMessage) {
        let is_equal_new = self.listening.deliveries_of_equal(name, message).iter().any(|deliveries| *deliveries <= 1);
        if !is_equal_new {
            self.accepted.put(name, message, Way::Pushed);
        }
    }

    /// The hub has a message no longer whose confirmation was awaited.
    async fn settled(&self, awaited: Option<Awaited>) {
        if let Some((confirming, awaited)) = self.confirming.as_ref().zip(awaited) {
            confirming.settled(&awaited).await;
        }
    }

    /// Returns whether the next message may follow.
    pub(super) async fn pass_on_pushed(
        self: &Arc<Self>,
        name: &String,
        pushed: &Pushed,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) -> bool {
        let Pushed { device, message, .. } = pushed;
        // What is acknowledged on another connection is not completed.
        let _held = self.sender.hold(device);
        let latest = deadline.min(pushed.latest());
        let (mut fate, awaited) = self.fate((name, device), message, Way::Pushed, keys, latest).await;
        // A device of class C may confirm it while the hub still keeps the message for this process.
        if let (Fate::Unconfirmed, Some(confirming), Some(awaited)) = (&fate, &self.confirming, &awaited)
            && let Some(Confirmation::Acknowledged) = confirming.result(awaited, latest).await
        {
            fate = Fate::Accepted;
        }
        let told = match fate {
            Fate::Unconfirmed => Told { cause: None, at: Instant::now() },
            Fate::Accepted => {
                if pushed.complete().await {
                    if awaited.is_some() {
                        self.accept_pushed(name, message);
                    }
                    self.settled(awaited).await;
                } else {
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
                Told { cause: Some((Kind::DownlinkRejected, None)), at: Instant::now() }
            }
            Fate::Waits(error) => self.tell(name, device, message, &error),
        };
        self.leave(name, device, told).await;
        false
    }

    /// Each cause is logged for each device: a person who looks after one device must not have to read the log of another.
    fn tell(&self, name: &String, device: &Device, message: &CloudMessage, error: &PushError) -> Told {
        let (now, cause) = (Instant::now(), Some(error.cause()));
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

    /// What becomes of a message, and how it is known to those who wait for the device's confirmation, if somebody does.
    async fn fate(
        &self,
        (name, device): (&str, &Device),
        message: &CloudMessage,
        way: Way,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) -> (Fate, Option<Awaited>) {
        if self.accepted.is_repeat(name, message, way) {
            // Then the one that waits is not this one.
            if !self.listening.deliveries_of_equal(name, message).is_empty() {
                self.accepted.settled(name, message);
            }
            return (Fate::Accepted, None);
        }
        let id = message.message_id.as_deref();
        let downlink = match Downlink::new(id, &message.properties, &message.body, &self.methods) {
            Ok(downlink) => downlink,
            Err(reason) => return (Fate::Condemned(reason), None),
        };
        let confirming = self.confirming.as_ref().filter(|_| downlink.is_confirmed);
        let Some((confirming, awaited)) = confirming.zip(Awaited::of(device, message, &downlink)) else {
            let fate = self.fate_of_post(&downlink, message, way, keys, deadline).await;
            match (&fate, way) {
                (Fate::Accepted, Way::Fetched) => self.accepted.put(name, message, way),
                (Fate::Accepted, Way::Pushed) => self.accept_pushed(name, message),
                _ => {}
            }
            return (fate, None);
        };
        let state = match confirming.begin(&awaited).await {
            Ok(State::New) => match self.fate_of_post(&downlink, message, way, keys, deadline).await {
                Fate::Accepted => confirming.accepted(&awaited).await.unwrap_or_else(|error| {
                    // This process knows it.
                    tracing::warn!(
                        device.id = device.id,
                        message.id = awaited.message_id,
                        failure.kind = error.kind().as_str(),
                        "that a downlink was accepted is not noted, another process may send it again: {error}"
                    );
                    State::Accepted
                }),
                fate => return (fate, Some(awaited)),
            },
            Ok(state) => state,
            Err(error) => return (Fate::Waits(PushError::Unnoted(error)), None),
        };
        let fate = match state {
            State::New | State::Accepted => Fate::Unconfirmed,
            State::Over(Confirmation::Acknowledged) => Fate::Accepted,
            State::Over(Confirmation::Failed(reason)) => {
                Fate::Condemned(format!("the device did not confirm it, and The Things Stack gave up: {reason}"))
            }
        };
        (fate, Some(awaited))
    }

    async fn fate_of_post(
        &self,
        downlink: &Downlink,
        message: &CloudMessage,
        way: Way,
        keys: &DownlinkKeys,
        deadline: Instant,
    ) -> Fate {
        let (url, header) = match downlink.operation {
            Operation::Push => (&keys.push, "X-Downlink-Push"),
            Operation::Replace => (&keys.replace, "X-Downlink-Replace"),
        };
        let posted = match url {
            Some(url) => {
                // A message that is fetched holds up an invocation. One that is pushed holds up nothing.
                let place_until = match way {
                    Way::Fetched => deadline.min(Instant::now() + PLACE_WAIT),
                    Way::Pushed => deadline,
                };
                self.post(url, keys, downlink, (place_until, deadline)).await
            }
            None => Err(PushError::Unusable(format!("the webhook came without the header {header}"))),
        };
        match posted {
            Ok(()) => {
                self.tally.count(Count::DownlinksForwarded);
                Fate::Accepted
            }
            Err(error) if error.condemns_downlink(message.delivery_count) => Fate::Condemned(error.to_string()),
            Err(error) => Fate::Waits(error),
        }
    }

    /// No attempt begins after `deadline`.
    async fn post(
        &self,
        url: &str,
        keys: &DownlinkKeys,
        downlink: &Downlink,
        (place_until, deadline): (Instant, Instant),
    ) -> Result<(), PushError> {
        let place = timeout_at(place_until, self.posting.acquire()).await;
        let Some(_place) = place.ok().filter(|_| Instant::now() < deadline) else { return Err(PushError::Busy) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_deliveries_last_for_hours() {
        let policy = super::super::POLICY;
        let waits = (1..10).map(|delivery| policy.wait(delivery).max(wait_after(delivery).unwrap_or_default()));
        let minutes = waits.map(|wait| wait.as_secs()).sum::<u64>() / 60;
        assert!((2 * 60..4 * 60).contains(&minutes), "{minutes} min");
    }
}
