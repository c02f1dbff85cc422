//! Stand-ins for the cloud services around the IoT Hub Connector. Each of them speaks the real protocol on loopback.
//!
//! | Module | Stands in for | Protocol |
//! |---|---|---|
//! | [`rapidm2m`] | the Microtronics backend | REST API `/api/1/` over HTTP |
//! | [`cosmos`] | Azure Cosmos DB | its REST API over HTTP, by Microsoft's in-memory engine |
//! | [`iot_hub`] | Azure IoT Hub | MQTT 3.1.1 over TLS and WebSocket, HTTPS |
//! | [`storage`] | the queues of an Azure Storage account, and leased blobs | its REST APIs over HTTP |
//! | [`functions_host`] | the Azure Functions host | the custom handler's HTTP contract |
//! | [`things_stack`] | The Things Stack's Application Server | webhooks, V3 and V2, and its HTTP API for downlinks |
//!
//! The crate shares no types with the connector, so that a misspelt field name cannot pass because both sides misspell
//! it.
//! Every emulator can be started in-process (`start(options)`) and on its own (`cargo run -p emulators -- NAME`, see
//! [`cli`]).
//! An emulator that is started in-process can also report its [`steps`], such as the moments before and after an
//! answer.

pub mod cli;
pub mod cosmos;
pub mod door;
pub mod file;
pub mod functions_host;
pub mod interrupt;
pub mod iot_hub;
mod listing;
mod queues;
pub mod rapidm2m;
pub mod steps;
pub mod storage;
pub mod things_stack;
mod trouble;
