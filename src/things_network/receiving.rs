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
    support::kind::Kind,
    things_network::{
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
        let accepted = match Webhook::parse(&request.body) {
            Ok(Webhook::Uplink(_)) => StatusCode::ACCEPTED,
            // Answer with success whatever the event is: The Things Stack counts failures and would disable the
            // webhook.
            Ok(Webhook::Event(event)) => {
                tracing::debug!(event.kind = event.kind(), "an event");
                let is_forwarded = self.forwards_events && event.kind().is_some() && event.ids().is_ok();
                self.tally.count(if is_forwarded { Count::EventsAccepted } else { Count::EventsIgnored });
                if !is_forwarded {
                    return Answer { response: status(StatusCode::OK), queued: None, is_uplink: false };
                }
                StatusCode::OK
            }
            Err(invalid) => return self.refuse(StatusCode::BAD_REQUEST, Kind::Malformed, &invalid.to_string()),
        };
        let queued = Queued {
            received_at: Some(Utc::now()),
            downlink: downlink_keys(request),
            domain: request
                .header("x-tts-domain")
                .filter(|domain| Tenant::of_domain(domain).is_some())
                .map(str::to_owned),
            webhook: (&*request.body).into(),
        };
        let text = queued.text();
        if text.len() > MAX_TEXT {
            let text = format!(
                "the webhook has {} bytes with its headers, the queue takes {MAX_TEXT}: leave members out with the webhook's \
                 field mask",
                text.len()
            );
            return self.refuse(StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge, &text);
        }
        if accepted == StatusCode::ACCEPTED {
            self.tally.count(Count::UplinksAccepted);
        }
        Answer { response: status(accepted), queued: Some(text), is_uplink: accepted == StatusCode::ACCEPTED }
    }

    /// The answer to a body that exceeds the limit and was not read to its end.
    #[must_use]
    pub fn refuse_too_large(&self, limit: usize) -> Answer {
        let text = format!("the webhook is larger than {limit} bytes: leave members out with the webhook's field mask");
        self.refuse(StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge, &text)
    }

    fn refuse(&self, status: StatusCode, kind: Kind, detail: &str) -> Answer {
        self.tally.count(Count::WebhooksRefused);
        if self.tally.failed(kind.clone()) {
            tracing::warn!(
                failure.kind = kind.as_str(),
                webhook.status = status.as_u16(),
                "a webhook was refused: {detail}"
            );
        }
        Answer { response: problem(status, detail), queued: None, is_uplink: false }
    }
}

/// Where to send downlinks for the device. The webhook has these headers if it has a downlink API key.
fn downlink_keys(request: &HttpRequest<'_>) -> Option<DownlinkKeys> {
    let header = |name| request.header(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let (push, replace) = (header("x-downlink-push"), header("x-downlink-replace"));
    let api_key = SecretString::from(header("x-downlink-apikey")?);
    (push.is_some() || replace.is_some()).then_some(DownlinkKeys { api_key, push, replace })
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}
