//! A stand-in for Azure IoT Hub and its Device Provisioning Service, from a device's point of view: MQTT 3.1.1 over TLS
//! or WebSocket, and HTTPS.
//!
//! It has three ports, for MQTT, for HTTPS and for the Device Provisioning Service. Each of them serves all three,
//! because some SDKs can use one port only (Python's 8883 for MQTT, Python's and Node's 443 for WebSocket).
//!
//! A device is registered by the Device Provisioning Service or over the control endpoint; it signs its tokens with its
//! own key. Any other device id is accepted with the one device key, unless the hub is strict. Tokens of the hub's one
//! shared access policy are valid for all devices.
//!
//! Devices send telemetry, get cloud-to-device messages, read their twin and report properties. Desired properties stay
//! empty, and there are no direct methods: their topics can be subscribed to, but stay silent. Wills are ignored. Where
//! the real hub answers by cutting the connection, this one does too, and logs the reason.
//!
//! The control endpoint (see [`Ready::control`]):
//!
//! | Request | Effect |
//! |---|---|
//! | `GET /received?after=N&device=ID&wait=K&timeout_ms=T` | an array of [`Received`] in order of arrival |
//! | `DELETE /received` | deletes them; sequence numbers and counts continue |
//! | `GET /counts`, `GET /connections?wait=K&timeout_ms=T` | [`Counts`] |
//! | `POST /c2d?device=ID` with `{"body":"…"\|"bodyBase64":"…","messageId":…,"correlationId":…,"contentType":…,"contentEncoding":…,"properties":{…},"ttlSeconds":…}`, all optional | enqueues a message to a device: 201 with `{"messageId":…}`, 404 if the hub does not know the device, 409 if 50 are pending, 413 if it has more than 64 KB |
//! | `GET /c2d?device=ID&wait=completed:K&timeout_ms=T` | an array of `{"messageId","sequenceNumber","state","deliveryCount","abandonedCount"}`; states are `enqueued`, `locked`, `completed`, `rejected`, `deadlettered` (10 deliveries), `expired`, `dropped` (clean session) |
//! | `POST /c2d/unlock?device=ID` | ends every lock as if its minute were over |
//! | `GET /twin?device=ID` | `{"desired":{"$version":1},"reported":{…,"$version":N}}` |
//! | `GET /devices` | the registered devices: `{"ID":{"enabled":true,"key":"Base64"},…}` |
//! | `PUT /devices?device=ID` with `{"enabled":…,"key":"Base64"}`, both optional | registers a device or changes it; a new one is enabled and has the key derived from the group key; a disabled one is disconnected |
//! | `DELETE /devices?device=ID` | deletes a device, registered or not, and disconnects it; it is unknown until it is registered again |
//! | `GET /dps/registrations?device=ID&wait=K&timeout_ms=T` | an array of `{"registrationId","status","assignedHub","registerCalls","polls","refused","assignments"}`, as soon as there were `K` calls to register; failed calls and polls count |
//! | `GET`, `PUT /dps/settings` with `{"assignedHub":"host[:port]","retryAfterSeconds":3}`, both optional | the values in the answers to devices |
//! | `GET`, `PUT`, `DELETE /dps/faults` | [`DpsFaults`] |
//! | `GET`, `PUT`, `DELETE /faults` | [`Faults`]; `acceptAnyToken` applies to the Device Provisioning Service too |
//! | `GET`, `PUT`, `DELETE /trouble` | wrong answers of any kind over HTTPS, also from the DPS, see `trouble.rs` |
//! | `PUT /away` with `true` or `false` | refuses connections to the hub's MQTT and HTTPS ports, or accepts them again |
//! | `POST /cut` | cuts every connection to them |
//! | `PUT /dps/away`, `POST /dps/cut` | the same for the DPS port |
//! | `POST /expire?refuse=true` | ends every MQTT connection as if its token had expired; with `refuse`, those tokens are refused from then on, and so are the tokens of all HTTPS requests until now |

mod c2d;
mod certificate;
mod connection;
mod control;
mod conversation;
mod counts;
mod denied;
mod devicebound;
mod dps;
mod faults;
mod http;
mod hub;
mod listen;
mod login;
mod options;
mod packets;
mod received;
mod registry;
mod sas;
mod stream;
mod telemetry;
mod twin;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use tokio::{sync::broadcast, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use self::{
    certificate::CaFile,
    control::Control,
    dps::state::Dps,
    hub::Hub,
    listen::Entrance,
    received::Log,
    registry::{Policy, Registry},
};
pub use self::{
    counts::{Counts, DeviceCounts},
    dps::{Faults as DpsFaults, Options as DpsOptions},
    faults::{Faults, HttpStatus},
    options::Options,
    received::{Received, Transport},
};
use crate::{
    door::{self, Door},
    trouble::Trouble,
};

/// Bytes of a random device key.
const KEY_LENGTH: usize = 32;

/// Bytes of a random key of an enrollment group, as many as in Azure's keys.
const GROUP_KEY_LENGTH: usize = 64;

/// The hub's addresses and credentials. As JSON, they are the line printed when the hub is ready.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `iot_hub`.
    pub emulator: &'static str,
    /// Address and port for MQTT over TLS.
    pub mqtt: String,
    /// URL for HTTPS, without a slash at the end.
    pub https: String,
    /// URL of the Device Provisioning Service, without a slash at the end.
    pub dps: String,
    /// Path of the CA certificate (PEM).
    pub ca: PathBuf,
    /// The key of unregistered devices, Base64.
    pub key: String,
    /// The shared access policy that may connect as any device.
    pub policy: String,
    /// Its key, Base64.
    pub policy_key: String,
    /// Id scope of the Device Provisioning Service.
    pub id_scope: String,
    /// Symmetric key of its enrollment group, Base64.
    pub group_key: String,
    /// URL of the control endpoint, with a slash at the end.
    pub control: String,
}

