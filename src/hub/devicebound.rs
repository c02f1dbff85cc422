//! Messages from the cloud to a device, fetched over HTTPS, whatever telemetry goes over.
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>
//!
//! A message that is fetched is locked for a minute. Within that time it is completed, rejected or abandoned; else it comes
//! again, up to ten times in all. So does one whose answer is lost on the way.
//!
//! Hubs allow S1 and S2 16.67 fetches a second for each unit, S3 833: more are throttled.
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling>

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chrono::Utc;
use percent_encoding::utf8_percent_encode;
use reqwest::{
    Method, Response, StatusCode,
    header::{ETAG, HeaderMap, IF_MATCH},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{Device, Endpoint, SendError, client_config, rest, sas::RESERVED};
use crate::{http, retry};

/// Largest body of a message to a device, in bytes.
pub const MAX_CLOUD_MESSAGE: usize = 64 * 1024;
/// Requests under way at once, and connections kept open, over all devices.
const CONCURRENCY: usize = 32;
/// Each request has a token of its own: making one takes microseconds. The time is for clocks that are slow.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A wait that a hub asks for is kept up to this; what asks for more is not a hub that is throttling.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);
/// A hub that does not say for how long it wants to be left alone, or does not answer, is left alone for so long, doubling
/// each time: messages to devices are not worth holding up telemetry.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// A fetch may take this long.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const PATH: &str = "messages/devicebound";
/// Begins the name of a header that holds an application property.
const PROPERTY: &str = "iothub-app-";

/// A message to a device, locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudMessage {
    pub message_id: Option<String>,
    /// Of all messages to the device, the how-manieth, if the hub says so.
    pub sequence_number: Option<u64>,
    /// How often it was fetched, this time included.
    pub delivery_count: u32,
    pub content_type: Option<String>,
    /// Application properties. Their names are in lower case: over HTTPS they are names of headers, which have no case. Their
    /// values are as the hub has them; as in Microsoft's SDKs, nothing is decoded.
    pub properties: BTreeMap<String, String>,
    /// At most [`MAX_CLOUD_MESSAGE`].
    pub body: Bytes,
    lock: String,
}

impl CloudMessage {
    /// Everything but the body, from the headers of the hub's answer.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Self {
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let get = |name: &str| headers.get(name).map(text);
        let properties =
            headers.iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix(PROPERTY)?, value)));
        Self {
            message_id: get("iothub-messageid"),
            sequence_number: get("iothub-sequencenumber").and_then(|number| number.parse().ok()),
            delivery_count: get("iothub-deliverycount").and_then(|count| count.parse().ok()).unwrap_or(1),
            content_type: get("iothub-contenttype"),
            properties: properties.map(|(name, value)| (name.to_owned(), text(value))).collect(),
            body: Bytes::new(),
            lock: get(ETAG.as_str()).map(|etag| etag.trim_matches('"').to_owned()).unwrap_or_default(),
        }
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is done, and gone.
    Complete,
    /// It comes again.
    Abandon,
    /// It can never be done, and is gone; who sent it is told, if they asked for it.
    Reject,
}

/// Why there is no message, or why it is not settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceboundError {
    /// It is not known whether the hub settled it before: the lock is over, or the first answer was lost.
    #[error("the hub no longer has the message to device {device} locked: it comes again, unless it is done")]
    LockLost { device: String },
    #[error("what came as a message to device {device} is none: {why}")]
    Unusable { device: String, why: String },
    #[error(transparent)]
    Hub(#[from] SendError),
}

impl DeviceboundError {
    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LockLost { .. } => "c2d_lock_lost",
            Self::Unusable { .. } => "c2d_unusable",
            Self::Hub(error) => error.kind(),
        }
    }
}

/// The way from the cloud to all devices.
pub struct Devicebound {
    trusted_ca: Vec<CertificateDer<'static>>,
    /// Made with the first request: reading the platform's certificates takes its time.
    client: OnceLock<rest::Client>,
    under_way: Semaphore,
    /// Hubs that are left alone.
    pauses: Mutex<HashMap<Endpoint, Pause>>,
}

