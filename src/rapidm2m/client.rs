//! Requests sites, blueprints and rows from the backend's REST API under `https://HOST/api/1/`, with HTTP Basic.
//!
//! All requests pass the backend's [`Gate`]. Each method makes one request, and repeats it once if the connection breaks
//! before the answer begins: a server may close
//! a connection that was idle. A list of channels that is too long for a URL takes several requests. Other retries are the
//! caller's task.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use percent_encoding::utf8_percent_encode;
use reqwest::{StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    Rows, Stamp, columns,
    gate::Gate,
    site::Listed,
    wire::{self, WireError},
};
use crate::{
    iot_hub::sas::RESERVED,
    support::{blocking, http, http_client::HttpClient, kind::Kind},
};

/// Largest answer to a request for rows that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024 * 1024;
/// Largest list of sites, in bytes: that is some 150,000 sites with everything the backend tells of them. What is used of
/// it takes about as much memory again.
const MAX_LIST: usize = 64 * 1024 * 1024;
/// Largest blueprint, in bytes. It is parsed as a whole, which takes several times its size in memory.
const MAX_BLUEPRINT: usize = 2 * 1024 * 1024;
/// Longest URL, in bytes. Proxies and servers commonly accept 2,048.
const MAX_URL: usize = 2_000;
/// How many characters of an error answer are kept.
const ERROR_TEXT: usize = 200;
/// Whoever has less time than this for an answer cannot say that the backend is slow.
const FAIR: Duration = Duration::from_secs(1);
/// A request that takes longer than this gives its slot to others.
const LONG: Duration = Duration::from_secs(2);

/// A connection pool to one backend with one user's credentials.
pub struct Client {
    http: HttpClient,
    base: Url,
    authorization: header::HeaderValue,
    gate: Gate,
}

/// How much time there is for a request.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// No request goes on after this.
    pub until: Instant,
    /// How long the backend may take for an answer.
    pub answer: Duration,
}

impl Limit {
    /// This long for everything.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        Self { until: Instant::now() + time, answer: time }
    }

    fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// A request for rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsQuery<'a> {
    pub customer: &'a str,
    pub site: &'a str,
    pub histdata: u8,
    pub channels: &'a [String],
    pub range: Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The newest row alone.
    Youngest,
    /// All rows from `from` on, up to `until` if there is one. It is not documented whether the bounds are inclusive.
    Window { from: Stamp, until: Option<Stamp> },
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

struct Got {
    answer: Answer,
    /// Our clock minus the backend's clock, if the answer had a date.
    clock_skew: Option<TimeDelta>,
}

/// What the backend returns about the user.
#[derive(Clone, Debug)]
pub struct Me {
    /// The customers that the user can see, as written in paths.
    pub customers: Vec<String>,
    /// Our clock minus the backend's clock, if the answer had a date.
    pub clock_skew: Option<TimeDelta>,
}

/// Why there is no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the backend refused the credentials (401): check Base64encodedUsernamePassword{}", quote(.said))]
    Unauthorized { said: String },
    #[error("the backend forbids this (403): has the user access to the customer?{}", quote(.said))]
    Forbidden { said: String },
    #[error("the backend does not know it (404): check Customer_ID, Site_ID and M2MBackendURL{}", quote(.said))]
    NotFound { said: String },
    #[error("the backend asks to slow down ({status}){}", quote(.said))]
    RateLimited { status: u16, retry_after: Option<Duration>, said: String },
    #[error("the backend answered with status {status}{}", quote(.said))]
    Status { status: u16, said: String },
    /// `target` has no query, since that may hold secrets.
    #[error("the backend redirects ({status}) to {target}: set M2MBackendURL to where its API is")]
    Redirected { status: u16, target: String },
    #[error("the backend cannot be reached: {0}")]
    Connect(String),
    #[error("the backend did not answer in time")]
    Timeout,
    #[error("the backend's answer broke off: {0}")]
    Cut(String),
    /// `prefix` is the part of the body that had arrived.
    #[error("the backend's answer has more than {limit} bytes")]
    TooLarge { limit: usize, prefix: Bytes },
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the backend lists no site for the customer: check Customer_ID and the user's rights, or name the Site_ID")]
    NoSites,
    #[error("the blueprint of the site lists no channels for histdata{0}: check Histdata, or name the Channelnames")]
    NoChannels(u8),
    /// No request was made: see [`Gate`].
    #[error("{text}")]
    Held { kind: Kind, text: String, wait: Duration },
}

