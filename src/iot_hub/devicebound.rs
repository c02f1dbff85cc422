//! Fetches messages from the cloud to a device over HTTPS, whatever transport telemetry uses.
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>
//!
//! A fetched message is locked for a minute. Within that time it is completed, rejected or abandoned. Otherwise the
//! hub redelivers it, up to ten deliveries in all. It also redelivers a message if the answer with it is lost.
//!
//! Hubs of size S1 and S2 allow 16.67 fetches a second for each unit, S3 allows 833. The hub throttles more than that.
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling>

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use percent_encoding::utf8_percent_encode;
use reqwest::{
    Method, Response, StatusCode,
    header::{ETAG, HeaderMap, IF_MATCH},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{Device, Endpoint, SendError, rest, sas::RESERVED};
use crate::support::{
    backoff::{Backoff, Policy},
    http,
    http_client::HttpClient,
    kind::Kind,
};

/// Largest body of a message to a device, in bytes.
pub const MAX_CLOUD_MESSAGE: usize = 64 * 1024;
/// Limit for requests in flight and for connections kept open, over all devices.
const CONCURRENCY: usize = 32;
/// Each request has its own token: making one takes microseconds. The lifetime allows for slow clocks.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Back-off for a hub that does not answer, or that throttles without requesting a wait. It doubles each time.
/// Messages to devices must not hold up telemetry.
const POLICY: Policy = Policy::exact(Duration::from_secs(10), Duration::from_secs(5 * 60));
/// Time-out of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const PATH: &str = "messages/devicebound";
/// Prefix of a header that holds an application property.
const PROPERTY: &str = "iothub-app-";

/// A message to a device, locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudMessage {
    pub message_id: Option<String>,
    /// Sequence number among all messages to the device, if the hub gives it.
    pub sequence_number: Option<u64>,
    /// How often the message was fetched, this time included.
    pub delivery_count: u32,
    pub content_type: Option<String>,
    /// Application properties. Names are in lower case: over HTTPS they are header names, which have no case. Values
    /// are as the hub has them; nothing is decoded, as in Microsoft's SDKs.
    pub properties: BTreeMap<String, String>,
    /// At most [`MAX_CLOUD_MESSAGE`].
    pub body: Bytes,
    pub(crate) lock: String,
}

impl CloudMessage {
    /// Reads everything but the body from the headers of the hub's answer.
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

/// How a message is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The message is done. The hub deletes it.
    Complete,
    /// The hub redelivers the message.
    Abandon,
    /// The message can never be done. The hub removes it and informs the sender if the sender requested feedback.
    Reject,
}

/// Why there is no message, or why it is not settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceboundError {
    /// Whether the hub settled the message before is unknown: the lock expired, or the first answer was lost.
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
    pub fn kind(&self) -> Kind {
        match self {
            Self::LockLost { .. } => Kind::C2dLockLost,
            Self::Unusable { .. } => Kind::C2dUnusable,
            Self::Hub(error) => error.kind(),
        }
    }

    /// Whether the hub does not accept this device, or no longer does.
    #[must_use]
    pub fn refuses_device(&self) -> bool {
        matches!(self, Self::Hub(error) if error.refuses_device())
    }
}

/// Fetches and settles the messages to all devices.
pub struct Devicebound {
    client: rest::Client,
    under_way: Semaphore,
    /// Hubs that get no fetch until their back-off ends.
    failures: Backoff<Endpoint, SendError>,
}

impl Devicebound {
    #[must_use]
    pub fn new(http: impl Into<HttpClient>) -> Self {
        let client = rest::Client::new(http.into());
        Self { client, under_way: Semaphore::new(CONCURRENCY), failures: Backoff::new(POLICY) }
    }