/// A running hub. Dropping it stops the hub.
pub struct Emulator {
    ready: Ready,
    hub: Arc<Hub>,
    doors: Vec<Door>,
    _tasks: JoinSet<()>,
    _ca: CaFile,
}

/// Starts a hub. Returns when it listens.
///
/// # Errors
/// An address cannot be bound, a key is not Base64, or a directory cannot be written to.
pub async fn start(options: Options) -> anyhow::Result<Emulator> {
    let key = given_or_random(options.device_key.as_deref(), "device")?;
    let policy_key = given_or_random(options.policy_key.as_deref(), "policy")?;
    let group_key = match options.dps_options.group_key()? {
        Some(key) => key,
        None => random_key(GROUP_KEY_LENGTH)?,
    };
    let names = options.addresses().chain(options.hub_name.clone()).collect();
    let hosts = options.hub_name.clone().map(|name| options.addresses().chain([name]).collect()).unwrap_or_default();
    let (tls, ca) = certificate::make(names, chrono::Utc::now())?;
    let ca = CaFile::write(&ca, options.ca_dir.as_deref()).context("cannot write the CA certificate")?;

    let open = |port| {
        door::open(&options.host, port).with_context(|| format!("cannot listen on {}, port {port}", options.host))
    };
    let (mqtt, mqtt_listener) = open(options.mqtt_port)?;
    let (https, https_listener) = open(options.https_port)?;
    let (dps, dps_listener) = open(options.dps_port)?;
    let (control_door, control_listener) = open(options.control_port)?;
    let provisioning = Dps::new(
        options.dps_options.scope(),
        options.dps_options.assigned_hub(mqtt.address()),
        options.dps_options.dps_retry_after,
    );
    let ready = Ready {
        emulator: "iot_hub",
        mqtt: mqtt.address().to_string(),
        https: format!("https://{}", https.address()),
        dps: format!("https://{}", dps.address()),
        ca: std::path::absolute(&ca.path)?,
        key: BASE64_STANDARD.encode(&key),
        policy: options.policy.clone(),
        policy_key: BASE64_STANDARD.encode(&policy_key),
        id_scope: provisioning.scope.clone(),
        group_key: BASE64_STANDARD.encode(&group_key),
        control: format!("http://{}/", control_door.address()),
    };

    let policy = Policy { name: options.policy, key: policy_key };
    let registry = Registry::new(key, group_key, options.strict).with_policy(policy);
    let hub = Hub::new(registry, provisioning, hosts, Log::new(options.keep_messages, options.keep_bytes));
    let hub = Arc::new(hub.with_steps(options.steps));
    let trouble = Trouble::default();
    let mut tasks = JoinSet::new();
    let entrance = Entrance {
        acceptor: TlsAcceptor::from(tls),
        hub: Arc::clone(&hub),
        router: trouble.around(http::router(&hub).merge(dps::http::router(Arc::clone(&hub)))),
    };
    for listener in [mqtt_listener, https_listener] {
        tasks.spawn(entrance.clone().accept(listener, |counts| counts.connections += 1));
    }
    tasks.spawn(entrance.accept(dps_listener, |counts| counts.dps_connections += 1));
    let doors = vec![mqtt.clone(), https.clone(), dps.clone(), control_door];
    let router = control::router(Control { hub: Arc::clone(&hub), doors: [mqtt, https], dps_door: dps });
    let router = router.merge(dps::control::router(Arc::clone(&hub))).merge(trouble.control());
    tasks.spawn(async move {
        if let Err(error) = axum::serve(control_listener, router).await {
            tracing::error!(%error, "the control endpoint failed");
        }
    });
    Ok(Emulator { ready, hub, doors, _tasks: tasks, _ca: ca })
}

impl Emulator {
    /// The hub's addresses and credentials.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Every message from now on, in order of arrival. A subscriber that falls 4096 messages behind misses the oldest
    /// of them and gets an error that says so.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Received>> {
        self.hub.log.subscribe()
    }

    /// The kept messages, in order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Arc<Received>> {
        self.hub.log.select(None, None)
    }

    /// The counts since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.hub.counts.borrow().clone()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The tasks end with their set, but WebSockets and connections to the control endpoint have their own tasks.
        self.doors.iter().for_each(Door::cut);
    }
}

fn given_or_random(key: Option<&str>, whose: &str) -> anyhow::Result<Vec<u8>> {
    match key {
        Some(key) => BASE64_STANDARD.decode(key).with_context(|| format!("the {whose} key is not Base64")),
        None => random_key(KEY_LENGTH),
    }
}

fn random_key(length: usize) -> anyhow::Result<Vec<u8>> {
    let mut key = vec![0; length];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut key).map_err(|_| anyhow::anyhow!("the system has no random bytes"))?;
    Ok(key)
}