fn quote(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; it says: {text}") }
}

impl FetchError {
    /// A short name for records and summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unauthorized { .. } => Kind::Unauthorized,
            Self::Forbidden { .. } => Kind::Forbidden,
            Self::NotFound { .. } => Kind::NotFound,
            Self::RateLimited { .. } => Kind::RateLimited,
            Self::Status { .. } | Self::Redirected { .. } => Kind::HttpStatus,
            Self::Connect(_) => Kind::Connect,
            Self::Timeout => Kind::Timeout,
            Self::Cut(_) => Kind::CutOff,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::Wire(WireError::Empty) => Kind::EmptyAnswer,
            Self::Wire(WireError::Html) => Kind::Html,
            Self::Wire(WireError::NotJson(_)) => Kind::NotJson,
            Self::Wire(WireError::WrongShape { .. }) => Kind::WrongShape,
            Self::NoSites => Kind::NoSites,
            Self::NoChannels(_) => Kind::NoChannels,
            Self::Held { kind, .. } => kind.clone(),
        }
    }

    /// The HTTP status, if the backend answered with one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { .. } => Some(401),
            Self::Forbidden { .. } => Some(403),
            Self::NotFound { .. } => Some(404),
            Self::RateLimited { status, .. } | Self::Status { status, .. } | Self::Redirected { status, .. } => {
                Some(*status)
            }
            Self::TooLarge { .. } | Self::Wire(_) | Self::NoSites | Self::NoChannels(_) => Some(200),
            Self::Connect(_) | Self::Timeout | Self::Cut(_) | Self::Held { .. } => None,
        }
    }

    /// Whether an operator must change something before a request can succeed.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Forbidden { .. } | Self::NotFound { .. })
    }

    /// How long the backend requests that we wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            Self::Held { wait, .. } => Some(*wait),
            _ => None,
        }
    }

    /// Whether the backend refuses the user.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Forbidden { .. })
    }

    /// Whether it may be a failure of the whole backend, not of one site.
    #[must_use]
    pub fn is_of_backend(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::RateLimited { .. }
            | Self::Connect(_)
            | Self::Timeout
            | Self::Held { .. } => true,
            Self::Status { status, .. } => matches!(status, 502..=504),
            _ => false,
        }
    }
}

impl Client {
    /// Does not connect yet.
    #[must_use]
    pub fn new(base: Url, credentials: &SecretString, http: HttpClient, gate: Gate) -> Self {
        let mut authorization = header::HeaderValue::try_from(format!("Basic {}", credentials.expose_secret()))
            .unwrap_or(header::HeaderValue::from_static("Basic"));
        authorization.set_sensitive(true);
        Self { http, base, authorization, gate }
    }

    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What the backend knows about the user of these credentials.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn me(&self, limit: Duration) -> Result<Me, FetchError> {
        #[derive(Deserialize)]
        struct Body {
            customers: Vec<String>,
        }
        let got = self.get(self.url(&["me"]), MAX_BLUEPRINT, Limit::of(limit)).await?;
        let Got { answer: Answer { body, .. }, clock_skew } = got;
        Ok(Me { customers: wire::json::<Body>(&body, "the user's data")?.customers, clock_skew })
    }