    /// Fetches the oldest message that is pending for the device and not locked.
    ///
    /// # Errors
    /// It is unknown whether there is a message. A hub that throttles or does not answer gets no fetch until its
    /// back-off ends, for any of its devices: until then, this returns the same error at once. After the back-off one
    /// device fetches first.
    pub async fn receive(&self, device: &Device, deadline: Instant) -> Result<Option<CloudMessage>, DeviceboundError> {
        if let Some(error) = self.backing_off(&device.endpoint) {
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
        let began = Instant::now();
        let patience = began + FETCH_TIMEOUT;
        let received = self.within(deadline.min(patience), receiving).await;
        match &received {
            // The caller's time ended, not the hub's.
            Err(DeviceboundError::Hub(SendError::TimedOut)) if deadline < patience => {}
            Err(DeviceboundError::Hub(error)) => self.back_off(&device.endpoint, error, began),
            _ => self.failures.succeeded(&device.endpoint),
        }
        received
    }

    /// Whether [`receive`](Self::receive) would only return the last failure of the device's hub.
    #[must_use]
    pub fn is_backing_off(&self, device: &Device) -> bool {
        self.failures.holding(&device.endpoint).is_some()
    }

    /// Settles a message that was [received](Self::receive) for this device. It does so during a back-off too:
    /// otherwise the message would be redelivered.
    ///
    /// # Errors
    /// [`DeviceboundError::LockLost`] if it took too long; otherwise why it is unknown whether the hub has settled it.
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
        let mut request = self.client.request(method, device, &token, path, query)?;
        if let Some(lock) = lock {
            // As Microsoft's SDKs do. The lock in the path is the one that counts.
            request = request.header(IF_MATCH, lock);
        }
        request.send().await.map_err(|error| rest::no_answer(&error, device))
    }

    /// Runs `doing` as one of the limited requests in flight, until `deadline`.
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

    /// Backs off from a hub if its failure concerns all devices.
    fn back_off(&self, hub: &Endpoint, error: &SendError, began: Instant) {
        let requested = match error {
            SendError::Throttled { wait } => *wait,
            SendError::Unreachable(_) | SendError::Cut | SendError::TimedOut | SendError::Untrusted(_) => None,
            // The hub has answered.
            _ => return self.failures.succeeded(hub),
        };
        self.failures.failed(hub.clone(), error.clone(), requested, began);
    }

    /// Why the hub gets no fetch now.
    fn backing_off(&self, hub: &Endpoint) -> Option<SendError> {
        let failed = self.failures.holding_or_claim(hub, FETCH_TIMEOUT)?;
        Some(match failed.error {
            SendError::Throttled { .. } => SendError::Throttled { wait: Some(failed.left()) },
            error => error,
        })
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
    use crate::support::backoff::LONGEST_REQUESTED;

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
            credential: crate::iot_hub::Credential::Token("SharedAccessSignature sr=x".into()),
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
            assert!(error.kind() == Kind::C2dUnusable && error.to_string().contains(why), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_for_its_hub_and_no_longer_than_an_hour() {
        let devicebound = Devicebound::new(Vec::new());
        let endpoint = |host: &str| Endpoint::parse(host).unwrap();
        let throttled = |seconds: u64| SendError::Throttled { wait: Some(Duration::from_secs(seconds)) };
        devicebound.back_off(&endpoint("one.net"), &throttled(u64::MAX), Instant::now());
        devicebound.back_off(&endpoint("two.net"), &throttled(7), Instant::now());
        devicebound.back_off(&endpoint("two.net"), &throttled(1), Instant::now());
        assert_eq!(
            devicebound.backing_off(&endpoint("one.net")),
            Some(SendError::Throttled { wait: Some(LONGEST_REQUESTED) })
        );
        assert_eq!(devicebound.backing_off(&endpoint("two.net")), Some(throttled(7)));
        assert_eq!(devicebound.backing_off(&endpoint("three.net")), None);
        let soon = Instant::now() + Duration::from_secs(1);
        let error = devicebound.receive(&device("two.net"), soon).await.unwrap_err();
        assert_eq!(error.kind(), Kind::HubThrottled);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(devicebound.backing_off(&endpoint("two.net")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_of_a_hub_that_is_away_grow_up_to_five_minutes() {
        let devicebound = Devicebound::new(Vec::new());
        let hub = Endpoint::parse("one.net").unwrap();
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            // Failures of requests that were in flight together count once.
            let began = Instant::now();
            tokio::time::advance(Duration::from_millis(1)).await;
            for _ in 0..100 {
                devicebound.back_off(&hub, &SendError::TimedOut, began);
            }
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            assert_eq!(devicebound.backing_off(&hub), Some(SendError::TimedOut), "{seconds}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(devicebound.backing_off(&hub), None, "{seconds}");
        }
        // The failure of a single device does not concern the hub.
        devicebound.back_off(&hub, &SendError::Refused { device: "d".into() }, Instant::now());
        assert_eq!(devicebound.backing_off(&hub), None);
    }
}
