//! Two clouds of field devices, one Azure IoT Hub: the library behind the `iothub-connector` binary.
//!
//! What talks to what, from the timer and the webhook to the hub:
//!
//! | Module | Is |
//! |---|---|
//! | [`server`], [`host`] | the Functions host's side: routes and envelopes |
//! | [`functions`] | one file for each function folder |
//! | [`forward`] | one site's turn: poll, record, send, mark |
//! | [`rapidm2m`] | the rapidM2M backend: requests, answers, stamps, windows |
//! | [`things_network`] | webhooks of The Things Stack: uplinks, events, downlinks |
//! | [`ledger`] | the documents in Cosmos DB |
//! | [`delivery`] | from an owner's messages to the hub, as the owner's device |
//! | [`devices`] | who sends: the devices that stand for sites and for LoRaWAN devices |
//! | [`queue`] | storage queues, for commands and the status page |
//! | [`hub`] | devices, tokens, messages and the transports to IoT Hub |
//! | [`cosmos`] | the account behind ledger and devices |
//! | [`config`], [`app`], [`logging`], [`meter`], [`clock`], [`retry`], [`identity`], `blocking`, `http`, `redact` | what all of them need |
//!
//! `ARCHITECTURE.md` tells how they work together and what must hold.

pub mod app;
mod blocking;
pub mod clock;
pub mod config;
pub mod cosmos;
pub mod delivery;
pub mod devices;
pub mod forward;
pub mod functions;
pub mod host;
pub mod hours;
mod http;
pub mod hub;
pub mod identity;
pub mod ledger;
pub mod logging;
pub mod meter;
pub mod queue;
pub mod rapidm2m;
mod redact;
pub mod retry;
pub mod server;
pub mod things_network;
