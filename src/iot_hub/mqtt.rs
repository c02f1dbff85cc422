//! Carries one device's telemetry to the hub over one MQTT connection, from CONNECT to its end. It never reconnects:
//! [`super::Sender`] decides that.
//!
//! Commands (cloud-to-device messages) come over it only while somebody [listens](Connection::listen); else they are fetched
//! over HTTPS ([`super::Devicebound`]). The session outlives its connections, so another client may have subscribed in it.
//! Messages that the hub pushes because of that are left unacknowledged: the hub takes them back after a minute.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rumqttc::{
    AckMode, AsyncClient, Broker, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    Packet, Publish, PublishNotice, PublishOptions, QoS, SessionMode, SubAck, SubscribeReasonCode, TlsConfiguration,
    Transport,
};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use super::{
    Device, Endpoint, SendError,
    message::{MAX_SIZE, Message},
    pushed::{Arrival, Inbox, Pushed},
};
use crate::support::http;

/// The user name requests this version of the device API.
pub const API_VERSION: &str = "2021-04-12";
/// For TCP, TLS and CONNACK together. Shorter than the sender's patience, so that an unreachable hub is reported as
/// unreachable, not as stalled.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Azure's load balancers drop a silent connection after four minutes. This must be shorter.
const KEEP_ALIVE_SECONDS: u16 = 60;
/// Messages in flight over all sites. Further messages are pending in their sender, not in a queue here.
const IN_FLIGHT: u16 = 100;
/// Room for the topic: it holds the percent-encoded property bag of a legal message.
const TOPIC_ROOM: usize = 16 * 1024;

/// What carries MQTT. TLS is used in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Tcp,
    /// For networks that allow only HTTPS to leave.
    WebSocket,
}

impl Over {
    fn port(self) -> u16 {
        match self {
            Self::Tcp => 8883,
            Self::WebSocket => 443,
        }
    }
}

/// Everything that a connection needs to log in.
pub struct Login<'a> {
    pub device: &'a Device,
    pub token: &'a SecretString,
    pub over: Over,
    pub tls: Arc<ClientConfig>,
}

/// An established connection.
pub struct Connection {
    client: AsyncClient,
    device: String,
    opened: Instant,
    in_flight: Arc<Semaphore>,
    ended: watch::Receiver<Option<SendError>>,
    acknowledged: Arc<AtomicU64>,
    commands: Arc<Commands>,
    driver: tokio::task::JoinHandle<()>,
}

/// What a connection has to do with the device's commands.
#[derive(Default)]
struct Commands {
    /// Who gets what the hub pushes, while somebody listens.
    inbox: Mutex<Option<Inbox>>,
    /// Whether the connection has asked for them.
    are_wanted: AtomicBool,
    /// Whether the hub has granted that.
    are_granted: AtomicBool,
    /// Whether the hub has refused it.
    are_refused: AtomicBool,
}

impl Commands {
    fn of(inbox: Option<Inbox>) -> Self {
        Self { are_wanted: AtomicBool::new(inbox.is_some()), inbox: Mutex::new(inbox), ..Self::default() }
    }

    fn inbox(&self) -> MutexGuard<'_, Option<Inbox>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub's answer to a subscription.
    fn answered(&self, answer: &SubAck) {
        if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
            self.are_refused.store(true, Ordering::Relaxed);
            self.inbox().take();
        } else {
            self.are_granted.store(true, Ordering::Relaxed);
        }
    }
}

