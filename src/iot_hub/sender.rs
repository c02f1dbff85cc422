//! Sends messages as devices and reports when each is acknowledged.

use std::{
    collections::{HashSet, VecDeque},
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use tokio::time::Instant;

#[cfg(feature = "azure-iot-sdk")]
use super::azure_iot_sdk;
use super::{
    Device, Message, SendError,
    failures::{DeviceKey, Failures, Gate},
    https,
    links::{Links, Session},
    message::MAX_SIZE,
    mqtt::{Connection, Over},
    pushed::Inbox,
};
use crate::support::{
    ending::{self, Ending},
    http_client::HttpClient,
};

/// How long a token made from a device's key is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The log warns of a ready-made token that ends within this time.
const EXPIRY_NOTICE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Messages of one caller that may be in flight at once. This hides the round trip and limits how many are sent twice
/// after a cut.
const PIPELINE: usize = 16;
/// Connections that may be cut in a row without an acknowledgement for a caller while other callers have
/// acknowledgements: the hub may cut them because of one of this caller's messages.
const CUTS_IN_A_ROW: u32 = 10;
/// The sender stops waiting for a hub that acknowledges nothing for this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// If a connection had no acknowledgement for this long when the caller's time ended, it is not used again: the same
/// cause would hold back the acknowledgements of the next invocation.
const DISTRUST: Duration = Duration::from_secs(5);

/// How messages travel to the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// MQTT over TLS, port 8883: one connection for each device.
    #[default]
    Mqtt,
    /// MQTT over WebSocket over TLS, port 443.
    MqttWs,
    /// HTTPS, port 443: a few connections for all devices.
    Https,
    /// Through the crate `azure_iot_sdk`: MQTT at QoS 0, so the hub acknowledges nothing.
    #[cfg(feature = "azure-iot-sdk")]
    AzureIotSdk,
}

impl Transport {
    /// Whether the hub has acknowledged a message that counts as sent.
    #[must_use]
    pub fn confirms(self) -> bool {
        match self {
            Self::Mqtt | Self::MqttWs | Self::Https => true,
            #[cfg(feature = "azure-iot-sdk")]
            Self::AzureIotSdk => false,
        }
    }
}

/// How a [`Sender`] works.
#[derive(Clone)]
pub struct Options {
    pub transport: Transport,
    /// MQTT connections open at a time.
    pub max_connections: NonZeroUsize,
    pub http: HttpClient,
    /// How long a token made from a device's key is valid.
    pub token_lifetime: Duration,
    pub ending: Ending,
}

impl Options {
    /// Options for `transport` with the usual limits.
    #[must_use]
    pub fn new(transport: Transport, max_connections: NonZeroUsize, http: impl Into<HttpClient>) -> Self {
        Self {
            transport,
            max_connections,
            http: http.into(),
            token_lifetime: TOKEN_LIFETIME,
            ending: Ending::default(),
        }
    }
}

/// Sends the messages of all devices.
pub struct Sender {
    options: Options,
    way: OnceLock<Way>,
    failures: Failures,
    /// Devices whose token the log has warned of.
    warned: Mutex<HashSet<String>>,
    unconfirmed: AtomicU64,
}

enum Way {
    Mqtt(Links),
    Https(https::Client),
    #[cfg(feature = "azure-iot-sdk")]
    AzureIotSdk(azure_iot_sdk::Clients),
}

