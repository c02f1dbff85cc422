//! The main job from end to end: the handler runs as its own process and is called as the Functions host calls it; the
//! backend, Cosmos DB and IoT Hub are processes of their own, too. Everything is looked at from outside: what the hub
//! received, what stands in the ledger, what was answered and logged. No type of the product is used, so that a wrong
//! field name cannot pass on both sides.

mod support;

#[cfg(feature = "azure-iot-sdk")]
mod azure_iot_sdk;
mod backend_faults;
mod backlog;
mod delivery;
mod fault_switches;
mod hub_faults;
mod late;
mod late_writes;
mod ledger_faults;
mod outages;
mod pollers;
mod provisioning;
mod selection;
mod startup;
mod transports;
