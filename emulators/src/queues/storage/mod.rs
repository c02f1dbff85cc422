//! A queue of a storage account, and a container of its blobs, over their REST APIs.
//! <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>
//!
//! This client does not retry: a trigger polls again anyway, and a caller that puts a message gets the error.

mod blobs;
mod sign;
mod xml;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};

pub use self::blobs::Container;
use super::{Encoding, Error, LARGEST_BATCH, Message, Requests, Result, Taken, account::StorageAccount};

/// The version of the service that this client was written for. Azurite supports it too.
const VERSION: &str = "2021-12-02";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole request. The service itself gives up after 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    account: StorageAccount,
    url: Url,
    encoding: Encoding,
    http: reqwest::Client,
    requests: AtomicU64,
    failed: AtomicU64,
}

impl Client {
    pub fn new(account: &StorageAccount, queue: &str, encoding: Encoding) -> anyhow::Result<Self> {
        let http = http()?;
        let url = below(account.endpoint.clone(), &[queue]);
        Ok(Self {
            account: account.clone(),
            url,
            encoding,
            http,
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    pub fn requests(&self) -> Requests {
        // In this order `failed` never exceeds `all`.
        let failed = self.failed.load(Ordering::Acquire);
        Requests { all: self.requests.load(Ordering::Acquire), failed }
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Adds a message. Creates the queue if it does not exist.
    pub async fn put(&self, text: &str) -> Result<()> {
        let body = xml::message(text);
        let response = self.send(Method::POST, self.messages(None), body.clone()).await?;
        if !is(&response, "QueueNotFound") {
            return accepted(response).map(drop);
        }
        let created = self.send(Method::PUT, self.url.clone(), String::new()).await?;
        // Another client may have created it first: that is no failure.
        if created.status() != StatusCode::CONFLICT {
            accepted(created)?;
        }
        accepted(self.send(Method::POST, self.messages(None), body).await?).map(drop)
    }

    pub async fn take(&self, most: usize, invisible_for: Duration) -> Result<Vec<Taken>> {
        let mut url = self.messages(None);
        url.query_pairs_mut()
            .append_pair("numofmessages", &most.min(LARGEST_BATCH).to_string())
            .append_pair("visibilitytimeout", &seconds(invisible_for));
        let messages = self.list(url).await?.into_iter();
        messages
            .map(|message| {
                let receipt = message.receipt.clone().ok_or_else(|| unexpected("a message without a PopReceipt"))?;
                Ok(Taken { message: self.read(message)?, receipt })
            })
            .collect()
    }

    pub async fn peek(&self) -> Result<Vec<Message>> {
        let mut url = self.messages(None);
        url.query_pairs_mut().append_pair("peekonly", "true").append_pair("numofmessages", &LARGEST_BATCH.to_string());
        self.list(url).await?.into_iter().map(|message| self.read(message)).collect()
    }

    /// Leaves the message's text as it is.
    pub async fn update(&self, taken: &mut Taken, invisible_for: Duration) -> Result<()> {
        let mut url = self.messages(Some(&taken.message.id));
        url.query_pairs_mut()
            .append_pair("popreceipt", &taken.receipt)
            .append_pair("visibilitytimeout", &seconds(invisible_for));
        let response = accepted(self.send(Method::PUT, url, String::new()).await?)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        taken.receipt = header("x-ms-popreceipt").ok_or_else(|| unexpected("no x-ms-popreceipt"))?.to_owned();
        taken.message.next_visible = header("x-ms-time-next-visible").and_then(time);
        Ok(())
    }

    pub async fn delete(&self, taken: &Taken) -> Result<()> {
        let mut url = self.messages(Some(&taken.message.id));
        url.query_pairs_mut().append_pair("popreceipt", &taken.receipt);
        accepted(self.send(Method::DELETE, url, String::new()).await?).map(drop)
    }

    /// The approximate number of messages, visible or not.
    pub async fn count(&self) -> Result<usize> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("comp", "metadata");
        let response = self.send(Method::GET, url, String::new()).await?;
        if is(&response, "QueueNotFound") {
            return Ok(0);
        }
        let response = accepted(response)?;
        let count = response.headers().get("x-ms-approximate-messages-count");
        let count = count.and_then(|value| value.to_str().ok()?.parse().ok());
        count.ok_or_else(|| unexpected("no x-ms-approximate-messages-count"))
    }

    /// A queue that does not exist has no messages.
    async fn list(&self, url: Url) -> Result<Vec<xml::QueueMessage>> {
        let response = self.send(Method::GET, url, String::new()).await?;
        if is(&response, "QueueNotFound") {
            return Ok(Vec::new());
        }
        // At most 32 messages of 64 KiB.
        let body = accepted(response)?.text().await.map_err(|error| failed(&self.url, &error))?;
        xml::messages(&body).map_err(|problem| unexpected(&problem))
    }

    fn read(&self, message: xml::QueueMessage) -> Result<Message> {
        let (id, text) = (message.id, message.text);
        let time = |text: &str| time(text).ok_or_else(|| unexpected(&format!("{text:?} for a time")));
        let content = self.encoding.decode(&text);
        Ok(Message {
            id,
            is_undecodable: content.is_none(),
            content: content.unwrap_or_else(|| Bytes::from(text)),
            inserted: time(&message.inserted)?,
            expires: time(&message.expires)?,
            next_visible: message.next_visible.as_deref().map(time).transpose()?,
            dequeue_count: message.dequeue_count,
        })
    }

    fn messages(&self, id: Option<&str>) -> Url {
        match id {
            Some(id) => below(self.url.clone(), &["messages", id]),
            None => below(self.url.clone(), &["messages"]),
        }
    }

    async fn send(&self, method: Method, url: Url, body: String) -> Result<Response> {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        let request = signed(&self.http, &self.account, method, url, headers, body.len())?;
        let response = request.body(body).send().await;
        self.requests.fetch_add(1, Ordering::Release);
        if response.as_ref().map_or(true, |response| response.status().as_u16() >= 400) {
            self.failed.fetch_add(1, Ordering::Release);
        }
        response.map_err(|error| failed(&self.url, &error))
    }
}

fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .build()
}

/// A request without its body, of which only the length matters here.
fn signed(
    http: &reqwest::Client,
    account: &StorageAccount,
    method: Method,
    url: Url,
    mut headers: HeaderMap,
    body_length: usize,
) -> Result<RequestBuilder> {
    let date = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    headers.insert("x-ms-date", HeaderValue::from_str(&date).expect("a date is valid in a header"));
    headers.insert("x-ms-version", HeaderValue::from_static(VERSION));
    let authorization = sign::authorization(account, &method, &url, body_length, &headers);
    let authorization =
        HeaderValue::from_str(&authorization).map_err(|_| unexpected("an account's name that fits no header"))?;
    Ok(http.request(method, url).headers(headers).header("authorization", authorization))
}

fn below(mut url: Url, segments: &[&str]) -> Url {
    url.path_segments_mut().expect("an HTTP address has a path").pop_if_empty().extend(segments);
    url
}

/// The service counts in whole seconds.
fn seconds(duration: Duration) -> String {
    duration.as_millis().div_ceil(1000).to_string()
}

/// Reads `Fri, 09 Oct 2009 21:04:30 GMT`.
fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|time| time.with_timezone(&Utc))
}

