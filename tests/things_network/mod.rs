//! Tests the way from a webhook to the hub and back, over real sockets. The host, handler, The Things Stack, Cosmos DB,
//! IoT Hub and DPS are processes of their own.

mod at_once;
mod commands;
mod confirmed;
mod direct;
mod door;
mod downlinks;
mod ending;
mod enrollments;
mod fleet;
mod identity;
mod putting_back;
mod recorded;
mod rejected;
mod restarting;
mod setup;
mod startup;
mod storage;
pub mod support;
mod tenants;
mod trouble;
mod webhooks;
