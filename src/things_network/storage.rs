//! Fetches stored uplinks from the Storage Integration of The Things Stack, a page after the other.
//! <https://www.thethingsindustries.com/docs/integrations/storage/retrieve/>

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::support::{http, http_client::HttpClient};

/// Uplinks in a page.
const LIMIT: &str = "1000";
/// The longest line that is read: a webhook may have as much.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Why a page could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("The Things Stack cannot be used: {0}")]
    Unusable(String),
    #[error("The Things Stack refused the API key ({status}): it needs the right to read application traffic: {text}")]
    Unauthorized { status: u16, text: String },
    #[error(
        "The Things Stack has nothing there ({text}): check the application's id, and that its Storage Integration is enabled"
    )]
    Missing { text: String },
    #[error("The Things Stack answered {status}: {text}")]
    Status { status: u16, text: String, wait: Option<Duration> },
    #[error("the answer of The Things Stack broke off: {0}")]
    BrokenOff(String),
    #[error("The Things Stack cannot be reached at {place}: {text}")]
    Unreachable { place: String, text: String },
}

impl StorageError {
    /// How long to wait before another attempt may help. `None` if it would not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        const SOON: Duration = Duration::from_secs(1);
        match self {
            Self::Status { status: 429 | 500.., wait, .. } => Some(wait.unwrap_or(SOON)),
            Self::BrokenOff(_) | Self::Unreachable { .. } => Some(SOON),
            _ => None,
        }
    }
}

/// The uplinks that are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub application: &'a str,
    /// All devices of the application without it.
    pub device: Option<&'a str>,
    pub after: DateTime<Utc>,
    pub before: DateTime<Utc>,
}

pub struct Storage {
    http: HttpClient,
    root: Url,
    api_key: SecretString,
}

impl Storage {
    /// `root` is the URL of The Things Stack's API, such as `https://eu1.cloud.thethings.network/api/v3/`.
    #[must_use]
    pub fn new(root: Url, api_key: SecretString, http: impl Into<HttpClient>) -> Self {
        Self { http: http.into(), root, api_key }
    }

    /// Asks for the first uplinks of a range, the oldest first.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn page(&self, query: Query<'_>) -> Result<Lines, StorageError> {
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["as", "applications", query.application]);
            if let Some(device) = query.device {
                path.extend(["devices", device]);
            }
            path.extend(["packages", "storage", "uplink_message"]);
        }
        let stamp = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Nanos, true);
        url.query_pairs_mut()
            .append_pair("after", &stamp(query.after))
            .append_pair("before", &stamp(query.before))
            .append_pair("order", "received_at")
            .append_pair("limit", LIMIT);
        let place = url.origin().ascii_serialization();
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.api_key.expose_secret()))
            .map_err(|_| StorageError::Unusable("the API key cannot stand in a header".into()))?;
        authorization.set_sensitive(true);
        let http = self.http.get().map_err(StorageError::Unusable)?;
        // Without this header, The Things Stack answers with one document.
        let request = http.get(url).header(AUTHORIZATION, authorization).header(ACCEPT, "text/event-stream").send();
        let response = request.await.map_err(|error| StorageError::Unreachable { place, text: http::cause(&error) })?;
        if response.status().is_success() {
            return Ok(Lines { response, read: BytesMut::new(), is_ended: false });
        }
        let (status, wait) = (response.status(), http::retry_after(response.headers(), Utc::now()));
        let (_, text) = http::error_text(&http::error_body(response).await);
        let number = status.as_u16();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StorageError::Unauthorized { status: number, text },
            StatusCode::NOT_FOUND => StorageError::Missing { text },
            _ => StorageError::Status { status: number, text, wait },
        })
    }
}

/// The lines of an answer: JSON objects, each with an uplink in `result`.
pub struct Lines {
    response: Response,
    read: BytesMut,
    is_ended: bool,
}

/// The Things Stack ends an answer with this when it fails half-way.
#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: &'a serde_json::value::RawValue,
}

impl Lines {
    /// The next line that is not empty.
    ///
    /// # Errors
    /// The answer breaks off, or The Things Stack says that it failed.
    pub async fn next(&mut self) -> Result<Option<String>, StorageError> {
        loop {
            let end = self.read.iter().position(|byte| *byte == b'\n');
            if end.is_none() && !self.is_ended {
                self.read_on().await?;
                continue;
            }
            let line = self.read.split_to(end.unwrap_or(self.read.len()));
            if end.is_some() {
                self.read.advance(1);
            }
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            if line.is_empty() {
                if end.is_none() {
                    return Ok(None);
                }
                continue;
            }
            return match serde_json::from_str::<Failure<'_>>(&line) {
                Ok(Failure { error }) => Err(StorageError::BrokenOff(http::error_text(error.get().as_bytes()).1)),
                Err(_) => Ok(Some(line)),
            };
        }
    }

    async fn read_on(&mut self) -> Result<(), StorageError> {
        if self.read.len() > LONGEST_LINE {
            return Err(StorageError::Unusable(format!("a line of its answer has more than {LONGEST_LINE} bytes")));
        }
        // The client has a limit for how long nothing comes.
        match self.response.chunk().await.map_err(|error| StorageError::BrokenOff(http::cause(&error)))? {
            Some(chunk) => self.read.extend_from_slice(&chunk),
            None => self.is_ended = true,
        }
        Ok(())
    }
}
