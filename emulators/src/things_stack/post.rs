//! One webhook over HTTP: its headers, the request, the answer.

use std::{error::Error as _, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use futures::StreamExt;
use reqwest::{Client, Response, Url, redirect::Policy};

use super::{
    generate::{Kind, Webhook},
    options::Options,
};

/// Bytes of an answer that are kept; the rest is read and dropped.
const KEPT: usize = 64 * 1024;
/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(5);

const V3_AGENT: HeaderValue = HeaderValue::from_static("TheThingsStack/3.32.0-c4d3d7b6b (linux/amd64)");
const V2_AGENT: HeaderValue = HeaderValue::from_static("http-ttn/2.6.0");
const TTS_DOMAIN: HeaderName = HeaderName::from_static("x-tts-domain");
const DOWNLINK_APIKEY: HeaderName = HeaderName::from_static("x-downlink-apikey");
const DOWNLINK_PUSH: HeaderName = HeaderName::from_static("x-downlink-push");
const DOWNLINK_REPLACE: HeaderName = HeaderName::from_static("x-downlink-replace");

/// Posts webhooks; connections are kept open.
pub struct Poster {
    client: Client,
    /// Those of the options.
    headers: HeaderMap,
    /// Of the tenant.
    domain: HeaderValue,
    /// `None`: webhooks do not say how to send downlinks.
    downlinks: Option<Downlinks>,
    /// Of the API for downlinks.
    endpoint: String,
}

struct Downlinks {
    apikey: HeaderValue,
    webhook: String,
}

/// A status and as much of the body as is kept.
pub type Answered = (u16, Vec<u8>);

impl Poster {
    /// # Errors
    /// TLS cannot be set up, or the key is not a header value.
    pub fn new(options: &Options, apikey: &str, endpoint: &str) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        for header in &options.headers {
            headers.append(header.name.clone(), header.value.clone());
        }
        let mut apikey = HeaderValue::from_str(apikey)?;
        apikey.set_sensitive(true);
        let downlinks = Downlinks { apikey, webhook: options.webhook.clone() };
        let domain = options.domains().0.try_into()?;
        let client = Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT).build()?;
        let downlinks = (!options.no_downlink_key).then_some(downlinks);
        Ok(Self { client, headers, domain, downlinks, endpoint: endpoint.to_owned() })
    }

    /// Posts a webhook and reads the whole answer.
    ///
    /// # Errors
    /// Why there was no answer. The target's URL is left out: it may hold a key.
    pub async fn post(&self, webhook: &Webhook, target: &Url, within: Duration) -> Result<Answered, String> {
        let request = self.client.post(target.clone()).headers(self.headers(webhook));
        // Bytes have a known length: the request is not chunked.
        let response = request.timeout(within).body(webhook.body.clone()).send().await.map_err(described)?;
        let status = response.status().as_u16();
        Ok((status, read(response).await.map_err(described)?))
    }

    /// Posts a body to a webhook of the registry and reads the whole answer.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn post_to(
        &self,
        target: Url,
        mut headers: HeaderMap,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Answered, String> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, V3_AGENT);
        headers.insert(TTS_DOMAIN, self.domain.clone());
        let request = self.client.post(target).headers(headers).timeout(within).body(body);
        let response = request.send().await.map_err(described)?;
        let status = response.status().as_u16();
        Ok((status, read(response).await.map_err(described)?))
    }

    /// Says how to send downlinks, with this key of a webhook of the registry.
    pub fn add_downlinks(&self, headers: &mut HeaderMap, key: &str, webhook: &str, application: &str, device: &str) {
        let Ok(mut key) = HeaderValue::from_str(key) else { return };
        key.set_sensitive(true);
        headers.insert(DOWNLINK_APIKEY, key);
        insert_urls(headers, &self.endpoint, webhook, application, device);
    }

    fn headers(&self, webhook: &Webhook) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(webhook.content_type));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if webhook.version == 2 {
            headers.insert(header::USER_AGENT, V2_AGENT);
            return headers;
        }
        headers.insert(header::USER_AGENT, V3_AGENT);
        headers.insert(TTS_DOMAIN, self.domain.clone());
        // A malformed body may lack the ids, which the URLs would give away.
        let downlinks = self.downlinks.as_ref().filter(|_| webhook.kind != Kind::Malformed);
        if let Some(Downlinks { apikey, webhook: id }) = downlinks {
            headers.insert(DOWNLINK_APIKEY, apikey.clone());
            insert_urls(&mut headers, &self.endpoint, id, &webhook.device.application, &webhook.device.id);
        }
        headers
    }
}

fn insert_urls(headers: &mut HeaderMap, endpoint: &str, webhook: &str, application: &str, device: &str) {
    for (name, operation) in [(DOWNLINK_PUSH, "push"), (DOWNLINK_REPLACE, "replace")] {
        let url =
            format!("{endpoint}as/applications/{application}/webhooks/{webhook}/devices/{device}/down/{operation}");
        if let Ok(url) = url.try_into() {
            headers.insert(name, url);
        }
    }
}

async fn read(response: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        body.extend_from_slice(&piece[..piece.len().min(KEPT - body.len())]);
    }
    Ok(body)
}

/// The error with its causes, which reqwest leaves out, and without its URL.
fn described(error: reqwest::Error) -> String {
    let error = error.without_url();
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