/// A message in flight.
pub struct Pending {
    notice: PublishNotice,
    ended: watch::Receiver<Option<SendError>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects and waits for the hub's answer. With an inbox, it listens from the beginning: no message that the hub pushes
    /// in a session that it has kept is missed.
    ///
    /// # Errors
    /// Why there is no connection, in words for the user.
    pub async fn open(login: Login<'_>, inbox: Option<Inbox>) -> Result<Self, SendError> {
        let opened = Instant::now();
        let port = login.device.endpoint.port.unwrap_or(login.over.port());
        let place = Endpoint { port: Some(port), ..login.device.endpoint.clone() };
        let (client, mut events) =
            AsyncClient::builder(options(&login, &place)?).capacity(usize::from(IN_FLIGHT)).build();
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(TIMEOUT.as_secs());
        events.set_network_options(network);

        let connected = tokio::time::timeout(TIMEOUT, await_connack(&mut events)).await;
        match connected {
            Ok(Ok(Session::New)) => {}
            // Does not wait: messages that arrive before the hub has unsubscribed stay unacknowledged anyway.
            Ok(Ok(Session::Kept)) => {
                let mut unwanted = SUBSCRIPTIONS.map(str::to_owned).to_vec();
                if inbox.is_none() {
                    unwanted.push(commands(&login.device.id));
                }
                client.try_unsubscribe_many(unwanted).map_err(|_| SendError::Cut)?;
            }
            Ok(Err(error)) => return Err(explain_connect(&error, &place, &login)),
            Err(_) => {
                return Err(no_answer(&place, login.over));
            }
        }
        if inbox.is_some() {
            client.try_subscribe(commands(&login.device.id), QoS::AtLeastOnce).map_err(|_| SendError::Cut)?;
        }
        let (ended_here, ended) = watch::channel(None);
        let (acknowledged, commands) = (Arc::new(AtomicU64::new(0)), Arc::new(Commands::of(inbox)));
        let device = login.device.id.clone();
        let driver = Driver {
            client: client.clone(),
            opened,
            ended: ended_here,
            acknowledged: acknowledged.clone(),
            commands: commands.clone(),
            device: device.clone(),
        };
        let driver = tokio::spawn(driver.drive(events));
        Ok(Self {
            client,
            device,
            opened,
            in_flight: Arc::new(Semaphore::new(usize::from(IN_FLIGHT))),
            ended,
            acknowledged,
            commands,
            driver,
        })
    }

    /// Lets the hub push the device's messages into the inbox. Nothing is acknowledged by itself.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn listen(&self, inbox: Inbox) -> Result<(), SendError> {
        *self.commands.inbox() = Some(inbox);
        self.commands.are_wanted.store(true, Ordering::Relaxed);
        let subscribing = self.client.subscribe(commands(&self.device), QoS::AtLeastOnce);
        let subscribed = tokio::time::timeout(TIMEOUT, subscribing).await;
        if matches!(subscribed, Ok(Ok(_))) { Ok(()) } else { Err(self.end().unwrap_or(SendError::Cut)) }
    }

    /// Lets the hub push no more. What comes until it knows is left unacknowledged.
    pub async fn mute(&self) {
        *self.commands.inbox() = None;
        // An error means that the connection has ended. If it hangs, it ends soon.
        let _ = tokio::time::timeout(TIMEOUT, self.client.unsubscribe(commands(&self.device))).await;
    }

    /// Whether the hub pushes the device's messages.
    pub fn listens(&self) -> bool {
        self.commands.inbox().is_some() && self.end().is_none()
    }

    /// Whether the hub has granted a subscription to the device's messages.
    pub fn has_listened(&self) -> bool {
        self.commands.are_granted.load(Ordering::Relaxed)
    }

    /// Whether the hub does not grant a subscription: it says so, or it has cut the connection instead of an answer.
    /// Hubs of the Basic tier have no messages to devices.
    pub fn refuses_commands(&self) -> bool {
        let is_cut = || self.end().is_some() && !self.has_listened();
        self.commands.are_refused.load(Ordering::Relaxed)
            || self.commands.are_wanted.load(Ordering::Relaxed) && is_cut()
    }

    /// Why the connection has ended, if it has.
    pub fn end(&self) -> Option<SendError> {
        self.ended.borrow().clone()
    }

    /// Why the connection has ended, if it ends within `patience`.
    pub async fn end_within(&self, patience: Duration) -> Option<SendError> {
        let mut ended = self.ended.clone();
        let ended = tokio::time::timeout(patience, ended.wait_for(Option::is_some)).await;
        ended.ok().and_then(Result::ok).and_then(|error| error.clone())
    }

    /// When connecting began.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// How many messages and subscriptions the hub has acknowledged on this connection.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Hands a message to the connection. Messages leave in the order of these calls. Returns `None` if too many are
    /// in flight and `waits` is false. A caller with messages in flight must not wait here: callers that hold slots
    /// and wait for more would block each other for ever.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn publish(&self, message: &Message, waits: bool) -> Result<Option<Pending>, SendError> {
        let slot = match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) if !waits => return Ok(None),
            Err(_) => Arc::clone(&self.in_flight).acquire_owned().await.map_err(|_| SendError::Cut)?,
        };
        let published = self
            .client
            .publish_tracked(message.topic(&self.device), message.body.clone(), PublishOptions::at_least_once())
            .await;
        match published {
            Ok(notice) => Ok(Some(Pending { notice, ended: self.ended.clone(), _slot: slot })),
            Err(_) => Err(self.end().unwrap_or(SendError::Cut)),
        }
    }

    /// Waits until all messages in flight are acknowledged, at most `patience`, then ends the connection.
    pub async fn drain(&self, patience: Duration) {
        let all = u32::from(IN_FLIGHT);
        let _drained = tokio::time::timeout(patience, self.in_flight.acquire_many(all)).await;
        let _sent = self.client.disconnect().await;
        let mut ended = self.ended.clone();
        let _over = tokio::time::timeout(patience, ended.wait_for(Option::is_some)).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Pending {
    /// Resolves when the hub has acknowledged exactly this message.
    ///
    /// # Errors
    /// The connection ended first. The hub may or may not have the message.
    pub async fn acknowledged(self) -> Result<(), SendError> {
        match self.notice.wait_async().await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.ended.borrow().clone().unwrap_or(SendError::Cut)),
        }
    }
}