struct Pause {
    error: SendError,
    failures: u32,
    until: Instant,
    /// It was over, and somebody asks the hub again: the others wait for what it comes to.
    is_tried: bool,
}

impl Devicebound {
    /// Does not connect. `trusted_ca` are certificates that are trusted in addition to the platform's.
    #[must_use]
    pub fn new(trusted_ca: Vec<CertificateDer<'static>>) -> Self {
        Self { trusted_ca, client: OnceLock::new(), under_way: Semaphore::new(CONCURRENCY), pauses: Mutex::default() }
    }

    /// The oldest message that waits for the device and is not locked.
    ///
    /// # Errors
    /// There is no telling whether there is one. A hub that wants to be left alone, or does not answer, is not asked for a
    /// while, for any of its devices: then this is the same error, at once. After that one device asks, before all others do.
    pub async fn receive(&self, device: &Device, deadline: Instant) -> Result<Option<CloudMessage>, DeviceboundError> {
        if let Some(error) = self.paused(&device.endpoint) {
            return Err(error.into());
        }
        let receiving = async {
            let response = self.request(Method::GET, device, PATH, "", None).await?;
            match response.status() {
                StatusCode::NO_CONTENT => Ok(None),
                StatusCode::OK => read(response, device).await.map(Some),
                _ => Err(rest::explain(response, device, Utc::now()).await.into()),
            }
        };
        let patience = Instant::now() + FETCH_TIMEOUT;
        let received = self.within(deadline.min(patience), receiving).await;
        match &received {
            // The caller's time was over, not the hub's.
            Err(DeviceboundError::Hub(SendError::TimedOut)) if deadline < patience => {}
            Err(DeviceboundError::Hub(error)) => self.pause(&device.endpoint, error),
            _ => drop(self.pauses().remove(&device.endpoint)),
        }
        received
    }

    /// Says what became of a message that was [received](Self::receive) for this device. Also of a hub that wants to be left
    /// alone, or the message would come again.
    ///
    /// # Errors
    /// [`DeviceboundError::LockLost`] if it took too long; else why it is not known whether the hub has heard it.
    pub async fn settle(
        &self,
        device: &Device,
        message: &CloudMessage,
        settlement: Settlement,
        deadline: Instant,
    ) -> Result<(), DeviceboundError> {
        let lock = utf8_percent_encode(&message.lock, RESERVED);
        let (method, path, query) = match settlement {
            Settlement::Complete => (Method::DELETE, format!("{PATH}/{lock}"), ""),
            Settlement::Reject => (Method::DELETE, format!("{PATH}/{lock}"), "&reject"),
            Settlement::Abandon => (Method::POST, format!("{PATH}/{lock}/abandon"), ""),
        };
        let settling = async {
            let response = self.request(method, device, &path, query, Some(&message.lock)).await?;
            match response.status() {
                StatusCode::NO_CONTENT => Ok(()),
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND => {
                    Err(DeviceboundError::LockLost { device: device.id.clone() })
                }
                _ => Err(rest::explain(response, device, Utc::now()).await.into()),
            }
        };
        self.within(deadline, settling).await
    }

    async fn request(
        &self,
        method: Method,
        device: &Device,
        path: &str,
        query: &str,
        lock: Option<&str>,
    ) -> Result<Response, SendError> {
        let (token, _) = device.token(Utc::now(), TOKEN_LIFETIME)?;
        let mut request = self.client()?.request(method, device, &token, path, query)?;
        if let Some(lock) = lock {
            // As Microsoft's SDKs do; the lock in the path is what counts.
            request = request.header(IF_MATCH, lock);
        }
        request.send().await.map_err(|error| rest::no_answer(&error, device))
    }

