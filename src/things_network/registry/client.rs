//! The API of The Things Stack for webhooks.
//! <https://www.thethingsindustries.com/docs/api/reference/http/routes/>

use std::time::Duration;

use reqwest::{
    Method, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    RegistryError, Webhook,
    document::{UPLINK, fields},
    plan::Request,
    rights::Rights,
};
use crate::support::{http, http_client::HttpClient};

/// Time-out of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of an answer is read, in bytes: an application has a handful of webhooks of a few KiB each.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

pub struct Registry {
    http: HttpClient,
    root: Url,
    api_key: SecretString,
}

/// What a request is about.
struct To<'a> {
    application: &'a str,
    path: &'a [&'a str],
    /// The field mask.
    fields: Option<&'a str>,
    body: Option<Value>,
    key: &'a SecretString,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// The part of `auth_info` that says whose key it is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthInfo {
    api_key: Option<ApiKey>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiKey {
    entity_ids: Option<EntityIds>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EntityIds {
    application_ids: Option<ApplicationIds>,
}

#[derive(Deserialize)]
struct ApplicationIds {
    application_id: String,
}

impl Registry {
    /// `root` is the URL of The Things Stack's API, such as `https://eu1.cloud.thethings.network/api/v3/`.
    #[must_use]
    pub fn new(root: Url, api_key: SecretString, http: impl Into<HttpClient>) -> Self {
        Self { http: http.into(), root, api_key }
    }

    /// All webhooks of an application.
    ///
    /// # Errors
    /// See [`RegistryError`]; so for all of these requests.
    pub async fn webhooks(&self, application: &str) -> Result<Vec<Webhook>, RegistryError> {
        let fields = fields();
        let path = ["as", "webhooks", application];
        let to = self.to(application, &path).with_fields(&fields);
        Ok(self.call::<Webhooks>(Method::GET, to).await?.webhooks)
    }

    /// `None` if there is no such webhook.
    ///
    /// # Errors
    /// See above.
    pub async fn webhook(&self, application: &str, id: &str) -> Result<Option<Webhook>, RegistryError> {
        let fields = fields();
        let path = ["as", "webhooks", application, id];
        let to = self.to(application, &path).with_fields(&fields);
        absent_is_none(self.call(Method::GET, to).await)
    }

    /// Makes a webhook, or changes what the request's field mask names.
    ///
    /// # Errors
    /// See above.
    pub async fn set(&self, application: &str, id: &str, request: &Request) -> Result<(), RegistryError> {
        let mut webhook = request.webhook.clone();
        webhook["ids"] = json!({"application_ids": {"application_id": application}, "webhook_id": id});
        let body = json!({"webhook": webhook, "field_mask": {"paths": request.paths}});
        let path = ["as", "webhooks", application, id];
        let to = self.to(application, &path).with_body(body);
        self.call::<Value>(Method::PUT, to).await.map(drop)
    }

    /// Whether the application has this device. The Things Stack simulates uplinks of any device, also of one that does not
    /// exist, which the app would register.
    ///
    /// # Errors
    /// See above.
    pub async fn has_device(&self, application: &str, device: &str) -> Result<bool, RegistryError> {
        let path = ["as", "applications", application, "devices", device];
        let to = self.to(application, &path).with_fields("ids");
        Ok(absent_is_none(self.call::<Value>(Method::GET, to).await)?.is_some())
    }

    /// Has an uplink simulated, without port and payload: a sign of life. The Things Stack marks it as simulated, and sends it
    /// to all integrations of the application.
    ///
    /// # Errors
    /// See above.
    pub async fn simulate(&self, application: &str, device: &str) -> Result<(), RegistryError> {
        let path = ["as", "applications", application, "devices", device, "up", "simulate"];
        // What The Things Stack's validation requires, as its console has it.
        let settings =
            json!({"data_rate": {"lora": {"bandwidth": 125_000, "spreading_factor": 7}}, "frequency": "868000000"});
        let reception = json!({"gateway_ids": {"gateway_id": "test"}, "rssi": 42, "channel_rssi": 42, "snr": 4.2});
        let body = json!({ UPLINK: {"settings": settings, "rx_metadata": [reception]} });
        self.call::<Value>(Method::POST, self.to(application, &path).with_body(body)).await.map(drop)
    }

    /// What a key may do with an application; the connector's own key without one. `None` if this cluster does not tell: in a
    /// deployment of several clusters, only one has the Identity Server.
    ///
    /// # Errors
    /// See above.
    pub async fn rights(&self, application: &str, key: Option<&SecretString>) -> Result<Option<Rights>, RegistryError> {
        let path = ["applications", application, "rights"];
        let to = To { key: key.unwrap_or(&self.api_key), ..self.to(application, &path) };
        unserved_is_none(self.call(Method::GET, to).await)
    }

    /// The application that the connector's own key belongs to. `None` if it belongs to a user or an organization, or if this
    /// cluster does not tell.
    ///
    /// # Errors
    /// See above.
    pub async fn own_application(&self) -> Result<Option<String>, RegistryError> {
        let info: Option<AuthInfo> = unserved_is_none(self.call(Method::GET, self.to("", &["auth_info"])).await)?;
        let ids = info.and_then(|info| info.api_key?.entity_ids?.application_ids);
        Ok(ids.map(|ids| ids.application_id))
    }

    fn to<'a>(&'a self, application: &'a str, path: &'a [&'a str]) -> To<'a> {
        To { application, path, fields: None, body: None, key: &self.api_key }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, to: To<'_>) -> Result<T, RegistryError> {
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(to.path);
        }
        if let Some(fields) = to.fields {
            url.query_pairs_mut().append_pair("field_mask", fields);
        }
        let place = url.origin().ascii_serialization();
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", to.key.expose_secret()))
            .map_err(|_| RegistryError::Unusable("the API key cannot stand in a header: copy it again".into()))?;
        authorization.set_sensitive(true);
        let http = self.http.get().map_err(RegistryError::Unusable)?;
        let request = http.request(method, url).timeout(REQUEST_TIMEOUT).header(AUTHORIZATION, authorization);
        let mut request = request.header(ACCEPT, "application/json");
        if let Some(body) = &to.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let unreachable = |error: &reqwest::Error| RegistryError::Unreachable {
            place: place.clone(),
            text: if error.is_timeout() { "no answer in time".into() } else { http::cause(error) },
        };
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            let body = http::error_body(response).await;
            return Err(RegistryError::of_answer(&place, to.application, status, &body));
        }
        let body = http::body(response, MAX_ANSWER).await.map_err(|error| unreachable(&error))?;
        serde_json::from_slice(&body.bytes)
            .map_err(|_| RegistryError::of_answer(&place, to.application, StatusCode::OK, &body.bytes))
    }
}

impl<'a> To<'a> {
    fn with_fields(self, fields: &'a str) -> Self {
        Self { fields: Some(fields), ..self }
    }

    fn with_body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

fn absent_is_none<T>(result: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match result {
        Err(RegistryError::Absent { .. }) => Ok(None),
        result => result.map(Some),
    }
}

fn unserved_is_none<T>(result: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match result {
        Err(RegistryError::Status { status: 404 | 501, .. } | RegistryError::Stranger { status: 404, .. }) => Ok(None),
        result => result.map(Some),
    }
}