fn options(login: &Login<'_>, place: &Endpoint) -> Result<MqttOptions, SendError> {
    let (device, port) = (login.device, place.port.unwrap_or(login.over.port()));
    let tls = TlsConfiguration::Rustls(login.tls.clone());
    let mut options = match login.over {
        Over::Tcp => {
            let mut options = MqttOptions::new(&device.id, Broker::tcp(place.host.clone(), port));
            options.set_transport(Transport::Tls(tls));
            options
        }
        Over::WebSocket => {
            let url = format!("wss://{}:{port}/$iothub/websocket?iothub-no-client-cert=true", place.host);
            MqttOptions::websocket_with_tls_config(&device.id, url, tls)
                .map_err(|error| SendError::Unreachable(format!("{place}: {error}")))?
        }
    };
    options
        .set_credentials(
            format!("{}/{}/?api-version={API_VERSION}", device.hub_host, device.id),
            login.token.expose_secret().to_owned(),
        )
        .set_keep_alive(KEEP_ALIVE_SECONDS)
        // A clean session would drop the cloud-to-device messages that are pending for the device.
        .set_session_mode(SessionMode::Persistent)
        // An automatic acknowledgement would complete a message that nothing has processed.
        .set_ack_mode(AckMode::Manual)
        .set_max_packet_size(MAX_SIZE + TOPIC_ROOM, MAX_SIZE + TOPIC_ROOM)
        .set_inflight(IN_FLIGHT);
    Ok(options)
}

/// Whether the hub's session can have subscriptions.
enum Session {
    New,
    Kept,
}

async fn await_connack(events: &mut EventLoop) -> Result<Session, ConnectionError> {
    loop {
        if let Event::Incoming(Packet::ConnAck(connack)) = events.poll().await? {
            return Ok(if connack.session_present { Session::Kept } else { Session::New });
        }
    }
}

/// The topics that a device can subscribe to beside its [`commands`].
const SUBSCRIPTIONS: [&str; 3] =
    ["$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/twin/res/#"];