    /// The sites of a customer.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn sites(&self, customer: &str, limit: Limit) -> Result<Vec<Listed>, FetchError> {
        let body = self.get(self.url(&["customers", customer, "sites"]), MAX_LIST, limit).await?.answer.body;
        let read = move |body: Bytes| wire::json::<Vec<Listed>>(&body, "an array of sites");
        match blocking::run(body.len(), move || read(body)).await {
            Err(WireError::Empty) => Err(FetchError::NoSites),
            Ok(sites) if sites.is_empty() => Err(FetchError::NoSites),
            sites => Ok(sites?),
        }
    }

    /// The channels that a site's blueprint lists for a container.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn channels(
        &self,
        customer: &str,
        site: &str,
        histdata: u8,
        limit: Limit,
    ) -> Result<Vec<String>, FetchError> {
        let url = self.url(&["customers", customer, "sites", site, "blueprint"]);
        let body = self.get(url, MAX_BLUEPRINT, limit).await?.answer.body;
        let read =
            move |body: Bytes| wire::json(&body, "a blueprint").map(|blueprint| wire::channels(&blueprint, histdata));
        let channels = blocking::run(body.len(), move || read(body)).await?;
        if channels.is_empty() { Err(FetchError::NoChannels(histdata)) } else { Ok(channels) }
    }

    /// The path that [`rows`](Self::rows) requests, below the base URL.
    #[must_use]
    pub fn rows_path(query: &RowsQuery<'_>) -> String {
        let youngest = if query.range == Range::Youngest { "/youngest" } else { "" };
        format!(
            "customers/{}/sites/{}/histdata{}{youngest}",
            utf8_percent_encode(query.customer, RESERVED),
            utf8_percent_encode(query.site, RESERVED),
            query.histdata
        )
    }

    /// Whether a name can be a path segment. `.` and `..` cannot: they have a meaning of their own in a path, even
    /// when they are percent-encoded. <https://url.spec.whatwg.org/#double-dot-path-segment>
    #[must_use]
    pub fn is_segment(name: &str) -> bool {
        !matches!(name, "" | "." | "..")
    }

    /// A window of rows, or the youngest row, not parsed. Reading stops when the body exceeds `max_body` bytes.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn rows(&self, query: &RowsQuery<'_>, max_body: usize, limit: Limit) -> Result<Answer, FetchError> {
        let url = self.rows_url(query);
        if url.as_str().len() <= MAX_URL || query.channels.len() <= 1 {
            return Ok(self.get(url, max_body.min(MAX_BODY), limit).await?.answer);
        }
        self.rows_in_parts(query, max_body.min(MAX_BODY), limit).await
    }

    /// Requests the channels in parts, and joins the answers.
    async fn rows_in_parts(&self, query: &RowsQuery<'_>, max_body: usize, limit: Limit) -> Result<Answer, FetchError> {
        let fits =
            |channels: &[String]| self.rows_url(&RowsQuery { channels, ..query.clone() }).as_str().len() <= MAX_URL;
        let ranges = columns::ranges(query.channels, fits);
        let widths: Vec<_> = ranges.iter().map(ExactSizeIterator::len).collect();
        // If a row came between two requests, they are made once more. What a part lacks then has no value.
        let mut is_repeated = false;
        loop {
            let (mut parts, mut size) = (Vec::with_capacity(ranges.len()), 0);
            for range in &ranges {
                let part = RowsQuery { channels: &query.channels[range.clone()], ..query.clone() };
                let body = match self.get(self.rows_url(&part), max_body - size, limit).await {
                    Ok(got) => got.answer.body,
                    Err(FetchError::TooLarge { prefix, .. }) => {
                        let known = Rows::read_prefix(&prefix, range.len());
                        let prefix = columns::prefix(&known, query.channels.len()).into();
                        return Err(FetchError::TooLarge { limit: max_body, prefix });
                    }
                    Err(error) => return Err(error),
                };
                size += body.len();
                let width = range.len();
                parts.push(blocking::run(body.len(), move || Rows::read(body, width)).await?);
            }
            if std::mem::replace(&mut is_repeated, true) || columns::have_same_stamps(&parts) {
                let (channels, widths) = (query.channels.len(), widths.clone());
                let joined = move || {
                    columns::join(&parts, &widths, max_body).ok_or_else(|| columns::prefix(&parts[0], channels))
                };
                return match blocking::run(size, joined).await {
                    Ok(body) => Ok(Answer { status: 200, body: body.into() }),
                    Err(prefix) => Err(FetchError::TooLarge { limit: max_body, prefix: prefix.into() }),
                };
            }
        }
    }

    fn rows_url(&self, query: &RowsQuery<'_>) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path(), Self::rows_path(query)));
        let parameter = match query.range {
            Range::Youngest => serde_json::json!({ "select": query.channels }),
            Range::Window { from, until } => serde_json::json!({
                "select": query.channels,
                "from": from.to_string(),
                "until": until.map_or_else(|| "*".to_owned(), |until| until.to_string()),
            }),
        };
        url.set_query(Some(&format!("json={}", utf8_percent_encode(&parameter.to_string(), RESERVED))));
        url
    }

    fn url(&self, segments: &[&str]) -> Url {
        let segments: Vec<_> =
            segments.iter().map(|segment| utf8_percent_encode(segment, RESERVED).to_string()).collect();
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path(), segments.join("/")));
        url
    }

    /// Makes a request as soon as the gate lets it through.
    async fn get(&self, url: Url, max_body: usize, limit: Limit) -> Result<Got, FetchError> {
        let mut pass = self.gate.enter(limit.left()).await?;
        let time = limit.answer.min(limit.left());
        let got = timeout(time, async {
            let mut request = pin!(self.get_unlimited(url, max_body));
            match timeout(LONG, &mut request).await {
                Ok(got) => got,
                Err(_) => {
                    pass.let_go();
                    request.await
                }
            }
        });
        let got = got.await.unwrap_or(Err(FetchError::Timeout));
        if time >= FAIR || !matches!(got, Err(FetchError::Timeout)) {
            pass.judge(got.as_ref().err());
        }
        got
    }

    async fn get_unlimited(&self, url: Url, max_body: usize) -> Result<Got, FetchError> {
        let response = self.send(url).await?;
        let (status, clock_skew) = (response.status().as_u16(), http::clock_skew(response.headers(), Utc::now()));
        Ok(Got { answer: Answer { status, body: read_body(response, max_body).await? }, clock_skew })
    }

    /// Sends the request and returns a successful answer whose body is not read yet.
    async fn send(&self, url: Url) -> Result<reqwest::Response, FetchError> {
        let http = self.http.get().map_err(|text| FetchError::Connect(format!("TLS cannot be set up: {text}")))?;
        let request = http
            .get(url)
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json");
        let again = request.try_clone();
        let response = match (request.send().await, again) {
            (Err(error), Some(again)) if is_broken(&error) => again.send().await,
            (sent, _) => sent,
        };
        let response = response.map_err(explain)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if let Some(target) = target(&response) {
            return Err(FetchError::Redirected { status: status.as_u16(), target });
        }
        let retry_after = http::retry_after(response.headers(), Utc::now());
        Err(classify(status, retry_after, error_text(&http::error_body(response).await)))
    }
}

