//! A container of blobs, with leases.
//! <https://learn.microsoft.com/rest/api/storageservices/lease-blob>

use std::time::Duration;

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
};

use super::{accepted, below, failed, http, is, seconds, signed, unexpected};
use crate::queues::{Error, Result, account::StorageAccount};

pub struct Container {
    account: StorageAccount,
    url: Url,
    http: reqwest::Client,
}

impl Container {
    /// `None` if the account has no blobs.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn open(account: &StorageAccount, name: &str) -> anyhow::Result<Option<Self>> {
        let Some(blobs) = &account.blobs else { return Ok(None) };
        Ok(Some(Self { account: account.clone(), url: below(blobs.clone(), &[name]), http: http()? }))
    }

    /// Writes a blob. Creates the container if it does not exist.
    pub async fn put(&self, blob: &str, text: &str) -> Result<()> {
        accepted(self.write(blob, text).await?).map(drop)
    }

    /// The blob's text. `None` if there is no such blob.
    pub async fn get(&self, blob: &str) -> Result<Option<String>> {
        let response = self.send(Method::GET, self.blob(blob), &[], "").await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        accepted(response)?.text().await.map(Some).map_err(|error| failed(&self.url, &error))
    }

    /// Leases a blob, which is created if it does not exist. Returns the lease's id, or `None` if somebody else has one.
    pub async fn acquire(&self, blob: &str, time: Duration) -> Result<Option<String>> {
        let time = seconds(time);
        let headers = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", &time)];
        let mut response = self.lease(blob, &headers).await?;
        if response.status() == StatusCode::NOT_FOUND {
            let created = self.write(blob, "").await?;
            // Another host may have created and leased it meanwhile.
            if created.status() != StatusCode::PRECONDITION_FAILED {
                accepted(created)?;
            }
            response = self.lease(blob, &headers).await?;
        }
        if response.status() == StatusCode::CONFLICT {
            return Ok(None);
        }
        let id = accepted(response)?.headers().get("x-ms-lease-id").and_then(|id| Some(id.to_str().ok()?.to_owned()));
        id.map(Some).ok_or_else(|| unexpected("no x-ms-lease-id"))
    }

    /// # Errors
    /// [`Error::NotYours`] if the lease is lost.
    pub async fn renew(&self, blob: &str, lease: &str) -> Result<()> {
        kept(self.lease(blob, &[("x-ms-lease-action", "renew"), ("x-ms-lease-id", lease)]).await?)
    }

    /// # Errors
    /// [`Error::NotYours`] if the lease is lost.
    pub async fn release(&self, blob: &str, lease: &str) -> Result<()> {
        kept(self.lease(blob, &[("x-ms-lease-action", "release"), ("x-ms-lease-id", lease)]).await?)
    }

    async fn write(&self, blob: &str, text: &str) -> Result<Response> {
        const HEADERS: [(&str, &str); 1] = [("x-ms-blob-type", "BlockBlob")];
        let response = self.send(Method::PUT, self.blob(blob), &HEADERS, text).await?;
        if !is(&response, "ContainerNotFound") {
            return Ok(response);
        }
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("restype", "container");
        let created = self.send(Method::PUT, url, &[], "").await?;
        // Another host may have created it first.
        if created.status() != StatusCode::CONFLICT {
            accepted(created)?;
        }
        self.send(Method::PUT, self.blob(blob), &HEADERS, text).await
    }

    async fn lease(&self, blob: &str, headers: &[(&'static str, &str)]) -> Result<Response> {
        let mut url = self.blob(blob);
        url.query_pairs_mut().append_pair("comp", "lease");
        self.send(Method::PUT, url, headers, "").await
    }

    fn blob(&self, name: &str) -> Url {
        below(self.url.clone(), &name.split('/').collect::<Vec<_>>())
    }

    async fn send(&self, method: Method, url: Url, own: &[(&'static str, &str)], body: &str) -> Result<Response> {
        let mut headers = HeaderMap::new();
        for (name, value) in own {
            let value = HeaderValue::from_str(value).map_err(|_| unexpected("an id that fits no header"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if method == Method::PUT {
            // Azurite wants to be told even of an empty body.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let request = signed(&self.http, &self.account, method, url, headers, body.len())?;
        request.body(body.to_owned()).send().await.map_err(|error| failed(&self.url, &error))
    }
}

fn kept(response: Response) -> Result<()> {
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Err(Error::NotYours),
        _ => accepted(response).map(drop),
    }
}