impl Sender {
    /// Connects when the first message is sent.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            way: OnceLock::new(),
            failures: Failures::default(),
            warned: Mutex::default(),
            unconfirmed: AtomicU64::new(0),
        }
    }

    /// Whether the hub has acknowledged a message that counts as sent.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.options.transport.confirms()
    }

    /// How many messages were in flight without an acknowledgement when their connection or their time ended, since
    /// the last call. They are sent again, so the hub may have them twice.
    pub fn take_unconfirmed(&self) -> Option<u64> {
        Some(self.unconfirmed.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
    }

    /// Whether no earlier failure holds messages of this device back.
    #[must_use]
    pub fn is_open(&self, device: &Device) -> bool {
        self.failures.gate(&DeviceKey::of(device)) == Gate::Open
    }

    /// Why nothing of the device is sent now, as far as is known.
    #[must_use]
    pub fn closed(&self, device: &Device) -> Option<SendError> {
        match self.failures.gate(&DeviceKey::of(device)) {
            Gate::Closed(error) => Some(error),
            Gate::Open | Gate::Wait(_) => None,
        }
    }

    /// Lets the hub push a device's messages into the inbox, if the device has an MQTT connection. Else nothing happens. Returns
    /// whether the connection has ended meanwhile, and must be [opened](Self::reopen) again.
    pub async fn listen(&self, inbox: Inbox) -> bool {
        match self.way.get() {
            Some(Way::Mqtt(links)) => links.listen(inbox).await,
            _ => false,
        }
    }

    /// While the result exists, the device's connection does not make room for another one.
    pub fn hold<'a>(&'a self, device: &'a Device) -> impl Sized + use<'a> {
        match self.way.get() {
            Some(Way::Mqtt(links)) => Some(links.enter(device)),
            _ => None,
        }
    }

    /// Lets the hub push a device's messages into the inbox as soon as the device connects.
    pub fn expect(&self, inbox: Inbox) {
        if let Ok(Way::Mqtt(links)) = self.way() {
            links.expect(inbox);
        }
    }

    /// Lets the hub push no more messages of the device.
    pub async fn mute(&self, device: &Device) {
        if let Some(Way::Mqtt(links)) = self.way.get() {
            links.mute(device).await;
        }
    }

    /// Whether the hub pushes the device's messages now.
    #[must_use]
    pub fn listens(&self, device: &Device) -> bool {
        matches!(self.way.get(), Some(Way::Mqtt(links)) if links.listens(device))
    }

    /// Whether the hub can push messages over the connections of this transport.
    #[must_use]
    pub fn can_listen(&self) -> bool {
        matches!(self.options.transport, Transport::Mqtt | Transport::MqttWs)
    }

    /// Connects a device again that listened until its connection ended.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn reopen(&self, device: &Device) -> Result<(), SendError> {
        match self.way.get() {
            Some(Way::Mqtt(links)) => links.reopen(device, &self.failures).await,
            _ => Ok(()),
        }
    }

    /// Disconnects all devices in order, so that the hub need not find out.
    pub async fn disconnect(&self) {
        if let Some(Way::Mqtt(links)) = self.way.get() {
            links.disconnect().await;
        }
    }

    /// Forgets earlier failures: the next message is tried at once, unless the hub itself requested a wait. Call it at
    /// the start of an invocation, so that back-offs never add up to a missed tick.
    pub fn try_again(&self) {
        self.failures.forget();
        if let Some(Way::Mqtt(links)) = self.way.get() {
            links.forget_closed();
        }
    }

    /// Like [`try_again`](Self::try_again), for a device that has a new identity.
    pub fn try_device_again(&self, device: &Device) {
        self.failures.forget_device(&DeviceKey::of(device));
    }

    /// Sends the messages in order, several of them in flight at once, and waits for their acknowledgements.
    ///
    /// Returns how many messages, counted from the first, are acknowledged, and why the others are not. A message that
    /// was cut off is sent again before any later one, as the same bytes with the same id.
    pub async fn send_in_order(
        &self,
        device: &Device,
        messages: &[Message],
        deadline: Instant,
    ) -> (usize, Result<(), SendError>) {
        self.warn_of_expiry(device);
        let mut acknowledged = 0;
        let outcome = match self.way() {
            Ok(Way::Mqtt(links)) => {
                let session = links.enter(device);
                let (began, before) = (Instant::now(), session.progress());
                let outcome = {
                    let sending = std::pin::pin!(self.send_over_mqtt(&session, messages, &mut acknowledged));
                    self.unless_stalled(sending, &session.key, || session.progress(), deadline, || session.is_queued())
                        .await
                };
                // The attempt is dropped by now, so the lock is free even if it was connecting.
                let is_fruitless = session.progress() == before && began.elapsed() >= DISTRUST;
                if outcome == Err(SendError::Stalled) || outcome.is_err() && is_fruitless {
                    session.give_up(deadline).await;
                }
                outcome
            }
            Ok(Way::Https(client)) => {
                let (key, progress) = (DeviceKey::of(device), AtomicU64::new(0));
                let sending = self.send_over_https(client, device, &key, messages, &mut acknowledged, &progress);
                let sending = std::pin::pin!(sending);
                self.unless_stalled(sending, &key, || progress.load(Ordering::Relaxed), deadline, || false).await
            }
            #[cfg(feature = "azure-iot-sdk")]
            Ok(Way::AzureIotSdk(clients)) => {
                let key = DeviceKey::of(device);
                let sending = self.send_unconfirmed(clients, device, &key, messages, &mut acknowledged);
                tokio::time::timeout_at(deadline, sending).await.unwrap_or(Err(SendError::TimedOut))
            }
            Err(error) => Err(error),
        };
        (acknowledged, outcome)
    }

    fn way(&self) -> Result<&Way, SendError> {
        if let Some(way) = self.way.get() {
            return Ok(way);
        }
        let Options { transport, max_connections, http, token_lifetime, .. } = &self.options;
        let tls = http.tls().map_err(SendError::Untrusted)?;
        let mqtt = |over| Way::Mqtt(Links::new(over, tls.clone(), *max_connections, *token_lifetime));
        let way = match transport {
            Transport::Mqtt => mqtt(Over::Tcp),
            Transport::MqttWs => mqtt(Over::WebSocket),
            Transport::Https => Way::Https(https::Client::new(http.clone())),
            #[cfg(feature = "azure-iot-sdk")]
            Transport::AzureIotSdk => Way::AzureIotSdk(azure_iot_sdk::Clients::default()),
        };
        // Another caller may have been faster: its result is as good.
        Ok(self.way.get_or_init(|| way))
    }

    /// Waits for `sending` until the deadline, or until the hub has acknowledged nothing of this device for
    /// [`PATIENCE`]. Time in which the device `is_excused` does not count.
    async fn unless_stalled(
        &self,
        mut sending: Pin<&mut impl Future<Output = Result<(), SendError>>>,
        key: &DeviceKey,
        progress: impl Fn() -> u64,
        deadline: Instant,
        is_excused: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        loop {
            let before = progress();
            let patience = Instant::now() + PATIENCE;
            let sent = tokio::select! {
                biased;
                sent = tokio::time::timeout_at(deadline.min(patience), sending.as_mut()) => sent,
                () = self.options.ending.after(ending::SENDING) => return Err(SendError::TimedOut),
            };
            match sent {
                Ok(outcome) => return outcome,
                Err(_) if Instant::now() >= deadline => {
                    return Err(self.failures.contest(key).unwrap_or(SendError::TimedOut));
                }
                Err(_) => {}
            }
            if progress() == before && !is_excused() {
                return Err(self.failures.stalled(key));
            }
        }
    }

    async fn send_over_mqtt(
        &self,
        session: &Session<'_>,
        messages: &[Message],
        acknowledged: &mut usize,
    ) -> Result<(), SendError> {
        let mut cuts = 0;
        while *acknowledged < messages.len() {
            let connection = session.connection(&self.failures).await?;
            let before = *acknowledged;
            match self.pipeline(session, &connection, messages, acknowledged).await {
                Ok(()) => {}
                Err(error) if error.condemns_message() => return Err(error),
                // The gate decides whether and when to try again.
                Err(SendError::AcceptedThenCut { .. }) => {}
                Err(error) => {
                    cuts = if *acknowledged > before { 0 } else { cuts + 1 };
                    if cuts >= CUTS_IN_A_ROW {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends from the first unacknowledged message on over one connection, with at most [`PIPELINE`] in flight.
    async fn pipeline(
        &self,
        session: &Session<'_>,
        connection: &Connection,
        messages: &[Message],
        acknowledged: &mut usize,
    ) -> Result<(), SendError> {
        let mut on_their_way = VecDeque::with_capacity(PIPELINE);
        let mut next = *acknowledged;
        let mut unconfirmed = Unconfirmed { count: 0, total: &self.unconfirmed };
        loop {
            // Splitting a poll already finds a message that is too large. Sending it would block the connection for
            // ever.
            while next < messages.len() && on_their_way.len() < PIPELINE && messages[next].size() <= MAX_SIZE {
                match connection.publish(&messages[next], on_their_way.is_empty()).await? {
                    Some(pending) => on_their_way.push_back(pending),
                    None => break,
                }
                next += 1;
                unconfirmed.count += 1;
            }
            let Some(pending) = on_their_way.pop_front() else {
                return messages.get(next).map_or(Ok(()), |message| Err(SendError::too_large(message.size())));
            };
            pending.acknowledged().await?;
            *acknowledged += 1;
            unconfirmed.count -= 1;
            session.acknowledged();
            self.failures.acknowledged(&session.key);
        }
    }

    async fn send_over_https(
        &self,
        client: &https::Client,
        device: &Device,
        key: &DeviceKey,
        messages: &[Message],
        acknowledged: &mut usize,
        progress: &AtomicU64,
    ) -> Result<(), SendError> {
        // After the hub refused a batch, its messages go one by one: only one of them may be at fault.
        let mut one_by_one = 0;
        while *acknowledged < messages.len() {
            self.wait_at_the_gate(key).await?;
            let most = if *acknowledged < one_by_one { 1 } else { PIPELINE };
            let (count, batch) = https::batch(&messages[*acknowledged..], most)?;
            let began = Instant::now();
            let mut unconfirmed = Unconfirmed { count: count as u64, total: &self.unconfirmed };
            let sent = match device.token(Utc::now(), self.options.token_lifetime) {
                Ok((token, _)) => client.send(device, &token, batch).await,
                Err(error) => Err(error),
            };
            // Any answer is a decision. Only without an answer the outcome is unknown.
            if !matches!(sent, Err(SendError::Cut)) {
                unconfirmed.count = 0;
            }
            match sent {
                Ok(()) => {
                    *acknowledged += count;
                    progress.fetch_add(1, Ordering::Relaxed);
                    self.failures.acknowledged(key);
                }
                Err(error) if error.may_be_one_message() && count == 1 => {
                    return Err(self.failures.judge(key, error));
                }
                Err(error) if error.may_be_one_message() => one_by_one = *acknowledged + count,
                Err(error) => self.failures.failed(key, &error, began),
            }
        }
        Ok(())
    }

    #[cfg(feature = "azure-iot-sdk")]
    async fn send_unconfirmed(
        &self,
        clients: &azure_iot_sdk::Clients,
        device: &Device,
        key: &DeviceKey,
        messages: &[Message],
        sent: &mut usize,
    ) -> Result<(), SendError> {
        while let Some(message) = messages.get(*sent) {
            if message.size() > MAX_SIZE {
                return Err(SendError::too_large(message.size()));
            }
            self.wait_at_the_gate(key).await?;
            let began = Instant::now();
            let outcome = match device.token(Utc::now(), self.options.token_lifetime) {
                Ok((token, _)) => clients.send(device, token, message).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {
                    *sent += 1;
                    self.failures.acknowledged(key);
                }
                Err(error) => self.failures.failed(key, &error, began),
            }
        }
        Ok(())
    }

    /// Waits as long as an earlier failure requires.
    async fn wait_at_the_gate(&self, key: &DeviceKey) -> Result<(), SendError> {
        loop {
            match self.failures.gate(key) {
                Gate::Open => return Ok(()),
                Gate::Wait(until) => tokio::time::sleep_until(until).await,
                Gate::Closed(error) => return Err(error),
            }
        }
    }

    /// Warns once of a ready-made token that ends soon.
    fn warn_of_expiry(&self, device: &Device) {
        if device.can_renew() {
            return;
        }
        let Ok((_, left)) = device.token(Utc::now(), Duration::ZERO) else { return };
        if left < EXPIRY_NOTICE && self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(device.id.clone())
        {
            let at = Utc::now() + left;
            tracing::warn!(
                device.id = device.id,
                "the token in IoTHubSharedAccessSignature ends at {at}: replace it before, or set IoTHubDeviceKey"
            );
        }
    }
}

/// Messages in flight. If some are left when this is dropped (sending failed, or its time ended), their outcome is
/// unknown.
struct Unconfirmed<'a> {
    count: u64,
    total: &'a AtomicU64,
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        self.total.fetch_add(self.count, Ordering::Relaxed);
    }
}

impl From<Transport> for &'static str {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Mqtt => "mqtt",
            Transport::MqttWs => "mqtt-ws",
            Transport::Https => "https",
            #[cfg(feature = "azure-iot-sdk")]
            Transport::AzureIotSdk => "azure-iot-sdk",
        }
    }
}