fn code(response: &Response) -> &str {
    response.headers().get("x-ms-error-code").and_then(|value| value.to_str().ok()).unwrap_or("without an error code")
}

fn is(response: &Response, error: &str) -> bool {
    !response.status().is_success() && code(response) == error
}

fn accepted(response: Response) -> Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(match code(&response) {
        "MessageNotFound" | "PopReceiptMismatch" | "QueueNotFound" => Error::NotYours,
        code => {
            let (status, place) = (response.status().as_u16(), response.url().path());
            let hint =
                if status == 403 { ": is it the right AccountKey, and is this machine's clock right?" } else { "" };
            let problem = format!("the storage account answered {status} ({code}) for {place}{hint}");
            if [404, 409, 429].contains(&status) || status >= 500 {
                Error::Storage(problem)
            } else {
                Error::Refused(problem)
            }
        }
    })
}

fn failed(url: &Url, error: &reqwest::Error) -> Error {
    let (mut problem, mut cause) = (String::new(), std::error::Error::source(error));
    while let Some(error) = cause {
        problem = format!("{problem}: {error}");
        cause = error.source();
    }
    // Not reqwest's own text: its address has a pop receipt in the query.
    Error::Away(format!("no answer from the storage account at {url}{problem}"))
}

fn unexpected(what: &str) -> Error {
    Error::Storage(format!("the storage account's answer is not understood: {what}"))
}
