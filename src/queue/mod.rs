//! A client for storage queues: for the timer, which puts batches of sites into one, and for the commands and the status
//! page, which handle messages that could not be forwarded. (The Functions host has its own client.)
//! <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>
//!
//! Requests are not retried: the caller sees the failure and calls again.

mod account;
mod uplinks;

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use reqwest::{Method, Response, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;

pub use self::{
    account::Account,
    uplinks::{Lengths, UplinkQueues},
};
use crate::support::{http, http_client::HttpClient};

/// The version of the service's API.
const VERSION: &str = "2021-12-02";
/// Time-out of a whole request. The service itself gives up after 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);
/// The most messages that the service returns at once, and the largest response with this many messages of 64 KiB each.
pub const MOST: usize = 32;
const MAX_BODY: usize = 4 * 1024 * 1024;
/// Azure's receipts have 28 characters, Azurite's 40.
const LONGEST_RECEIPT: usize = 256;

/// Why a queue could not be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("queue {queue} cannot be reached ({text}): check AzureStorageConnectionString and the network")]
    Unreachable { queue: String, text: String },
    #[error("the storage account {account} refused access to queue {queue} ({status}, {code}): {remedy}")]
    Refused { account: String, queue: String, status: u16, code: String, remedy: String },
    #[error("there is no queue {0}: check UplinkQueueName")]
    Missing(String),
    #[error("the storage account answered {status} ({code}) for queue {queue}")]
    Status { queue: String, status: u16, code: String },
    #[error("cannot sign in at the storage account ({text}): {advice}")]
    Token { text: String, advice: &'static str },
    #[error("the storage account did not take a message for queue {queue} in the time that there was")]
    Late { queue: String },
    #[error("no request can be made to the storage account: {0}")]
    NoClient(String),
    #[error("the storage account's answer for queue {queue} is not understood: {text}")]
    Garbage { queue: String, text: String },
}

pub struct Queue {
    account: Account,
    name: String,
    http: HttpClient,
}

/// A message that is invisible to other readers for a while.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Taken {
    #[serde(rename = "MessageId")]
    pub id: String,
    #[serde(rename = "PopReceipt")]
    receipt: String,
    /// The text as it is stored.
    #[serde(rename = "MessageText", default)]
    pub stored: String,
}

/// Names one delivery of a message. Only the latest delivery can put the message back or delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    id: String,
    pop_receipt: String,
}

impl Receipt {
    /// `None` if these are not what the service gives: a GUID, and Base64.
    #[must_use]
    pub fn new(id: &str, pop_receipt: &str) -> Option<Self> {
        let is_guid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let is_receipt = (1..=LONGEST_RECEIPT).contains(&pop_receipt.len()) && pop_receipt.bytes().all(is_base64);
        (is_guid && is_receipt).then(|| Self { id: id.to_owned(), pop_receipt: pop_receipt.to_owned() })
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(rename = "QueueMessage", default)]
    messages: Vec<Taken>,
}

impl Taken {
    /// The text that the Functions host would give to a function: `messageEncoding` in host.json is `base64`, its
    /// default. `None` if the host would treat the message as broken.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        String::from_utf8(BASE64_STANDARD.decode(&self.stored).ok()?).ok()
    }
}

impl Queue {
    /// Does not connect.
    #[must_use]
    pub fn new(account: &Account, name: &str, http: HttpClient) -> Self {
        Self { account: account.clone(), name: name.to_owned(), http }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the next messages, at most [`MOST`], and makes them invisible to other readers for `invisible_for`. A
    /// queue that does not exist has none.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn take(&self, invisible_for: Duration) -> Result<Vec<Taken>, QueueError> {
        let query = [("numofmessages", MOST.to_string()), ("visibilitytimeout", seconds(invisible_for))];
        let response = match self.send(Method::GET, &["messages"], &query, None).await {
            Ok(response) => response,
            Err(QueueError::Missing(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let body = http::body(response, MAX_BODY).await.map_err(|error| self.unreachable(error))?;
        let text = std::str::from_utf8(&body.bytes).map_err(|error| self.garbage(&error))?;
        messages(text).map_err(|error| self.garbage(&error))
    }

    /// The approximate number of messages, including those that are invisible at the moment. A queue that does not
    /// exist has none.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn length(&self) -> Result<u64, QueueError> {
        let response = match self.send(Method::GET, &[], &[("comp", "metadata".to_owned())], None).await {
            Ok(response) => response,
            Err(QueueError::Missing(_)) => return Ok(0),
            Err(error) => return Err(error),
        };
        // <https://learn.microsoft.com/rest/api/storageservices/get-queue-metadata>
        let count = response.headers().get("x-ms-approximate-messages-count").and_then(|count| count.to_str().ok());
        count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| self.garbage(&"it does not say how many messages it has"))
    }

    /// Adds a message. `stored` is the stored form, in Base64.
    ///
    /// # Errors
    /// See [`QueueError`]. The message may have been added all the same.
    pub async fn put(&self, stored: &str) -> Result<(), QueueError> {
        self.add(stored, &[]).await
    }

    /// Adds a text as the Functions host would.
    ///
    /// # Errors
    /// See [`QueueError`]. The message may have been added all the same.
    pub async fn put_text(&self, text: &str) -> Result<(), QueueError> {
        self.put(&BASE64_STANDARD.encode(text)).await
    }

    /// Adds a text as the Functions host would. It becomes visible after `hidden_for`, and never expires.
    ///
    /// # Errors
    /// See [`QueueError`]. The message may have been added all the same.
    pub async fn put_for_ever(&self, text: &str, hidden_for: Duration) -> Result<(), QueueError> {
        let query = [("messagettl", "-1".to_owned()), ("visibilitytimeout", seconds(hidden_for))];
        self.add(&BASE64_STANDARD.encode(text), &query).await
    }

    /// Adds a text as the Functions host would. The service removes it if nobody has taken and deleted it within `life`. If
    /// there is no such queue, it is created.
    ///
    /// # Errors
    /// See [`QueueError`]. The message may have been added all the same.
    pub async fn put_for(&self, text: &str, life: Duration) -> Result<(), QueueError> {
        let (stored, query) = (BASE64_STANDARD.encode(text), [("messagettl", seconds(life))]);
        match self.add(&stored, &query).await {
            Err(QueueError::Missing(_)) => {
                self.send(Method::PUT, &[], &[], None).await?;
                self.add(&stored, &query).await
            }
            result => result,
        }
    }

    async fn add(&self, stored: &str, query: &[(&str, String)]) -> Result<(), QueueError> {
        let text = quick_xml::escape::escape(stored);
        let body = format!("<QueueMessage><MessageText>{text}</MessageText></QueueMessage>");
        self.send(Method::POST, &["messages"], query, Some(body)).await.map(drop)
    }

    /// Puts a message back that the Functions host has taken: it becomes visible again after `hidden_for`. The host's
    /// receipt becomes invalid.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn put_back(&self, receipt: &Receipt, hidden_for: Duration) -> Result<(), QueueError> {
        let query = [("popreceipt", receipt.pop_receipt.clone()), ("visibilitytimeout", seconds(hidden_for))];
        self.send(Method::PUT, &["messages", &receipt.id], &query, None).await.map(drop)
    }

