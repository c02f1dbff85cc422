//! The API keys, and what each may do.
//!
//! Source: lorawan-stack `pkg/auth/rights/require.go` and `pkg/identityserver/rights.go`. An application that does not exist
//! is one on which the caller has no rights.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;

pub const READ_TRAFFIC: &str = "RIGHT_APPLICATION_TRAFFIC_READ";
pub const WRITE_DOWNLINKS: &str = "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE";
pub const WRITE_UPLINKS: &str = "RIGHT_APPLICATION_TRAFFIC_UP_WRITE";
pub const EDIT_SETTINGS: &str = "RIGHT_APPLICATION_SETTINGS_BASIC";
pub const READ_DEVICES: &str = "RIGHT_APPLICATION_DEVICES_READ";
/// Those of the stand-in's own key.
const ALL: [&str; 6] =
    ["RIGHT_APPLICATION_INFO", READ_TRAFFIC, WRITE_DOWNLINKS, WRITE_UPLINKS, EDIT_SETTINGS, READ_DEVICES];

/// A key of an application, as the control endpoint takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    key: String,
    application: String,
    rights: Vec<String>,
}

pub struct Keys {
    /// That of a user who may do everything with every application.
    own: String,
    of_applications: Mutex<BTreeMap<String, (String, Vec<String>)>>,
}

impl Keys {
    pub fn new(own: String) -> Self {
        Self { own, of_applications: Mutex::default() }
    }

    fn of_applications(&self) -> MutexGuard<'_, BTreeMap<String, (String, Vec<String>)>> {
        self.of_applications.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, Key { key, application, rights }: Key) {
        self.of_applications().insert(key, (application, rights));
    }

    pub fn forget(&self, key: &str) {
        self.of_applications().remove(key);
    }

    /// What the caller may do with an application; nothing with none.
    pub fn rights(&self, headers: &HeaderMap, application: &str) -> Result<Vec<String>, Refusal> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = match given.and_then(|given| given.split_once(' ')) {
            // Without a scheme the original sees no authorization at all.
            None => return Ok(Vec::new()),
            Some((scheme, _)) if !scheme.eq_ignore_ascii_case("bearer") => {
                return Err(Refusal::unsupported_authorization());
            }
            Some((_, key)) => key,
        };
        if key == self.own {
            return Ok(ALL.map(str::to_owned).into());
        }
        match self.of_applications().get(key) {
            Some((of, rights)) if of == application => Ok(rights.clone()),
            Some(_) => Ok(Vec::new()),
            None => Err(Refusal::unknown_key()),
        }
    }

    pub fn require(&self, headers: &HeaderMap, application: &str, needed: &[&str]) -> Result<(), Refusal> {
        let rights = self.rights(headers, application)?;
        if rights.is_empty() {
            return Err(Refusal::no_rights(application));
        }
        let missing: Vec<_> = needed.iter().copied().filter(|right| !rights.iter().any(|own| own == right)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Refusal::lacking_rights(application, &missing)) }
    }

    /// Whose key it is. Source: `AuthInfoResponse` in `api/ttn/lorawan/v3/identityserver.proto`.
    pub fn info(&self, headers: &HeaderMap) -> Result<Value, Refusal> {
        let rights = self.rights(headers, "")?;
        if !rights.is_empty() {
            return Ok(
                json!({"api_key": {"api_key": {"rights": rights}, "entity_ids": {"user_ids": {"user_id": "operator"}}}}),
            );
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let key = given.split_once(' ').map_or("", |(_, key)| key);
        match self.of_applications().get(key) {
            Some((application, rights)) => Ok(json!({
                "api_key": {"api_key": {"rights": rights}, "entity_ids": {"application_ids": {"application_id": application}}}
            })),
            None => Ok(json!({})),
        }
    }
}