/// The topic of the device's cloud-to-device messages.
fn commands(device: &str) -> String {
    format!("devices/{device}/messages/devicebound/#")
}

/// The task that drives a connection.
struct Driver {
    client: AsyncClient,
    opened: Instant,
    ended: watch::Sender<Option<SendError>>,
    acknowledged: Arc<AtomicU64>,
    commands: Arc<Commands>,
    device: String,
}

impl Driver {
    /// Moves bytes until the connection ends, then reports why. The sender sends again the messages that are
    /// unacknowledged by then.
    async fn drive(self, mut events: EventLoop) {
        let error = loop {
            match events.poll().await {
                // A hub that has used up its quota answers neither.
                Ok(Event::Incoming(Packet::PubAck(_))) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.commands.answered(&answer);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.pushed(publish).await,
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        tracing::debug!(device.id = self.device, failure.text = %error, "the connection to the hub ended");
        let fruitful = self.acknowledged.load(Ordering::Relaxed) > 0;
        let reason = if fruitful { SendError::Cut } else { SendError::AcceptedThenCut { device: self.device } };
        // Report the end before the event loop is dropped: dropping it wakes all callers that wait for an acknowledgement.
        self.ended.send_replace(Some(reason));
        let inbox = self.commands.inbox().take();
        if let Some(Inbox { device, arrivals }) = inbox {
            // An error means that the process ends.
            let _ = arrivals.send(Arrival::Ended(device, self.opened.elapsed())).await;
        }
    }

    /// Hands a pushed message on, or leaves it unacknowledged. Whoever takes arrivals does no I/O before the next one, so
    /// this does not hold the connection up.
    async fn pushed(&self, publish: Publish) {
        let inbox = self.commands.inbox().clone();
        let Some(Inbox { device, arrivals }) = inbox.filter(|_| publish.qos != QoS::AtMostOnce) else {
            return leave(&publish, &self.device);
        };
        let pushed = Pushed::new(device, publish, self.client.clone(), self.ended.subscribe());
        // An error means that the process ends.
        let _ = arrivals.send(Arrival::Message(Box::new(pushed))).await;
    }
}

/// Leaves a pushed message unacknowledged.
fn leave(publish: &Publish, device: &str) {
    if publish.qos == QoS::AtMostOnce {
        tracing::warn!(
            device.id = device,
            "a message to the device came at QoS 0 and is lost: another client has subscribed as this device. The \
             subscription is removed"
        );
    } else {
        tracing::debug!(device.id = device, "a message to the device came over MQTT and is left to the hub");
    }
}

fn no_answer(place: &Endpoint, over: Over) -> SendError {
    let hint = match over {
        Over::Tcp => "; if its port is closed on the way, IoTHubTransport=mqtt-ws uses 443",
        Over::WebSocket => "",
    };
    SendError::Unreachable(format!("{place} did not answer within {} s{hint}", TIMEOUT.as_secs()))
}

fn explain_connect(error: &ConnectionError, place: &Endpoint, login: &Login<'_>) -> SendError {
    let device = &login.device.id;
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => {
            SendError::Unreachable(format!("{place} says that it is unavailable"))
        }
        // Return code 5 is the hub's only answer to a bad login, whatever the cause.
        ConnectionError::ConnectionRefused(_) => SendError::Refused { device: device.clone() },
        ConnectionError::Tls(error) => explain_tls(&error.to_string(), place),
        ConnectionError::Io(error) => match tls_error(error) {
            Some(error) => explain_tls(&error.to_string(), place),
            None => SendError::Unreachable(format!("{place}: {error}")),
        },
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => no_answer(place, login.over),
        other => SendError::Unreachable(format!("{place}: {other}")),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

fn explain_tls(error: &str, place: &Endpoint) -> SendError {
    if http::is_untrusted(error) {
        SendError::Untrusted(format!("{place}: {error}"))
    } else {
        SendError::Unreachable(format!("{place}: {error}"))
    }
}
