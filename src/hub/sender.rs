//! Sends messages and says when each is acknowledged. Keeps one connection open between invocations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Mutex, time::Instant};

use super::{
    Message,
    message::MAX_SIZE,
    mqtt::{Connection, Login},
    sas, tls,
};
use crate::{
    config::hub::{Config, Credential},
    retry,
};

/// How long a token made from the device's key holds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A ready token that ends within this time is warned of.
const EXPIRY_NOTICE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Messages of one site that may be on their way at once: hides the round trip, bounds what is sent twice after a cut.
const PIPELINE: usize = 16;
/// Connections that may fail between two calls of [`Sender::try_again`] before everyone is told at once that the hub is
/// away.
const ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(100);
/// A hub that acknowledges nothing for this long is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a renewal waits for outstanding acknowledgements.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a message is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the message has {size} bytes, the hub takes {MAX_SIZE}")]
    TooLarge { size: usize },
    #[error(
        "the hub refused device {device}: the token or key is wrong or has expired, or the device is unknown or disabled"
    )]
    Refused { device: String },
    #[error("the token of device {device} expired at {at}: replace it by a new one (IoTHubSharedAccessSignature)")]
    TokenExpired { device: String, at: DateTime<Utc> },
    #[error("the hub's certificate is not trusted ({0}): set IoTHubTrustedCa to the PEM file of its authority")]
    Untrusted(String),
    #[error("the hub cannot be reached ({0})")]
    Unreachable(String),
    #[error("the hub cut the connection before it acknowledged the message")]
    Cut,
    #[error(
        "the hub accepted the connection and cut it before it acknowledged anything: \
         its daily quota is used up, or another client uses the same device id"
    )]
    AcceptedThenCut,
    #[error("the hub did not acknowledge in time")]
    TimedOut,
    #[error("the hub has acknowledged nothing for {} s: it is overloaded, or something on the way swallows what is sent", PATIENCE.as_secs())]
    Stalled,
}

impl SendError {
    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "hub_message_too_large",
            Self::Refused { .. } => "hub_refused",
            Self::TokenExpired { .. } => "hub_token_expired",
            Self::Untrusted(_) => "hub_untrusted",
            Self::Unreachable(_) => "hub_unreachable",
            Self::Cut => "hub_cut",
            Self::AcceptedThenCut => "hub_accepted_then_cut",
            Self::TimedOut => "hub_timeout",
            Self::Stalled => "hub_stalled",
        }
    }

    /// Whether trying again at once could help.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Cut | Self::AcceptedThenCut)
    }
}

/// The way to the hub for one device.
pub struct Sender {
    config: Config,
    token_lifetime: Duration,
    link: Mutex<Link>,
    /// Acknowledgements so far, over all connections.
    progress: AtomicU64,
}

struct Link {
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Open>,
    failure: Option<Failure>,
    warned_of_expiry: bool,
}

#[derive(Clone)]
struct Open {
    connection: Arc<Connection>,
    /// When to replace the connection, because its token ends soon after.
    renew_at: Option<SystemTime>,
}

struct Failure {
    error: SendError,
    attempts: u32,
    wait_until: Instant,
}

