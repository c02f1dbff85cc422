//! Accepts a webhook and answers at once. The queue does the work later.

use std::sync::Arc;

use chrono::Utc;
use reqwest::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::tally::{Count, Tally};
use crate::{
    host::http::{HttpRequest, problem, status},
    iot_hub::devices::Tenant,
    support::{
        http::{MAX_ERROR_TEXT, one_line},
        kind::Kind,
    },
    things_network::{
        cut::{self, Fitting},
        door,
        queued::{DownlinkKeys, MAX_TEXT, Queued},
        webhook::Webhook,
    },
};

/// The header in which a webhook carries the secret of `ThingsNetworkWebhookSecret`.
const SECRET_HEADER: &str = "x-webhook-secret";

/// Checks webhooks and turns them into queue messages.
pub struct Receiving {
    forwards_events: bool,
    /// The secret's hash: all hashes have the same length, so the comparison takes constant time.
    secret: Option<[u8; 32]>,
    tally: Tally,
}

/// The answer to The Things Stack, and the message for the queue.
pub struct Answer {
    /// The value of the `http` output.
    pub response: Value,
    /// The text of a queue message.
    pub queued: Option<String>,
    /// Whether that is an uplink.
    pub is_uplink: bool,
}

impl Receiving {
    #[must_use]
    pub fn new(forwards_events: bool, secret: Option<&SecretString>) -> Self {
        Self {
            forwards_events,
            secret: secret.map(|secret| hash(secret.expose_secret())),
            tally: Tally::new("thingsNetworkUplink", Arc::default(), None),
        }
    }

    /// Handles one webhook.
    #[must_use]
    pub fn webhook(&self, request: &HttpRequest<'_>) -> Answer {
        if let Some(secret) = &self.secret {
            let given = request.header(SECRET_HEADER).map(hash);
            if !given.is_some_and(|given| given.ct_eq(secret).into()) {
                let text = "the header X-Webhook-Secret is missing or wrong: add it to the webhook's additional headers, with \
                            the value of the setting ThingsNetworkWebhookSecret";
                return self.refuse(StatusCode::UNAUTHORIZED, Kind::Unauthorized, text);
            }
        }
        if let Some(path) = request.route("path").filter(|path| !path.is_empty()) {
            let path = one_line(path, MAX_ERROR_TEXT);
            let text = format!(
                "there is a path after the webhook's address, {path:?}: leave the paths of the enabled event types empty"
            );
            return self.refuse(StatusCode::NOT_FOUND, Kind::Malformed, &text);
        }
        let downlink = downlink_urls(request);
        let completed;
        let mut body = door::unwrapped(&request.body);
        let mut parsed = Webhook::parse(body);
        if door::lacks_ids(&parsed)
            && let Some(text) = downlink.into_iter().flatten().find_map(|url| door::with_ids(body, url))
        {
            completed = text;
            body = &completed;
            parsed = Webhook::parse(body);
        }
        let webhook = match parsed {
            Ok(webhook) => webhook,
            Err(invalid) => return self.refuse(StatusCode::BAD_REQUEST, Kind::Malformed, &invalid.to_string()),
        };
        // Answer with success whatever the event is: The Things Stack counts failures and would disable the webhook.
        if let Webhook::Event(event) = &webhook {
            tracing::debug!(event.kind = event.kind(), "an event");
            let is_forwarded = self.forwards_events && event.kind().is_some() && event.ids().is_ok();
            self.tally.count(if is_forwarded { Count::EventsAccepted } else { Count::EventsIgnored });
            if !is_forwarded {
                return Answer { response: status(StatusCode::OK), queued: None, is_uplink: false };
            }
        }
        let domain = request.header("x-tts-domain").filter(|domain| Tenant::of_domain(domain).is_some());
        let queued = Queued {
            received_at: Some(Utc::now()),
            downlink: downlink_keys(request, downlink),
            domain: domain.map(str::to_owned),
            webhook: body.into(),
        };
        let is_uplink = matches!(webhook, Webhook::Uplink(_));
        let text = match self.fitting(queued, &webhook) {
            Ok(text) => text,
            Err(answer) => return answer,
        };
        if is_uplink {
            self.tally.count(Count::UplinksAccepted);
        }
        let accepted = if is_uplink { StatusCode::ACCEPTED } else { StatusCode::OK };
        Answer { response: status(accepted), queued: Some(text), is_uplink }
    }

