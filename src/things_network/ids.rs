//! Identifies the application and the device of a webhook, and says why a body is not a webhook.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    host::input::Text,
    support::http::{MAX_ERROR_TEXT, one_line},
};

/// Why a body is not a webhook of The Things Network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the body is empty; is it sent in chunks, without Content-Length?")]
    Empty,
    #[error("the body is not a JSON object ({0}): set the webhook's format to JSON")]
    NotJson(String),
    #[error("a member is not what it should be: {0}")]
    Malformed(String),
    #[error(
        "{} missing: allow it in the field mask of the webhook (or of the request to the Storage Integration)",
        .0.join(" and ")
    )]
    NoIds(Vec<&'static str>),
    #[error("{0} is not an id of The Things Network: at most 36 of a-z, 0-9, and single - or _ between them")]
    NoId(&'static str),
    #[error(
        "the body has neither uplink_message (The Things Stack) nor app_id (The Things Network V2), nor is it an event"
    )]
    Unknown,
    #[error(
        "the body has several JSON documents: post each on its own (`backfill --storage` fetches what the Storage Integration \
         has, and posts it)"
    )]
    Several,
    #[error(
        "the body is an event of the console's live data, not a webhook: it cannot be forwarded. To try the webhook out, \
         send a simulated uplink in the console"
    )]
    OfConsole,
}

impl Invalid {
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed(one_line(&error.to_string(), MAX_ERROR_TEXT))
    }

    /// The ids of an uplink that are present.
    pub(super) fn ids<'a>(
        application: Option<Cow<'a, str>>,
        device: Option<Cow<'a, str>>,
        [application_member, device_member]: [&'static str; 2],
    ) -> Result<(Cow<'a, str>, Cow<'a, str>), Self> {
        let there = |id: Option<Cow<'a, str>>| id.filter(|id| !id.is_empty());
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

/// Application and device in the URL for downlinks, which The Things Stack sends in the headers of a webhook:
/// `…/applications/{application_id}/webhooks/{webhook_id}/devices/{device_id}/down/push`.
/// <https://www.thethingsindustries.com/docs/integrations/webhooks/scheduling-downlinks/>
pub fn in_downlink_url(url: &str) -> Option<(&str, &str)> {
    let path = url.split(['?', '#']).next()?;
    let after = |name| {
        let mut segments = path.split('/').skip_while(move |segment| *segment != name);
        segments.nth(1).filter(|id| !id.is_empty() && is_id(id))
    };
    Some((after("applications")?, after("devices")?))
}

/// The ids in the form of The Things Stack.
#[derive(Default, Deserialize)]
pub struct EndDeviceIds<'a> {
    #[serde(borrow)]
    device_id: Option<Text<'a>>,
    #[serde(borrow)]
    application_ids: Option<ApplicationIds<'a>>,
    #[serde(borrow)]
    dev_eui: Option<Text<'a>>,
    // Nothing depends on these two, so that their type is not a reason to refuse a webhook.
    #[serde(borrow)]
    pub join_eui: Option<&'a RawValue>,
    #[serde(borrow)]
    pub dev_addr: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ApplicationIds<'a> {
    #[serde(borrow)]
    application_id: Option<Text<'a>>,
}

impl<'a> EndDeviceIds<'a> {
    pub fn application(&mut self) -> Option<Cow<'a, str>> {
        self.application_ids.take()?.application_id.map(|Text(id)| id)
    }

    pub fn device(&mut self) -> Option<Cow<'a, str>> {
        self.device_id.take().map(|Text(id)| id)
    }

    pub fn dev_eui(&mut self) -> Option<Cow<'a, str>> {
        self.dev_eui.take().map(|Text(eui)| eui).filter(|eui| !eui.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_for_downlinks_names_application_and_device() {
        let url = |path: &str| format!("https://eu1.cloud.example/api/v3/as/{path}");
        let found = url("applications/city/webhooks/iot-hub/devices/mask-1/down/push?x=1");
        assert_eq!(in_downlink_url(&found), Some(("city", "mask-1")));
        for other in [
            "applications/city/webhooks/iot-hub/down/push",
            "applications//webhooks/w/devices/d/down/push",
            "applications/city/webhooks/w/devices/",
            "applications/City/webhooks/w/devices/d/down/push",
            "?applications/city/devices/d",
        ] {
            assert_eq!(in_downlink_url(&url(other)), None, "{other}");
        }
    }
}
