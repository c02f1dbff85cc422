//! A stand-in for the Device Provisioning Service: one enrollment group with a symmetric key, whose devices go to this
//! hub. Over HTTPS (see [`http`]) and MQTT (see [`mqtt`]), on every port of the hub.
//!
//! A device registers and is given an operation; it asks for the operation's status until it has come to an end. Then the
//! device is registered with the hub, with the key derived from the registration id as the device spells it. The device id
//! is the registration id as it was spelt first: two spellings that differ in case only are one registration.
//!
//! Source: <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation>.

mod answer;
pub mod control;
mod faults;
pub mod http;
pub mod mqtt;
mod options;
mod registrations;
pub mod state;

use chrono::{DateTime, Utc};
use tokio::time::sleep;

use self::{
    answer::{Answer, Reply},
    faults::OnRequest,
    state::Request,
};
pub use self::{faults::Faults, options::Options};
use super::{hub::Hub, registry::Registry, sas::Token};

/// What a device may tell in a registration, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers a request: counts it, lets it meet the trouble that was asked for, and decides.
async fn reply(hub: &Hub, request: &Request<'_>) -> Reply {
    let dps = &hub.dps;
    let id = request.registration_id;
    if !request.scope.eq_ignore_ascii_case(&dps.scope) {
        let error = format!("there is no id scope {:?}", request.scope);
        return Reply::Answer(Answer::error(404, &error, Utc::now()));
    }
    if !registrations::is_registration_id(id) {
        return Reply::Answer(Answer::error(400, "that is not a registration id", Utc::now()));
    }
    if !dps.registrations().count(id, request.step) {
        return Reply::Answer(Answer::error(429, "there are too many registrations", Utc::now()));
    }
    let delay = dps.faults().delay(id);
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let fault = dps.faults().on_request(id, request.step);
    let any_token = hub.faults().accepts_any_token(id);
    let now = Utc::now();
    let reply = match fault {
        Some(OnRequest::Drop) => Reply::HangUp,
        Some(OnRequest::Garbage) => Reply::Answer(Answer::garbage()),
        Some(OnRequest::Status { status, retry_after }) => {
            Reply::Answer(Answer { retry_after, ..Answer::error(status, "a fault was asked for", now) })
        }
        None => Reply::Answer(match authenticate(&hub.registry, request, now) {
            Err(reason) if !any_token => {
                tracing::warn!(registration = id, "not let in by the Device Provisioning Service: {reason}");
                Answer::error(401, "Unauthorized", now)
            }
            _ => dps.decide(&hub.registry, request, now),
        }),
    };
    if reply.is_refusal() {
        dps.registrations().refused(id);
    }
    dps.changed.send_replace(());
    reply
}

/// Whether a request's token is what it must be; if not, why.
fn authenticate(registry: &Registry, request: &Request<'_>, now: DateTime<Utc>) -> Result<(), String> {
    let Request { scope, registration_id, token, .. } = request;
    let token = Token::parse(token.ok_or("there is no token")?)?;
    if !token.covers_registration(scope, registration_id) {
        return Err(format!("the token is not for {scope}/registrations/{registration_id}"));
    }
    // Microsoft's Python SDK sends none.
    if let Some(policy) = token.policy
        && policy != "registration"
    {
        return Err(format!("the token's `skn` is {policy:?}, not `registration`"));
    }
    if !token.is_signed_by(&registry.derived_key(registration_id)) {
        return Err("the token is not signed with the key derived from the group key and the registration id".into());
    }
    let now = u64::try_from(now.timestamp()).unwrap_or_default();
    if token.expiry <= now {
        return Err(format!("the token expired {} s ago", now - token.expiry));
    }
    Ok(())
}