/// Whether the connection broke before the answer began. Then nobody knows whether the server saw the request; all requests
/// here only read.
fn is_broken(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_timeout() && !error.is_connect()
}

/// Where an answer redirects to, without the parts that may hold secrets.
fn target(response: &reqwest::Response) -> Option<String> {
    let location = response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection())?;
    let mut target = response.url().join(location.to_str().ok()?).ok()?;
    target.set_query(None);
    target.set_fragment(None);
    let _ = (target.set_username(""), target.set_password(None));
    Some(http::one_line(target.as_str(), ERROR_TEXT))
}

async fn read_body(response: reqwest::Response, limit: usize) -> Result<Bytes, FetchError> {
    let body = http::body(response, limit).await.map_err(explain)?;
    if body.is_cut { Err(FetchError::TooLarge { limit, prefix: body.bytes }) } else { Ok(body.bytes) }
}

fn classify(status: StatusCode, retry_after: Option<Duration>, said: String) -> FetchError {
    match status.as_u16() {
        401 => FetchError::Unauthorized { said },
        403 => FetchError::Forbidden { said },
        404 => FetchError::NotFound { said },
        status @ 429 => FetchError::RateLimited { status, retry_after, said },
        status if retry_after.is_some() => FetchError::RateLimited { status, retry_after, said },
        status => FetchError::Status { status, said },
    }
}

/// The backend's error text: `err` of `{"err":"…"}`, or the start of the body if it has another form.
fn error_text(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        err: String,
    }
    let text = match serde_json::from_slice::<Said>(body) {
        Ok(said) => said.err,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    http::one_line(&text, ERROR_TEXT)
}

/// Leaves the URL out: the record contains the path already.
fn explain(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    let cause = http::cause(&error);
    if error.is_connect() { FetchError::Connect(cause) } else { FetchError::Cut(cause) }
}

#[cfg(test)]
mod tests;
