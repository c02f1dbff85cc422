//! The Things Stack's Application Server: sends webhooks for a fleet of LoRaWAN devices, and takes downlinks for them.
//!
//! | Part | |
//! |---|---|
//! | `devices`, `generate` | the fleet, and what is sent next: uplinks (V3, V2), other events, repeats, malformed bodies |
//! | `send`, `post` | runs by a schedule, in order for each device; one request |
//! | `journal`, `uplink` | what was sent and answered |
//! | `api`, `downlink`, `refusal` | the API for downlinks: from a request to its answer; checks; The Things Stack's errors |
//! | `formatter` | the payload formatters of devices, which may refuse a downlink |
//! | `registry`, `webhook_api`, `fan_out` | the webhooks of applications: what is there, the API for them and for simulated uplinks, and how each fares |
//! | `keys` | what an API key may do |
//! | `storage` | the Storage Integration: what was sent, to be had again |
//! | `queues`, `faults` | the downlinks that were asked for; what to do wrong |
//! | `control`, `serve` | the control endpoint; HTTP |
//!
//! **Webhooks.** A run posts webhooks at a rate; the time that a webhook should be sent at follows from the start of the
//! run, so that what is late is caught up with. The devices take turns. A device's next webhook is sent when the one before
//! was answered or given up; so the order for each device is defined. Each is tried once, as the original does by default,
//! or `attempts` times. Some are wrong on purpose: those repeat an earlier body byte by byte or are malformed. Every
//! well-formed uplink has a *marker*, a number that no other uplink of this process has: as the member `marker` of the
//! decoded payload, and as the payload's first eight bytes (highest first). An uplink whose decoded payload is absent or an
//! array has it in the payload only, one whose payload is empty in the decoded payload only; a plain one has it in the
//! payload only.
//!
//! **Downlinks.** `POST {endpoint}as/applications/{application}/webhooks/{webhook}/devices/{device}/down/push` (or
//! `replace`), or the same without `webhooks/{webhook}`, is checked as the original does and answered with 200 and no body, or with The Things Stack's error. As long
//! as no webhook was sent at all, every application, webhook and device is known, later only those that exist.
//! Downlinks stay in the device's queue: they are never sent to a device.
//!
//! **Storage.** `GET {endpoint}as/applications/{application}/packages/storage/uplink_message`, or with `devices/{device}` before
//! `packages`, gives the kept V3 uplinks, whatever became of their webhooks, as the Storage Integration does: a line each,
//! `{"result":{…}}`, without correlation ids. Parameters: `after`, `before`, `order` (`received_at`, `-received_at`), `limit`.
//!
//! **Webhooks of the registry.** `{endpoint}as/webhooks/{application}` and `…/{webhook}` list, get, set and delete webhooks, with field
//! masks. They get what is simulated (`POST {endpoint}as/applications/{application}/devices/{device}/up/simulate`), and not what
//! runs send, which goes to the run's target. `health_status` is noted as the original does, and a webhook that fails often is
//! disabled for some time. `{endpoint}applications/{application}/rights` and `{endpoint}auth_info` say what a key may do.
//!
//! The control endpoint, JSON in and out (`204` without a body unless told otherwise, `400 {"err"}` for what it does not know):
//!
//! | Request | |
//! |---|---|
//! | `POST /send` `{"target":"http://…","count":1000,"rate":200}` | one more run; all members are optional and replace an option for this run: `target`, `count`, `rate`, `v2Share`, `repeatShare`, `malformedShare`, `eventShare`, `oversizedShare`, `plain`, `concurrency`, `attempts`, `retryDelay`, `timeout`. `202`; `409` without a target or while a run is under way |
//! | `DELETE /send` | ends the run; answers when what was on its way is answered |
//! | `POST /uplink` `{"application":"app-1","device":"pump-7"}` | sends one uplink of a device, known or new, and answers with [`Answer`]: `{"marker":7,"status":202,"body":"…","error":null,"attempts":1}`. Optional: `target`, `version` (2, 3), `fPort`, `fCnt`, `frmPayload` (Base64), `decodedPayload` (any JSON, `null` for none), `confirmed`, `simulated` |
//! | `GET /sent?wait=done&timeout_ms=T` | [`Statistics`], with `wait` when the run is over: `{"sent","uplinks","repeats","malformed","events","attempts","statuses":{"202":1},"errors","lastError","inFlight","isDone","seconds","latencyMs":{"p50","p99","max"},"scheduledLatencyMs":{…}}` |
//! | `DELETE /sent` | forgets the statistics and the uplinks |
//! | `GET /uplinks` | the distinct well-formed uplinks in sending order: `[{"application","device","version":3,"fPort":1,"fCnt":0,"marker":1,"status":202,"attempts":1,"body":{…}}]`; `status` is the last answer or the first 2xx, `attempts` counts repeats too |
//! | `GET /devices` | those that take turns: `[{"application","device","devEui"}]` |
//! | `POST /devices` `{"application":"pumps","device":"pump-7"}` | one more device, and perhaps application, that sends nothing by itself |
//! | `POST /move` `{"from":"app-1","to":"app-9"}` | the devices of an application belong to another one from now on: `{"moved":250}` |
//! | `POST /keys` `{"key":"NNSXS.…","application":"pumps","rights":["RIGHT_APPLICATION_TRAFFIC_READ"]}` | a key of an application; `DELETE /keys?key=…` forgets it. The key of the start may do everything |
//! | `GET /downlinks?wait=N&timeout_ms=T` | the requests for downlinks, refused ones included, once there were `N`: `[{"application","device","webhook","operation":"push","downlinks":[…],"status":200,"at":"…Z"}]`, with `reason` if refused |
//! | `DELETE /downlinks` | forgets them, and the queues |
//! | `GET /queue?application=…&device=…` | the downlinks that wait for a device |
//! | `GET`, `POST`, `DELETE /faults` | what happens to the next requests for downlinks; each POST adds one: `{"times":2,"status":429,"retryAfter":"1"}` (not accepted), `{"delayMs":500}`, `{"cut":true}` (accepted, but the answer comes late or never). With `"device":"pump-7"` only requests for this device. `{"status":406}`: the webhook is paused |
//! | `PUT`, `DELETE /formatters` | a device's payload formatter: `{"device":"pump-7","does":"output_errors","contains":"bad"}`; also `not_configured`, `input`, `script`, `runtime` |
//! | `GET`, `PUT`, `DELETE /trouble` | wrong answers of any kind, see `trouble.rs` |
//! | `PUT /away` `true`, `false` | the port for downlinks refuses connections, or accepts them again |