    /// Deletes a message that was taken.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn delete(&self, taken: &Taken) -> Result<(), QueueError> {
        let query = [("popreceipt", taken.receipt.clone())];
        self.send(Method::DELETE, &["messages", &taken.id], &query, None).await.map(drop)
    }

    /// Gives a message back: it becomes visible again at once.
    ///
    /// # Errors
    /// See [`QueueError`]. The message then becomes visible when its time has passed.
    pub async fn give_back(&self, taken: &Taken) -> Result<(), QueueError> {
        let query = [("popreceipt", taken.receipt.clone()), ("visibilitytimeout", "0".to_owned())];
        self.send(Method::PUT, &["messages", &taken.id], &query, None).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        below: &[&str],
        query: &[(&str, String)],
        body: Option<String>,
    ) -> Result<Response, QueueError> {
        let mut url = self.account.endpoint().clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&self.name).extend(below);
        }
        url.query_pairs_mut().extend_pairs(query);
        let http = self.http.get().map_err(QueueError::NoClient)?;
        let request = self.account.authorized(http, method, url).await?.timeout(REQUEST_TIMEOUT);
        let request = request.header("x-ms-version", VERSION).header("x-ms-date", http_date());
        let request = match body {
            Some(body) => request.header(CONTENT_TYPE, "application/xml").body(body),
            None => request.header("content-length", "0"),
        };
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let (queue, status) = (self.name.clone(), response.status());
        if status.is_success() {
            return Ok(response);
        }
        let code = response.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok());
        let code = code.unwrap_or("no error code").to_owned();
        let number = status.as_u16();
        Err(match status {
            StatusCode::NOT_FOUND if code == "QueueNotFound" => QueueError::Missing(queue),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let (account, remedy) = (self.account.name().to_owned(), self.account.remedy(&code));
                QueueError::Refused { account, queue, status: number, code, remedy }
            }
            _ => QueueError::Status { queue, status: number, code },
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> QueueError {
        // The URL contains a signature.
        let text = http::cause(&error.without_url());
        QueueError::Unreachable { queue: self.name.clone(), text }
    }

    fn garbage(&self, error: &impl std::fmt::Display) -> QueueError {
        let text = http::one_line(&error.to_string(), http::MAX_ERROR_TEXT);
        QueueError::Garbage { queue: self.name.clone(), text }
    }
}

fn messages(body: &str) -> Result<Vec<Taken>, quick_xml::DeError> {
    quick_xml::de::from_str(body.trim_start_matches('\u{feff}')).map(|list: List| list.messages)
}

/// The service counts in whole seconds.
fn seconds(duration: Duration) -> String {
    duration.as_millis().div_ceil(1000).to_string()
}

fn http_date() -> String {
    Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_example_is_read() {
        // <https://learn.microsoft.com/rest/api/storageservices/get-messages>
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<QueueMessagesList><QueueMessage>\
            <MessageId>5974b586-0df3-4e2d-ad0c-18e3892bfca2</MessageId><InsertionTime>Fri, 09 Oct 2009 21:04:30 GMT\
            </InsertionTime><ExpirationTime>Fri, 16 Oct 2009 21:04:30 GMT</ExpirationTime>\
            <PopReceipt>YzQ4Yzg1MDIGM0MDFiZDAwYzEw</PopReceipt><TimeNextVisible>Fri, 09 Oct 2009 23:29:20 GMT\
            </TimeNextVisible><DequeueCount>1</DequeueCount><MessageText>PHRlc3Q+w6Q8L3Rlc3Q+</MessageText>\
            </QueueMessage></QueueMessagesList>";
        let [taken] = &messages(body).unwrap()[..] else { panic!("one message") };
        assert_eq!(taken.receipt, "YzQ4Yzg1MDIGM0MDFiZDAwYzEw");
        assert_eq!(taken.text().as_deref(), Some("<test>ä</test>"));
        assert_eq!(Taken { stored: "{\"no\":\"Base64\"}".into(), ..taken.clone() }.text(), None);
        assert_eq!(messages("<?xml version=\"1.0\"?><QueueMessagesList />").unwrap(), []);
        assert!(messages("<html>").is_err());
    }
}
