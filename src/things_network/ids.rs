//! Identifies the application and the device of a webhook, and says why a body is not a webhook.

use serde::Deserialize;

use crate::support::http::{MAX_ERROR_TEXT, one_line};

/// Why a body is not a webhook of The Things Network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the body is empty; is it sent in chunks, without Content-Length?")]
    Empty,
    #[error("the body is no JSON object ({0}): set the webhook's format to JSON")]
    NotJson(String),
    #[error("a member is not what it should be: {0}")]
    Malformed(String),
    #[error("{} missing: allow it in the webhook's field mask", .0.join(" and "))]
    NoIds(Vec<&'static str>),
    #[error("{0} is no id of The Things Network: at most 36 of a-z, 0-9, and single - or _ between them")]
    NoId(&'static str),
    #[error(
        "the body has neither uplink_message (The Things Stack) nor app_id (The Things Network V2), nor is it an event"
    )]
    Unknown,
}

impl Invalid {
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed(one_line(&error.to_string(), MAX_ERROR_TEXT))
    }

    /// The ids of an uplink that are present.
    pub(super) fn ids(
        application: Option<String>,
        device: Option<String>,
        [application_member, device_member]: [&'static str; 2],
    ) -> Result<(String, String), Self> {
        let there = |id: Option<String>| id.filter(|id| !id.is_empty());
        match (there(application), there(device)) {
            (Some(application), _) if !is_id(&application) => Err(Self::NoId(application_member)),
            (_, Some(device)) if !is_id(&device) => Err(Self::NoId(device_member)),
            (Some(application), Some(device)) => Ok((application, device)),
            (application, device) => {
                let members = [(application, application_member), (device, device_member)];
                Err(Self::NoIds(members.into_iter().filter(|(id, _)| id.is_none()).map(|(_, member)| member).collect()))
            }
        }
    }
}

/// The rule for ids of applications and devices. It includes V2's rule, which allows `_`.
/// <https://www.thethingsindustries.com/docs/reference/id-eui-constraints/>
fn is_id(id: &str) -> bool {
    const LONGEST: usize = 36;
    let is_inner = |letter: u8| matches!(letter, b'-' | b'_');
    let bytes = id.as_bytes();
    bytes.len() <= LONGEST
        && bytes.iter().all(|letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9') || is_inner(*letter))
        && !bytes.first().is_some_and(|letter| is_inner(*letter))
        && !bytes.last().is_some_and(|letter| is_inner(*letter))
        && !bytes.windows(2).any(|pair| is_inner(pair[0]) && is_inner(pair[1]))
}

/// The ids in the form of The Things Stack.
#[derive(Default, Deserialize)]
pub struct EndDeviceIds {
    pub device_id: Option<String>,
    pub application_ids: Option<ApplicationIds>,
    pub dev_eui: Option<String>,
}

#[derive(Deserialize)]
pub struct ApplicationIds {
    application_id: Option<String>,
}

impl EndDeviceIds {
    pub fn application(&mut self) -> Option<String> {
        self.application_ids.take().and_then(|ids| ids.application_id)
    }
}