    /// The text for the queue. If the payload alone is too large for it, the answer is the error.
    fn fitting(&self, queued: Queued<'_>, webhook: &Webhook<'_>) -> Result<String, Answer> {
        match cut::fit(queued) {
            Ok(Fitting { text, cut_from }) => {
                if let Some(length) = cut_from
                    && self.tally.count(Count::WebhooksCutDown)
                {
                    tracing::info!(
                        "the webhook of {} has {length} bytes with its headers, the queue takes {MAX_TEXT}: it is forwarded \
                         with the best reception only",
                        whose(webhook)
                    );
                }
                Ok(text)
            }
            Err(length) => {
                let text = format!(
                    "the webhook of {} has {length} bytes with its headers, the queue takes {MAX_TEXT}, and without what can \
                     be left out it is still larger: let the payload formatter make less of it",
                    whose(webhook)
                );
                // Each of them is lost, so each is told.
                let (status, kind) = (StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge);
                tracing::warn!(
                    failure.kind = kind.as_str(),
                    webhook.status = status.as_u16(),
                    "a webhook was refused: {text}"
                );
                Err(self.refused(status, kind, &text).0)
            }
        }
    }

    /// The answer to a body that exceeds the limit and was not read to its end.
    #[must_use]
    pub fn refuse_too_large(&self, limit: usize) -> Answer {
        let text = format!("the webhook is larger than {limit} bytes: leave members out with the webhook's field mask");
        self.refuse(StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge, &text)
    }

    fn refuse(&self, status: StatusCode, kind: Kind, detail: &str) -> Answer {
        let kind_text = kind.clone();
        let (answer, is_first) = self.refused(status, kind, detail);
        if is_first {
            tracing::warn!(
                failure.kind = kind_text.as_str(),
                webhook.status = status.as_u16(),
                "a webhook was refused: {detail}"
            );
        }
        answer
    }

    /// The answer, and whether it is the first of its kind since the last summary.
    fn refused(&self, status: StatusCode, kind: Kind, detail: &str) -> (Answer, bool) {
        self.tally.count(Count::WebhooksRefused);
        let is_first = self.tally.failed(kind);
        (Answer { response: problem(status, detail), queued: None, is_uplink: false }, is_first)
    }
}

/// Application, device and fCnt, for people.
fn whose(webhook: &Webhook<'_>) -> String {
    match webhook {
        Webhook::Uplink(uplink) => {
            let counter = uplink.counter.map_or_else(|| "none".to_owned(), |counter| counter.to_string());
            format!("application {}, device {}, fCnt {counter}", uplink.application, uplink.device)
        }
        Webhook::Event(event) => match event.ids() {
            Ok((application, device)) => format!("application {application}, device {device}"),
            Err(_) => "an unknown device".to_owned(),
        },
    }
}

/// `X-Downlink-Push` and `X-Downlink-Replace`.
fn downlink_urls<'a>(request: &'a HttpRequest<'_>) -> [Option<&'a str>; 2] {
    ["x-downlink-push", "x-downlink-replace"].map(|name| request.header(name).filter(|value| !value.is_empty()))
}

/// Where to send downlinks for the device. The webhook has these headers if it has a downlink API key.
fn downlink_keys(request: &HttpRequest<'_>, [push, replace]: [Option<&str>; 2]) -> Option<DownlinkKeys> {
    let api_key = request.header("x-downlink-apikey").filter(|value| !value.is_empty())?;
    let (push, replace) = (push.map(str::to_owned), replace.map(str::to_owned));
    (push.is_some() || replace.is_some()).then(|| DownlinkKeys { api_key: api_key.into(), push, replace })
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}