mod api;
mod control;
mod devices;
mod downlink;
mod fan_out;
mod faults;
mod formatter;
mod generate;
mod journal;
mod keys;
mod options;
mod post;
mod queues;
mod refusal;
mod registry;
mod send;
mod sending;
mod serve;
mod stack;
mod storage;
mod uplink;
mod webhook_api;

use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use tokio::{sync::broadcast, task::JoinSet};

use self::stack::Stack;
pub use self::{
    generate::{Kind, Wanted},
    journal::{Latency, Statistics},
    options::{Header, Options},
    queues::{DownlinkRequest, Operation},
    send::{Answer, Delivered},
    sending::Sending,
};
use crate::{
    door::{self, Door},
    trouble::Trouble,
};

/// The line that says where the stand-in is and how to get in.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub emulator: &'static str,
    /// Ends with `/api/v3/`.
    pub endpoint: String,
    /// For downlinks, as a Bearer token.
    pub apikey: String,
    pub control: String,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A webhook was answered or given up.
    Delivered(Delivered),
    /// A request for downlinks was accepted or refused.
    Downlink(Arc<DownlinkRequest>),
}

/// A running stand-in. It ends when this is dropped.
pub struct Emulator {
    ready: Ready,
    stack: Arc<Stack>,
    doors: [Door; 2],
    tasks: JoinSet<()>,
}

/// Starts the stand-in; it is listening when this returns, and sends if it was given a target.
///
/// # Errors
/// An option is out of range, or a port cannot be bound.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    options.check()?;
    let bound = |port| {
        door::open(&options.host, port).with_context(|| format!("cannot listen on {} port {port}", options.host))
    };
    let (door, api_listener) = bound(options.port)?;
    let (control_door, control_listener) = bound(0)?;
    let ready = Ready {
        emulator: "things_stack",
        endpoint: format!("http://{}{}", door.address(), api::ROOT),
        apikey: options.apikey.clone().unwrap_or_else(random_key),
        control: format!("http://{}/", control_door.address()),
    };
    let stack = Arc::new(Stack::new(&options, &ready, door.clone())?);
    let mut tasks = JoinSet::new();
    let trouble = Trouble::default();
    tasks.spawn(serve::serve(api_listener, trouble.around(api::router(stack.clone()))));
    tasks.spawn(serve::serve(control_listener, control::router(stack.clone()).merge(trouble.control())));
    if options.sending.target.is_some() {
        stack.start_run(options.sending)?;
    }
    Ok(Emulator { ready, stack, doors: [door, control_door], tasks })
}

/// A key in the form of The Things Stack's: `NNSXS.`, an id and a secret, both Base32.
fn random_key() -> String {
    let letters = |count| -> String {
        std::iter::repeat_with(|| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[fastrand::usize(..32)]))
            .take(count)
            .collect()
    };
    format!("NNSXS.{}.{}", letters(39), letters(52))
}

impl Emulator {
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Everything from now on. A subscriber that falls 4096 events behind misses the oldest of them and is told so.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.stack.events.subscribe()
    }

    /// Totals since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.stack.statistics()
    }

    /// Starts a run.
    ///
    /// # Errors
    /// There is no target, a run is under way, or a value is out of range.
    pub fn send(&self, sending: Sending) -> anyhow::Result<()> {
        sending.check()?;
        self.stack.start_run(sending)
    }

    /// Waits until no run is under way.
    pub async fn done(&self) {
        self.stack.done().await;
    }

    /// Ends the run under way; returns when what was on its way is answered.
    pub async fn stop(&self) {
        self.stack.stop_run().await;
    }

    /// Sends one uplink and waits for the answer.
    ///
    /// # Errors
    /// There is no target, or the uplink cannot be made.
    pub async fn send_uplink(&self, wanted: Wanted) -> anyhow::Result<Answer> {
        self.stack.send_uplink(wanted).await
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stack.ended.cancel();
        self.tasks.abort_all();
        self.doors.iter().for_each(Door::cut);
    }
}