impl Sender {
    /// Connects when the first message is sent.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_token_lifetime(config, TOKEN_LIFETIME)
    }

    /// As [`new`](Self::new), with tokens that hold for `token_lifetime`.
    #[must_use]
    pub fn with_token_lifetime(config: Config, token_lifetime: Duration) -> Self {
        let link = Link { tls: None, connection: None, failure: None, warned_of_expiry: false };
        Self { config, token_lifetime, link: Mutex::new(link), progress: AtomicU64::new(0) }
    }

    /// The device that sends.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.config.device
    }

    /// Forgets earlier failures to connect: the next message tries at once. For the start of an invocation, so that the
    /// waits between attempts never add up to a missed tick.
    pub async fn try_again(&self) {
        self.link.lock().await.failure = None;
    }

    /// Sends the messages in order, some of them at once, and waits for their acknowledgements.
    ///
    /// Returns how many, counted from the first, are acknowledged, and why it is not all of them. A message that was cut
    /// off is sent again, the same bytes with the same id, and before any later one.
    pub async fn send_in_order(&self, messages: &[Message], deadline: Instant) -> (usize, Result<(), SendError>) {
        let mut acknowledged = 0;
        let outcome = {
            let sending = std::pin::pin!(self.send_all(messages, &mut acknowledged));
            self.unless_stalled(sending, deadline).await
        };
        // What was under way is dropped by now: had it been connecting, the lock is free again.
        if outcome == Err(SendError::Stalled)
            && let Ok(mut link) = tokio::time::timeout_at(deadline, self.link.lock()).await
        {
            link.stalled();
        }
        (acknowledged, outcome)
    }

    /// Waits for `sending` until the deadline, or until the hub has acknowledged nothing at all for [`PATIENCE`].
    async fn unless_stalled(
        &self,
        mut sending: std::pin::Pin<&mut impl Future<Output = Result<(), SendError>>>,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let mut before = self.progress.load(Ordering::Relaxed);
        loop {
            let patience = Instant::now() + PATIENCE;
            match tokio::time::timeout_at(deadline.min(patience), sending.as_mut()).await {
                Ok(outcome) => return outcome,
                Err(_) if Instant::now() >= deadline => return Err(SendError::TimedOut),
                Err(_) => {}
            }
            let now = self.progress.load(Ordering::Relaxed);
            if now == before {
                return Err(SendError::Stalled);
            }
            before = now;
        }
    }

    async fn send_all(&self, messages: &[Message], acknowledged: &mut usize) -> Result<(), SendError> {
        let mut cuts = 0;
        while *acknowledged < messages.len() {
            let connection = self.connection().await?;
            let before = *acknowledged;
            match pipeline(&connection, messages, acknowledged, &self.progress).await {
                Ok(()) => {}
                Err(error @ SendError::TooLarge { .. }) => return Err(error),
                Err(error) => {
                    cuts = if *acknowledged > before { 0 } else { cuts + 1 };
                    if cuts >= ATTEMPTS {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// The open connection, or a new one. Everyone who needs one waits here while one of them makes it.
    async fn connection(&self) -> Result<Arc<Connection>, SendError> {
        loop {
            let wait_until = {
                let mut link = self.link.lock().await;
                if let Some(connection) = link.usable().await {
                    return Ok(connection);
                }
                match &link.failure {
                    Some(failure) if Instant::now() < failure.wait_until => {
                        if failure.attempts >= ATTEMPTS || !failure.error.is_passing() {
                            return Err(failure.error.clone());
                        }
                        failure.wait_until
                    }
                    _ => match self.connect(&mut link).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => {
                            link.failed(error);
                            continue;
                        }
                    },
                }
            };
            tokio::time::sleep_until(wait_until).await;
        }
    }

    async fn connect(&self, link: &mut Link) -> Result<Arc<Connection>, SendError> {
        let tls = match &link.tls {
            Some(tls) => tls.clone(),
            None => {
                let tls = tls::client_config(&self.config.trusted_ca).map_err(SendError::Untrusted)?;
                link.tls.insert(tls).clone()
            }
        };
        let (token, renew_at) = self.token(link)?;
        let config = &self.config;
        let login =
            Login { hub_host: &config.host, endpoint: &config.endpoint, device: &config.device, token: &token, tls };
        let connection = Arc::new(Connection::open(login).await?);
        tracing::info!(hub = %config.host, device = %config.device, "connected to IoT Hub");
        link.connection = Some(Open { connection: connection.clone(), renew_at });
        Ok(connection)
    }

    /// A token, and when to renew it; a ready one cannot be renewed.
    fn token(&self, link: &mut Link) -> Result<(SecretString, Option<SystemTime>), SendError> {
        match &self.config.credential {
            Credential::Key(key) => {
                let now = SystemTime::now();
                let resource = sas::device_resource(&self.config.host, &self.config.device);
                let token = sas::mint(&resource, key.expose_secret(), DateTime::from(now + self.token_lifetime), None);
                Ok((token, Some(now + self.token_lifetime.mul_f64(0.8))))
            }
            Credential::Token(token) => {
                if let Some(at) = sas::expiry(token.expose_secret()) {
                    let left = at - Utc::now();
                    if left <= chrono::TimeDelta::zero() {
                        return Err(SendError::TokenExpired { device: self.config.device.clone(), at });
                    }
                    if left.to_std().is_ok_and(|left| left < EXPIRY_NOTICE) && !link.warned_of_expiry {
                        link.warned_of_expiry = true;
                        tracing::warn!(
                            "the token in IoTHubSharedAccessSignature ends at {at}: replace it before, or set IoTHubDeviceKey"
                        );
                    }
                }
                Ok((token.clone(), None))
            }
        }
    }
}

impl Link {
    /// The connection, if it is alive and its token not about to end.
    async fn usable(&mut self) -> Option<Arc<Connection>> {
        let open = self.connection.as_ref()?;
        if let Some(end) = open.connection.end() {
            let fruitful = open.connection.acknowledged() > 0;
            self.connection = None;
            if fruitful {
                // It has worked: reconnect at once.
                self.failure = None;
            } else {
                self.failed(end);
            }
            return None;
        }
        if open.renew_at.is_some_and(|at| SystemTime::now() >= at) {
            let old = self.connection.take()?;
            // Everyone else waits for the lock, so that nothing new is sent on the old connection.
            old.connection.drain(DRAIN).await;
            return None;
        }
        Some(open.connection.clone())
    }

    /// Gives the connection up; everyone else is told at once, until [`Sender::try_again`].
    fn stalled(&mut self) {
        self.connection = None;
        let wait_until = Instant::now() + LONGEST_WAIT;
        self.failure = Some(Failure { error: SendError::Stalled, attempts: ATTEMPTS, wait_until });
    }

    fn failed(&mut self, error: SendError) {
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
        tracing::debug!(kind = error.kind(), attempts, "{error}");
        let wait = retry::full_jitter(attempts, FIRST_WAIT, LONGEST_WAIT);
        self.failure = Some(Failure { error, attempts, wait_until: Instant::now() + wait });
    }
}

/// Sends from the first unacknowledged message on, with at most [`PIPELINE`] on their way, over one connection.
async fn pipeline(
    connection: &Connection,
    messages: &[Message],
    acknowledged: &mut usize,
    progress: &AtomicU64,
) -> Result<(), SendError> {
    let mut on_their_way = std::collections::VecDeque::with_capacity(PIPELINE);
    let mut next = *acknowledged;
    loop {
        // One that is too large is found when a poll is split; sent all the same, it would block the connection for ever.
        while next < messages.len() && on_their_way.len() < PIPELINE && messages[next].size() <= MAX_SIZE {
            on_their_way.push_back(connection.publish(&messages[next]).await?);
            next += 1;
        }
        let Some(pending) = on_their_way.pop_front() else {
            return messages.get(next).map_or(Ok(()), |message| Err(SendError::TooLarge { size: message.size() }));
        };
        pending.acknowledged().await?;
        *acknowledged += 1;
        progress.fetch_add(1, Ordering::Relaxed);
    }
}