    /// With a place among the requests under way, until `deadline`.
    async fn within<T>(
        &self,
        deadline: Instant,
        doing: impl Future<Output = Result<T, DeviceboundError>>,
    ) -> Result<T, DeviceboundError> {
        let done = timeout_at(deadline, async {
            // The semaphore is never closed.
            let _permit = self.under_way.acquire().await;
            doing.await
        });
        done.await.unwrap_or(Err(SendError::TimedOut.into()))
    }

    /// After an error that is not a single device's nobody asks the hub for a while.
    fn pause(&self, hub: &Endpoint, error: &SendError) {
        let asked = match error {
            SendError::Throttled { wait } => wait.map(|wait| wait.min(LONGEST_ASKED)),
            SendError::Unreachable(_) | SendError::Cut | SendError::TimedOut | SendError::Untrusted(_) => None,
            // It has answered.
            _ => return drop(self.pauses().remove(hub)),
        };
        let now = Instant::now();
        let mut pauses = self.pauses();
        let before = pauses.get(hub);
        // What fails together counts once.
        if before.is_some_and(|pause| now < pause.until && !pause.is_tried) && asked.is_none() {
            return;
        }
        let failures = before.map_or(0, |pause| pause.failures).saturating_add(1);
        let wait = asked.unwrap_or_else(|| retry::exponential(failures, FIRST_PAUSE, LONGEST_PAUSE));
        let until = before.map_or(now, |pause| pause.until).max(now + wait);
        pauses.insert(hub.clone(), Pause { error: error.clone(), failures, until, is_tried: false });
    }

    /// Why a hub is left alone now. When a pause is over, the first who comes here is to ask the hub.
    fn paused(&self, hub: &Endpoint) -> Option<SendError> {
        let mut pauses = self.pauses();
        let pause = pauses.get_mut(hub)?;
        let now = Instant::now();
        let left = pause.until.saturating_duration_since(now);
        if left.is_zero() {
            // By then it is known, or nobody will hear of it.
            (pause.until, pause.is_tried) = (now + FETCH_TIMEOUT, true);
            return None;
        }
        match &pause.error {
            SendError::Throttled { .. } => Some(SendError::Throttled { wait: Some(left) }),
            error => Some(error.clone()),
        }
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<Endpoint, Pause>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<&rest::Client, SendError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let tls = client_config(&self.trusted_ca).map_err(SendError::Untrusted)?;
        let client = rest::Client::new(&tls, CONCURRENCY)?;
        // Somebody else may have been faster: theirs is as good.
        Ok(self.client.get_or_init(|| client))
    }
}

