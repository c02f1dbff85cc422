//! The library behind the `iothub-connector` binary: forwards data of two clouds of field devices to one Azure IoT
//! Hub.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`server`], [`functions`], [`host`] | the Functions host's side: routes, a file for each function, envelopes |
//! | [`rapidm2m`] | half one: polls the sites of a rapidM2M backend, records the rows and forwards them |
//! | [`things_network`] | half two: takes webhooks of The Things Stack and forwards uplinks; sends downlinks back |
//! | [`iot_hub`] | shared by both: devices, messages, and the transports to IoT Hub |
//! | [`cosmos`], [`queue`] | Cosmos DB and storage queues |
//! | [`status`] | the status page |
//! | [`config`], [`app`] | the settings, and everything that is made from them |
//! | [`support`] | retry, clock, redaction, logging, meters |
//!
//! `ARCHITECTURE.md` says how they work together and what must hold.

pub mod app;
pub mod config;
pub mod cosmos;
pub mod functions;
pub mod host;
pub mod iot_hub;
pub mod queue;
pub mod rapidm2m;
pub mod server;
pub mod status;
pub mod support;
pub mod things_network;