async fn read(response: Response, device: &Device) -> Result<CloudMessage, DeviceboundError> {
    let unusable = |why: String| DeviceboundError::Unusable { device: device.id.clone(), why };
    let message = CloudMessage::of_headers(response.headers());
    if message.lock.is_empty() {
        return Err(unusable("it has no lock (ETag): is there a proxy in between?".into()));
    }
    let body = http::body(response, MAX_CLOUD_MESSAGE).await.map_err(|error| rest::no_answer(&error, device))?;
    if body.is_cut {
        return Err(unusable(format!("it has more than {MAX_CLOUD_MESSAGE} bytes")));
    }
    Ok(CloudMessage { body: body.bytes, ..message })
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_make_a_message() {
        let headers = [
            ("etag", "\"0b9e7a8c\""),
            ("iothub-messageid", "m 1"),
            ("iothub-deliverycount", "3"),
            ("iothub-contenttype", "application/json"),
            ("iothub-to", "/devices/d/messages/devicebound"),
            ("iothub-app-Port", "15"),
            ("iothub-app-note", "100% %C3%BC ü"),
            ("content-type", "text/plain"),
        ];
        let headers = headers.map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let message = CloudMessage::of_headers(&headers.into_iter().collect());
        let properties = [("note", "100% %C3%BC ü"), ("port", "15")];
        assert_eq!(message.properties, properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((message.message_id.as_deref(), message.delivery_count), (Some("m 1"), 3));
        assert_eq!((message.content_type.as_deref(), message.lock.as_str()), (Some("application/json"), "0b9e7a8c"));
        assert_eq!(
            CloudMessage::of_headers(&HeaderMap::new()),
            CloudMessage { delivery_count: 1, ..CloudMessage::default() }
        );
    }

    fn device(host: &str) -> Device {
        Device {
            hub_host: host.into(),
            endpoint: Endpoint::parse(host).unwrap(),
            id: "d".into(),
            credential: crate::hub::Credential::Token("SharedAccessSignature sr=x".into()),
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_has_no_lock_is_no_message() {
        let answer = |etag: Option<&str>, size: usize| {
            let mut answer = axum::http::Response::builder();
            if let Some(etag) = etag {
                answer = answer.header("ETag", etag);
            }
            let answer = Response::from(answer.body(vec![b'x'; size]).unwrap());
            async move { read(answer, &device("h.net")).await }
        };
        assert_eq!(answer(Some("\"1\""), MAX_CLOUD_MESSAGE).await.unwrap().body.len(), MAX_CLOUD_MESSAGE);
        for (etag, size, why) in [(Some("\"1\""), MAX_CLOUD_MESSAGE + 1, "more than 65536 bytes"), (None, 1, "no lock")]
        {
            let error = answer(etag, size).await.unwrap_err();
            assert!(error.kind() == "c2d_unusable" && error.to_string().contains(why), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_for_its_hub_and_no_longer_than_an_hour() {
        let devicebound = Devicebound::new(Vec::new());
        let endpoint = |host: &str| Endpoint::parse(host).unwrap();
        let throttled = |seconds: u64| SendError::Throttled { wait: Some(Duration::from_secs(seconds)) };
        devicebound.pause(&endpoint("one.net"), &throttled(u64::MAX));
        devicebound.pause(&endpoint("two.net"), &throttled(7));
        devicebound.pause(&endpoint("two.net"), &throttled(1));
        assert_eq!(devicebound.paused(&endpoint("one.net")), Some(SendError::Throttled { wait: Some(LONGEST_ASKED) }));
        assert_eq!(devicebound.paused(&endpoint("two.net")), Some(throttled(7)));
        assert_eq!(devicebound.paused(&endpoint("three.net")), None);
        let soon = Instant::now() + Duration::from_secs(1);
        let error = devicebound.receive(&device("two.net"), soon).await.unwrap_err();
        assert_eq!(error.kind(), "hub_throttled");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(devicebound.paused(&endpoint("two.net")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_of_a_hub_that_is_away_grow_up_to_five_minutes() {
        let devicebound = Devicebound::new(Vec::new());
        let hub = Endpoint::parse("one.net").unwrap();
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            // What fails together counts once.
            for _ in 0..100 {
                devicebound.pause(&hub, &SendError::TimedOut);
            }
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            assert_eq!(devicebound.paused(&hub), Some(SendError::TimedOut), "{seconds}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(devicebound.paused(&hub), None, "{seconds}");
        }
        // A single device's trouble is not the hub's.
        devicebound.pause(&hub, &SendError::Refused { device: "d".into() });
        assert_eq!(devicebound.paused(&hub), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_one_asks_and_the_others_wait_for_what_it_comes_to() {
        let devicebound = Devicebound::new(Vec::new());
        let hub = Endpoint::parse("one.net").unwrap();
        let is_paused = || devicebound.paused(&hub).is_some();
        devicebound.pause(&hub, &SendError::TimedOut);
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(!is_paused() && is_paused() && is_paused());
        devicebound.pause(&hub, &SendError::TimedOut);
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(is_paused(), "it counts as the second failure");
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(!is_paused() && is_paused());
        // Nobody hears what became of one that was dropped.
        tokio::time::advance(FETCH_TIMEOUT).await;
        assert!(!is_paused() && is_paused());
        // The hub has answered, whatever it was.
        devicebound.pause(&hub, &SendError::Refused { device: "d".into() });
        assert!(!is_paused() && !is_paused());
    }
}
